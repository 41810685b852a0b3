//! Few-shot classes: what episodes teach is used as any classifier, by Transformers too, and on classes that are new.

use std::fs;

use fthost_tests::{Workdir, on_one_line, result_json, skipped};
use serde_json::{Value, json};

use crate::resume::bits;
use crate::text::{LORA, RUN, logits_agree, peft, python, text_workdir};

const HEAD: &str = r#""prototypical", ways = 2, shots = 2, queries = 3"#;

/// A run of the prototypical head on sentences.
fn trained(head: &str, strategy: &str) -> Workdir {
    let workdir = text_workdir();
    workdir.write("run.toml", RUN.replace("\"classification\"", head).replace(LORA, strategy));
    let outcome = workdir.fthost(["--config", "run.toml", "--out", "run", "--set", "train.epochs=4"]).succeeded();
    let said = on_one_line(&outcome.stdout);
    assert!(
        said.contains("2 classes of 2 support examples and 3 queries: 10 examples; train.batch_size has no say"),
        "{said}"
    );
    workdir
}

#[test]
fn the_run_evaluates_and_predicts_as_it_said() {
    for (head, strategy) in [(HEAD, LORA), (&format!("{HEAD}, distance = \"euclidean\""), "plugin = \"full\"")] {
        let workdir = trained(head, strategy);
        let run = &result_json(&workdir.path().join("run"))["tasks"]["sentiment"];
        let printed = workdir.fthost(["eval", "run", "test.tsv", "--json"]).succeeded().stdout;
        let again: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(again["tasks"]["sentiment"]["metrics"], run["metrics"], "{strategy}");
        let predicted = workdir.fthost(["predict", "run", "test.tsv", "--format", "jsonl"]).succeeded().stdout;
        let test = fs::read_to_string(workdir.path().join("test.tsv")).unwrap();
        let right = predicted.lines().zip(test.lines()).filter(|(predicted, row)| {
            let predicted: Value = serde_json::from_str(predicted).unwrap();
            row.ends_with(predicted["label"].as_str().unwrap())
        });
        let accuracy = right.count() as f64 / test.lines().count() as f64;
        assert!((accuracy - run["metrics"]["accuracy"].as_f64().unwrap()).abs() < 1e-12, "{strategy}");
    }
}

/// Prototypes at squared distances are a linear layer (Snell et al. 2017, section 2.4).
#[test]
fn transformers_reads_prototypes_as_a_classifier() {
    let Some(python) = python() else {
        return skipped("FTHOST_PYTHON names no Python with transformers");
    };
    for strategy in [LORA, "plugin = \"full\""] {
        let workdir = trained(HEAD, strategy);
        workdir.fthost(["merge", "run", "merged"]).succeeded();
        let merged = workdir.path().join("merged");
        let theirs = peft(&python, &merged, &merged, &workdir.path().join("test.tsv"));
        let ours = &result_json(&workdir.path().join("run"))["tasks"]["sentiment"];
        assert_eq!(theirs["confusion"], ours["confusion"], "predictions differ");
        logits_agree(&workdir, "run", "test.tsv", "model", &theirs["logits"], 1e-4);
    }
}

#[test]
fn episodes_of_new_classes() {
    let workdir = trained(HEAD, LORA);
    // Which frame a sentence has, of six, each with eight sentences.
    let read = |file: &str| fs::read_to_string(workdir.path().join(file)).unwrap();
    let framed = (read("train.tsv") + &read("test.tsv")).lines().fold(String::new(), |rows, row| {
        let text = row.split('\t').next().unwrap();
        let frame = text.split_once(' ').map_or("one", |(first, _)| first);
        rows + &format!("{text}\t{frame}\n")
    });
    workdir.write("new.tsv", framed);
    let run = |arguments: &[&str]| {
        let all = ["eval", "run", "new.tsv", "--json"].iter().chain(arguments);
        let printed: Value = serde_json::from_str(&workdir.fthost(all).succeeded().stdout).unwrap();
        printed["tasks"]["sentiment"].clone()
    };
    let found = run(&["--episodes", "50"]);
    let accuracy = found["accuracy"].as_f64().unwrap();
    assert_eq!(
        (&found["episodes"], &found["ways"], &found["shots"], &found["queries"]),
        (&json!(50), &json!(2), &json!(2), &json!(3))
    );
    assert!(accuracy > 0.8 && found["interval"].as_f64().unwrap() > 0.0, "{found}");
    assert_eq!(run(&["--episodes", "50"]), found);
    assert_ne!(run(&["--episodes", "50", "--seed", "1"]), found);
    let more = run(&["--episodes", "50", "--set", "task.0.head.shots=5"]);
    assert!(more["accuracy"].as_f64().unwrap() > accuracy - 0.05, "{more} with more shots");

    let refused = |arguments: &[&str], expected: &str| {
        let error = on_one_line(&workdir.fthost(["eval", "run"].iter().chain(arguments)).failed(2));
        assert!(error.contains(expected), "{error}");
    };
    refused(&["new.tsv"], "does not occur in the training data");
    refused(&["new.tsv", "--episodes", "0"], "0");
    refused(&["new.tsv", "--episodes", "9", "--set", "task.0.head.queries=99"], "lower shots and queries to");
    let plain = text_workdir();
    plain.fthost(["--config", "run.toml", "--out", "run"]).succeeded();
    let error = on_one_line(&plain.fthost(["eval", "run", "test.tsv", "--episodes", "9"]).failed(2));
    assert!(error.contains("does not learn by episodes"), "{error}");
}

