//! Every plugin's example.toml runs as it stands, and its README is there. A new plugin's folder is found by itself.

use fthost_tests::{Workdir, library_name, plugin_folders, result_json};

#[test]
fn every_plugins_example_runs() {
    let folders = plugin_folders();
    assert!(!folders.is_empty());
    let workdir = Workdir::new();
    for folder in folders {
        let name = library_name(&folder);
        for file in ["README.md", "example.toml"] {
            assert!(folder.join(file).is_file(), "{} is missing", folder.join(file).display());
        }
        let example = folder.join("example.toml").display().to_string();
        let outcome = workdir.fthost(["--config", &example, "--out", &name, "--set", "train.evaluate_before=true"]);
        assert_eq!(outcome.code, Some(0), "{example}:\n{}", outcome.stderr);

        let result = result_json(&workdir.path().join(&name));
        let used = result["plugins"].as_array().unwrap();
        assert!(used.iter().any(|plugin| plugin["name"] == name.as_str()), "{example} does not use {name}: {used:?}");
        for (task, results) in result["tasks"].as_object().unwrap() {
            for (metric, value) in results["metrics"].as_object().unwrap() {
                assert!(value.as_f64().is_some_and(f64::is_finite), "{example}: {task}.{metric} is {value}");
            }
            let (before, after) = (&results["before"]["loss"], &results["metrics"]["loss"]);
            assert!(after.as_f64() < before.as_f64(), "{example}: loss {before} before, {after} after");
        }
    }
}
