//! `fthost compare`: runs in processes of their own, what becomes of those that fail or are stopped, and what is said in the end.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fthost_tests::{Outcome, Workdir, on_one_line, result_json, steps};
use serde_json::Value;

/// Few steps: what is looked at here is not how well they learn.
const SHORT: [&str; 4] = ["--set", "train.steps=12", "--set", "train.evaluate_before=false"];

fn compare(workdir: &Workdir, arguments: &[&str]) -> Outcome {
    workdir.fthost(["compare"].iter().chain(arguments).chain(&SHORT))
}

pub(crate) fn comparison(workdir: &Workdir, folder: &str) -> Value {
    let file = workdir.path().join(folder).join("comparison.json");
    serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap()
}

/// When a run's result was written: it changes where the run is made again.
pub(crate) fn written(workdir: &Workdir, run: &str) -> (i64, i64) {
    let file = workdir.path().join(run).join("result.json").metadata().unwrap();
    (file.mtime(), file.mtime_nsec())
}

#[test]
fn two_copies_of_one_strategy_are_not_resolved() {
    let workdir = Workdir::new();
    let plugins = ["--plugin", "liblora.so", "--plugin", "liblora.so", "--seeds", "2", "--json"];
    let printed = compare(&workdir, &plugins).succeeded();
    let found: Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!(found, comparison(&workdir, "comparisons/demo"));

    let pair = &found["pairs"][0];
    assert_eq!((&pair["a"], &pair["b"]), (&"lora-1".into(), &"lora-2".into()));
    let said = "lora-1 and lora-2: not resolved with these seeds; they are equal in every prediction";
    assert_eq!((pair["verdict"].as_str(), &pair["resolved"]), (Some(said), &false.into()));
    assert_eq!((&pair["difference"], &pair["interval"]), (&0.0.into(), &serde_json::json!([0.0, 0.0])));
    assert_eq!((&pair["p"], &pair["p_holm"], &pair["test"]), (&1.0.into(), &1.0.into(), &"mcnemar".into()));
    assert_eq!(found["paired"], serde_json::json!({ "order": true, "head": true }));
    assert_eq!((&found["seeds"], &found["examples"]), (&serde_json::json!([0, 1]), &355.into()));

    // What is compared is what the runs came to.
    let candidate = &found["candidates"][0];
    let mut values = Vec::new();
    for (seed, run) in candidate["runs"].as_array().unwrap().iter().enumerate() {
        let folder = workdir.path().join(run["folder"].as_str().unwrap());
        assert!(folder.ends_with(format!("comparisons/demo/lora-1/seed-{seed}")));
        let result = result_json(&folder);
        assert_eq!(result["seed"], seed);
        assert_eq!(run["value"], result["tasks"]["digits"]["metrics"]["accuracy"]);
        assert_eq!(candidate["trainable"], result["parameters"]["trainable"]);
        values.push(run["value"].as_f64().unwrap());
    }
    let predictions = |seed: u64| {
        fs::read(workdir.path().join(format!("comparisons/demo/lora-1/seed-{seed}/predictions.csv"))).unwrap()
    };
    assert!(predictions(0) != predictions(1), "two seeds predict the same");
    let close = |found: &Value, expected: f64| assert!((found.as_f64().unwrap() - expected).abs() < 1e-12, "{found}");
    close(&candidate["mean"], (values[0] + values[1]) / 2.0);
    close(&candidate["spread"], (values[0] - values[1]).abs() / 2f64.sqrt());
    let page = fs::read_to_string(workdir.path().join("comparisons/demo/comparison.html")).unwrap();
    assert!(page.contains(said) && page.contains("<svg"), "{page}");
}

