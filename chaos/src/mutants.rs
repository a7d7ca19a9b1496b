//! The campaign can fail: the product is broken on purpose, one patch of `chaos/mutants/` at a time, in a copy of the
//! tree, and a campaign aimed at it must find out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tokio::process::Command;

use crate::campaign::root;
use crate::child;

/// What is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct MutantsArgs {
    /// Only these patches, by their names without ending, with commas between.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Where the copy of the tree and its build go; under the target directory unless said.
    #[arg(long)]
    pub scratch: Option<PathBuf>,
    /// Seeds to try for each, until one finds out.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3])]
    pub seeds: Vec<u64>,
    /// Only prove that every patch applies.
    #[arg(long)]
    pub dry: bool,
    /// Where the report goes, as JSON.
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// A patch and the campaign aimed at it.
struct Mutant {
    name: String,
    patch: PathBuf,
    about: String,
    campaign: Vec<String>,
}

/// What became of a mutant.
#[derive(Clone, Debug, Serialize)]
struct Outcome {
    mutant: String,
    about: String,
    caught: bool,
    /// The rules that were broken, by the seed that found out.
    by: Vec<String>,
    seed: Option<u64>,
    seconds: u64,
}

/// The head of a patch: what it does, in words, and a line `chaos: ` with the arguments of the campaign aimed at it.
fn read(patch: PathBuf) -> Result<Mutant> {
    let text = fs::read_to_string(&patch)?;
    let head = text.split("\n--- ").next().unwrap_or_default();
    let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let campaign = head.lines().find_map(|line| line.strip_prefix("chaos: "));
    let campaign = campaign.with_context(|| format!("{name}: the patch's head has no line \"chaos: …\""))?;
    let about: Vec<&str> = head.lines().take_while(|line| !line.starts_with("chaos: ")).collect();
    Ok(Mutant {
        about: about.join(" "),
        campaign: campaign.split_whitespace().map(str::to_owned).collect(),
        name,
        patch,
    })
}

fn all() -> Result<Vec<Mutant>> {
    let mut patches = Vec::new();
    for entry in fs::read_dir(root().join("chaos/mutants"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "patch") {
            patches.push(path);
        }
    }
    patches.sort();
    patches.into_iter().map(read).collect()
}

/// A copy of the tree.
struct Scratch {
    tree: PathBuf,
    target: PathBuf,
}

