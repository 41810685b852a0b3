//! `fthost auto`: what a search tries, that it never sees test examples, and what becomes of runs that fail or are stopped.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fthost_tests::{Outcome, Workdir, on_one_line, result_json, steps};
use serde_json::{Value, json};

/// A run of few steps, of which a third is a rung.
const SHORT: [&str; 4] = ["--set", "train.steps=30", "--set", "train.evaluate_before=false"];

fn auto(workdir: &Workdir, arguments: &[&str]) -> Outcome {
    workdir.fthost(["auto"].iter().chain(arguments).chain(&SHORT))
}

fn trail(workdir: &Workdir, folder: &str) -> Value {
    let file = workdir.path().join(folder).join("auto.json");
    serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap()
}

/// Of each run of a search: configuration, rung, and one more field.
fn trials<'a>(trail: &'a Value, field: &str) -> Vec<(&'a str, u64, &'a Value)> {
    let one =
        |trial: &'a Value| (trial["configuration"].as_str().unwrap(), trial["rung"].as_u64().unwrap(), &trial[field]);
    trail["trials"].as_array().unwrap().iter().map(one).collect()
}

/// When a run's result was written: it changes where the run is made again.
fn written(run: &Path) -> (i64, i64) {
    let file = run.join("result.json").metadata().unwrap();
    (file.mtime(), file.mtime_nsec())
}

#[test]
fn a_search_finds_a_configuration_and_never_sees_test_examples() {
    let workdir = Workdir::new();
    let plugins = ["--plugin", "liblora.so", "--plugin", "libbitfit.so", "--budget", "2", "--seed", "3"];
    let outcome = auto(&workdir, &plugins).succeeded();
    let found = trail(&workdir, "searches/demo");
    let search = &found["search"];
    assert_eq!(search["rungs"], json!([{ "configurations": 3, "steps": 10 }, { "configurations": 1, "steps": 30 }]));
    assert_eq!((&search["steps"], &search["lr"]), (&json!(30), &json!([5e-4, 5e-2])));
    let keys = |space: usize| {
        search["spaces"][space]["options"].as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>()
    };
    assert_eq!((keys(0), keys(1).len()), (vec!["strategy.alpha", "strategy.rank"], 0));
    assert_eq!(search["configurations"][0]["settings"], json!({ "train.lr": 0.005 }), "the first is the run file");

    // Its two rungs, by what the runs themselves say.
    let values = trials(&found, "value");
    let first: Vec<f64> = values[..3].iter().map(|(.., value)| value.as_f64().unwrap()).collect();
    assert!(first.is_sorted_by(|a, b| a >= b), "{values:?}");
    assert_eq!((values.len(), values[3].0, values[3].1), (4, values[0].0, 2));
    let best = &found["best"];
    assert_eq!((&best["configuration"], &best["value"]), (&values[3].0.into(), values[3].2));
    for ((name, rung, folder), (.., value)) in trials(&found, "folder").into_iter().zip(&values) {
        let run = workdir.path().join(folder.as_str().unwrap());
        assert_eq!(steps(&run).len(), if rung == 1 { 10 } else { 30 }, "{name}");
        let task = &result_json(&run)["tasks"]["digits"];
        assert_eq!((&task["watch"]["metric"], &task["watch"]["best"]["value"]), (&"accuracy".into(), *value));
    }
    assert!(outcome.stdout.contains(" is the best: validation accuracy "), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("a tenth of its training examples is set aside"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("rung 2 of 2, run 1 of 1: "), "{}", outcome.stderr);

    never_tested(&workdir, &found);

    // The best run file is the best run with the test examples put back.
    let command = best["command"].as_str().unwrap().strip_prefix("fthost ").unwrap();
    assert_eq!(command, "searches/demo/best.toml");
    workdir.fthost([command, "--out", "best"]).succeeded();
    let task = &result_json(&workdir.path().join("best"))["tasks"]["digits"];
    assert!(task["metrics"]["accuracy"].is_f64());
    assert_eq!(task["watch"]["best"]["value"], best["value"]);
}

/// That nothing in a search's folder comes of test examples, and that no weights are left in it.
fn never_tested(workdir: &Workdir, found: &Value) {
    for (name, _, folder) in trials(found, "folder") {
        let run = workdir.path().join(folder.as_str().unwrap());
        let task = &result_json(&run)["tasks"]["digits"];
        assert_eq!(task["metrics"], json!({}), "{name}");
        assert!(task.get("confusion").is_none() && task.get("report").is_none(), "{name}: {task}");
        let file: toml::Table = fs::read_to_string(run.join("run.toml")).unwrap().parse().unwrap();
        let task = file["task"][0].as_table().unwrap();
        assert!(!task.contains_key("test") && task["validation"].as_float() == Some(0.1), "{name}: {task}");
        let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let evaluations: Vec<Value> = log
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|line| line["event"] == "evaluation")
            .collect();
        assert!(!evaluations.is_empty() && evaluations.iter().all(|line| line["when"] == "validation"), "{log}");
    }
    let files = workdir.listing();
    assert!(files.iter().any(|file| file.ends_with("metrics.jsonl")), "{files:?}");
    let left = files.iter().find(|file| file.ends_with("predictions.csv") || file.ends_with(".safetensors"));
    assert_eq!(left, None);
}