/// What needs the whole episode is its loss: the network takes parts of it, where memory is short twice.
#[test]
fn an_episode_passes_in_micro_batches() {
    let workdir = text_workdir();
    workdir.write("run.toml", RUN.replace("\"classification\"", HEAD));
    let run = |out: &str, threads: &str, more: &[&str]| {
        let arguments = ["--config", "run.toml", "--out", out, "--threads", threads];
        let sets = more.iter().flat_map(|set| ["--set", *set]);
        let said = workdir.fthost(arguments.into_iter().chain(sets)).succeeded().stdout;
        (on_one_line(&said), bits(&workdir.path().join(out)))
    };
    let (said, kept) = run("kept", "1", &[]);
    assert!(
        said.contains("one loss for 10 examples, which pass through the network on all cores, and then the head once"),
        "{said}"
    );
    assert!(kept == run("threads", "3", &[]).1, "another number of threads");
    let (said, twice) = run("twice", "1", &["train.micro_batch=9"]);
    assert!(said.contains("which pass through the network twice, 9 at once at most"), "{said}");
    assert!(kept == twice, "there were two parts before, of nine at most");
    let (_, fewer) = run("fewer", "3", &["train.micro_batch=2", "train.accumulate=2"]);
    assert_eq!(fewer.1, run("again", "1", &["train.micro_batch=2", "train.accumulate=2"]).1.1);

    let refused = |set: &str, expected: &str| {
        let error = on_one_line(&workdir.fthost(["plan", "run.toml", "--set", set]).failed(2));
        assert!(error.contains(expected), "{error}");
    };
    refused("train.micro_batch=10", "train.micro_batch is 10, and a batch has 10 examples");
    refused("train.micro_batch=0", "must be at least 1");
    workdir.write("run.toml", RUN);
    refused("train.micro_batch=4", "is for a loss that needs the whole batch");
}

/// Each step takes an episode of one task and a batch of the other, whose loss is one of examples.
#[test]
fn episodes_go_with_batches_of_another_task() {
    let workdir = text_workdir();
    let second = "[[task]]\nname = \"words\"\nhead = { plugin = \"classification\" }\ntrain = \"train.tsv\"\ntest = \"test.tsv\"\n";
    let run = RUN.replace("\"classification\"", HEAD).replace("[[strategy]]", &format!("{second}\n[[strategy]]"));
    workdir.write("run.toml", run.replace("[train]", "[train]\nsampling = \"together\""));
    let bits =
        [("one", "1", "train.micro_batch=3"), ("two", "3", "train.micro_batch=3"), ("whole", "2", "train.seed=0")].map(
            |(out, threads, set)| {
                let arguments = ["--config", "run.toml", "--out", out, "--threads", threads, "--set", set];
                workdir.fthost(arguments).succeeded();
                bits(&workdir.path().join(out))
            },
        );
    assert!(bits[0] == bits[1], "another number of threads");
    let loss = |log: &Value| log["losses"]["sentiment"].as_f64().unwrap();
    for (twice, whole) in bits[0].1.iter().zip(&bits[2].1) {
        assert!((loss(twice) - loss(whole)).abs() < 1e-3, "{twice} and {whole}");
    }
}

#[test]
fn an_episode_that_the_data_cannot_fill_is_refused_at_the_head() {
    let workdir = text_workdir();
    for (head, expected) in [
        (r#""prototypical""#, "an episode has 5 classes, and the data have 2"),
        (r#""prototypical", ways = 2, shots = 100"#, "class \"0\" has"),
    ] {
        workdir.write("run.toml", RUN.replace("\"classification\"", head));
        let error = on_one_line(&workdir.fthost(["--config", "run.toml", "--out", "run"]).failed(2));
        assert!(error.contains(expected) && error.contains("run.toml:6"), "{error}");
    }
}
