//! Preferences: a decoder learns which of two answers is better, by DPO and ORPO.

use std::fs;
use std::path::Path;

use fthost_tests::{Workdir, on_one_line, result_json, root};
use serde_json::{Value, json};

use crate::resume::{bits, set_back};

const RUN: &str = r#"[model]
path = "model.gguf"

[[task]]
name = "pairs"
head = { plugin = "preference" }
train = "rows.jsonl"
test = "rows.jsonl"

[[strategy]]
plugin = "lora"
targets = "all-linear"

[train]
epochs = 12
batch_size = 4
lr = 1e-2
checkpoint_steps = 5
"#;

/// A tiny Llama in a file of its own, with its tokenizer and its template, and a few pairs of answers.
fn workdir() -> Workdir {
    let workdir = Workdir::new();
    workdir.write("model.gguf", fs::read(root().join("tests/reference/gguf/llama.gguf")).unwrap());
    workdir.write("rows.jsonl", fs::read(root().join("plugins/preference/example.jsonl")).unwrap());
    workdir.write("run.toml", RUN);
    workdir
}

fn run(workdir: &Workdir, out: &str, sets: &[&str]) -> Value {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    workdir.fthost(["run.toml", "--out", out].into_iter().chain(sets)).succeeded();
    result_json(&workdir.path().join(out))["tasks"]["pairs"].clone()
}

fn number(of: &Value) -> f64 {
    of.as_f64().unwrap_or_else(|| panic!("{of} is no number"))
}

/// What `eval` says of a run's own rows.
fn evaluated(workdir: &Workdir, folder: &str) -> Value {
    let found = workdir.fthost(["eval", folder, "rows.jsonl", "--json"]).succeeded().stdout;
    serde_json::from_str::<Value>(&found).unwrap()["tasks"]["pairs"]["metrics"].clone()
}

/// The rewards of both answers by the rows of predictions.
fn rewards(run: &Path) -> Vec<[f64; 2]> {
    let text = fs::read_to_string(run.join("predictions.csv")).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("task,target,prediction,example"));
    let of = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        assert!(cells[1].parse::<usize>().unwrap() > 2, "{line}");
        let (chosen, rejected) = cells[2].split_once(' ').unwrap();
        [chosen.parse().unwrap(), rejected.parse().unwrap()]
    };
    lines.map(of).collect()
}

