//! A plugin in C comes in through the C entry alone and takes part like any other.

use std::path::{Path, PathBuf};
use std::process::Command;

use fthost_tests::{Workdir, result_json, root, skipped, steps};

/// The demo for a few steps, on this plugin's schedule.
const RUN: &str = r#"[model]
path = "demo"

[[task]]
head = { plugin = "classification" }
train = "demo"
test = "demo"

[[strategy]]
plugin = "lora"

[schedule]
plugin = "c_constant"
factor = 0.25

[train]
lr = 0.004
steps = 3
"#;

/// Builds `c_plugin/constant.c` into a folder; `false` where there is no C compiler.
fn compile(folder: &Path) -> bool {
    compile_with(folder, &[]).is_some()
}

/// The same plugin, which leaves a trace as soon as any of its code runs (`c_plugin/traced.c`); `None` where there is no C compiler.
pub(crate) fn compile_traced(folder: &Path) -> Option<PathBuf> {
    compile_with(folder, &["traced.c"])
}

fn compile_with(folder: &Path, more: &[&str]) -> Option<PathBuf> {
    let plugin = folder.join("libc_constant.so");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = Command::new(compiler)
        .args(["-std=c11", "-Wall", "-Wextra", "-shared", "-fPIC", "-I"])
        .arg(root().join("plugin-api/include"))
        .arg("-o")
        .arg(&plugin)
        .args(["constant.c"].iter().chain(more).map(|file| root().join("tests/c_plugin").join(file)))
        .output();
    let output = output.ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(plugin)
}

#[test]
fn it_schedules_the_demo() {
    let workdir = Workdir::new();
    if !compile(workdir.path()) {
        return skipped("no C compiler");
    }
    workdir.write("run.toml", RUN);
    workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded();

    let folder = workdir.path().join("run");
    let used = result_json(&folder)["plugins"].as_array().unwrap().clone();
    assert!(used.iter().any(|plugin| plugin["name"] == "c_constant" && plugin["version"] == "0.1.0"), "{used:?}");
    for step in steps(&folder) {
        assert_eq!(step["lr"], 0.001, "{step}");
    }
}

#[test]
fn its_options_are_checked_like_any_others() {
    let workdir = Workdir::new();
    if !compile(workdir.path()) {
        return skipped("no C compiler");
    }
    workdir.write("run.toml", RUN.replace("0.25", "-1"));
    insta::assert_snapshot!(workdir.fthost(["--config", "run.toml"]).failed(2), @r#"
    run_file

      x factor of scheduler "c_constant" must be at least 0, and is -1
        ,-[run.toml:14:10]
     13 | plugin = "c_constant"
     14 | factor = -1
        :          ^|
        :           `-- must be at least 0
     15 | 
        `----
      help: factor: What the rate is multiplied with.
    "#);
}