const ONE: [&str; 6] = ["--plugin", "liblora.so", "--budget", "2", "--out", "s"];
const RANK: [&str; 2] = ["--set", "strategy.rank=3"];

#[test]
fn a_search_that_is_stopped_goes_on_and_keeps_its_results() {
    let workdir = Workdir::new();
    let mut command = workdir.command(["auto"].iter().chain(&ONE).chain(&SHORT).chain(&RANK));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let first = workdir.path().join("s/lora-1/rung-1");
    let began = Instant::now();
    while !first.join("result.json").is_file() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before");
        assert!(began.elapsed() < Duration::from_secs(60), "nothing after a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let error = on_one_line(&String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(130), "{error}");
    assert!(error.contains("go on with: fthost auto --resume --out s"), "{error}");
    assert!(!workdir.path().join("s/best.toml").exists());
    let before = (written(&first), trail(&workdir, "s")["search"].clone());

    let resume = ["auto", "--resume", "--out", "s", "--json"];
    let printed = workdir.fthost(resume).succeeded().stdout;
    let found: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(found, trail(&workdir, "s"));
    assert_eq!((written(&first), &found["search"]), (before.0, &before.1));
    assert_eq!(found["trials"].as_array().unwrap().len(), 4);
    // What the run file says stays; the other option is drawn.
    let options = found["search"]["spaces"][0]["options"].as_object().unwrap();
    assert_eq!(options.keys().collect::<Vec<_>>(), ["strategy.alpha"]);
    let best = fs::read_to_string(workdir.path().join("s/best.toml")).unwrap();
    assert!(best.contains("rank = 3") && best.contains("test = \"demo\""), "{best}");

    // Once more, and nothing runs.
    let runs: Vec<PathBuf> = trials(&found, "folder").iter().map(|(.., run)| run.as_str().unwrap().into()).collect();
    let when = |runs: &[PathBuf]| runs.iter().map(|run| written(&workdir.path().join(run))).collect::<Vec<_>>();
    let before = when(&runs);
    let again = workdir.fthost(resume).succeeded().stdout;
    assert_eq!((when(&runs), again), (before, printed));
    another_search_is_refused(&workdir);
}

/// In a folder with the search of `ONE` and `RANK`.
fn another_search_is_refused(workdir: &Workdir) {
    let refused = |arguments: &[&[&str]], expected: &str| {
        let before = workdir.listing();
        let error = on_one_line(&auto(workdir, &arguments.concat()).failed(2));
        assert_eq!(workdir.listing(), before);
        assert!(error.contains(expected), "{error}");
    };
    let resume = ["--resume"];
    refused(&[&ONE, &RANK], "s exists already");
    refused(&[&ONE, &resume], "lora: strategy[0].rank: 3 then, not set now");
    refused(&[&ONE, &RANK, &resume, &["--seed", "1"]], "lora: train.seed: 0 then, 1 now");
    refused(&[&ONE, &RANK, &resume, &["--lr", "1e-4..1e-3"]], "the learning rates: 5e-4..5e-2 then, 1e-4..1e-3 now");
    let more = ["--plugin", "liblora.so", "--budget", "3", "--out", "s", "--resume"];
    refused(&[&more, &RANK], "s belongs to another search: the budget: 2 then, 3 now");
    let other = ["--plugin", "libfull.so", "--out", "s", "--resume"];
    refused(&[&other], "candidates: lora then, full now");
    let error = on_one_line(&workdir.fthost(["auto", "--resume", "--out", "s/lora-1"]).failed(2));
    assert!(error.contains("s/lora-1 is no search's folder"), "{error}");
}

#[test]
fn a_plugin_that_aborts_loses_its_own_runs_only() {
    let workdir = Workdir::new();
    let run = "[model]\npath = \"demo\"\n[[task]]\nname = \"digits\"\nhead = { plugin = \"classification\" }\n\
               train = \"demo\"\ntest = \"demo\"\n[[strategy]]\nplugin = \"misbehaving\"\nat = \"event\"\nhow = \"abort\"\n";
    workdir.write("run.toml", run);
    let plugins =
        ["run.toml", "--plugin", "libmisbehaving.so#misbehaving", "--plugin", "libbitfit.so", "--budget", "2"];
    let outcome = auto(&workdir, &[&plugins[..], &["--out", "s"]].concat()).succeeded();
    let failed = "misbehaving-1 failed in rung 1: plugin misbehaving (libmisbehaving.so) ended the process in an event, with signal 6 (SIGABRT)";
    assert!(on_one_line(&outcome.stdout).contains(failed), "{}", outcome.stdout);
    let found = trail(&workdir, "s");
    let kept: Vec<_> = trials(&found, "kept").iter().map(|(name, rung, kept)| (*name, *rung, kept.as_bool())).collect();
    let expected = [
        ("bitfit-1", 1, Some(true)),
        ("misbehaving-1", 1, Some(false)),
        ("misbehaving-2", 1, Some(false)),
        ("bitfit-1", 2, Some(false)),
    ];
    assert_eq!(kept, expected);
    assert_eq!(found["best"]["configuration"], "bitfit-1");

    // Where every run fails there is nothing to choose, and the trail says so.
    let error = on_one_line(&auto(&workdir, &["run.toml", "--budget", "2", "--out", "t"]).failed(1));
    assert!(error.contains("no run of the search has a result: misbehaving-1 failed in rung 1"), "{error}");
    assert_eq!(
        (trail(&workdir, "t")["trials"].as_array().unwrap().len(), workdir.path().join("t/best.toml").exists()),
        (3, false)
    );
}

#[test]
fn what_cannot_be_searched_is_refused_before_anything_is_written() {
    let workdir = Workdir::new();
    let refused = |arguments: &[&str], code: i32, expected: &str| {
        let before = workdir.listing();
        let error = on_one_line(&auto(&workdir, arguments).failed(code));
        assert_eq!(workdir.listing(), before);
        assert!(error.contains(expected), "{error}");
    };
    refused(&["--budget", "2"], 2, "there is no strategy to search");
    let two = ["--plugin", "liblora.so", "--plugin", "libfull.so", "--budget", "1"];
    refused(&two, 2, "the budget of 1 whole runs is not enough to try each of 2 strategies");
    refused(&["--plugin", "libconstant.so", "--budget", "1"], 2, "--plugin libconstant.so has no strategy");
    refused(&["--plugin", "liblora.so", "--budget", "0"], 2, "a budget is a number of whole runs");
    let seen = ["--plugin", "liblora.so", "--budget", "1", "--set", "task.validation=demo"];
    refused(&seen, 2, "demo holds both the validation and the test examples");
    let nowhere = ["--plugin", "liblora.so", "--budget", "1", "--set", "task.train=nowhere.tsv"];
    refused(&nowhere, 1, "no strategy can run: lora: ");
}

#[test]
fn a_result_of_a_head_that_has_been_rebuilt_since_is_not_taken() {
    let workdir = Workdir::new();
    // The working directory is looked in first.
    let head = workdir.path().join("libclassification.so");
    fs::copy(fthost_tests::build().plugin("classification"), &head).unwrap();
    auto(&workdir, &ONE).succeeded();
    let bytes = fs::read(&head).unwrap();
    fs::write(&head, [&bytes[..], b"rebuilt"].concat()).unwrap();
    let resume = ["auto", "--resume", "--out", "s"];
    let error = on_one_line(&workdir.fthost(resume).failed(2));
    assert!(error.contains("s/lora-1/rung-1 has a result of plugin classification, and"), "{error}");
    fs::write(&head, bytes).unwrap();
    workdir.fthost(resume).succeeded();
}
