//! The best model on the validation examples: what is saved is what was evaluated, whatever has trained, thawed or been set since.

use std::fs;
use std::path::Path;

use fthost_tests::{Workdir, result_json, root};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::text::{LORA, RUN, text_workdir};

/// Thaws a block group with each epoch.
const UNFREEZING: &str = "plugin = \"freezing\"\ntop = 0\nunfreeze = { every = { epochs = 1 } }";

/// A folder whose run watches the loss on its test examples, at a rate that rises until all gets worse.
fn watched(strategies: &str) -> Workdir {
    let workdir = text_workdir();
    let run = RUN.replace(LORA, strategies).replace("test = ", "validation = \"test.tsv\"\ntest = ");
    let run = run.replace("epochs = 2", "epochs = 6\nmonitor = \"loss\"");
    let rising = "[schedule]\nplugin = \"exponential\"\ngamma = 4.0\n\n[train]";
    let run = run.replace("[train]", rising);
    workdir.write("run.toml", run);
    workdir
}

/// Steps and losses of the evaluations of this kind of a task.
fn losses(run: &Path, task: &str, when: &str) -> Vec<(u64, f64)> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of = lines.filter(|line| line["when"] == when && line["task"] == task);
    of.map(|line| (line["step"].as_u64().unwrap(), line["metrics"]["loss"].as_f64().unwrap())).collect()
}

/// The evaluation with the lowest loss, which is not the last.
#[track_caller]
fn best(run: &Path, task: &str) -> (u64, f64) {
    let losses = losses(run, task, "validation");
    let best = losses.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert!(best != losses[losses.len() - 1], "the last was the best, so there is nothing to see: {losses:?}");
    best
}

fn evaluated(workdir: &Workdir, of: &[&str]) -> f64 {
    let stdout = workdir.fthost(["eval", "run", "test.tsv", "--json"].iter().chain(of)).succeeded().stdout;
    let found: Value = serde_json::from_str(&stdout).unwrap();
    let task = found["tasks"].as_object().unwrap().values().next().unwrap();
    task["metrics"]["loss"].as_f64().unwrap()
}

#[test]
fn what_thaws_after_the_best_evaluation_goes_back() {
    for strategies in [UNFREEZING.to_owned(), format!("{LORA}\n\n[[strategy]]\n{UNFREEZING}")] {
        for more in ["train.lr=0.01", "train.lr=0.03", "train.patience=3"] {
            let workdir = watched(&strategies);
            workdir.fthost(["--config", "run.toml", "--out", "run", "--set", more]).succeeded();
            let run = workdir.path().join("run");
            let (step, loss) = best(&run, "sentiment");
            let result = result_json(&run);
            let task = &result["tasks"]["sentiment"];
            assert_eq!(task["watch"]["best"]["step"], step, "{strategies}");
            assert_eq!(
                task["metrics"]["loss"].as_f64(),
                Some(loss),
                "{strategies}: the test file is the validation file"
            );
            assert_eq!(evaluated(&workdir, &[]), loss, "{strategies}: what is saved is what was evaluated");
        }
    }
}

#[test]
fn a_run_that_stops_early_says_when_and_which_step_was_best() {
    let workdir = watched(LORA);
    let run = workdir.path().join("run");
    let said = workdir.fthost(["--config", "run.toml", "--out", "run", "--set", "train.patience=1"]).succeeded().stdout;
    let (step, _) = best(&run, "sentiment");
    let result = result_json(&run);
    let stopped = result["train"]["steps"].as_u64().unwrap();
    assert!(stopped > step && stopped < result["plan"]["steps"].as_u64().unwrap(), "{stopped}");
    assert_eq!(result["tasks"]["sentiment"]["watch"]["stopped_early"], stopped);
    assert!(
        said.contains(&format!("stopped early at step {stopped}, best at step {step}: 1 evaluation without")),
        "{said}"
    );

    let said = workdir.fthost(["--config", "run.toml", "--out", "whole"]).succeeded().stdout;
    assert!(!said.contains("stopped early"), "{said}");
    let result = result_json(&workdir.path().join("whole"));
    assert!(result["tasks"]["sentiment"]["watch"].get("stopped_early").is_none());
}

/// The parameters that have other values in a model than in the tiny BERT.
fn moved(model: &Path) -> Vec<String> {
    let (before, after) =
        (fs::read(root().join("tests/reference/tiny/bert/model.safetensors")).unwrap(), fs::read(model).unwrap());
    let (before, after) = (SafeTensors::deserialize(&before).unwrap(), SafeTensors::deserialize(&after).unwrap());
    let of_encoder = after.names().into_iter().filter(|name| name.starts_with("bert."));
    let moved = of_encoder.filter(|name| before.tensor(name).unwrap().data() != after.tensor(name).unwrap().data());
    moved.map(ToString::to_string).collect()
}

#[test]
fn what_had_not_thawed_by_then_has_its_pretrained_values() {
    let workdir = watched(UNFREEZING);
    // The first epoch trains the head alone, the second the top block too.
    workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded();
    let run = workdir.path().join("run");
    assert_eq!(best(&run, "sentiment").0, 8, "{:?}", losses(&run, "sentiment", "validation"));
    let moved = moved(&run.join("model/model.safetensors"));
    let top = |name: &String| name.contains("layer.1.") || name.contains("pooler.");
    assert!(!moved.is_empty() && moved.iter().all(top), "{moved:?}");
}

#[test]
fn each_task_of_a_sequence_begins_with_the_best_model_of_the_one_before() {
    let workdir = watched(UNFREEZING);
    let second = "\n[[task]]\nname = \"again\"\nhead = { plugin = \"classification\" }\ntrain = \"train.tsv\"\nvalidation = \"test.tsv\"\ntest = \"test.tsv\"\n";
    let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
    let run = run.replace("\n[[strategy]]", &format!("{second}\n[[strategy]]"));
    let held = "\n[[regularizer]]\nplugin = \"ewc\"\n\n[[regularizer]]\nplugin = \"l2sp\"\n";
    workdir.write("run.toml", run.replace("[train]\n", "[train]\ntasks = \"sequence\"\n") + held);
    workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded();
    let run = workdir.path().join("run");
    let after = losses(&run, "sentiment", "after sentiment");
    assert_eq!(after.iter().map(|(_, loss)| *loss).collect::<Vec<_>>(), [best(&run, "sentiment").1]);
    let result = result_json(&run);
    assert_eq!(result["tasks"]["again"]["metrics"]["loss"].as_f64(), Some(best(&run, "again").1));
    assert_eq!(evaluated(&workdir, &["--task", "again"]), best(&run, "again").1);
}

#[test]
fn the_best_of_a_few_adapters_takes_no_more_than_they_do() {
    let workdir = watched(&format!("{LORA}\n\n[[strategy]]\n{UNFREEZING}"));
    workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded();
    let run = workdir.path().join("run");
    let size = |file: &Path| fs::metadata(file).unwrap().len();
    let bests = fs::read_dir(run.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path());
    let best = bests.filter(|file| file.file_name().unwrap().to_string_lossy().starts_with("best-")).max().unwrap();
    // Headers apart: names, flags and what the run's numbers follow from.
    let (best, adapter) = (size(&best), size(&run.join("adapter/adapter_model.safetensors")));
    assert!(best < adapter + 16_384, "{best} bytes beside {adapter} of the adapter");
}
