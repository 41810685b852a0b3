//! Tasks with a label for each word: learned, evaluated, predicted, and read by Transformers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fthost_tests::{Workdir, on_one_line, reference, result_json, root, skipped, steps};
use serde_json::{Value, json};

use crate::text::{LORA, RUN, python, text_workdir};

/// The sentences of the head's example, in a folder with the tiny BERT; every third is for testing.
fn words_workdir(strategy: &str) -> Workdir {
    let workdir = text_workdir();
    let rows = fs::read_to_string(root().join("plugins/token-classification/example.jsonl")).unwrap();
    let (train, test): (Vec<_>, Vec<_>) = rows.lines().enumerate().partition(|(i, _)| i % 3 != 2);
    let file = |rows: Vec<(usize, &str)>| rows.into_iter().map(|(_, row)| format!("{row}\n")).collect::<String>();
    workdir.write("train.jsonl", file(train));
    workdir.write("test.jsonl", file(test));
    let run = RUN.replace("\"classification\"", "\"token-classification\"").replace(".tsv", ".jsonl");
    workdir.write("run.toml", run.replace(LORA, strategy).replace("sentiment", "entities"));
    workdir
}

fn run(workdir: &Workdir, sets: &[&str]) -> Value {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    workdir.fthost(["--config", "run.toml", "--out", "run"].into_iter().chain(sets)).succeeded();
    result_json(&workdir.path().join("run"))
}

/// The objects of a JSONL file.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn strings(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

/// All labels of a file's rows, one after the other.
fn labels(text: &str, key: &str) -> Vec<String> {
    lines(text).iter().flat_map(|row| strings(&row[key])).collect()
}

/// The entities that a column of predictions.csv spells, as seqeval finds them: sentence, first and last row, type.
fn entities<'a>(rows: &[Vec<&'a str>], column: usize) -> BTreeSet<(&'a str, usize, usize, &'a str)> {
    let mut found: Vec<(&str, usize, usize, &str)> = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let Some((part, kind)) = row[column].split_once('-') else { continue };
        match found.last_mut() {
            Some((sentence, _, last, of)) if part == "I" && *sentence == row[3] && *last + 1 == i && *of == kind => {
                *last = i
            }
            _ => found.push((row[3], i, i, kind)),
        }
    }
    found.into_iter().collect()
}

