//! The libraries: installed once, and asked for signatures.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

/// What a library is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Node,
    Python,
}

/// Oldest Node that all of the libraries run on.
const NODE: u32 = 20;

/// Asks the libraries to sign; an answer for each job.
pub fn sign(language: Language, jobs: &[Value]) -> Vec<Value> {
    static NODE: LazyLock<PathBuf> = LazyLock::new(node);
    static PYTHON: LazyLock<PathBuf> = LazyLock::new(python);
    let (folder, program, script) = match language {
        Language::Node => (&*NODE, node_program(&NODE), "sign.mjs"),
        Language::Python => (&*PYTHON, PYTHON.join("venv/bin/python"), "sign.py"),
    };
    // Beside the libraries, where Node looks for them.
    std::fs::copy(here().join(script), folder.join(script)).expect("the script can be copied");
    let mut child = Command::new(program)
        .arg(script)
        .current_dir(folder)
        .env_remove("TEST_MODE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let text = Value::from(jobs.to_vec()).to_string();
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(text.as_bytes())
        .expect("it listens");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{script} failed");
    let signed: Vec<Value> = serde_json::from_slice(&output.stdout).expect("it answers in JSON");
    assert_eq!(signed.len(), jobs.len());
    signed
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/libraries")
}

fn node() -> PathBuf {
    let files = ["package.json", "package-lock.json"];
    installed("node", &files, |folder| {
        run(Command::new("npm").current_dir(folder).args([
            "ci",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--loglevel=error",
        ]));
        if own_node() < NODE {
            // Debian's may be too old; the registry has it, too.
            let arch = match std::env::consts::ARCH {
                "aarch64" => "arm64",
                _ => "x64",
            };
            let package = format!("node-{}-{arch}@{NODE}", std::env::consts::OS.replace("macos", "darwin"));
            run(Command::new("npm").current_dir(folder).args([
                "install",
                "--no-save",
                "--no-audit",
                "--no-fund",
                &package,
            ]));
        }
    })
}

fn node_program(folder: &Path) -> PathBuf {
    let packages = std::fs::read_dir(folder.join("node_modules")).expect("they are there");
    let ours = |name: &str| {
        ["node-linux-", "node-darwin-"]
            .iter()
            .any(|begin| name.starts_with(begin))
    };
    let installed = packages
        .flatten()
        .find(|entry| ours(&entry.file_name().to_string_lossy()));
    installed.map_or("node".into(), |entry| entry.path().join("bin/node"))
}

fn own_node() -> u32 {
    let output = Command::new("node")
        .arg("--version")
        .output()
        .expect("node is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let major = text.trim().trim_start_matches('v').split('.').next();
    major.and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn python() -> PathBuf {
    installed("python", &["requirements.txt"], |folder| {
        run(Command::new("python3").current_dir(folder).args(["-m", "venv", "venv"]));
        run(Command::new(folder.join("venv/bin/python")).current_dir(folder).args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
            "requirements.txt",
        ]));
    })
}

/// A folder with what `install` puts there, as long as `files` are what they were then.
fn installed(name: &str, files: &[&str], install: impl FnOnce(&Path)) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libraries").join(name);
    let read = |file: &&str| std::fs::read_to_string(here().join(file)).expect("it is here");
    let wanted: String = files.iter().map(read).collect();
    let stamp = folder.join("complete");
    if std::fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        return folder;
    }
    // What an interrupted installation left would be taken for a whole one.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("the target directory can be written");
    for file in files {
        std::fs::copy(here().join(file), folder.join(file)).expect("it can be copied");
    }
    install(&folder);
    std::fs::write(&stamp, wanted).expect("the target directory can be written");
    folder
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?} failed");
}
