//! What a loss and a penalty are divided by: examples that count for nothing, weights that are refused, steps that are left out.

use std::fs;
use std::path::Path;

use fthost_tests::{Workdir, on_one_line, result_json, root, steps};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::text::{LORA, RUN, text_workdir};

/// A run of single examples, half of which are of a class of weight 0.
fn half_weightless(head: &str) -> Workdir {
    let workdir = text_workdir();
    let run = RUN.replace("plugin = \"classification\"", head).replace("batch_size = 8", "batch_size = 1");
    workdir.write("run.toml", run);
    workdir
}

const WEIGHTLESS: &str = "plugin = \"classification\", class_weights = [0.0, 1.0]";

fn run<'a>(workdir: &Workdir, out: &'a str, sets: &[&'a str]) -> (Value, Vec<Value>, String) {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let outcome = workdir.fthost(["--config", "run.toml", "--out", out].into_iter().chain(sets)).succeeded();
    let folder = workdir.path().join(out);
    (result_json(&folder), steps(&folder), outcome.stderr)
}

/// Numbers of every step, which JSON knows as such only where they are finite.
#[track_caller]
fn finite(log: &[Value]) {
    for step in log {
        assert!(step["loss"].is_f64() && step["gradient_norm"].is_number(), "{step}");
    }
}

fn weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("adapter/adapter_model.safetensors")).unwrap()
}

#[test]
fn a_step_without_weight_changes_nothing_and_the_run_goes_on() {
    let workdir = half_weightless(WEIGHTLESS);
    let (result, log, said) = run(&workdir, "run", &["schedule.plugin=constant"]);
    finite(&log);
    let empty: Vec<&Value> = log.iter().filter(|step| step["left_out"] == "no weight").collect();
    assert_eq!(empty.len(), 32, "half of the 32 examples, twice");
    assert_eq!(result["train"]["empty_steps"], 32);
    assert!(empty.iter().all(|step| step["loss"] == 0.0 && step["penalty"].is_null()), "{empty:?}");
    assert!(log.iter().all(|step| (step["loss"] == 0.0) == (step["left_out"] == "no weight")), "{log:?}");
    let warnings = said.matches("no example of the batch counts in the loss").count();
    assert_eq!(warnings, 1, "{said}");

    // With an empty step more it is the same model; with a full one it is another.
    let saved = |steps: u64| {
        let out = format!("steps-{steps}");
        let steps = format!("train.steps={steps}");
        let folder = workdir.path().join(&out);
        if !folder.exists() {
            run(&workdir, &out, &["schedule.plugin=constant", &steps, "train.epochs=3"]);
        }
        weights(&folder)
    };
    let step = |left_out: bool| {
        let found = log.iter().skip(1).find(|step| (step["left_out"] == "no weight") == left_out);
        found.unwrap()["step"].as_u64().unwrap()
    };
    assert!(saved(step(true)) == saved(step(true) - 1), "a step without weight changed the model");
    assert!(saved(step(false)) != saved(step(false) - 1), "a step with weight changed nothing");
}

#[test]
fn no_head_precision_or_accumulation_makes_nothing_a_number_that_is_none() {
    let check = |workdir: &Workdir, sets: &[&str]| {
        let (result, log, _) = run(workdir, &format!("run-{}", sets.join("-").replace(['.', '=', '"'], "_")), sets);
        finite(&log);
        assert!(
            result["train"]["loss"].is_f64()
                && result["tasks"].as_object().unwrap().values().all(|task| task["metrics"]["loss"].is_f64())
        );
        log.iter().filter(|step| step["left_out"] == "no weight").count()
    };
    let workdir = half_weightless(WEIGHTLESS);
    assert_eq!(check(&workdir, &["train.precision=bf16"]), 32);
    assert_eq!(check(&workdir, &["train.precision=f16"]), 32);
    // A part of a step without weight is no step without weight.
    let together = check(&workdir, &["train.accumulate=2"]);
    assert!(together > 0 && together < 16, "{together}");
    assert_eq!(check(&workdir, &["train.batch_size=32"]), 0);
    let smoothed = half_weightless("plugin = \"classification\", class_weights = [0.0, 1.0], label_smoothing = 0.1");
    assert_eq!(check(&smoothed, &["train.clip_norm=1.0"]), 32);

    // Words of the first class alone count: sentences without one have nothing to teach.
    let workdir = text_workdir();
    let rows = fs::read_to_string(root().join("plugins/token-classification/example.jsonl")).unwrap();
    workdir.write("train.jsonl", &rows);
    workdir.write("test.jsonl", &rows);
    let labels: std::collections::BTreeSet<String> = rows
        .lines()
        .flat_map(|row| serde_json::from_str::<Value>(row).unwrap()["label"].as_array().unwrap().clone())
        .map(|label| label.as_str().unwrap().to_owned())
        .collect();
    let weights =
        labels.iter().map(|label| if label.starts_with("B-") { "1.0" } else { "0.0" }).collect::<Vec<_>>().join(", ");
    let head = format!("plugin = \"token-classification\", class_weights = [{weights}]");
    let run = RUN.replace("plugin = \"classification\"", &head).replace(".tsv", ".jsonl");
    workdir.write("run.toml", run.replace("batch_size = 8", "batch_size = 1"));
    check(&workdir, &["train.epochs=1"]);
}

