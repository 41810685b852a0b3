//! `fthost validate`: every plugin of the repository passes, and so do those of 1.0; what breaks a promise fails by the test that is meant for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use fthost_plugin_api::abi::tables::ABI_MINOR;
use fthost_tests::{Workdir, build, library_name, plugin_folders, root, skipped};
use serde_json::Value;

/// What the suite says of a file: its exit code and its report.
fn validated(workdir: &Workdir, file: &Path, arguments: &[&str]) -> (Option<i32>, Value) {
    let file = file.display().to_string();
    let outcome = workdir.fthost(["validate", &file, "--json"].iter().chain(arguments));
    let report = serde_json::from_str(&outcome.stdout);
    (outcome.code, report.unwrap_or_else(|error| panic!("{file}: {error}: {}\n{}", outcome.stdout, outcome.stderr)))
}

/// The tests that ended so, with what was seen.
fn ended<'a>(report: &'a Value, outcome: &str) -> Vec<(&'a str, &'a str)> {
    let tests = report["tests"].as_array().unwrap_or_else(|| panic!("no report: {report}"));
    let of = tests.iter().filter(|test| test["outcome"] == outcome);
    of.map(|test| (test["test"].as_str().unwrap(), test["seen"].as_str().or(test["why"].as_str()).unwrap_or_default()))
        .collect()
}

#[track_caller]
fn passes(workdir: &Workdir, file: &Path) {
    let (code, report) = validated(workdir, file, &[]);
    let failed = ended(&report, "failed");
    assert!(code == Some(0) && failed.is_empty(), "{}: {failed:#?}", file.display());
    let passed = ended(&report, "passed");
    // What is skipped everywhere shows nothing. A plugin that asks for a later host is not tried in an older one.
    let asks = ended(&report, "skipped").iter().any(|(name, why)| *name == "older-host" && why.contains("of minor"));
    let older = if asks { "runs" } else { "older-host" };
    for test in ["note", "plugin-table", "method-table", "runs", older, "later-host", "repeated", "resumed"] {
        assert!(passed.iter().any(|(name, _)| *name == test), "{}: {test} did not pass: {report}", file.display());
    }
}

#[test]
fn every_plugin_of_the_repository_validates() {
    let workdir = Workdir::new();
    let folders = plugin_folders();
    assert!(folders.len() >= 28);
    for folder in folders {
        passes(&workdir, &build().plugin(&library_name(&folder)));
    }
}

#[test]
fn plugins_of_1_0_validate() {
    let workdir = Workdir::new();
    let mut files = 0;
    for entry in std::fs::read_dir(root().join("tests/golden/1.0")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "so") {
            files += 1;
            passes(&workdir, &path);
        }
    }
    assert_eq!(files, 5);
}

/// A method, what it does wrong, the test that says so, and what it sees.
const MISCONDUCT: [(&str, &str, &str, &str); 25] = [
    ("misconduct", "abort", "runs", "SIGABRT"),
    ("misconduct", "exit", "runs", "ended with code 0 in the middle of the test"),
    ("misconduct", "nothing", "options", "it was not to be made"),
    ("misconduct-loose", "", "wrong-options", "no-such-option = 1 is taken without a word"),
    ("misconduct", "swallow", "failing-calls", "call_op affine@1 in its linear hook failed, the run went on"),
    ("misconduct", "leak", "leaked-handles", "neither released nor given back: 1"),
    ("misconduct", "stale", "stale-handles", "a tensor was used after its release"),
    ("misconduct", "state", "odd-calls", "panicked in load"),
    ("misconduct", "count", "repeated", "differs"),
    ("misconduct", "threads", "threads", "has other bits than on the run's"),
    ("misconduct", "detach", "gradients", "query.scale has the gradient"),
    ("misconduct-head", "detach", "gradients", "has the gradient"),
    ("misconduct-squares", "detach", "gradients", "has the gradient"),
    ("misconduct", "merge", "merge", "differ by up to"),
    ("misconduct", "start", "start", "misconduct should start at the base model"),
    ("misconduct", "frozen", "frozen", "query.weight has changed, and did not train"),
    ("misconduct-head", "mean", "loss-sums", "add up to"),
    ("misconduct-head", "twice", "runs", ", and it gave shape ["),
    ("misconduct-head", "logits", "runs", "probabilities lie in [0, 1], and it gave "),
    ("misconduct-half", "nan", "rates", "learning rate NaN"),
    ("misconduct-half", "count", "rates", "when it is asked for first"),
    ("misconduct", "amnesia", "state", "loaded that and saved"),
    ("misconduct", "unsaved", "resumed", "differs"),
    ("misconduct", "adapter", "exports", "does not open"),
    ("misconduct", "hang", "runs", "it had not ended after 4 s"),
];

fn misconduct() -> PathBuf {
    build().folder().join("examples/libmisconduct.so")
}

