//! A plugin in C comes in through the C entry alone and takes part like any other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fthost_tests::{Workdir, on_one_line, result_json, root, skipped, steps};

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
    compile_from(folder, &[root().join("tests/c_plugin/constant.c")]).is_some()
}

/// The same plugin, which leaves a trace as soon as any of its code runs (`c_plugin/traced.c`); `None` where there is no C compiler.
pub(crate) fn compile_traced(folder: &Path) -> Option<PathBuf> {
    compile_from(folder, &["constant.c", "traced.c"].map(|file| root().join("tests/c_plugin").join(file)))
}

/// As [`compile`], from other sources.
fn compile_from(folder: &Path, sources: &[PathBuf]) -> Option<PathBuf> {
    let plugin = folder.join("libc_constant.so");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = Command::new(compiler)
        .args(["-std=c11", "-Wall", "-Wextra", "-shared", "-fPIC", "-I"])
        .arg(root().join("plugin-api/include"))
        .arg("-o")
        .arg(&plugin)
        .args(sources)
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

/// Where C has no UTF-8, a byte of Latin-1 comes along: what is said around it is still said.
#[test]
fn a_byte_that_is_no_utf_8_does_not_cost_the_reason() {
    let workdir = Workdir::new();
    let mut source = fs::read_to_string(root().join("tests/c_plugin/constant.c")).unwrap();
    let mut replace = |old: &str, new: &str| {
        assert!(source.contains(old), "{old}");
        source = source.replace(old, new);
    };
    replace("the example of tests/c_plugin", "from the caf\\xe9 !");
    replace(
        "NAME \"\\\",\\\"version\\\":\\\"0.1.0\\\",\\\"license\\\":\\\"MIT\\\",\\\"methods",
        "NAME \"\\\",\\\"version\\\":\\\"0.1.0\\\",\\\"license\\\":\\\"MIT\\xe9\\\",\\\"methods",
    );
    let record = "FtLogRecord record = {.struct_size = sizeof record, .level = 2, .target = text(\"m\\xe9tier\"), .message = text(\"it rains in Orl\\xe9\\x61ns\")};";
    replace(
        "    instance->factor = factor_of(config);",
        &format!(
            "    {record}\n    host->log(&record);\n    instance->factor = factor_of(config);\n    return fail(\"the caf\\xe9 is closed\");"
        ),
    );
    if compile_from(workdir.path(), &[workdir.write("constant.c", source)]).is_none() {
        return skipped("no C compiler");
    }
    workdir.write("run.toml", RUN);
    let error = workdir.fthost(["run.toml"]).failed(2);
    assert!(error.contains("warning: it rains in Orl\u{fffd}ans"), "{error}");
    let error = on_one_line(&error);
    assert!(
        error.contains("plugin c_constant (libc_constant.so) failed in its options: the caf\u{fffd} is closed"),
        "{error}"
    );
    let said = workdir.fthost(["inspect", "./libc_constant.so"]).succeeded().stdout;
    assert!(said.contains("from the caf\u{fffd} !") && said.contains("MIT\u{fffd}"), "{said}");
}