#[test]
fn lr_find_passes_over_steps_without_weight() {
    let workdir = half_weightless(WEIGHTLESS);
    let found = workdir.fthost(["lr-find", "--config", "run.toml", "--json", "--steps", "20"]).succeeded().stdout;
    let found: Value = serde_json::from_str(&found).unwrap();
    let points = found["points"].as_array().unwrap();
    let losses: Vec<f64> = points.iter().filter_map(|point| point["loss"].as_f64()).collect();
    assert!(losses.len() >= 5 && losses.iter().all(|loss| *loss > 0.0), "{found}");
    assert!(points.iter().filter(|point| !point["loss"].is_null()).all(|point| point["noise"].is_f64()), "{found}");
}

#[test]
fn a_loss_over_nothing_is_no_metric() {
    let workdir = half_weightless(WEIGHTLESS);
    let weightless: String = fs::read_to_string(workdir.path().join("test.tsv"))
        .unwrap()
        .lines()
        .filter(|row| row.ends_with("\t0"))
        .map(|row| format!("{row}\n"))
        .collect();
    workdir.write("weightless.tsv", weightless);
    let sets = ["task.validation=weightless.tsv", "task.test=weightless.tsv", "train.monitor=accuracy"];
    let (result, _, _) = run(&workdir, "run", &sets);
    let metrics = &result["tasks"]["sentiment"]["metrics"];
    assert!(metrics["accuracy"].is_f64() && metrics.get("loss").is_none(), "{metrics}");
    let sets = [sets[0], sets[1], "train.monitor=loss"].into_iter().flat_map(|set| ["--set", set]);
    let error =
        on_one_line(&workdir.fthost(["--config", "run.toml", "--out", "watched"].into_iter().chain(sets)).failed(1));
    assert!(error.contains("no validation example of the task sentiment counts in its loss"), "{error}");
    assert!(error.contains("watch another metric by train.monitor"), "{error}");
}

#[test]
fn class_weights_that_cannot_be_meant_are_refused_before_the_first_step() {
    for head in ["classification", "token-classification"] {
        for (weights, expected) in [
            ("[-1.0, 1.0]", "class_weights[0] is -1, and must be a number from 0 up"),
            ("[0.0, 0.0]", "class_weights are all 0"),
            ("[1e40, 1.0]", "class_weights[0] is inf"),
        ] {
            let workdir = text_workdir();
            let head = format!("plugin = \"{head}\", class_weights = {weights}");
            let run = RUN.replace("plugin = \"classification\"", &head);
            if head.contains("token") {
                let row = |word: &str, label: &str| {
                    format!("{{\"text\": [\"{word}\", \"film\"], \"label\": [\"{label}\", \"O\"]}}\n")
                };
                workdir.write("words.jsonl", row("good", "B") + &row("bad", "B"));
                workdir.write("run.toml", run.replace("train.tsv", "words.jsonl").replace("test.tsv", "words.jsonl"));
            } else {
                workdir.write("run.toml", run);
            }
            let before = workdir.listing();
            let error = on_one_line(&workdir.fthost(["--config", "run.toml", "--out", "run"]).failed(2));
            assert!(error.contains(expected), "{error}");
            assert_eq!(workdir.listing(), before);
        }
    }
}

