//! What examples have besides text and label, and which of them are for what: test shares, ids, weights, groups, words that are cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use fthost_tests::{Workdir, result_json, steps};
use serde_json::{Value, json};

use crate::text::{RUN, text_workdir};

/// The training sentences with an id, a weight by the row's number, and a group of four rows each.
fn workdir(weight: impl Fn(usize) -> f64, task: &str) -> Workdir {
    let workdir = text_workdir();
    let rows = fs::read_to_string(workdir.path().join("train.tsv")).unwrap();
    let row = |(i, row): (usize, &str)| format!("r{i}\t{row}\t{}\tgroup {}\n", weight(i), i / 4);
    let rows: String = rows.lines().enumerate().map(row).collect();
    workdir.write("rows.tsv", format!("name\ttext\tlabel\tw\tauthor\n{rows}"));
    let files = "train = \"train.tsv\"\ntest = \"test.tsv\"\n";
    workdir.write("run.toml", RUN.replace(files, &format!("train = \"rows.tsv\"\n{task}\n")));
    workdir
}

fn run(workdir: &Workdir, out: &str, sets: &[&str]) -> Value {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    workdir.fthost(["run.toml", "--out", out].into_iter().chain(sets)).succeeded();
    result_json(&workdir.path().join(out))
}

/// The ids of a run's predictions.
fn ids(workdir: &Workdir, out: &str) -> Vec<String> {
    let text = fs::read_to_string(workdir.path().join(out).join("predictions.csv")).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("task,target,prediction,example,line,id,probability,text"));
    lines.map(|line| line.split(',').nth(5).unwrap().to_owned()).collect()
}

#[test]
fn a_test_share_is_the_same_with_every_seed_and_none_of_it_is_trained_on() {
    let workdir = workdir(|_| 1.0, "test = 0.25\nvalidation = 0.25\ncolumns = { id = \"name\" }");
    let first = run(&workdir, "first", &[]);
    let second = run(&workdir, "second", &["train.seed=5"]);
    let tested = ids(&workdir, "first");
    assert_eq!((tested.len(), &tested), (8, &ids(&workdir, "second")));
    // 32 rows: 8 for the test, 8 for validation, both of all of them; classes in proportion.
    for result in [first, second] {
        assert_eq!(result["plan"]["examples"], 16);
        assert_eq!(result["tasks"]["sentiment"]["class_counts"], json!([8, 8]));
    }
    let eval = workdir.fthost(["eval", "first", "rows.tsv"]).succeeded();
    assert!(eval.stderr.is_empty(), "{}", eval.stderr);
    // Predictions name rows too, and a file without ids is read as well.
    let table = workdir.fthost(["predict", "first", "rows.tsv"]).succeeded().stdout;
    assert!(table.starts_with("line\tid\tlabel\tprobability\t") && table.contains("\n2\tr0\t"), "{table}");
    let lines = workdir.fthost(["predict", "first", "rows.tsv", "--format", "jsonl"]).succeeded().stdout;
    assert!(lines.starts_with("{\"line\":2,\"id\":\"r0\","), "{lines}");
    workdir.write("new.tsv", "text\nthe film was warm\n");
    let table = workdir.fthost(["predict", "first", "new.tsv"]).succeeded().stdout;
    assert!(table.contains("\n2\t\t"), "{table}");
}

#[test]
fn groups_are_not_shared_out() {
    let workdir = workdir(|_| 1.0, "test = 0.25\nvalidation = 0.25\ncolumns = { id = \"name\", group = \"author\" }");
    let result = run(&workdir, "run", &[]);
    let groups: BTreeSet<usize> = ids(&workdir, "run").iter().map(|id| id[1..].parse::<usize>().unwrap() / 4).collect();
    // Whole groups of four.
    assert_eq!(ids(&workdir, "run").len(), 4 * groups.len());
    assert_eq!((groups.len(), result["plan"]["examples"].as_u64()), (2, Some(16)));
}

#[test]
fn weights_weigh_losses() {
    let log = |weight: fn(usize) -> f64, sets: &[&str]| {
        let workdir = workdir(weight, "validation = 0.25\ncolumns = { weight = \"w\" }");
        run(&workdir, "run", sets);
        let log = steps(&workdir.path().join("run"));
        log.iter().map(|step| step["loss"].as_f64().unwrap()).collect::<Vec<f64>>()
    };
    let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5) && a.len() == b.len();
    // How much all weigh does not matter; what weighs more does.
    let plain = log(|_| 1.0, &[]);
    assert!(close(&plain, &log(|_| 2.5, &[])));
    let uneven = |i: usize| if i.is_multiple_of(3) { 4.0 } else { 0.5 };
    let weighted = log(uneven, &[]);
    assert!(!close(&plain, &weighted));
    // Batches that make one step together are one batch.
    let whole = log(uneven, &["train.batch_size=24", "train.dropout=false"]);
    assert!(close(&whole, &log(uneven, &["train.batch_size=6", "train.accumulate=4", "train.dropout=false"])));
}

