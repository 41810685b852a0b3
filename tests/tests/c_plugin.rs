//! Plugins in C come in through the C entry alone and take part like any other: a schedule, and LoRA, which is that of Rust to the bit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fthost_tests::{Workdir, data, minilm, on_one_line, result_json, root, skipped, steps};
use serde_json::Value;

use crate::text;

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
        .args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-shared", "-fPIC", "-I"])
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
    assert!(said.contains("from the caf\u{fffd} !"), "{said}");
}

/// Makes examples/lora-c into a folder, without a warning; `false` where there is no make or no C compiler.
fn make_lora(folder: &Path) -> bool {
    let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !there("make") || !there("cc") {
        return false;
    }
    let mut make = Command::new("make");
    make.arg("-C").arg(root().join("examples/lora-c")).arg("CFLAGS=-O2 -Werror");
    let output = make.arg(format!("BUILD={}", folder.display())).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

/// Two runs of a file that names the strategy "lora", which is in Rust: by it, and by the one in C. Equal are every loss, what comes out, and
/// the saved adapters.
fn trains_alike(workdir: &Workdir, run: &str, sets: &[&str]) {
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let in_c = run.replace("plugin = \"lora\"", "plugin = \"lora_c\"");
    assert_ne!(run, in_c);
    let [rust, c] = [("rust", run), ("c", &in_c)].map(|(name, text)| {
        workdir.write("run.toml", text);
        workdir.fthost(["run.toml", "--out", name].into_iter().chain(sets.iter().copied())).succeeded();
        workdir.path().join(name)
    });
    let losses = |run: &Path| steps(run).iter().map(|step| step["loss"].clone()).collect::<Vec<Value>>();
    assert!(losses(&c).len() > 3);
    assert_eq!(losses(&c), losses(&rust));
    let [of_rust, of_c] = [&rust, &c].map(|run| result_json(run));
    assert_eq!(of_c["tasks"], of_rust["tasks"]);
    assert_eq!((&of_c["proof"]["start"]["equals_base"], &of_c["saved"]["format"]), (&true.into(), &"peft".into()));
    for file in ["adapter_model.safetensors", "adapter_config.json"] {
        let [of_rust, of_c] = [&rust, &c].map(|run| fs::read(run.join("adapter").join(file)).unwrap());
        assert!(of_c == of_rust, "{file} differs");
    }
}

#[test]
fn lora_in_c_is_lora_in_rust_to_the_bit() {
    let workdir = Workdir::new();
    if !make_lora(workdir.path()) {
        return skipped("no make, or no C compiler");
    }
    let example = fs::read_to_string(root().join("examples/lora-c/run.toml")).unwrap();
    trains_alike(&workdir, &example.replace("lora_c", "lora"), &["train.steps=40"]);
}

#[test]
fn lora_in_c_adapts_texts_and_merges() {
    let workdir = text::text_workdir();
    if !make_lora(workdir.path()) {
        return skipped("no make, or no C compiler");
    }
    let options = text::LORA.replace("[\"query\", \"value\"]", "\"encoder.*(key|dense)\"\nalpha = 2.5\ndropout = 0.25");
    trains_alike(&workdir, &text::RUN.replace(text::LORA, &options), &[]);
    let [rust, c] = ["rust", "c"].map(|name| {
        let merged = format!("merged-{name}");
        workdir.fthost(["merge", name, &merged]).succeeded();
        fs::read(workdir.path().join(merged).join("model.safetensors")).unwrap()
    });
    assert!(c == rust, "the merged weights differ");
    // What stood still is not merged: the weights are not those of the model before.
    assert_ne!(c, fs::read(workdir.path().join("model/model.safetensors")).unwrap());
    // The host's own words come back from a call that fails.
    let error = workdir.fthost(["run.toml", "--set", "strategy.0.targets=[\"quary\"]"]).failed(2);
    assert!(error.contains("lora_c") && error.contains("quary"), "{error}");
}

#[test]
fn lora_in_c_trains_sst2_as_the_one_in_rust() {
    let sst2 = data().join("sst2");
    let (Some(model), true) = (minilm(), sst2.join("train.tsv").is_file()) else {
        return skipped("all-MiniLM-L6-v2 (scripts/fetch-minilm.sh) or SST-2 ($FTHOST_DATA/sst2) is not here");
    };
    let workdir = Workdir::new();
    if !make_lora(workdir.path()) {
        return skipped("no make, or no C compiler");
    }
    for (file, rows) in [("train.tsv", 64), ("test.tsv", 32)] {
        let text = fs::read_to_string(sst2.join(file)).unwrap();
        workdir.write(file, text.lines().take(rows).map(|line| format!("{line}\n")).collect::<String>());
    }
    let model = format!("{:?}", model.canonicalize().unwrap().display().to_string());
    trains_alike(&workdir, &text::RUN.replace("\"model\"", &model), &["train.batch_size=16", "train.lr=0.001"]);
}
