//! A plugin builds with Rust 1.85, the compiler of a stable distribution: its crates say so, and what they depend on does too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use fthost_tests::{Workdir, package_name, plugin_folders, result_json, root, skipped, target_folder};
use serde_json::Value;

/// The newest Rust that a plugin may need.
const OLDEST: (u64, u64) = (1, 85);

fn version(text: &str) -> (u64, u64) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

fn metadata() -> Value {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform"];
    let output =
        Command::new(program).current_dir(root()).args(arguments).arg("x86_64-unknown-linux-gnu").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn all_that_a_plugin_is_built_of_says_that_it_needs_no_newer_rust() {
    let metadata = metadata();
    let by_id = |list: &Value| -> BTreeMap<String, Value> {
        list.as_array().unwrap().iter().map(|item| (item["id"].as_str().unwrap().to_owned(), item.clone())).collect()
    };
    let (packages, nodes) = (by_id(&metadata["packages"]), by_id(&metadata["resolve"]["nodes"]));
    let names: Vec<String> = plugin_folders().iter().map(|folder| package_name(folder)).collect();
    let mut open: Vec<String> = packages
        .iter()
        .filter(|(_, package)| names.iter().any(|name| package["name"] == name.as_str()))
        .map(|(id, _)| id.clone())
        .collect();
    assert_eq!(open.len(), names.len());
    let (mut seen, mut newer) = (BTreeSet::new(), Vec::new());
    while let Some(id) = open.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let package = &packages[&id];
        let (name, ours) = (package["name"].as_str().unwrap(), package["source"].is_null());
        let needs = package["rust_version"].as_str();
        // A crate that says nothing is of an edition that is older than 1.85 by years.
        let says = needs.map_or(package["edition"] != "2024", |needs| version(needs) <= OLDEST);
        if !says || (ours && needs.map(version) != Some(OLDEST)) {
            newer.push(format!("{name} {} needs Rust {needs:?}", package["version"]));
        }
        for dependency in nodes[&id]["deps"].as_array().unwrap() {
            let ways = dependency["dep_kinds"].as_array().unwrap();
            if ways.iter().any(|way| way["kind"] != "dev") {
                open.push(dependency["pkg"].as_str().unwrap().to_owned());
            }
        }
    }
    assert!(seen.len() > names.len() + 10, "{seen:?}");
    assert!(newer.is_empty(), "a plugin must build with Rust {OLDEST:?}: {newer:#?}");
}

#[test]
fn their_sources_chain_no_let() {
    // Stable since 1.88, and no lint of clippy's knows it.
    for folder in ["plugin-api/src", "plugins", "examples/my-plugin/src", "tests/misbehaving/src"] {
        let mut open = vec![root().join(folder)];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(!words.contains("&& let "), "{}: `&& let` needs Rust 1.88", path.display());
            }
        }
    }
}

/// Where `FTHOST_OLD_CARGO` names a cargo with the rustc 1.85 that it calls.
#[test]
fn rust_1_85_builds_a_plugin_that_trains_the_demo_as_well() {
    let Some(cargo) = std::env::var_os("FTHOST_OLD_CARGO") else {
        return skipped("FTHOST_OLD_CARGO names no cargo of Rust 1.85");
    };
    let target = target_folder().join("rust-1.85");
    let output = Command::new(cargo)
        .current_dir(root())
        .args(["build", "--locked", "--offline", "--quiet", "-p", "fthost-lora", "--target-dir"])
        .arg(&target)
        .env_remove("RUSTC")
        .env_remove("CARGO")
        .env_remove("RUSTUP_TOOLCHAIN")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let plugin = target.join("debug/liblora.so");
    let accuracy = |plugin: &str, out: &str, workdir: &Workdir| {
        workdir.fthost(["--plugin", plugin, "--out", out]).succeeded();
        let result = result_json(&workdir.path().join(out));
        let (_, task) = result["tasks"].as_object().unwrap().iter().next().unwrap();
        task["metrics"]["accuracy"].as_f64().unwrap()
    };
    let workdir = Workdir::new();
    assert_eq!(accuracy(plugin.to_str().unwrap(), "old", &workdir), accuracy("lora", "new", &workdir));
}