/// Losses and penalties of the second of two tasks, whose head has these class weights, while distillation holds the first one's.
fn held(weights: &str) -> Vec<(f64, f64)> {
    let workdir = text_workdir();
    let second = format!(
        "\n[[task]]\nname = \"again\"\nhead = {{ plugin = \"classification\", class_weights = {weights} }}\ntrain = \"train.tsv\"\n"
    );
    let run = RUN.replace("\n[[strategy]]", &format!("{second}\n[[strategy]]")).replace("lr = 0.01", "lr = 0.03");
    let run = run.replace("[train]\n", "[train]\ntasks = \"sequence\"\naccumulate = 2\n");
    workdir.write("run.toml", run + "\n[[regularizer]]\nplugin = \"distill\"\nlambda = 3.0\n");
    workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded();
    let log = steps(&workdir.path().join("run"));
    let second = log.iter().filter(|step| step["task"] == "again");
    second.map(|step| (step["loss"].as_f64().unwrap(), step["penalty"].as_f64().unwrap())).collect()
}

#[test]
fn distillation_is_divided_by_the_examples_whatever_they_weigh() {
    // Where all classes weigh the same, how much does not matter; where they do not, the ratio alone does.
    for (weights, scaled) in [("\"none\"", "[4.0, 4.0]"), ("[1.0, 3.0]", "[0.25, 0.75]")] {
        let (found, expected) = (held(scaled), held(weights));
        assert_eq!(found.len(), 4);
        assert!(expected[3].1 > 1e-5, "{expected:?}");
        for (found, expected) in found.iter().zip(&expected) {
            for (found, expected) in [(found.0, expected.0), (found.1, expected.1)] {
                assert!(
                    (found - expected).abs() < 1e-4 * expected.abs() + 1e-7,
                    "{weights} and {scaled}: {found}, {expected}"
                );
            }
        }
    }
}

#[test]
fn steps_that_overflow_in_f16_change_nothing_and_the_next_ones_learn() {
    let workdir = text_workdir();
    // Losses weigh so much that their gradients, scaled, are beyond half floats at first.
    let head = "plugin = \"classification\", class_weights = [64.0, 64.0]";
    workdir.write("run.toml", RUN.replace("plugin = \"classification\"", head).replace(LORA, "plugin = \"full\""));
    let sets =
        ["train.precision=f16", "train.dropout=false", "schedule.plugin=constant", "train.epochs=6", "train.lr=0.003"];
    let (result, log, _) = run(&workdir, "run", &sets);
    let overflows: Vec<bool> = log.iter().map(|step| step["left_out"] == "overflow").collect();
    let skipped = overflows.iter().filter(|overflow| **overflow).count();
    assert!(skipped > 0 && skipped < 12, "{overflows:?}");
    assert_eq!(result["train"]["skipped_steps"], skipped);
    assert!(
        overflows[..skipped].iter().all(|overflow| *overflow),
        "the scale falls until the gradients fit: {overflows:?}"
    );

    // After the skipped steps alone the model is the pretrained one; the next is AdamW's first step, by the rate.
    let moved = |steps: usize| {
        let (out, limit) = (format!("after-{steps}"), format!("train.steps={steps}"));
        run(&workdir, &out, &[&sets[..], &["train.weight_decay=0.0", &limit]].concat());
        let read = |file: &str| fs::read(workdir.path().join(file)).unwrap();
        let (before, after) = (read("model/model.safetensors"), read(&format!("{out}/model/model.safetensors")));
        let weight = |file: &[u8]| -> Vec<f32> {
            let tensors = SafeTensors::deserialize(file).unwrap();
            let weight = tensors.tensor("bert.encoder.layer.1.output.dense.weight").unwrap();
            weight.data().chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect()
        };
        let mut moved: Vec<f32> = weight(&before).iter().zip(weight(&after)).map(|(a, b)| (a - b).abs()).collect();
        moved.sort_by(f32::total_cmp);
        (moved[moved.len() / 2], moved[moved.len() - 1])
    };
    assert_eq!(moved(skipped), (0.0, 0.0));
    let (median, most) = moved(skipped + 1);
    assert!((median / 0.003 - 1.0).abs() < 1e-2 && most < 1.001 * 0.003, "{median} and at most {most}");
}