/// Before step 1 rewards are 0; the better answers' become greater, and what a run measures is what `eval` measures by the model that the run
/// began with.
#[test]
fn better_answers_are_learned_and_measured() {
    let workdir = workdir();
    let plan = workdir.fthost(["plan", "run.toml"]).succeeded().stdout;
    let plan = plan.split_whitespace().collect::<Vec<_>>().join(" ");
    for said in ["pairs of answers to `instruction`", "one pass over all 40 pairs comes first", "and rejected:"] {
        assert!(plan.contains(said), "{plan}");
    }
    let result = run(&workdir, "run", &["train.evaluate_before=true"]);
    let (before, after) = (&result["before"], &result["metrics"]);
    assert!((number(&before["loss"]) - std::f64::consts::LN_2).abs() < 1e-6, "{before}");
    assert!(number(&before["reward_margin"]).abs() < 1e-5 && number(&before["reward_accuracy"]) < 0.9, "{before}");
    assert!(number(&after["reward_accuracy"]) >= 0.9 && number(&after["reward_margin"]) > 0.5, "{after}");
    assert!(number(&after["loss"]) < 0.5, "{after}");
    assert_eq!(evaluated(&workdir, "run"), *after);
    let rewards = rewards(&workdir.path().join("run"));
    let mean = |of: fn(&[f64; 2]) -> f64| rewards.iter().map(of).sum::<f64>() / rewards.len() as f64;
    assert_eq!(rewards.len(), 20);
    assert!((mean(|pair| pair[0]) - number(&after["rewards_chosen"])).abs() < 1e-9);
    assert!((mean(|pair| pair[0] - pair[1]) - number(&after["reward_margin"])).abs() < 1e-9);
    // It is saved as the decoder that it is.
    let config = fs::read(workdir.path().join("run/adapter/adapter_config.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&config).unwrap()["task_type"], "CAUSAL_LM");
}

/// A run whose whole model trains: `eval` measures over the model that it began with, and not over the one that it saved.
#[test]
fn a_whole_model_is_measured_over_the_one_that_it_began_with() {
    let workdir = workdir();
    workdir.write("run.toml", RUN.replace("plugin = \"lora\"\ntargets = \"all-linear\"", "plugin = \"full\""));
    let result = run(&workdir, "run", &["train.lr=3e-3"]);
    assert!(number(&result["metrics"]["reward_accuracy"]) >= 0.9, "{}", result["metrics"]);
    let again = evaluated(&workdir, "run");
    for (metric, value) in result["metrics"].as_object().unwrap() {
        assert!((number(&again[metric]) - number(value)).abs() < 1e-4, "{metric}: {value} {}", again[metric]);
    }
}

#[test]
fn orpo_and_dpo_without_a_reference_take_no_pass() {
    let workdir = workdir();
    for (out, head, metric) in [
        ("orpo", "{ plugin = \"preference\", loss = \"orpo\", beta = 0.5 }", "loss"),
        ("free", "{ plugin = \"preference\", reference_free = true, label_smoothing = 0.1 }", "reward_margin"),
    ] {
        workdir.write("run.toml", RUN.replace("{ plugin = \"preference\" }", head));
        let plan = workdir.fthost(["plan", "run.toml"]).succeeded().stdout;
        assert!(!plan.contains("comes first"), "{plan}");
        let result = run(&workdir, out, &["train.evaluate_before=true"]);
        let (before, after) = (number(&result["before"][metric]), number(&result["metrics"][metric]));
        assert!(if metric == "loss" { after < before } else { after > before }, "{out}: {before} {after}");
        assert_eq!(evaluated(&workdir, out), result["metrics"]);
        assert!(!workdir.path().join(out).join("checkpoints/before-pairs.safetensors").exists());
    }
}

/// A killed run goes on to the same bits, and any number of threads gives them.
#[test]
fn runs_of_preferences_are_resumed_and_threaded_to_the_same_bits() {
    let workdir = workdir();
    run(&workdir, "run", &["train.threads=1", "task.0.validation=0.2"]);
    let folder = workdir.path().join("run");
    let whole = bits(&folder);
    set_back(&folder);
    workdir.fthost(["--resume", "--out", "run"]).succeeded();
    assert!(bits(&folder) == whole, "resumed");
    run(&workdir, "three", &["train.threads=3", "task.0.validation=0.2"]);
    assert!(bits(&workdir.path().join("three")) == whole, "three threads");
    // What the model said before training is not made up.
    set_back(&folder);
    fs::remove_file(folder.join("checkpoints/before-pairs.safetensors")).unwrap();
    let error = on_one_line(&workdir.fthost(["--resume", "--out", "run"]).failed(2));
    assert!(error.contains("before-pairs.safetensors"), "{error}");
}

/// With and without accumulation the mean is over the pairs of the whole step.
#[test]
fn accumulated_pairs_are_those_of_one_batch() {
    let workdir = workdir();
    let loss = |out: &str, batch: usize, accumulate: usize| {
        let (batch, accumulate) = (format!("train.batch_size={batch}"), format!("train.accumulate={accumulate}"));
        let sets = ["train.optimizer=sgd", &batch, &accumulate, "train.checkpoint_steps=2", "train.steps=3"];
        number(&run(&workdir, out, &sets)["metrics"]["loss"])
    };
    let (whole, parts) = (loss("whole", 4, 1), loss("parts", 1, 4));
    assert!((whole - parts).abs() < 1e-5, "{whole} {parts}");
}

/// Runs are compared by rewards, row by row.
#[test]
fn preferences_are_compared_by_rewards() {
    let workdir = workdir();
    workdir
        .write("orpo.toml", RUN.replace("{ plugin = \"preference\" }", "{ plugin = \"preference\", loss = \"orpo\" }"));
    let arguments =
        ["compare", "run.toml", "orpo.toml", "--seeds", "2", "--out", "compared", "--set", "train.steps=10"];
    workdir.fthost(arguments).succeeded();
    let found = fs::read_to_string(workdir.path().join("compared/comparison.json")).unwrap();
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["metric"], "reward_accuracy", "{found}");
}

#[test]
fn what_is_wrong_with_pairs_is_said_before_training() {
    let check = |rows: &str, set: &[&str], expected: &[&str]| {
        let workdir = workdir();
        workdir.write("rows.jsonl", rows);
        let arguments = ["run.toml", "--out", "run"].into_iter().chain(set.iter().flat_map(|set| ["--set", set]));
        let error = on_one_line(&workdir.fthost(arguments).failed(2));
        for expected in expected {
            assert!(error.contains(expected), "{rows}: {error}");
        }
        assert!(!workdir.path().join("run").exists(), "{rows}");
    };
    let pair = |chosen: &str, rejected: &str| {
        format!("{}\n", json!({ "prompt": "name the colour of grass", "chosen": chosen, "rejected": rejected }))
    };
    let good = pair(" green", " red");
    check(&(good.clone() + &pair("", " red")), &[], &["rows.jsonl:2", "`chosen` is empty"]);
    check(
        &(good.clone() + "{\"prompt\": \"a\", \"chosen\": \"b\"}\n"),
        &[],
        &["rows.jsonl:2", "there is no `rejected`"],
    );
    check("{\"prompt\": \"a\", \"completion\": \"b\"}\n", &[], &["no pairs of answers", "chosen and rejected"]);
    check(&pair(" green", " green"), &[], &["no two answers that differ"]);
    check(&good, &["task.0.max_tokens=3"], &["raise max_tokens"]);
    check(&good, &["task.0.score=\"all\""], &["preferences are of answers"]);
    check(&good, &["task.0.head.label_smoothing=0.7"], &["label_smoothing"]);
    // Some equal pairs are left out and counted.
    let workdir = workdir();
    workdir.write("rows.jsonl", good.clone() + &pair(" green", " green") + &pair(" green", " blue"));
    let plan = workdir.fthost(["plan", "run.toml"]).succeeded().stdout;
    assert!(plan.contains("of 1 of 3 rows both answers are the same") && plan.contains("2 examples"), "{plan}");
}
