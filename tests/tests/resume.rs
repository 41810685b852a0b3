//! Runs that end early, however they end, and go on to the same bits.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fthost_tests::{Workdir, on_one_line, result_json, steps};
use serde_json::Value;

use crate::text::{LORA, RUN, text_workdir};

/// A run of many short steps, with dropout as its model's config says, and a checkpoint every few of them.
pub(crate) fn long_workdir(strategy: &str) -> Workdir {
    let workdir = text_workdir();
    let run = RUN.replace("epochs = 2", "epochs = 60\ncheckpoint_steps = 7").replace("lr = 0.01", "lr = 0.001");
    workdir.write("run.toml", run.replace(LORA, strategy));
    workdir
}

/// What a run came to: its weights and its log, without what a clock says.
pub(crate) fn bits(run: &Path) -> (Vec<u8>, Vec<Value>, Value) {
    let weights = ["adapter/adapter_model.safetensors", "model/model.safetensors"];
    let weights = weights.iter().find_map(|file| fs::read(run.join(file)).ok()).expect("weights are saved");
    let mut log = steps(run);
    log.iter_mut().for_each(|step| drop(step.as_object_mut().unwrap().remove("seconds")));
    (weights, log, result_json(run)["tasks"].clone())
}

pub(crate) fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(run.join("checkpoints")) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.file_name().unwrap().to_string_lossy().starts_with("step-"));
    files.sort();
    files
}