#[test]
fn run_files_are_compared_as_they_are_and_a_great_difference_is_resolved() {
    let workdir = Workdir::new();
    let run = |strategy: &str| {
        format!(
            "[model]\npath = \"demo\"\n[[task]]\nhead = {{ plugin = \"classification\" }}\ntrain = \"demo\"\ntest = \"demo\"\n\
             [[strategy]]\nplugin = \"{strategy}\"\n[train]\nbatch_size = 16\nlr = 1e-3\nsteps = 60\n"
        )
    };
    workdir.write("all.toml", run("full"));
    workdir.write("head.toml", run("freezing"));
    let outcome = workdir.fthost(["compare", "all.toml", "head.toml", "--seeds", "3", "--out", "c"]).succeeded();
    let found = comparison(&workdir, "c");
    let pair = &found["pairs"][0];
    assert_eq!(pair["resolved"], true, "{found}");
    assert!(pair["p_holm"].as_f64() < Some(0.05) && pair["interval"][0].as_f64() > Some(0.0), "{pair}");
    assert!(outcome.stdout.contains("all is better than head by "), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("run 6 of 6: head, seed 2, about "), "{}", outcome.stderr);

    // A metric that these predictions do not have ends the comparison after the first run, not after the last.
    let arguments = ["compare", "all.toml", "head.toml", "--seeds", "3", "--out", "d", "--metric", "spearman"];
    let error = on_one_line(&workdir.fthost(arguments).failed(2));
    assert!(error.contains("there is no metric \"spearman\" of these predictions"), "{error}");
    assert!(!workdir.path().join("d/head/seed-0").exists());

    // The other metrics are told from what the runs left; nothing runs again.
    let before = written(&workdir, "c/all/seed-0");
    let again = ["compare", "--resume", "--out", "c", "--metric", "macro_f1", "--quiet"];
    let outcome = workdir.fthost(again).succeeded();
    assert!(outcome.stdout.contains("all is better than head by ") && outcome.stderr.is_empty(), "{outcome:?}");
    assert_eq!(comparison(&workdir, "c")["pairs"][0]["test"], "randomization");
    assert_eq!(written(&workdir, "c/all/seed-0"), before);
    let error = workdir.fthost(["compare", "--resume", "--out", "c", "--metric", "mse"]).failed(2);
    assert!(on_one_line(&error).contains("there is no metric \"mse\" of these predictions"), "{error}");
    let again: Value =
        serde_json::from_str(&fs::read_to_string(workdir.path().join("c/candidates.json")).unwrap()).unwrap();
    assert_eq!(again["metric"], "macro_f1", "what is refused is not recorded");
    let error = workdir.fthost(["compare", "--resume", "--out", "c", "--metric", "loss"]).failed(2);
    assert!(on_one_line(&error).contains("there is no metric \"loss\" to compare by"), "{error}");
}

#[test]
fn a_plugin_that_aborts_loses_its_own_runs_only() {
    let workdir = Workdir::new();
    let run = "[model]\npath = \"demo\"\n[[task]]\nhead = { plugin = \"classification\" }\ntrain = \"demo\"\ntest = \"demo\"\n\
               [[strategy]]\nplugin = \"misbehaving\"\nat = \"event\"\nhow = \"abort\"\n";
    workdir.write("run.toml", run);
    let plugins =
        ["run.toml", "--plugin", "liblora.so", "--plugin", "libmisbehaving.so#misbehaving", "--plugin", "libbitfit.so"];
    let outcome = compare(&workdir, &[&plugins[..], &["--seeds", "1", "--out", "c"]].concat()).succeeded();
    let failed = "misbehaving failed in 1 of 1 runs: plugin misbehaving (libmisbehaving.so) ended the process in an event, with signal 6 (SIGABRT)";
    assert!(on_one_line(&outcome.stdout).contains(failed), "{}", outcome.stdout);
    let found = comparison(&workdir, "c");
    let pairs: Vec<_> = found["pairs"].as_array().unwrap().iter().map(|pair| (&pair["a"], &pair["b"])).collect();
    assert_eq!(pairs, [(&"lora".into(), &"bitfit".into())]);
    assert!(found["candidates"][1]["runs"][0]["error"].as_str().unwrap().contains("SIGABRT"), "{found}");

    // Of two, one is not enough.
    let outcome = compare(&workdir, &[&plugins[..5], &["--seeds", "1", "--out", "d"]].concat());
    let error = on_one_line(&outcome.failed(1));
    assert!(error.contains("nothing could be compared: misbehaving failed in 1 of 1 runs"), "{error}");
}