#[test]
fn a_method_that_breaks_a_promise_fails_by_the_test_of_it() {
    let workdir = Workdir::new();
    for (method, how, test, seen) in MISCONDUCT {
        let (only, how) = (format!("{method} {test}"), format!("{method}.how={how}"));
        let mut arguments = vec!["--only", &only];
        if !how.ends_with('=') {
            arguments.extend(["--set", &how]);
        }
        if how.ends_with("hang") {
            arguments.extend(["--timeout", "4"]);
        }
        let (code, report) = validated(&workdir, &misconduct(), &arguments);
        let failed = ended(&report, "failed");
        let by_name = failed.iter().any(|(name, said)| *name == test && said.contains(seen));
        assert!(code == Some(1) && by_name, "{how}: {test} does not say {seen:?}: {report:#}");
        assert!(report["tests"].as_array().unwrap().iter().all(|of| of["test"] == test), "{report:#}");
    }
}

#[test]
fn the_same_methods_pass_where_they_do_nothing_wrong() {
    let workdir = Workdir::new();
    for method in ["misconduct-head", "misconduct-half", "misconduct-squares"] {
        let (_, report) = validated(&workdir, &misconduct(), &["--only", &format!("{method} ")]);
        assert!(ended(&report, "failed").is_empty(), "{report:#}");
    }
    // One of its deeds is to panic as it is made, and its options name it.
    let (_, report) = validated(&workdir, &misconduct(), &["--only", "misconduct "]);
    let failed: Vec<&str> = ended(&report, "failed").into_iter().map(|(name, _)| name).collect();
    assert_eq!(failed, ["options"], "{report:#}");
}

/// Builds the crooked plugin in C; `false` where there is no C compiler.
fn crooked(folder: &Path, how: &str) -> bool {
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = Command::new(compiler)
        .args(["-std=c11", "-shared", "-fPIC", &format!("-D{how}"), "-I"])
        .arg(root().join("plugin-api/include"))
        .arg("-o")
        .arg(folder.join("libcrooked.so"))
        .arg(root().join("tests/c_plugin/crooked.c"))
        .output();
    let Ok(output) = output else { return false };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

#[test]
fn a_plugin_in_c_that_breaks_a_promise_fails_by_the_test_of_it() {
    let check = |how: &str, test: &str, seen: &str| {
        let workdir = Workdir::new();
        if !crooked(workdir.path(), how) {
            return skipped("no C compiler");
        }
        let (code, report) = validated(&workdir, &workdir.path().join("libcrooked.so"), &[]);
        let failed = ended(&report, "failed");
        let by_name = failed.iter().any(|(name, said)| *name == test && said.contains(seen));
        assert!(code == Some(1) && by_name, "{how}: {test} does not say {seen:?}: {report:#}");
    };
    check("CROOKED_NOTE", "note", "is not what its notes say: they name scheduler \"crooked\", and its code scheduler");
    check("CROOKED_SIZE", "method-table", "its SchedulerVtable says that it has 60 bytes, and that of minor 0 has 56");
    check("CROOKED_NULL", "method-table", "its SchedulerVtable has no `rate`");
    check("CROOKED_NEW", "later-host", "this is not the host that it was built for");
    if ABI_MINOR > 0 {
        check("CROOKED_OLD", "older-host", "this host is too old");
    }
}

#[test]
fn the_report_says_what_was_seen_and_what_to_do() {
    let workdir = Workdir::new();
    let file = misconduct().display().to_string();
    let arguments = ["validate", &file, "--only", "misconduct-head loss-sums", "--set", "misconduct-head.how=mean"];
    let outcome = workdir.fthost(arguments);
    assert_eq!(outcome.code, Some(1));
    for part in [
        "FAILED  loss-sums  task head misconduct-head  the loss of a batch is the sum of its parts'",
        "loss-sums of task head misconduct-head failed\n  seen: the loss of 8 examples is ",
        "  what to do: return the sum of the terms and their number as the weight, no mean",
        "0 passed, 1 failed, 0 skipped",
    ] {
        assert!(outcome.stdout.contains(part), "{part:?} is not in\n{}", outcome.stdout);
    }
    let list = workdir.fthost(["validate", "--list"]).succeeded().stdout;
    assert!(list.lines().count() >= 24 && list.contains("stale-handles"), "{list}");
    let error = workdir.fthost(["validate", &file, "--only", "no-such-test"]).failed(2);
    assert!(error.contains("no test and no method is called \"no-such-test\""), "{error}");
    let error = workdir.fthost(["validate", &file, "--set", "rank"]).failed(2);
    assert!(error.contains("--set rank sets no option"), "{error}");
    let text = workdir.write("text.so", "no plugin");
    let error = workdir.fthost(["validate", &text.display().to_string()]).failed(1);
    assert!(error.contains("is a text file, not a shared library"), "{error}");
}
