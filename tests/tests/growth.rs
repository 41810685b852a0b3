//! What plugins may say since ABI 1.1, in whole runs: gradients of a step, weights that are evaluated in place of those that train, a head's own
//! metrics, scalars, several passes of a row, update rules. And that all of it survives a kill.

use std::fs;
use std::path::Path;

use fthost_tests::{on_one_line, result_json, steps};
use serde_json::Value;

use crate::resume::{ends_with_the_same_bits, long_workdir};
use crate::text::{LORA, RUN, text_workdir};

/// Every line of a run's log, without what a clock says.
fn log(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("seconds");
        line
    };
    text.lines().map(line).collect()
}

/// What `validation` evaluations came to, in order.
fn validations(run: &Path, metric: &str) -> Vec<f64> {
    let log = log(run);
    let watched = log.iter().filter(|line| line["when"] == "validation");
    watched.map(|line| line["metrics"][metric].as_f64().unwrap()).collect()
}

const START: [&str; 4] = ["--config", "run.toml", "--out", "run"];

fn start<'a>(sets: &[&'a str]) -> Vec<&'a str> {
    START.into_iter().chain(sets.iter().flat_map(|set| ["--set", *set])).collect()
}

/// A moving average, a rule of a plugin and a head's own metric as monitor, over LoRA; evaluated often and killed as often.
#[test]
fn averages_rules_metrics_and_scalars_survive_kills() {
    let strategy = format!("{LORA}\n\n[[strategy]]\nplugin = \"ema\"\ndecay = 0.95");
    let workdir = || {
        let workdir = long_workdir(&strategy);
        let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
        workdir.write("run.toml", run.replace("\"classification\"", "\"ordinal\""));
        workdir
    };
    let sets = [
        "task.validation=test.tsv",
        "train.monitor=ordinal_mae",
        "train.evaluate_steps=5",
        "train.epochs=100",
        "train.optimizer={ plugin = \"lion\", beta1 = 0.95 }",
    ];
    let (through, killed) = (workdir(), workdir());
    ends_with_the_same_bits(&through, &killed, &start(&sets), 5, "ema, lion and ordinal");
    let runs = [&through, &killed].map(|workdir| workdir.path().join("run"));
    assert_eq!(log(&runs[0]), log(&runs[1]));
    let scalars = |line: &&Value| line["event"] == "scalar" && line["name"] == "ema/distance";
    assert_eq!(log(&runs[0]).iter().filter(scalars).count(), 80, "400 steps, evaluated after every fifth");

    let watch = &result_json(&runs[0])["tasks"]["sentiment"]["watch"];
    let best = validations(&runs[0], "ordinal_mae").into_iter().fold(f64::INFINITY, f64::min);
    assert_eq!(watch["metric"], "ordinal_mae");
    assert_eq!(watch["best"]["value"].as_f64(), Some(best));
}

/// What is added up within a step and over a task, of tasks in sequence.
#[test]
fn paths_of_gradients_survive_kills() {
    let second = "\n[[task]]\nname = \"words\"\nhead = { plugin = \"classification\", r_drop = 1.0 }\ntrain = \"words.tsv\"\ntest = \"test.tsv\"\n";
    let workdir = || {
        let workdir = long_workdir(
            "plugin = \"full\"\n\n[[strategy]]\nplugin = \"swa\"\nsteps = 3\n\n[[regularizer]]\nplugin = \"si\"",
        );
        workdir.write("words.tsv", fs::read_to_string(workdir.path().join("train.tsv")).unwrap().repeat(2));
        let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
        let run = run.replacen("\n[[strategy]]", &format!("{second}\n[[strategy]]"), 1);
        workdir.write("run.toml", run.replace("[train]\n", "[train]\ntasks = \"sequence\"\n"));
        workdir
    };
    let sets = ["train.epochs=20", "train.optimizer={ plugin = \"muon\" }"];
    let (through, killed) = (workdir(), workdir());
    ends_with_the_same_bits(&through, &killed, &start(&sets), 3, "si, swa, muon and r_drop");
    let penalties: Vec<Option<f64>> =
        steps(&through.path().join("run")).iter().map(|step| step["penalty"].as_f64()).collect();
    let first = 20 * 4;
    assert!(penalties[..first].iter().all(Option::is_none), "the first task is free");
    assert!(penalties[first + 1..].iter().all(|penalty| penalty.is_some_and(|penalty| penalty != 0.0)));
}

