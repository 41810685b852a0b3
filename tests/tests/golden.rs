//! The boundary grows: plugins that were built once, for ABI 1.0, train for ever; hosts and plugins of a later minor meet today's.
//!
//! `tests/golden/1.0` holds them as files, never built again, with their origin beside them. A later minor is played by the feature
//! `longer-tables`, under which every table and every call has two fields more.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use fthost_tests::{Outcome, Workdir, build, cargo, result_json, root, skipped, steps};

/// A run of the demo with a head, a strategy, a regularizer and a schedule, all of them plugins.
const RUN: &str = r#"[model]
path = "demo"

[[task]]
name = "digits"
head = { plugin = "classification" }
train = "demo"
validation = 0.2
test = "demo"

[[strategy]]
plugin = "lora"
dropout = 0.1

[[regularizer]]
plugin = "l2sp"

[schedule]
plugin = "cosine"

[train]
epochs = 3
lr = 0.005
evaluate_before = true
"#;

/// The folder of the plugins of one minor.
fn golden(minor: &str) -> PathBuf {
    root().join("tests/golden").join(minor)
}

/// Names and files of what a run has used.
fn used(run: &Path) -> BTreeMap<String, PathBuf> {
    let plugins = result_json(run)["plugins"].as_array().unwrap().clone();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    plugins.iter().map(|plugin| (text(&plugin["name"]), text(&plugin["path"]).into())).collect()
}

/// Runs a host with the plugins of one folder alone.
fn run_with(workdir: &Workdir, host: &Path, plugins: &Path, text: &str) -> Outcome {
    workdir.write("run.toml", text);
    let mut command = Command::new(host);
    command.args(["--config", "run.toml", "--out", "run"]).current_dir(workdir.path());
    command.env("FTHOST_PLUGIN_PATH", plugins).env("NO_COLOR", "1").env("HOME", workdir.path());
    command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
    workdir.run(command)
}

/// That a host trains with the plugins of a folder, and with no others.
#[track_caller]
fn trains(host: &Path, plugins: &Path, names: [&str; 4]) {
    let workdir = Workdir::new();
    run_with(&workdir, host, plugins, RUN).succeeded();
    let folder = workdir.path().join("run");
    let used = used(&folder);
    assert!(used.values().all(|path| path.starts_with(plugins)), "{used:?}: not of {}", plugins.display());
    assert_eq!(used.into_keys().collect::<Vec<_>>(), names);
    let digits = &result_json(&folder)["tasks"]["digits"];
    let (before, after) = (&digits["before"]["accuracy"], &digits["metrics"]["accuracy"]);
    assert!(after.as_f64().unwrap() > before.as_f64().unwrap() + 0.2, "{before} before, {after} after");
}

/// That a host schedules by the plugin in C.
#[track_caller]
fn schedules_in_c(host: &Path, plugins: &Path) {
    let workdir = Workdir::new();
    let text = RUN.replace("\"cosine\"", "\"c_constant\"\nfactor = 0.5").replace("epochs = 3", "steps = 3");
    run_with(&workdir, host, plugins, &text).succeeded();
    let folder = workdir.path().join("run");
    assert!(used(&folder)["c_constant"].starts_with(plugins));
    for step in steps(&folder) {
        assert_eq!(step["lr"], 0.0025, "{step}");
    }
}

#[test]
fn plugins_of_1_0_train() {
    schedules_in_c(&build().host(), &golden("1.0"));
    trains(&build().host(), &golden("1.0"), ["classification", "cosine", "l2sp", "lora"]);
}

#[test]
fn their_files_are_those_that_were_built_then() {
    let origin = fs::read_to_string(golden("1.0").join("ORIGIN.txt")).unwrap();
    let mut files = 0;
    for entry in fs::read_dir(golden("1.0")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "so") {
            files += 1;
            let plugin = Workdir::new().fthost(["inspect", path.to_str().unwrap(), "--json"]).succeeded().stdout;
            let plugin: serde_json::Value = serde_json::from_str(&plugin).unwrap();
            let sha256 = plugin["plugins"][0]["sha256"].as_str().unwrap();
            assert!(origin.contains(sha256), "{} was changed: these files are never built again", path.display());
        }
    }
    assert_eq!(files, 5);
}

/// A host and plugins of a later minor: the host's program and the plugins' folder.
fn later() -> &'static (PathBuf, PathBuf) {
    static BUILT: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    BUILT.get_or_init(|| {
        // What lies in the folder is that of today's host before; the builds must not run at one time.
        let folder = build().folder();
        let mut command = cargo("build");
        command.args(["-p", "fthost", "-p", "fthost-longer-plugins", "--bin", "fthost-longer", "--examples"]);
        command.args(["--features", "fthost/longer-tables,fthost-longer-plugins/longer-tables"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // Under the names by which a host looks for methods first.
        let plugins = folder.join("later-plugins");
        fs::create_dir_all(&plugins).unwrap();
        for method in ["classification", "cosine", "l2sp", "lora"] {
            let built = folder.join(format!("examples/lib{method}_longer.so"));
            fs::copy(built, plugins.join(format!("lib{method}.so"))).unwrap();
        }
        (folder.join("fthost-longer"), plugins)
    })
}

const LATER: [&str; 4] = ["classification_longer", "cosine_longer", "l2sp_longer", "lora_longer"];

#[test]
fn plugins_of_1_0_train_in_a_later_host() {
    if cfg!(feature = "cuda") {
        return skipped("the later host is built for the CPU");
    }
    let (host, _) = later();
    schedules_in_c(host, &golden("1.0"));
    trains(host, &golden("1.0"), ["classification", "cosine", "l2sp", "lora"]);
}

#[test]
fn plugins_of_a_later_minor_train_in_todays_host() {
    if cfg!(feature = "cuda") {
        return skipped("the later plugins are built beside a host for the CPU");
    }
    let (host, plugins) = later();
    trains(&build().host(), plugins, LATER);
    trains(host, plugins, LATER);
}

#[test]
fn what_is_appended_is_absent_or_refused_by_name() {
    let mut command = cargo("test");
    command.args(["-p", "fthost-plugin-api", "--lib", "--features", "longer-tables"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("test result: ok"), "{said}");
}
