//! Classes made equally frequent by which examples an epoch takes.

use std::collections::BTreeMap;
use std::fs;

use fthost_tests::{Workdir, on_one_line, result_json};
use serde_json::Value;

use crate::resume::{bits, set_back, start_until_checkpoint};
use crate::text::{RUN, text_workdir};

/// The tiny run with 4 examples of one class and 16 of the other, balanced so.
fn balanced(balance: &str) -> Workdir {
    let workdir = text_workdir();
    let rows = fs::read_to_string(workdir.path().join("train.tsv")).unwrap();
    let of = |label: &str, most: usize| rows.lines().filter(|row| row.ends_with(label)).take(most).collect::<Vec<_>>();
    workdir.write("train.tsv", [of("1", 4), of("0", 16)].concat().join("\n"));
    let run = RUN.replace("test = ", &format!("balance = \"{balance}\"\ntest = "));
    workdir.write("run.toml", run.replace("batch_size = 8", "batch_size = 8\ncheckpoint_steps = 3"));
    workdir
}

fn plan(workdir: &Workdir, sets: &[&str]) -> Value {
    let arguments = ["plan", "run.toml", "--json"].into_iter().chain(sets.iter().flat_map(|set| ["--set", set]));
    serde_json::from_str(&workdir.fthost(arguments).succeeded().stdout).unwrap()
}

#[test]
fn an_epoch_is_as_long_as_its_balance_makes_it() {
    for (balance, each, steps) in [("oversample", 16, 4), ("undersample", 4, 1)] {
        let workdir = balanced(balance);
        let json = plan(&workdir, &["train.checkpoint_steps=1"]);
        let expected = serde_json::json!([{ "task": "sentiment", "classes": 2, "each": each, "examples": 2 * each }]);
        assert_eq!((&json["balance"], json["steps_per_epoch"].as_u64()), (&expected, Some(steps)));
        assert_eq!(json["steps"].as_u64(), Some(2 * steps));
        let text = workdir.fthost(["plan", "run.toml", "--set", "train.checkpoint_steps=1"]).succeeded().stdout;
        let line = format!("sentiment: each of 2 classes {each} times an epoch: {} examples", 2 * each);
        assert!(text.contains(&line), "{text}");
        // The histogram is of the examples as they are.
        let bars: BTreeMap<&str, usize> = text
            .lines()
            .filter(|line| line.contains('█'))
            .map(|line| (&line[..1], line.chars().filter(|c| *c == '█').count()))
            .collect();
        assert_eq!(bars, BTreeMap::from([("0", 20), ("1", 5)]), "{text}");
        workdir.fthost(["run.toml", "--out", "run", "--set", "train.checkpoint_steps=1"]).succeeded();
        assert_eq!(result_json(&workdir.path().join("run"))["train"]["samples"], 4 * each);
    }
}

#[test]
fn a_run_that_was_killed_in_mid_epoch_takes_the_same_examples_on_any_number_of_threads() {
    for balance in ["oversample", "undersample"] {
        let epochs = "train.epochs=40";
        let start = ["--config", "run.toml", "--out", "run", "--set", epochs];
        let (through, killed) = (balanced(balance), balanced(balance));
        through.fthost(start.into_iter().chain(["--threads", "2"])).succeeded();
        let mut child = start_until_checkpoint(&killed, &[&start[..], &["--threads", "1"]].concat());
        child.kill().unwrap();
        child.wait().unwrap();
        if killed.path().join("run/result.json").is_file() {
            set_back(&killed.path().join("run"));
        }
        killed.fthost(["--resume", "--out", "run"]).succeeded();
        let (expected, found) = (bits(&through.path().join("run")), bits(&killed.path().join("run")));
        assert_eq!((expected.1, expected.2), (found.1, found.2), "{balance}");
        assert!(expected.0 == found.0, "{balance}: the weights differ");
    }
}

#[test]
fn what_has_no_class_for_each_example_cannot_be_balanced() {
    let check = |head: &str, expected: &str| {
        let workdir = balanced("oversample");
        let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
        workdir.write("run.toml", run.replace("plugin = \"classification\"", head));
        let error = on_one_line(&workdir.fthost(["run.toml", "--out", "run"]).failed(2));
        assert!(
            error.contains("task[0].balance needs one class for each example") && error.contains(expected),
            "{error}"
        );
        assert!(error.contains("help: leave it out"), "{error}");
    };
    check("plugin = \"regression\"", "its head predicts values");
    let words = balanced("oversample");
    let rows = fs::read(fthost_tests::root().join("plugins/token-classification/example.jsonl")).unwrap();
    words.write("words.jsonl", rows);
    let run = fs::read_to_string(words.path().join("run.toml"))
        .unwrap()
        .replace("\"classification\"", "\"token-classification\"");
    words.write("run.toml", run.replace("train.tsv", "words.jsonl").replace("test.tsv", "words.jsonl"));
    let error = on_one_line(&words.fthost(["run.toml", "--out", "run"]).failed(2));
    assert!(error.contains("its head has a class for each word"), "{error}");
    check("plugin = \"prototypical\", ways = 2, shots = 1, queries = 1", "its head learns by episodes");
}