/// The best model is what was evaluated, averages and all, and it is what the run comes to.
#[test]
fn averages_are_evaluated_kept_and_saved_as_they_were_evaluated() {
    let workdir = text_workdir();
    for (name, options) in [("ema", "decay = 0.9"), ("swa", "start = 0.2\nsteps = 2")] {
        workdir
            .write("run.toml", RUN.replace(LORA, &format!("{LORA}\n\n[[strategy]]\nplugin = \"{name}\"\n{options}")));
        // A rate that is far too high soon makes the model worse.
        let sets =
            ["task.validation=test.tsv", "train.monitor=loss", "train.lr=0.05", "train.epochs=20", "train.patience=6"];
        let run = workdir.path().join(name);
        let out = ["--config", "run.toml", "--out", name];
        workdir.fthost(out.into_iter().chain(sets.iter().flat_map(|set| ["--set", *set]))).succeeded();
        let best = validations(&run, "loss").into_iter().fold(f64::INFINITY, f64::min);
        let result = &result_json(&run)["tasks"]["sentiment"];
        assert_eq!(result["metrics"]["loss"].as_f64(), Some(best), "{name}: the test file is the validation file");
        let evaluated = workdir.fthost(["eval", name, "test.tsv", "--json"]).succeeded().stdout;
        let evaluated: Value = serde_json::from_str(&evaluated).unwrap();
        assert_eq!(evaluated["tasks"]["sentiment"]["metrics"]["loss"], result["metrics"]["loss"], "{name}");
    }
}

/// Whether averages are put into the model for an evaluation at the very end or when the task ends: heads that take what they predict by from
/// training examples take it from the averages.
#[test]
fn prototypes_are_those_of_the_averages() {
    let workdir = text_workdir();
    let head = "\"prototypical\", ways = 2, shots = 2, queries = 4, support = 8";
    let strategy = format!("{LORA}\n\n[[strategy]]\nplugin = \"ema\"\ndecay = 0.9");
    workdir.write("run.toml", RUN.replace(LORA, &strategy).replace("\"classification\"", head));
    let loss = |out: &str, more: &[&str]| {
        let sets = ["--set", "train.epochs=1", "--set", "train.lr=0.05"];
        workdir.fthost(["--config", "run.toml", "--out", out].iter().chain(&sets).chain(more)).succeeded();
        result_json(&workdir.path().join(out))["tasks"]["sentiment"]["metrics"]["loss"].clone()
    };
    let without = loss("without", &[]);
    assert_eq!(loss("with", &["--set", "task.validation=test.tsv", "--set", "train.monitor=loss"]), without);
}

/// A batch of which nothing counts moves nothing, and so has no gradient.
#[test]
fn steps_that_are_left_out_have_no_gradient_to_ask_for() {
    let workdir = text_workdir();
    let run = RUN.replace(LORA, "plugin = \"full\"\n\n[[regularizer]]\nplugin = \"si\"");
    workdir.write("run.toml", run.replace("\"classification\"", "\"classification\", class_weights = [1.0, 0.0]"));
    workdir.fthost(start(&["train.batch_size=1", "train.steps=12"])).succeeded();
    assert!(result_json(&workdir.path().join("run"))["train"]["empty_steps"].as_u64().unwrap() > 0);
}

