//! A plugin from outside the workspace that depends on plugin-api alone: examples/my-plugin.

use std::fs;
use std::path::{Path, PathBuf};

use fthost_tests::{Workdir, cargo, result_json, root, target_folder};

/// Builds a copy of the example beside the target folder's other builds, with the workspace's locked versions: so no network
/// is needed, and nothing is written into the source.
fn build_copy() -> PathBuf {
    let (example, copy) = (root().join("examples/my-plugin"), target_folder().join("my-plugin"));
    fs::create_dir_all(copy.join("src")).unwrap();
    for file in ["src/lib.rs", "Cargo.toml"] {
        let text = fs::read_to_string(example.join(file)).unwrap();
        let api = root().join("plugin-api").display().to_string();
        write_if_new(&copy.join(file), &text.replace("../../plugin-api", &api));
    }
    fs::copy(root().join("Cargo.lock"), copy.join("Cargo.lock")).unwrap();
    let output = cargo("build").arg("--offline").current_dir(&copy).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let profile = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().file_name().unwrap().to_owned();
    target_folder().join(profile).join("libnorms.so")
}

/// Keeps a file's time where its text is the same, so that cargo does not build it anew.
fn write_if_new(path: &Path, text: &str) {
    if fs::read_to_string(path).ok().as_deref() != Some(text) {
        fs::write(path, text).unwrap();
    }
}

#[test]
fn a_plugin_outside_the_workspace_runs_the_demo() {
    let source = fs::read_to_string(root().join("examples/my-plugin/src/lib.rs")).unwrap();
    assert!(source.lines().count() < 80, "an example should be read in one sitting");

    let workdir = Workdir::new();
    let plugin = build_copy();
    // Its own tests want no host but the mock one.
    let tests = cargo("test").arg("--offline").current_dir(target_folder().join("my-plugin")).output().unwrap();
    let said = String::from_utf8_lossy(&tests.stdout);
    let passed = tests.status.success() && said.contains("1 passed");
    assert!(passed, "{said}{}", String::from_utf8_lossy(&tests.stderr));
    workdir.fthost(["--plugin", plugin.to_str().unwrap(), "--out", "run", "--set", "train.epochs=3"]).succeeded();
    let result = result_json(&workdir.path().join("run"));
    let (_, task) = result["tasks"].as_object().unwrap().iter().next().unwrap();
    let (before, after) = (&task["before"]["accuracy"], &task["metrics"]["accuracy"]);
    assert!(after.as_f64() > before.as_f64(), "{before} before, {after} after");

    // Norms and the head are a small part of the model.
    let share = result["parameters"]["trainable"].as_f64().unwrap() / result["parameters"]["total"].as_f64().unwrap();
    assert!(share < 0.05, "{share}");
}