/// Starts a comparison and waits until something is there.
pub(crate) fn start_until(workdir: &Workdir, arguments: &[&str], there: impl Fn(&Path) -> bool) -> Child {
    let mut command = workdir.command(["compare"].iter().chain(arguments));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while !there(workdir.path()) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before");
        assert!(began.elapsed() < Duration::from_secs(60), "nothing after a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

const TWO: [&str; 8] = ["--plugin", "liblora.so", "--plugin", "libbitfit.so", "--seeds", "1", "--out", "c"];
const RESUME: [&str; 3] = ["--resume", "--out", "c"];

#[test]
fn a_comparison_that_is_stopped_goes_on_from_its_runs_checkpoint() {
    let workdir = Workdir::new();
    let arguments = [&TWO[..], &["--set", "train.epochs=8", "--set", "train.evaluate_before=false"]].concat();
    let first = |root: &Path| {
        fs::read_dir(root.join("c/lora/seed-0/checkpoints")).is_ok_and(|mut found| found.next().is_some())
    };
    let child = start_until(&workdir, &arguments, first);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let error = on_one_line(&String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(130), "{error}");
    assert!(error.contains("stopped at lora, seed 0: run 1 of 2"), "{error}");
    assert!(error.contains("go on with: fthost compare --resume --out c"), "{error}");
    let run = workdir.path().join("c/lora/seed-0");
    assert!(!run.join("result.json").exists());
    let log = run.join("metrics.jsonl").metadata().unwrap().ino();

    workdir.fthost(["compare"].iter().chain(&RESUME)).succeeded();
    assert_eq!(run.join("metrics.jsonl").metadata().unwrap().ino(), log, "the run was begun again");
    assert_eq!(steps(&run).len(), 8 * 91);
    assert_eq!(comparison(&workdir, "c")["pairs"].as_array().unwrap().len(), 1);
}

#[test]
fn a_comparison_that_is_killed_keeps_the_runs_that_had_ended() {
    let workdir = Workdir::new();
    let arguments = [&TWO[..], &SHORT].concat();
    let mut child = start_until(&workdir, &arguments, |root| root.join("c/bitfit/seed-0/run.toml").is_file());
    child.kill().unwrap();
    child.wait().unwrap();
    let before = written(&workdir, "c/lora/seed-0");
    workdir.fthost(["compare"].iter().chain(&RESUME)).succeeded();
    assert_eq!(written(&workdir, "c/lora/seed-0"), before);
    assert!(comparison(&workdir, "c")["candidates"][1]["mean"].is_f64());

    // Another comparison does not get this folder, and the same one gets more seeds.
    let refused = |arguments: &[&str]| {
        let before = workdir.listing();
        let error = compare(&workdir, arguments).failed(2);
        assert_eq!(workdir.listing(), before);
        on_one_line(&error)
    };
    assert!(refused(&TWO).contains("c exists already"));
    let others = ["--plugin", "libfull.so", "--plugin", "libbitfit.so", "--resume", "--out", "c"];
    let error = refused(&others);
    assert!(
        error.contains("belongs to another comparison: candidates: lora, bitfit then, full, bitfit now"),
        "{error}"
    );
    let error = refused(&[&TWO[..], &["--resume", "--set", "train.lr=0.1", "--set", "strategy.rank=2"]].concat());
    assert!(error.contains("lora: train.lr: 0.005 then, 0.1 now"), "{error}");
    assert!(error.contains("lora: strategy[0].rank: not set then, 2 now"), "{error}");
    let error = on_one_line(&workdir.fthost(["compare", "--resume", "--out", "c/lora"]).failed(2));
    assert!(error.contains("c/lora is no comparison's folder"), "{error}");

    workdir.fthost(["compare"].iter().chain(&RESUME).chain(&["--seeds", "2"])).succeeded();
    assert_eq!(comparison(&workdir, "c")["pairs"][0]["seeds"], serde_json::json!([0, 1]));
    assert_eq!(written(&workdir, "c/lora/seed-0"), before);
}

#[test]
fn a_result_of_a_head_that_has_been_rebuilt_since_is_not_compared() {
    let workdir = Workdir::new();
    // The working directory is looked in first.
    let head = workdir.path().join("libclassification.so");
    fs::copy(fthost_tests::build().plugin("classification"), &head).unwrap();
    compare(&workdir, &TWO).succeeded();
    let bytes = fs::read(&head).unwrap();
    fs::write(&head, [&bytes[..], b"rebuilt"].concat()).unwrap();
    let before = workdir.listing();
    let error = on_one_line(&workdir.fthost(["compare"].iter().chain(&RESUME)).failed(2));
    assert!(error.contains("c/lora/seed-0 has a result of plugin classification, and"), "{error}");
    assert!(error.contains("libclassification.so has changed since"), "{error}");
    assert_eq!(workdir.listing(), before);
    fs::write(&head, bytes).unwrap();
    workdir.fthost(["compare"].iter().chain(&RESUME)).succeeded();
}

#[test]
fn what_the_run_files_monitor_is_compared_or_refused_before_any_run() {
    let workdir = Workdir::new();
    let write = |name: &str, monitor: &str| {
        workdir.write(
            name,
            format!(
                "[model]\npath = \"demo\"\n[[task]]\nname = \"digits\"\nhead = {{ plugin = \"classification\" }}\ntrain = \"demo\"\n\
                 test = \"demo\"\nvalidation = 0.2\n[[strategy]]\nplugin = \"lora\"\n[train]\nsteps = 4\n{monitor}\n"
            ),
        );
    };
    write("a.toml", "monitor = \"macro_f1\"");
    write("b.toml", "monitor = \"digits.macro_f1\"");
    write("accuracy.toml", "monitor = \"accuracy\"");
    write("loss.toml", "monitor = \"loss\"");
    let refused = |files: [&str; 2], expected: &str| {
        let before = workdir.listing();
        let error = on_one_line(&workdir.fthost(["compare", files[0], files[1], "--seeds", "1"]).failed(2));
        assert!(error.contains(expected), "{error}");
        assert_eq!(workdir.listing(), before);
    };
    refused(["a.toml", "accuracy.toml"], "the run files monitor different metrics: a macro_f1, accuracy accuracy");
    refused(["loss.toml", "loss.toml"], "there is no metric \"loss\" to compare by: it is the head's own");
    workdir.fthost(["compare", "a.toml", "b.toml", "--seeds", "1", "--out", "c"]).succeeded();
    let found = comparison(&workdir, "c");
    assert_eq!(found["metric"], "macro_f1");
    let run = &found["candidates"][1]["runs"][0];
    let result = result_json(&workdir.path().join(run["folder"].as_str().unwrap()));
    assert_eq!(run["value"], result["tasks"]["digits"]["metrics"]["macro_f1"]);
}

#[test]
fn a_seed_of_its_own_does_nothing_in_a_comparison() {
    let workdir = Workdir::new();
    let error = on_one_line(&compare(&workdir, &[&TWO[..], &["--set", "train.seed=3"]].concat()).failed(2));
    assert!(error.contains("--set train.seed does nothing here") && error.contains("--seeds"), "{error}");
    assert!(!workdir.path().join("c").exists());
}