impl Scratch {
    /// Makes the copy what the tree is: files that differ are written, others stay, with their times, so that cargo
    /// builds only what a patch touched.
    async fn sync(&self) -> Result<()> {
        let mut git = Command::new("git");
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let listed = git
            .current_dir(root())
            .output()
            .await
            .context("git cannot be started")?;
        let listed = String::from_utf8(listed.stdout)?;
        let names: BTreeSet<&str> = listed.split('\0').filter(|name| !name.is_empty()).collect();
        for name in names {
            let (from, to) = (root().join(name), self.tree.join(name));
            // A file that was deleted and not committed is listed all the same.
            let Ok(contents) = fs::read(&from) else { continue };
            if fs::read(&to).is_ok_and(|there| there == contents) {
                continue;
            }
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&to, contents)?;
        }
        Ok(())
    }

    async fn apply(&self, mutant: &Mutant, check: bool) -> Result<()> {
        let mut git = Command::new("git");
        git.args(["apply", "-C1"])
            .args(check.then_some("--check"))
            .arg(&mutant.patch);
        // The copy stands inside the repository, which must not be meant.
        git.current_dir(&self.tree)
            .env("GIT_CEILING_DIRECTORIES", &self.tree)
            .env("GIT_DIR", "/nonexistent");
        let output = git.output().await.context("git cannot be started")?;
        if !output.status.success() {
            bail!(
                "chaos/mutants/{}.patch no longer applies; make it anew for the code as it is: {}",
                mutant.name,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    async fn build(&self, mutant: &Mutant) -> Result<PathBuf> {
        let mut cargo = Command::new("cargo");
        cargo.args([
            "build",
            "--quiet",
            "-p",
            "hookmill",
            "--bin",
            "hookmill",
            "--target-dir",
        ]);
        cargo.arg(&self.target).current_dir(&self.tree).kill_on_drop(true);
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        if profile == "release" {
            cargo.arg("--release");
        }
        let status = cargo.status().await.context("cargo cannot be started")?;
        if !status.success() {
            bail!(
                "the mutant {} cannot be built: cargo's own message is above",
                mutant.name
            );
        }
        let kept = self.target.join(format!("hookmill-{}", mutant.name));
        fs::copy(self.target.join(profile).join("hookmill"), &kept)?;
        Ok(kept)
    }
}

/// Runs them; prints a table and JSON. True if each was caught.
pub async fn run(args: MutantsArgs) -> Result<bool> {
    let mut mutants = all()?;
    if !args.only.is_empty() {
        if let Some(unknown) = args.only.iter().find(|name| mutants.iter().all(|m| m.name != **name)) {
            bail!("there is no chaos/mutants/{unknown}.patch");
        }
        mutants.retain(|mutant| args.only.contains(&mutant.name));
    }
    let scratch = match &args.scratch {
        Some(scratch) => scratch.clone(),
        None => std::env::current_exe()?
            .ancestors()
            .nth(2)
            .context("no target directory")?
            .join("chaos-mutants"),
    };
    let scratch = Scratch {
        tree: scratch.join("tree"),
        target: scratch.join("target"),
    };
    fs::create_dir_all(&scratch.tree)?;
    fs::create_dir_all(&scratch.target)?;
    scratch.sync().await?;
    for mutant in &mutants {
        scratch.apply(mutant, true).await?;
    }
    if args.dry {
        println!("{} mutants, and each patch applies", mutants.len());
        return Ok(true);
    }
    let mut outcomes = Vec::new();
    for mutant in &mutants {
        scratch.sync().await?;
        scratch.apply(mutant, false).await?;
        eprintln!("building {}", mutant.name);
        let binary = scratch.build(mutant).await?;
        outcomes.push(hunt(mutant, &binary, &args.seeds, &scratch.target).await?);
    }
    for outcome in &outcomes {
        let how = if outcome.caught { "caught" } else { "SURVIVED" };
        println!("{:<28}{how:<10}{}", outcome.mutant, outcome.by.join(", "));
    }
    let caught = outcomes.iter().filter(|outcome| outcome.caught).count();
    let ok = caught == outcomes.len();
    let line = serde_json::json!({ "ok": ok, "caught": caught, "mutants": outcomes });
    if let Some(path) = &args.report {
        let text = serde_json::to_string_pretty(&line)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{line}");
    Ok(ok)
}

/// Campaigns against one mutant, until one finds out. A campaign that cannot be run proves nothing and is an error.
async fn hunt(mutant: &Mutant, binary: &Path, seeds: &[u64], logs: &Path) -> Result<Outcome> {
    let began = Instant::now();
    let mut outcome = Outcome {
        mutant: mutant.name.clone(),
        about: mutant.about.clone(),
        caught: false,
        by: Vec::new(),
        seed: None,
        seconds: 0,
    };
    for seed in seeds {
        let log = logs.join(format!("{}-{seed}.log", mutant.name));
        eprintln!("a campaign against {}, seed {seed} ({})", mutant.name, log.display());
        let dir = logs.join(format!("{}-{seed}", mutant.name));
        // Servers of a former run would be taken up again.
        let _ = fs::remove_dir_all(&dir);
        let report = child::campaign(&log, |campaign| {
            campaign.arg("--binary").arg(binary);
            campaign
                .args(["--seed", &seed.to_string(), "--first", "--dir"])
                .arg(&dir);
            campaign.args(&mutant.campaign);
        })
        .await?;
        let _ = fs::remove_dir_all(&dir);
        if report["ok"] == false {
            let broken = report["broken"].as_object().into_iter().flatten();
            outcome.by = broken.map(|(rule, count)| format!("{rule} ({count})")).collect();
            outcome.caught = !outcome.by.is_empty();
            outcome.seed = Some(*seed);
            break;
        }
    }
    outcome.seconds = began.elapsed().as_secs();
    eprintln!(
        "{}: {}",
        mutant.name,
        if outcome.caught { "caught" } else { "survived" }
    );
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_says_what_it_does_and_how_it_is_hunted() {
        let mutants = all().expect("readable");
        assert!(mutants.len() > 8, "{}", mutants.len());
        for mutant in mutants {
            assert!(mutant.about.len() > 20 && mutant.campaign.len() > 1, "{}", mutant.name);
        }
    }

    #[tokio::test]
    async fn every_patch_applies_to_the_code_as_it_is() {
        let home = std::env::temp_dir().join(format!("hookmill-mutants-{}", std::process::id()));
        let scratch = Scratch {
            tree: home.join("tree"),
            target: home.join("target"),
        };
        fs::create_dir_all(&scratch.tree).expect("a folder");
        scratch.sync().await.expect("a copy");
        for mutant in all().expect("readable") {
            scratch.apply(&mutant, true).await.expect("it applies");
        }
        fs::remove_dir_all(home).expect("removed");
    }
}