/// The loss that `eval` says is that of the probabilities that `predict` says.
#[test]
fn the_loss_is_the_weighted_mean() {
    let weight = |i: usize| [0.0, 0.5, 3.0][i % 3];
    let workdir = workdir(weight, "columns = { weight = \"w\" }");
    run(&workdir, "run", &[]);
    let eval = workdir.fthost(["eval", "run", "rows.tsv", "--json"]).succeeded().stdout;
    let loss = serde_json::from_str::<Value>(&eval).unwrap()["tasks"]["sentiment"]["metrics"]["loss"].as_f64().unwrap();
    let rows = fs::read_to_string(workdir.path().join("rows.tsv")).unwrap();
    let labels: Vec<&str> = rows.lines().skip(1).map(|row| row.split('\t').nth(2).unwrap()).collect();
    let printed =
        workdir.fthost(["predict", "run", "rows.tsv", "--format", "jsonl", "--probabilities"]).succeeded().stdout;
    let (mut sum, mut weights) = (0.0, 0.0);
    for (i, (line, label)) in printed.lines().zip(labels).enumerate() {
        let row: Value = serde_json::from_str(line).unwrap();
        sum -= weight(i) * row["probabilities"][label].as_f64().unwrap().ln();
        weights += weight(i);
    }
    assert!((sum / weights - loss).abs() < 1e-5, "{} {loss}", sum / weights);
}

#[test]
fn words_that_are_cut_off_are_counted_and_missed() {
    let workdir = text_workdir();
    let rows = fs::read_to_string(fthost_tests::root().join("plugins/token-classification/example.jsonl")).unwrap();
    workdir.write("rows.jsonl", &rows);
    let run_file = RUN.replace("\"classification\"", "\"token-classification\"");
    workdir.write("run.toml", run_file.replace("train.tsv", "rows.jsonl").replace("test.tsv", "rows.jsonl"));
    let lists = |key: &str| -> Vec<Vec<String>> {
        rows.lines()
            .map(|row| serde_json::from_value(serde_json::from_str::<Value>(row).unwrap()[key].take()).unwrap())
            .collect()
    };
    let words = lists("label");
    let all: usize = words.iter().map(Vec::len).sum();
    let result = run(&workdir, "run", &["task.0.max_tokens=5"]);
    let cut = result["plan"]["cut_words"].as_u64().unwrap() as usize;
    assert!(cut > 0 && cut < all, "{cut} of {all}");
    assert!(result["plan"]["notes"].as_array().unwrap().iter().any(|note| {
        note.as_str().unwrap().starts_with(&format!("test: the longest length cuts off words ({cut} of "))
    }));
    // Every word has a row, in its place; those that are cut off are O, and nothing says how probable that is.
    let text = fs::read_to_string(workdir.path().join("run/predictions.csv")).unwrap().replace("\",\"", ";");
    let found: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let truth: Vec<&str> = words.iter().flatten().map(String::as_str).collect();
    assert_eq!(found.iter().map(|row| row[1]).collect::<Vec<_>>(), truth);
    let mut of_sentence: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    found.iter().for_each(|row| of_sentence.entry(row[3]).or_default().push(row[2]));
    assert!(of_sentence.values().filter(|row| row.len() > 3).all(|row| row[3..].iter().all(|label| *label == "O")));
    let expected = lists("text").into_iter().flat_map(|words| words.into_iter().zip(1usize..));
    for (row, (word, place)) in found.iter().zip(expected) {
        assert_eq!((row[5], row[6].replace(';', ",")), (place.to_string().as_str(), word));
    }
    let silent: Vec<&Vec<&str>> = found.iter().filter(|row| row[4].is_empty()).collect();
    assert!(silent.len() == cut && silent.iter().all(|row| row[2] == "O"), "{text}");
    assert!(result["tasks"]["sentiment"]["metrics"]["log_loss"].is_number(), "{result}");
    let counted: u64 = result["tasks"]["sentiment"]["confusion"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|number| number.as_u64().unwrap())
        .sum();
    assert_eq!(counted as usize, all);
}

#[test]
fn data_are_surveyed_what_is_suspicious_first() {
    let workdir = text_workdir();
    let train = fs::read_to_string(workdir.path().join("train.tsv")).unwrap();
    let test = fs::read_to_string(workdir.path().join("test.tsv")).unwrap();
    let seen = train.lines().next().unwrap();
    workdir.write("test.tsv", format!("{test}{seen}\n"));
    workdir.write("train.tsv", format!("{train}the film was good\t0\n\t1\n{}\t1\n", "very ".repeat(30)));
    let printed = workdir.fthost(["data", "run.toml"]).succeeded().stdout;
    insta::assert_snapshot!(printed);
    let json = workdir.fthost(["data", "run.toml", "--json"]).succeeded().stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["data"][0]["parts"][1]["in_training"], 1);
    let said = json["data"][0]["suspicious"].as_array().unwrap();
    assert!(said.iter().all(|sentence| printed.contains(sentence.as_str().unwrap())) && said.len() > 3, "{said:?}");
    // The plan says the same.
    let plan = workdir.fthost(["plan", "run.toml"]).succeeded().stdout;
    assert!(plan.contains(printed.trim_end()), "{plan}");
    let plan: Value = serde_json::from_str(&workdir.fthost(["plan", "run.toml", "--json"]).succeeded().stdout).unwrap();
    assert_eq!(plan["data"], json["data"]);
    let error = workdir.fthost(["data", "run.toml", "--out", "x"]).failed(2);
    assert!(error.contains("does not take --out"), "{error}");
}