/// What an earlier head says of a row counts once, the mean over its passes.
#[test]
fn two_passes_of_a_row_are_held_to_earlier_heads_once() {
    let second = "\n[[task]]\nname = \"words\"\nhead = { plugin = \"classification\", r_drop = 1e-9 }\ntrain = \"train.tsv\"\ntest = \"test.tsv\"\n";
    let penalties = |r_drop: bool, dropout: &str| {
        let workdir = text_workdir();
        let run = RUN.replace(LORA, "plugin = \"full\"\n\n[[regularizer]]\nplugin = \"distill\"");
        let second = if r_drop { second.to_owned() } else { second.replace(", r_drop = 1e-9", "") };
        let run = run.replacen("\n[[strategy]]", &format!("{second}\n[[strategy]]"), 1);
        workdir.write("run.toml", run.replace("[train]\n", "[train]\ntasks = \"sequence\"\n"));
        workdir.fthost(start(&[dropout])).succeeded();
        steps(&workdir.path().join("run")).iter().map(|step| step["penalty"].as_f64()).collect::<Vec<_>>()
    };
    // Without dropout both passes are alike, and what they come to is what one does.
    let (twice, once) = (penalties(true, "train.dropout=false"), penalties(false, "train.dropout=false"));
    assert_eq!(twice.len(), once.len());
    assert!(once[once.len() / 2..].iter().all(Option::is_some), "{once:?}");
    assert!(penalties(true, "train.dropout=true")[once.len() / 2..].iter().all(Option::is_some));
    for (twice, once) in twice.iter().zip(&once) {
        let close = match (twice, once) {
            (Some(twice), Some(once)) => (twice - once).abs() <= 1e-4 * (1e-3 + once.abs()),
            (twice, once) => twice.is_none() && once.is_none(),
        };
        assert!(close, "{twice:?} and {once:?}");
    }
}

/// In training alone there are two passes, each with its own masks: with dropout they differ, without they do not.
#[test]
fn two_passes_drop_out_otherwise() {
    let workdir = text_workdir();
    let loss = |out: &str, r_drop: &str, dropout: bool| {
        workdir.write("run.toml", RUN.replace("\"classification\"", &format!("\"classification\", r_drop = {r_drop}")));
        let dropout = format!("train.dropout={dropout}");
        let sets = ["--set", "train.steps=1", "--set", "train.batch_size=32", "--set", &dropout];
        workdir.fthost(["--config", "run.toml", "--out", out].iter().chain(&sets)).succeeded();
        steps(&workdir.path().join(out))[0]["loss"].as_f64().unwrap()
    };
    let (alike, apart) =
        (loss("a", "1000", false) - loss("b", "0", false), loss("c", "1000", true) - loss("d", "1e-9", true));
    assert!(alike.abs() < 1e-5, "{alike}");
    assert!(apart > 1e-3, "{apart}");
}

/// A rule of a plugin stands in the run's own file with all its options, is part of what a resumed run must have, and is found or named.
#[test]
fn a_rule_of_a_plugin_is_part_of_the_run() {
    let workdir = text_workdir();
    let lion = "train.optimizer={ plugin = \"lion\", beta2 = 0.98 }";
    workdir.fthost(start(&[lion, "train.weight_decay=0.1"])).succeeded();
    let own = fs::read_to_string(workdir.path().join("run/run.toml")).unwrap();
    let line = own.lines().find(|line| line.starts_with("optimizer = ")).unwrap();
    for part in ["plugin = \"lion\"", "beta1 = 0.9", "beta2 = 0.98"] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    let names = |result: &Value| {
        result["plugins"]
            .as_array()
            .unwrap()
            .iter()
            .map(|plugin| plugin["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert!(names(&result_json(&workdir.path().join("run"))).contains(&"lion".to_owned()));
    // The run that its own file describes is the same run.
    workdir.fthost(["--config", "run/run.toml", "--out", "again"]).succeeded();
    assert_eq!(
        fs::read(workdir.path().join("run/adapter/adapter_model.safetensors")).unwrap(),
        fs::read(workdir.path().join("again/adapter/adapter_model.safetensors")).unwrap()
    );

    let refused =
        |set: &str| on_one_line(&workdir.fthost(["--config", "run.toml", "--out", "other", "--set", set]).failed(2));
    let error = refused("train.optimizer={ plugin = \"loin\" }");
    assert!(error.contains("loin"), "{error}");
    let error = refused("train.optimizer={ plugin = \"lion\", beta3 = 1 }");
    assert!(error.contains("beta3") && error.contains("unknown option"), "{error}");
    let error = refused("train.optimizer={ plugin = \"lora\" }");
    assert!(error.contains("optimizer") && error.contains("lora"), "{error}");
}
