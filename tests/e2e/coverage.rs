//! What the shipped presets make of every sample: of those beside the repository, and of the project's own in each provider's
//! documented shape (`actors/fixtures/providers`). By `hookmill sources coverage`, without Kafka or Postgres.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::samples;

/// `preset|file|outcome|kind|status|amount|currency`, or why not; worked out from the bodies and the providers' documents.
const EXPECTED: &str = include_str!("coverage/expected.txt");

/// What becomes of each file of `folder`, by preset; and whether a file was refused.
fn coverage(preset: &str, folder: &Path) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_hookmill"))
        .args(["sources", "coverage", "--preset", preset, "--output", "json", "--dir"])
        .arg(folder)
        .output()
        .expect("it runs");
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{preset}: {}", String::from_utf8_lossy(&output.stderr)));
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or("-").to_owned();
    let refused = rows.iter().any(|row| row["outcome"] == "refused");
    assert_eq!(output.status.code(), Some(i32::from(refused)), "{preset}");
    let line = |row: &Value| {
        let file = text(row, "file").trim_end_matches(".json").to_owned();
        let rest = match row["why"].as_str() {
            Some(why) => why.to_owned(),
            None => ["kind", "status", "amount", "currency"]
                .map(|key| text(row, key))
                .join("|"),
        };
        format!("{preset}|{file}|{}|{rest}", text(row, "outcome"))
    };
    rows.iter().map(line).collect()
}

#[test]
fn every_sample_becomes_what_its_provider_means() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("actors/fixtures/providers");
    let mut folder = samples();
    let mut wanted: BTreeMap<(String, std::path::PathBuf), Vec<String>> = BTreeMap::new();
    for line in EXPECTED.lines().filter(|line| !line.is_empty()) {
        match line {
            "# samples" => folder = samples(),
            "# own" => folder.clone_from(&own),
            _ => {
                let preset = line.split('|').next().unwrap_or_default().to_owned();
                wanted
                    .entry((preset, folder.clone()))
                    .or_default()
                    .push(line.to_owned());
            }
        }
    }
    let mut files = 0;
    for ((preset, folder), lines) in wanted {
        assert_eq!(coverage(&preset, &folder), lines, "{preset} in {}", folder.display());
        files += lines.len();
    }
    assert!(files > 150, "{files}");
}

/// Every file is of some preset above, so that a sample that is added is expected, too.
#[test]
fn no_sample_is_left_out() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("actors/fixtures/providers");
    for folder in [samples(), own] {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(stem) = name.strip_suffix(".json").filter(|stem| *stem != "vectors") else {
                continue;
            };
            let there = EXPECTED.lines().any(|line| line.split('|').nth(1) == Some(stem));
            assert!(there, "{name} in {}", folder.display());
        }
    }
}