#[test]
fn words_are_learned_evaluated_and_predicted() {
    for strategy in [LORA, "plugin = \"full\""] {
        let workdir = words_workdir(strategy);
        let settings = ["train.epochs=30", "train.evaluate_before=true"];
        let result = run(&workdir, &settings);
        let task = &result["tasks"]["entities"];
        let (before, after) = (&task["before"], &task["metrics"]);
        // Two dozen sentences, and others to test on: better than before, not good.
        let number = |metrics: &Value, name: &str| metrics[name].as_f64().unwrap();
        assert!(number(after, "loss") < 0.7 * number(before, "loss"), "{strategy}: {task}");
        assert!(number(after, "entity_f1") > number(before, "entity_f1"), "{strategy}: {task}");

        // Counted are words: not tokens, not sentences.
        let test = fs::read_to_string(workdir.path().join("test.jsonl")).unwrap();
        let train = fs::read_to_string(workdir.path().join("train.jsonl")).unwrap();
        let truth = labels(&test, "label");
        let counts: Vec<u64> = serde_json::from_value(task["class_counts"].clone()).unwrap();
        assert_eq!(counts.iter().sum::<u64>() as usize, labels(&train, "label").len());
        let confusion: Vec<Vec<u64>> = serde_json::from_value(task["confusion"].clone()).unwrap();
        assert_eq!(confusion.concat().iter().sum::<u64>() as usize, truth.len());

        // predictions.csv, predict and eval say the same.
        // A word may be a comma, and is in quotes then.
        let csv = fs::read_to_string(workdir.path().join("run/predictions.csv")).unwrap().replace("\",\"", ";");
        let rows: Vec<Vec<&str>> = csv.lines().skip(1).map(|row| row.split(',').collect()).collect();
        assert_eq!(rows.iter().map(|row| row[1]).collect::<Vec<_>>(), truth);
        // Each word by its number in its sentence, as it stands there.
        let words = lines(&test).iter().map(|row| strings(&row["text"])).collect::<Vec<_>>();
        let places = words.iter().enumerate().flat_map(|(i, words)| (0..words.len()).map(move |word| (i, word)));
        for (row, (sentence, word)) in rows.iter().zip(places) {
            let said = [row[3].to_owned(), row[5].to_owned(), row[6].to_owned()];
            assert_eq!(
                said,
                [(sentence + 1).to_string(), (word + 1).to_string(), words[sentence][word].replace(',', ";")]
            );
        }
        // Sentence by sentence they give the entities that the result counts.
        let (actual, found) = (entities(&rows, 1), entities(&rows, 2));
        let f1 = 2.0 * actual.intersection(&found).count() as f64 / (actual.len() + found.len()) as f64;
        assert_eq!(f1, after["entity_f1"].as_f64().unwrap());
        let support = |of: &Value| of["support"].as_u64().unwrap() as usize;
        assert_eq!(task["entities"].as_object().unwrap().values().map(support).sum::<usize>(), actual.len());
        let right = rows.iter().filter(|row| row[1] == row[2]).count();
        assert_eq!(after["accuracy"].as_f64().unwrap(), right as f64 / rows.len() as f64);
        let predicted = workdir.fthost(["predict", "run", "test.jsonl"]).succeeded().stdout;
        assert_eq!(labels(&predicted, "labels"), rows.iter().map(|row| row[2]).collect::<Vec<_>>());
        let numbers: Vec<u64> = lines(&predicted).iter().map(|line| line["line"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (1..=test.lines().count() as u64).collect::<Vec<_>>());
        let found = workdir.fthost(["eval", "run", "test.jsonl", "--json"]).succeeded().stdout;
        let found: Value = serde_json::from_str(&found).unwrap();
        assert_eq!(
            (&found["tasks"]["entities"]["metrics"], &found["tasks"]["entities"]["confusion"]),
            (after, &task["confusion"])
        );
    }
}

#[test]
fn words_alone_are_predicted() {
    let workdir = words_workdir(LORA);
    run(&workdir, &["train.epochs=1"]);
    // 24 positions, of which two are special: the last words are not seen.
    let long = vec!["film"; 30];
    let words = [json!({ "text": ["the", "film", ""] }), json!({ "text": long })];
    workdir.write("words.jsonl", words.map(|row| format!("{row}\n")).concat());
    let found = lines(&workdir.fthost(["predict", "run", "words.jsonl"]).succeeded().stdout);
    assert_eq!(found.iter().map(|row| row["labels"].as_array().unwrap().len()).collect::<Vec<_>>(), [3, 30]);
    let seen = |row: usize| found[row]["labels"].as_array().unwrap().iter().map(Value::is_string).collect::<Vec<_>>();
    assert_eq!(seen(0), [true, true, false]);
    assert_eq!(seen(1), (0..30).map(|word| word < 22).collect::<Vec<_>>());

    let check = |arguments: &[&str], expected: &str| {
        let error = on_one_line(&workdir.fthost(["predict", "run"].iter().chain(arguments)).failed(2));
        assert!(error.contains(expected), "{arguments:?}: {error}");
    };
    // A table has a row for each word.
    let table = workdir.fthost(["predict", "run", "words.jsonl", "--format", "csv"]).succeeded().stdout;
    let rows: Vec<Vec<&str>> = table.lines().map(|row| row.split(',').collect()).collect();
    assert_eq!((rows.len(), &rows[0][..]), (1 + 33, &["line", "word", "label", "probability", "text"][..]));
    let labels = found.iter().flat_map(|row| row["labels"].as_array().unwrap());
    for (row, label) in rows[1..].iter().zip(labels) {
        assert_eq!(label.as_str().unwrap_or_default(), row[2], "{table}");
    }
    assert_eq!((rows[2][1], rows[2][4], rows[5][0], rows[5][1]), ("2", "film", "2", "2"));
    check(
        &["words.jsonl", "--out", "out.tsv", "--format", "csv"],
        "--format says csv, and --out out.tsv is a .tsv file",
    );
    check(&["test.tsv", "--format", "jsonl"], "test.tsv: has one label per example");
    workdir.write("empty.jsonl", "{\"text\": [\"a\"]}\n{\"text\": []}\n");
    check(&["empty.jsonl"], "empty.jsonl:2: this row has no word");
    assert!(!workdir.path().join("out.tsv").exists());
}

#[test]
fn what_a_head_of_tokens_cannot_take_is_refused() {
    let check = |workdir: &Workdir, expected: &str| {
        let error = on_one_line(&workdir.fthost(["--config", "run.toml", "--out", "run"]).failed(2));
        assert!(error.contains(expected), "{error}");
    };
    let workdir = words_workdir(LORA);
    let file = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
    workdir.write("run.toml", file.replace(".jsonl", ".tsv"));
    check(&workdir, "train.tsv: has one label per example, and the task's head wants one per token");
    workdir.write("run.toml", file.replace("token-classification", "classification"));
    check(&workdir, "train.jsonl: has texts that are lists of words");
    workdir.write("run.toml", &file);
    workdir.write(
        "test.jsonl",
        "{\"text\": [\"a\"], \"label\": [\"O\"]}\n{\"text\": [\"a\"], \"label\": [\"O\", \"O\"]}\n",
    );
    check(&workdir, "test.jsonl:2: `text` has 1, and `label` has 2");
    workdir.write("test.jsonl", "{\"text\": [\"a\", \"film\"], \"label\": [\"O\", \"B-PLACE\"]}\n");
    check(&workdir, "test.jsonl:1: the label `B-PLACE` does not occur in the training data");

    // A task before it, whose outputs would be held.
    let workdir = words_workdir("plugin = \"full\"");
    let second =
        "[[task]]\nname = \"second\"\nhead = { plugin = \"classification\" }\ntrain = \"train.tsv\"\n\n[[strategy]]";
    let file = fs::read_to_string(workdir.path().join("run.toml")).unwrap().replace("[[strategy]]", second);
    workdir.write(
        "run.toml",
        file.replace("[train]\n", "[[regularizer]]\nplugin = \"distill\"\n\n[train]\ntasks = \"sequence\"\n"),
    );
    check(&workdir, "that of the task entities says something of each token");
}

#[test]
fn entities_choose_the_best_model_beside_another_task() {
    let workdir = words_workdir("plugin = \"full\"");
    let second = "[[task]]\nname = \"sentiment\"\nhead = { plugin = \"classification\" }\ntrain = \"train.tsv\"\ntest = \"test.tsv\"\n\n";
    let file = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
    let file = file.replace("train = \"train.jsonl\"", "validation = 0.25\ntrain = \"train.jsonl\"");
    workdir.write("run.toml", file.replace("[[strategy]]", &format!("{second}[[strategy]]")));
    // The pooler is passed by the sentiment's features alone, and trains.
    let result = run(&workdir, &["train.monitor=\"entities.entity_f1\""]);
    assert_eq!(result["watch"]["metric"], "entity_f1");
    assert!(result["tasks"]["sentiment"]["metrics"]["accuracy"].is_f64());
    let refused = |settings: &[&str], expected: &str| {
        let settings = settings.iter().flat_map(|set| ["--set", set]);
        let outcome = workdir.fthost(["--config", "run.toml", "--out", "other"].into_iter().chain(settings));
        let error = on_one_line(&outcome.failed(2));
        assert!(error.contains(expected), "{error}");
    };
    let of_other = "train.monitor=\"sentiment.entity_f1\"";
    refused(&[of_other], "the task sentiment, which has no validation examples");
    refused(&[of_other, "task.1.validation=0.25"], "there is no metric");
}

/// Alone, a head of tokens leaves a pooler without a gradient: it is frozen and counted so.
#[test]
fn what_stands_above_the_tokens_does_not_train() {
    let trainable = |workdir: &Workdir| run(workdir, &["train.epochs=1"])["parameters"].clone();
    let of_tokens = trainable(&words_workdir("plugin = \"full\""));
    assert_eq!(
        of_tokens["total"].as_u64().unwrap() - of_tokens["trainable"].as_u64().unwrap(),
        16 * 16 + 16,
        "the pooler of width 16: {of_tokens}"
    );
}

#[test]
fn runs_on_words_are_the_same_at_any_number_of_threads_and_can_be_compared() {
    let losses = |threads: &str| -> Vec<Value> {
        let workdir = words_workdir(LORA);
        workdir.fthost(["--config", "run.toml", "--out", "run", "--threads", threads]).succeeded();
        steps(&workdir.path().join("run")).into_iter().map(|mut step| step["loss"].take()).collect()
    };
    assert_eq!(losses("1"), losses("2"));

    let workdir = words_workdir(LORA);
    let arguments =
        ["compare", "run.toml", "--plugin", "liblora.so", "--plugin", "libbitfit.so", "--seeds", "2", "--json"];
    let found: Value = serde_json::from_str(&workdir.fthost(arguments).succeeded().stdout).unwrap();
    // Tokens of one sentence depend on each other: sentences are drawn and exchanged.
    let test = fs::read_to_string(workdir.path().join("test.jsonl")).unwrap();
    assert_eq!((&found["metric"], &found["examples"]), (&"accuracy".into(), &test.lines().count().into()));
    assert_eq!(found["pairs"][0]["test"], "randomization");
    let folder = found["folder"].as_str().unwrap();
    let csv = fs::read_to_string(workdir.path().join(folder).join("lora/seed-0/predictions.csv")).unwrap();
    let examples: Vec<usize> = csv.lines().skip(1).map(|row| row.split(',').nth(3).unwrap().parse().unwrap()).collect();
    let expected = lines(&test).into_iter().zip(1..);
    let expected = expected.flat_map(|(row, number)| vec![number; row["label"].as_array().unwrap().len()]);
    assert_eq!(examples, expected.collect::<Vec<usize>>());

    // Entities too, as the run itself counts them.
    for metric in ["entity_f1", "entities.entity_recall", "macro_f1"] {
        let again = ["compare", "--resume", "--out", folder, "--metric", metric, "--json"];
        let found: Value = serde_json::from_str(&workdir.fthost(again).succeeded().stdout).unwrap();
        let name = metric.rsplit('.').next().unwrap();
        for run in found["candidates"][0]["runs"].as_array().unwrap() {
            let result = result_json(&workdir.path().join(run["folder"].as_str().unwrap()));
            assert_eq!(run["value"], result["tasks"]["entities"]["metrics"][name], "{metric}");
        }
        assert_eq!((&found["metric"], &found["pairs"][0]["test"]), (&name.into(), &"randomization".into()));
    }
}

fn transformers(python: &Path, workdir: &Workdir, folder: &str) -> Value {
    let path = |name: &str| workdir.path().join(name);
    reference(python, "token_check.py", [path("model"), path(folder), path("test.jsonl")])
}

#[test]
fn transformers_and_peft_read_a_head_of_tokens_and_compute_the_same() {
    let Some(python) = python() else {
        return skipped("FTHOST_PYTHON names no Python with transformers and peft");
    };
    for (strategy, folder) in [(LORA, "run/adapter"), ("plugin = \"full\"", "run/model")] {
        let workdir = words_workdir(strategy);
        let ours = run(&workdir, &["train.epochs=5"])["tasks"]["entities"].take();
        let theirs = transformers(&python, &workdir, folder);
        assert_eq!(theirs["confusion"], ours["confusion"], "{strategy}: predictions differ");
        let predicted = lines(&workdir.fthost(["predict", "run", "test.jsonl"]).succeeded().stdout);
        assert_eq!(theirs["labels"], predicted.iter().map(|row| row["labels"].clone()).collect::<Value>());
        let (theirs, ours) = (theirs["loss"].as_f64().unwrap(), ours["metrics"]["loss"].as_f64().unwrap());
        assert!((theirs - ours).abs() < 1e-4, "{strategy}: mean loss {theirs} in Transformers, {ours} here");
    }
}