/// Starts the host and waits until it has written a checkpoint that was not there, or has ended.
pub(crate) fn start_until_checkpoint(workdir: &Workdir, arguments: &[&str]) -> Child {
    let run = workdir.path().join("run");
    let before = checkpoints(&run);
    let mut command = workdir.command(arguments);
    // A group of its own: it can be stopped as a terminal stops it.
    let mut child = command.process_group(0).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while checkpoints(&run).last() <= before.last() && child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(60), "no checkpoint after a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// Takes a run that has ended, because a busy machine let it, back to where a kill after its last checkpoint but one would have left it.
pub(crate) fn set_back(run: &Path) {
    fs::remove_file(run.join("result.json")).unwrap();
    for newer in &checkpoints(run)[1..] {
        fs::remove_file(newer).unwrap();
    }
}

/// How a run ended that got a signal after a checkpoint.
fn signalled(workdir: &Workdir, arguments: &[&str], name: &str) -> Output {
    let mut arguments = arguments;
    loop {
        let child = start_until_checkpoint(workdir, arguments);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        if output.status.code() != Some(0) {
            return output;
        }
        set_back(&workdir.path().join("run"));
        arguments = &RESUME;
    }
}

const START: [&str; 4] = ["--config", "run.toml", "--out", "run"];
const RESUME: [&str; 3] = ["--resume", "--out", "run"];

/// Kills the run in `killed` so many times, at moments that differ from run to run of the test, lets it end, and compares it with the one
/// that goes through in `through`.
pub(crate) fn ends_with_the_same_bits(through: &Workdir, killed: &Workdir, start: &[&str], kills: usize, what: &str) {
    let mut random = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    through.fthost(start).succeeded();
    for attempt in 0..kills {
        let arguments: &[&str] = if attempt == 0 { start } else { &RESUME };
        let mut child = start_until_checkpoint(killed, arguments);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros(random >> 50)); // up to 16 ms
        if let Some(status) = child.try_wait().unwrap() {
            let output = child.wait_with_output().unwrap();
            assert!(status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            set_back(&killed.path().join("run"));
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // It may have ended before the kill came.
        if killed.path().join("run/result.json").is_file() {
            set_back(&killed.path().join("run"));
        }
    }
    killed.fthost(RESUME).succeeded();
    let (expected, found) = (bits(&through.path().join("run")), bits(&killed.path().join("run")));
    assert_eq!(expected.1, found.1, "{what}: the logs differ after {kills} kills");
    assert_eq!(expected.2, found.2, "{what}: the results differ after {kills} kills");
    assert!(expected.0 == found.0, "{what}: the weights differ after {kills} kills");
}

#[test]
fn killed_at_random_moments_a_run_ends_with_the_same_bits() {
    let unfreezing = "[[strategy]]\nplugin = \"freezing\"\nunfreeze = { every = { steps = 90 } }\ndecay = 0.5";
    for strategy in [LORA, "plugin = \"full\"", &format!("{LORA}\n\n{unfreezing}")] {
        // Long enough for twenty kills, where many steps pass between two of them.
        let start: Vec<&str> = START.into_iter().chain(["--set", "train.epochs=150"]).collect();
        ends_with_the_same_bits(&long_workdir(strategy), &long_workdir(strategy), &start, 20, strategy);
    }
}

#[test]
fn a_loss_of_a_whole_batch_ends_with_the_same_bits_too() {
    let head = "\"prototypical\", ways = 2, shots = 2, queries = 3";
    let workdir = || {
        let workdir = long_workdir("plugin = \"full\"");
        let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
        workdir.write("run.toml", run.replace("\"classification\"", head));
        workdir
    };
    for set in ["train.threads=2", "train.micro_batch=3"] {
        let start: Vec<&str> = START.into_iter().chain(["--set", set]).collect();
        ends_with_the_same_bits(&workdir(), &workdir(), &start, 3, set);
    }
}

#[test]
fn what_thaws_after_the_best_model_goes_back_in_a_killed_run_too() {
    let unfreezing = "plugin = \"freezing\"\ntop = 0\nunfreeze = { every = { steps = 30 } }";
    let watched =
        ["task.validation=test.tsv", "train.monitor=loss", "train.lr=0.05", "train.precision=f16", "train.epochs=30"];
    let start: Vec<&str> = START.into_iter().chain(watched.into_iter().flat_map(|set| ["--set", set])).collect();
    ends_with_the_same_bits(&long_workdir(unfreezing), &long_workdir(unfreezing), &start, 1, "unfreezing in f16");
}

#[test]
fn several_tasks_end_with_the_same_bits_too() {
    let second = "\n[[task]]\nname = \"words\"\nhead = { plugin = \"classification\" }\ntrain = \"words.tsv\"\ntest = \"words.tsv\"\nvalidation = \"test.tsv\"\n";
    let held = "\n[[regularizer]]\nplugin = \"ewc\"\n\n[[regularizer]]\nplugin = \"distill\"\n";
    let workdir = |order: &str, more: &str| {
        let workdir = long_workdir("plugin = \"full\"");
        workdir.write("words.tsv", fs::read_to_string(workdir.path().join("train.tsv")).unwrap().repeat(2));
        let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
        let run = run.replace("\n[[strategy]]", &format!("{second}\n[[strategy]]"));
        workdir.write("run.toml", run.replace("[train]\n", &format!("[train]\ntasks = \"{order}\"\n")) + more);
        workdir
    };
    let start: Vec<&str> = START.into_iter().chain(["--set", "train.epochs=15"]).collect();
    ends_with_the_same_bits(&workdir("joint", ""), &workdir("joint", ""), &start, 1, "joint");
    ends_with_the_same_bits(&workdir("sequence", held), &workdir("sequence", held), &start, 1, "sequence");
}

#[test]
fn a_signal_ends_the_run_with_a_checkpoint_and_says_how_to_go_on() {
    let workdir = long_workdir(LORA);
    for name in ["-INT", "-TERM"] {
        let arguments: &[&str] = if name == "-INT" { &START } else { &RESUME };
        let output = signalled(&workdir, arguments, name);
        let error = on_one_line(&String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(130), "{error}");
        assert!(error.contains("stopped after step ") && error.contains(" of 240"), "{error}");
        assert!(error.contains("go on with: fthost --resume --out run"), "{error}");
        assert!(!workdir.path().join("run/result.json").exists());
    }
    workdir.fthost(RESUME).succeeded();
    let through = long_workdir(LORA);
    through.fthost(START).succeeded();
    assert_eq!(bits(&through.path().join("run")), bits(&workdir.path().join("run")));
}

/// A run that was stopped after some steps.
fn stopped() -> Workdir {
    let workdir = long_workdir(LORA);
    assert_eq!(signalled(&workdir, &START, "-INT").status.code(), Some(130));
    workdir
}

#[test]
fn a_run_that_is_not_the_same_is_not_resumed() {
    let workdir = stopped();
    let refused = |workdir: &Workdir, more: &[&str]| {
        let before = workdir.listing();
        let error = workdir.fthost(START.iter().chain(&["--resume"]).chain(more)).failed(2);
        assert_eq!(workdir.listing(), before, "a refused resume changed something");
        on_one_line(&error)
    };
    let error = refused(&workdir, &["--set", "train.lr=0.002", "--set", "strategy.rank=2"]);
    assert!(error.contains("belongs to another run: strategy[0].rank: 4 then, 2 now"), "{error}");
    assert!(error.contains("train.lr: 0.001 then, 0.002 now"), "{error}");

    let train = fs::read_to_string(workdir.path().join("train.tsv")).unwrap();
    workdir.write("train.tsv", format!("{train}one more\t1\n"));
    let error = refused(&workdir, &[]);
    assert!(error.contains("the contents of train.tsv: ") && error.contains(" then, "), "{error}");
    workdir.write("train.tsv", train);

    let tiny = fthost_tests::root().join("tests/reference/tiny/bert/model.safetensors");
    let mut weights = fs::read(tiny).unwrap();
    let middle = weights.len() / 2;
    weights[middle] ^= 1;
    let good = fs::read(workdir.path().join("model/model.safetensors")).unwrap();
    workdir.write("model/model.safetensors", weights);
    let error = refused(&workdir, &[]);
    assert!(error.contains("the model's weights: "), "{error}");
    workdir.write("model/model.safetensors", good);

    workdir.fthost(START.iter().chain(&["--resume", "--threads", "1"])).succeeded();
}

#[test]
fn a_run_goes_on_with_other_kernels_only_where_they_are_named() {
    let workdir = long_workdir(LORA);
    let with = |workdir: &Workdir, kernels: Option<&str>, arguments: &[&str]| {
        let mut command = workdir.command(arguments);
        command.env_remove("FTHOST_KERNELS").envs(kernels.map(|kernels| ("FTHOST_KERNELS", kernels)));
        command
    };
    let unknown = workdir.run(with(&workdir, Some("mmx"), &START));
    let unknown = on_one_line(&unknown.failed(2));
    assert!(
        unknown.contains("FTHOST_KERNELS is \"mmx\"") && unknown.contains("this processor has portable"),
        "{unknown}"
    );
    let Some((_, best)) = unknown.rsplit_once(", ") else {
        return fthost_tests::skipped("this processor has portable kernels alone");
    };
    let best = best.trim().to_owned();

    let mut child =
        with(&workdir, Some("portable"), &START).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while checkpoints(&workdir.path().join("run")).is_empty() && child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(60), "no checkpoint after a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));

    let before = workdir.listing();
    let error = on_one_line(&workdir.run(with(&workdir, None, &RESUME)).failed(2));
    assert!(error.contains("the processor's kernels: ") && error.contains(" portable then, "), "{error}");
    assert!(error.contains("set FTHOST_KERNELS=portable to go on with the kernels that it began with"), "{error}");
    assert_eq!(workdir.listing(), before, "a refused resume changed something");

    // With its own kernels it ends as one that went through; with others, named, it goes on and says so.
    let copy = Workdir::new();
    for file in workdir.listing().iter().filter(|file| workdir.path().join(file).is_file()) {
        copy.write(file, fs::read(workdir.path().join(file)).unwrap());
    }
    workdir.run(with(&workdir, Some("portable"), &RESUME)).succeeded();
    let through = long_workdir(LORA);
    through.run(with(&through, Some("portable"), &START)).succeeded();
    assert_eq!(bits(&through.path().join("run")), bits(&workdir.path().join("run")));
    let outcome = copy.run(with(&copy, Some(&best), &RESUME)).succeeded();
    assert!(
        outcome.stderr.contains("the processor's kernels: ") && outcome.stderr.contains("the last bits"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let workdir = long_workdir(LORA);
    workdir.fthost(START).succeeded();
    let run = workdir.path().join("run");
    let through = bits(&run);
    // As a kill would have left it that came while the newest of both was written.
    let files = checkpoints(&run);
    assert_eq!(files.len(), 2, "{files:?}");
    let bytes = fs::read(&files[1]).unwrap();
    fs::write(&files[1], &bytes[..bytes.len() / 2]).unwrap();
    fs::remove_file(run.join("result.json")).unwrap();
    let outcome = workdir.fthost(RESUME).succeeded();
    assert!(outcome.stderr.contains("the checkpoint before it is used"), "{}", outcome.stderr);
    assert_eq!(through, bits(&run));
}

#[test]
fn a_folder_serves_one_run_at_a_time() {
    let workdir = long_workdir(LORA);
    let mut arguments: &[&str] = &START;
    let mut child = loop {
        let mut child = start_until_checkpoint(&workdir, arguments);
        // Held, it is at work as long as it is looked at.
        let group = format!("-{}", child.id());
        assert!(Command::new("kill").args(["-STOP", "--", &group]).status().unwrap().success());
        if child.try_wait().unwrap().is_none() {
            break child;
        }
        set_back(&workdir.path().join("run"));
        arguments = &RESUME;
    };
    let error = on_one_line(&workdir.fthost(RESUME).failed(2));
    assert!(error.contains("another run is at work in run"), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_best_model_on_the_validation_examples_is_saved() {
    let workdir = text_workdir();
    // A rate that is far too high soon makes the model worse.
    let settings = ["train.lr=0.05", "train.epochs=30", "train.patience=3", "train.monitor=loss"];
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    let validation = ["--set", "task.validation=test.tsv"];
    workdir.fthost(START.iter().copied().chain(validation).chain(settings)).succeeded();
    let run = workdir.path().join("run");
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let watched: Vec<Value> = lines.filter(|line| line["when"] == "validation").collect();
    let losses: Vec<f64> = watched.iter().map(|line| line["metrics"]["loss"].as_f64().unwrap()).collect();
    let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
    let at = losses.iter().position(|loss| *loss == best).unwrap();
    assert_eq!(losses.len(), at + 1 + 3, "three evaluations after the best one training stops: {losses:?}");
    let result = result_json(&run);
    let task = &result["tasks"]["sentiment"];
    assert_eq!(task["watch"]["best"]["step"], watched[at]["step"]);
    assert_eq!(task["metrics"]["loss"].as_f64(), Some(best), "the test file is the validation file");
}

#[test]
fn a_share_of_the_training_examples_is_held_out() {
    let workdir = text_workdir();
    workdir.fthost(START.iter().chain(&["--set", "task.validation=0.25"])).succeeded();
    let result = result_json(&workdir.path().join("run"));
    // 32 examples, 16 of each class.
    assert_eq!(result["plan"]["examples"], 24);
    assert_eq!(result["train"]["samples"], 48);
    let text = fs::read_to_string(workdir.path().join("run/metrics.jsonl")).unwrap();
    assert_eq!(text.lines().filter(|line| line.contains("\"validation\"")).count(), 2);
}
