//! Every dependency comes from crates.io and under a licence of the list in deny.toml. What needs a tool and a database is
//! done by `./dev/audit`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, ParseMode};

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The dependencies on this platform, as cargo knows them.
fn packages() -> Vec<Value> {
    let rustc = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let version = String::from_utf8(rustc.stdout).expect("text");
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let metadata = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--locked",
            "--offline",
            "--format-version",
            "1",
            "--filter-platform",
        ])
        .arg(host.expect("a platform"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        metadata.status.success(),
        "{}",
        String::from_utf8_lossy(&metadata.stderr)
    );
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

#[test]
fn dependencies_come_from_where_they_should_under_licences_that_may_be() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml")).expect("deny.toml");
    let deny: toml::Table = text.parse().expect("TOML");
    let licenses = &deny["licenses"];
    let strings = |value: &toml::Value| -> BTreeSet<String> {
        let list = value.as_array().expect("a list").iter();
        list.map(|s| s.as_str().expect("text").to_owned()).collect()
    };
    let allowed = strings(&licenses["allow"]);
    let clarified: BTreeMap<&str, &str> = licenses["clarify"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|c| {
            (
                c["crate"].as_str().expect("text"),
                c["expression"].as_str().expect("text"),
            )
        })
        .collect();
    let packages = packages();
    assert!(packages.len() > 200, "these are not all: {}", packages.len());
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    for package in &packages {
        let name = package["name"].as_str().expect("a name");
        // Our own have no source.
        match package["source"].as_str() {
            Some(source) if source != CRATES_IO => wrong.push(format!("{name} comes from {source}")),
            _ => {}
        }
        let licence = package["license"].as_str().or_else(|| clarified.get(name).copied());
        let Some(licence) = licence else {
            wrong.push(format!(
                "{name} names no licence: look at it, and say what it is under [[licenses.clarify]]"
            ));
            continue;
        };
        let expression = Expression::parse_mode(licence, ParseMode::LAX).expect(licence);
        let mut is_allowed = |requirement: &spdx::LicenseReq| {
            let id = requirement
                .license
                .id()
                .map(|id| id.name.to_owned())
                .unwrap_or_default();
            let good = allowed.contains(&id);
            used.extend(good.then_some(id));
            good
        };
        if !expression.evaluate(&mut is_allowed) {
            wrong.push(format!("{name} is under {licence}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let unused: Vec<&String> = allowed.difference(&used).collect();
    assert!(
        unused.is_empty(),
        "nothing is under {unused:?}: take it out of deny.toml"
    );
}
