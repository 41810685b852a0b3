//! Plugins that a run file names by their files, and what `help` says of them.

use std::fs;

use fthost_tests::{Workdir, build, on_one_line, result_json, root};
use serde_json::Value;

use crate::resume::{bits, set_back};

/// The demo, each of its methods from a file beside the run file.
const RUN: &str = r#"[model]
path = "demo"

[[task]]
name = "digits"
head = { plugin = "./own/libhead.so", dropout = 0.1 }
train = "demo"
test = "demo"

[[strategy]]
plugin = "own/libmine.so"
rank = 4

[[regularizer]]
plugin = "own/libpull.so"

[schedule]
plugin = "own/libfall.so#cosine"
warmup = 0.1

[train]
steps = 12
checkpoint_steps = 2
"#;

/// A folder with the run file in `jobs`, and its plugins under names that no search finds.
fn workdir() -> Workdir {
    let workdir = Workdir::new();
    workdir.write("jobs/run.toml", RUN);
    fs::create_dir(workdir.path().join("jobs/own")).unwrap();
    for (plugin, file) in [("classification", "head"), ("lora", "mine"), ("l2sp", "pull"), ("cosine", "fall")] {
        fs::copy(build().plugin(plugin), workdir.path().join(format!("jobs/own/lib{file}.so"))).unwrap();
    }
    workdir
}

/// The files of the plugins that a run used.
fn used(workdir: &Workdir) -> Vec<String> {
    let result = result_json(&workdir.path().join("run"));
    let plugins = result["plugins"].as_array().unwrap();
    plugins.iter().map(|plugin| plugin["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_run_file_names_plugins_by_their_files_and_a_run_goes_on_with_them() {
    let workdir = workdir();
    workdir.fthost(["jobs/run.toml", "--out", "run"]).succeeded();
    let own = workdir.path().join("jobs/own");
    let used = used(&workdir);
    for file in ["head", "mine", "pull", "fall"] {
        let path = own.join(format!("lib{file}.so")).display().to_string();
        assert!(used.contains(&path), "{path} is not in {used:?}");
    }
    assert_eq!(used.len(), 4, "{used:?}");
    let run = workdir.path().join("run");
    let kept: toml::Table = fs::read_to_string(run.join("run.toml")).unwrap().parse().unwrap();
    let named = |file: &str, method: &str| format!("{}#{method}", own.join(file).display());
    assert_eq!(kept["strategy"][0]["plugin"].as_str(), Some(&*named("libmine.so", "lora")));
    assert_eq!(kept["schedule"]["plugin"].as_str(), Some(&*named("libfall.so", "cosine")));

    let through = bits(&run);
    set_back(&run);
    workdir.fthost(["--resume", "--out", "run"]).succeeded();
    let resumed = bits(&run);
    assert!(through == resumed, "a resumed run differs");

    fs::rename(own.join("libmine.so"), own.join("libother.so")).unwrap();
    let error = on_one_line(&workdir.fthost(["jobs/run.toml", "--out", "again"]).failed(2));
    assert!(error.contains("jobs/run.toml:11:10") && error.contains("there is no plugin file"), "{error}");
}

#[test]
fn a_plugin_of_the_command_line_goes_before_the_run_files() {
    let workdir = workdir();
    // The same methods, built otherwise.
    let golden = root().join("tests/golden/1.0/liblora.so").canonicalize().unwrap().display().to_string();
    workdir.fthost(["jobs/run.toml", "--out", "run", "--plugin", &golden]).succeeded();
    let used = used(&workdir);
    assert!(used.contains(&golden) && used.len() == 4, "{used:?}");
    assert!(!used.iter().any(|path| path.ends_with("libmine.so")), "{used:?}");
}

#[test]
fn help_explains_a_methods_options_by_its_name_or_file() {
    let workdir = workdir();
    let help = |name: &str| workdir.fthost(["help", name]).succeeded().stdout;
    let lora = help("lora");
    assert!(lora.starts_with("strategy \"lora\": "), "{lora}");
    for part in ["    [[strategy]]\n    plugin = \"lora\"\n", "\n  rank <a whole number, at least 1>\n", "[default: 8]"]
    {
        assert!(lora.contains(part), "no {part:?} in {lora}");
    }
    assert!(lora.lines().all(|line| line.chars().count() <= 160), "{lora}");
    assert_eq!(help("jobs/own/libmine.so"), lora);
    // One method of a file that has two, and both.
    assert!(
        help("cosine-restarts").starts_with("scheduler \"cosine-restarts\"") && !help("cosine").contains("restarts\"")
    );
    assert_eq!(help("./jobs/own/libfall.so").matches("\nOptions:").count(), 2);

    let inspected = workdir.fthost(["inspect", "lora", "--json"]).succeeded().stdout;
    let told = workdir.fthost(["help", "lora", "--json"]).succeeded().stdout;
    let [inspected, told] = [inspected, told].map(|text| serde_json::from_str::<Value>(&text).unwrap());
    assert_eq!(told["methods"], inspected["plugins"][0]["methods"]);

    let error = on_one_line(&workdir.fthost(["help", "lroa"]).failed(2));
    assert!(error.contains("there is no method \"lroa\"") && error.contains("did you mean \"lora\"?"), "{error}");
}
