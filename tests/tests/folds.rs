//! Cross-validation: `test = { fold = K, of = N }` in a run file, and `fthost compare --folds`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use fthost_tests::{Workdir, on_one_line, result_json};
use serde_json::{Value, json};

use crate::compare::{comparison, start_until, written};
use crate::text::{LORA, RUN, text_workdir};

/// The rows of a predictions file without quotes, by column.
fn predictions(workdir: &Workdir, file: &str) -> Vec<BTreeMap<String, String>> {
    let text = fs::read_to_string(workdir.path().join(file)).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let header = lines.next().unwrap();
    lines.map(|cells| header.iter().cloned().zip(cells).collect()).collect()
}

fn numbers(rows: &[BTreeMap<String, String>], column: &str) -> Vec<u64> {
    rows.iter().map(|row| row[column].parse().unwrap_or_else(|_| panic!("{column} of {row:?}"))).collect()
}

fn close(found: &Value, expected: f64) {
    assert!((found.as_f64().unwrap() - expected).abs() < 1e-9 * expected.abs().max(1.0), "{found} is not {expected}");
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The standard error of a mean over folds, as the corrected resampled t-test has it.
fn corrected_error(values: &[f64], folds: usize) -> f64 {
    let variance = values.iter().map(|value| (value - mean(values)).powi(2)).sum::<f64>() / (values.len() - 1) as f64;
    ((1.0 / values.len() as f64 + 1.0 / (folds - 1) as f64) * variance).sqrt()
}

/// The metric of each fold's run, by what the runs left; of several seeds the mean.
fn by_fold(workdir: &Workdir, candidate: &Value, metric: &str, folds: u64) -> Vec<f64> {
    let runs = candidate["runs"].as_array().unwrap();
    let of_run = |run: &Value| {
        let result = result_json(&workdir.path().join(run["folder"].as_str().unwrap()));
        result["tasks"]["sentiment"]["metrics"][metric].as_f64().unwrap()
    };
    let of_fold = |fold: u64| mean(&runs.iter().filter(|run| run["fold"] == fold).map(of_run).collect::<Vec<_>>());
    (1..=folds).map(of_fold).collect()
}

#[test]
fn one_candidate_is_tested_on_every_training_example_once() {
    let workdir = text_workdir();
    let outcome = workdir.fthost(["compare", "run.toml", "--folds", "4", "--out", "cv"]).succeeded();
    let found = comparison(&workdir, "cv");
    assert_eq!((&found["folds"], &found["seeds"], &found["examples"]), (&json!(4), &json!([0]), &json!(32)));
    assert_eq!((&found["intervals"], &found["pairs"]), (&json!("corrected_resampled_t"), &json!([])));
    let candidate = &found["candidates"][0];
    let folds: Vec<u64> =
        candidate["runs"].as_array().unwrap().iter().map(|run| run["fold"].as_u64().unwrap()).collect();
    assert_eq!((folds, &candidate["name"]), (vec![1, 2, 3, 4], &json!("run")));

    // Every metric: its mean over the folds and its interval, t(3) = 3.182446 standard errors to either side.
    for metric in ["accuracy", "loss", "log_loss", "macro_f1"] {
        let values = by_fold(&workdir, candidate, metric, 4);
        let (estimate, half) = (&candidate["metrics"][metric], 3.182446305284263 * corrected_error(&values, 4));
        close(&estimate["mean"], mean(&values));
        close(&estimate["interval"][0], mean(&values) - half);
        close(&estimate["interval"][1], mean(&values) + half);
        assert_eq!(estimate["folds"], 4);
    }
    close(&candidate["mean"], mean(&by_fold(&workdir, candidate, "accuracy", 4)));

    // Out-of-fold predictions: every line of the training file in its order, by the fold that had not trained on it.
    let rows = predictions(&workdir, "cv/run/predictions.csv");
    assert_eq!(numbers(&rows, "line"), (1..=32).collect::<Vec<_>>());
    assert_eq!(numbers(&rows, "example"), numbers(&rows, "line"));
    let mut counts = BTreeMap::new();
    for row in &rows {
        *counts.entry((row["fold"].clone(), row["target"].clone())).or_insert(0) += 1;
        assert!(row["seed"] == "0" && row["p(0)"].parse::<f64>().is_ok() && row["p(1)"].parse::<f64>().is_ok());
    }
    assert!(counts.len() == 8 && counts.values().all(|&count| count == 4), "{counts:?}");
    let right = rows.iter().filter(|row| row["target"] == row["prediction"]).count();
    let together = &candidate["out_of_fold"];
    close(&together["report"]["metrics"]["accuracy"], right as f64 / 32.0);
    for metric in ["roc_auc", "log_loss", "brier", "matthews"] {
        assert!(together["report"]["metrics"][metric].is_number(), "{metric}: {together}");
    }
    assert_eq!((&together["folds"], &together["labels"]), (&json!(4), &json!(["0", "1"])));

    // The test file is left out, and that is said before and after.
    let note =
        "test.tsv is not used: the folds are of the training examples, and the rows of the test file stay unseen";
    assert_eq!(found["notes"], json!([note]));
    for text in [&outcome.stderr, &outcome.stdout] {
        assert!(on_one_line(text).contains(note), "{text}");
    }
    let printed = on_one_line(&outcome.stdout);
    for said in [
        "accuracy over 4 folds of 32 examples, seed 0",
        "4 of 4",
        "mean over folds",
        "predictions of the 4 folds together, each by the model that had not seen it (seed 0)",
        "macro avg",
        "intervals and p are those of the corrected resampled t-test over folds (Nadeau and Bengio 2003)",
        "out-of-fold predictions are in cv/run/predictions.csv",
    ] {
        assert!(printed.contains(said), "{said} is not in {printed}");
    }
    assert!(outcome.stderr.contains("run 4 of 4: run, fold 4, seed 0, about "), "{}", outcome.stderr);
    let page = fs::read_to_string(workdir.path().join("cv/comparison.html")).unwrap();
    assert!(page.contains("corrected resampled t-test") && page.contains("class=\"run\"") && page.contains(note));

    // Nothing is made again, and JSON says what was printed.
    let before = written(&workdir, "cv/run/fold-1-seed-0");
    let again = workdir.fthost(["compare", "--resume", "--out", "cv", "--json"]).succeeded();
    assert_eq!(serde_json::from_str::<Value>(&again.stdout).unwrap(), found);
    assert_eq!(written(&workdir, "cv/run/fold-1-seed-0"), before);
    let error = workdir.fthost(["compare", "--resume", "--out", "cv", "--folds", "5"]).failed(2);
    assert!(on_one_line(&error).contains("cv has 4 folds, and --folds asks for 5 folds"), "{error}");

    // A fold is an ordinary run of a run file, whose examples follow from no seed.
    let fold = fs::read_to_string(workdir.path().join("cv/run/fold-2.toml")).unwrap();
    assert!(fold.contains("test = { fold = 2, of = 4 }"), "{fold}");
    workdir.fthost(["cv/run/fold-2.toml", "--out", "again", "--seed", "7"]).succeeded();
    let of_run = |run: &str| numbers(&predictions(&workdir, &format!("{run}/predictions.csv")), "line");
    assert_eq!(of_run("again"), of_run("cv/run/fold-2-seed-0"));
    workdir.fthost(["eval", "again", "test.tsv"]).succeeded();
}

#[test]
fn two_candidates_differ_by_the_corrected_resampled_t_test_over_folds() {
    let workdir = text_workdir();
    workdir.write("run.toml", RUN.replace("test = ", "validation = 0.25\ntest = "));
    let candidates = ["--plugin", "liblora.so", "--plugin", "libfull.so"];
    let arguments =
        [&["compare", "run.toml"][..], &candidates, &["--folds", "3", "--seeds", "2", "--out", "c"]].concat();
    let outcome = workdir.fthost(&arguments).succeeded();
    let found = comparison(&workdir, "c");
    let of = |place: usize| &found["candidates"][place];
    assert_eq!(of(0)["runs"].as_array().unwrap().len(), 6);
    let (a, b) = (by_fold(&workdir, of(0), "accuracy", 3), by_fold(&workdir, of(1), "accuracy", 3));
    let differences: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
    let pair = &found["pairs"][0];
    assert_eq!((&pair["test"], &pair["folds"]), (&json!("corrected_resampled_t"), &json!([1, 2, 3])));
    close(&pair["difference"], mean(&differences));
    let error = corrected_error(&differences, 3);
    if error > 0.0 {
        close(&pair["t"], mean(&differences) / error);
        close(&pair["interval"][1], mean(&differences) + 4.302652729911275 * error); // t(2)
    }
    assert_eq!(
        found["paired"]["order"], true,
        "the runs of a fold and a seed take the same examples in the same order"
    );
    let printed = on_one_line(&outcome.stdout);
    for said in
        ["accuracy over 3 folds of 32 examples, seeds 0, 1", "corrected t p", "Holm p", "the runs of a fold had"]
    {
        assert!(printed.contains(said), "{said} is not in {printed}");
    }
    let page = fs::read_to_string(workdir.path().join("c/comparison.html")).unwrap();
    assert!(page.contains("Nadeau and Bengio 2003") && page.contains("lora - full"));
    // Of several seeds all are in the file.
    let rows = predictions(&workdir, "c/full/predictions.csv");
    assert_eq!(numbers(&rows, "line"), (1..=32).flat_map(|line| [line, line]).collect::<Vec<_>>());
    assert_eq!(numbers(&rows, "seed")[..4], [0, 1, 0, 1]);
    // Any metric that the runs have is told from what they left.
    let arguments = ["compare", "--resume", "--out", "c", "--metric", "roc_auc", "--quiet"];
    assert!(workdir.fthost(arguments).succeeded().stderr.is_empty());
    close(&comparison(&workdir, "c")["candidates"][0]["mean"], mean(&by_fold(&workdir, of(0), "roc_auc", 3)));
}

#[test]
fn folds_that_are_stopped_go_on_and_get_more_seeds() {
    let workdir = text_workdir();
    let arguments = ["run.toml", "--folds", "3", "--out", "c", "--quiet"];
    let mut child = start_until(&workdir, &arguments, |root| root.join("c/run/fold-2-seed-0/run.toml").is_file());
    child.kill().unwrap();
    child.wait().unwrap();
    let before = written(&workdir, "c/run/fold-1-seed-0");
    workdir.fthost(["compare", "--resume", "--out", "c"]).succeeded();
    workdir.fthost(["compare", "--resume", "--out", "c", "--folds", "3", "--seeds", "2"]).succeeded();
    assert_eq!(written(&workdir, "c/run/fold-1-seed-0"), before);
    let found = comparison(&workdir, "c");
    assert_eq!((&found["seeds"], &found["folds"]), (&json!([0, 1]), &json!(3)));
    assert_eq!(found["candidates"][0]["runs"].as_array().unwrap().len(), 6);
    // A comparison of seeds is none of folds.
    workdir.fthost(["compare", "run.toml", "run.toml", "--seeds", "1", "--out", "d"]).succeeded();
    let error = workdir.fthost(["compare", "--resume", "--out", "d", "--folds", "3"]).failed(2);
    assert!(on_one_line(&error).contains("d has no folds, and --folds asks for 3 folds"), "{error}");
}

/// Rows in a form of their own, with ids that say whose they are: no author is tested and trained on in one run.
#[test]
fn groups_stay_whole_and_ids_come_along() {
    let workdir = text_workdir();
    let row = |i: usize| {
        let word = ["good", "bad"][i % 2];
        format!(
            "{{\"text\": \"the film was {word}\", \"label\": \"{word}\", \"author\": \"A{}\", \"id\": \"r{i}\"}}\n",
            i * i % 11
        )
    };
    workdir.write("train.jsonl", (0..44).map(row).collect::<String>());
    let columns = "train = \"train.jsonl\"\ntest = 0.25\ncolumns = { group = \"author\", id = \"id\" }";
    workdir.write("run.toml", RUN.replace("train = \"train.tsv\"\ntest = \"test.tsv\"", columns));
    let outcome = workdir.fthost(["compare", "run.toml", "--folds", "3", "--out", "c"]).succeeded();
    let note = "test = 0.25 is not used: the folds are of all training examples, and each is tested once";
    assert!(on_one_line(&outcome.stdout).contains(note), "{}", outcome.stdout);
    let rows = predictions(&workdir, "c/run/predictions.csv");
    assert_eq!(
        rows.iter().map(|row| row["id"].clone()).collect::<Vec<_>>(),
        (0..44).map(|i| format!("r{i}")).collect::<Vec<_>>()
    );
    let mut authors: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for row in &rows {
        let i: usize = row["id"][1..].parse().unwrap();
        authors.entry(row["fold"].clone()).or_default().insert(i * i % 11);
    }
    assert_eq!((authors.len(), authors.values().map(BTreeSet::len).sum::<usize>()), (3, 6), "{authors:?}");
}

#[test]
fn values_words_and_images_have_folds() {
    let values = text_workdir();
    let rows = fs::read_to_string(values.path().join("train.tsv")).unwrap();
    let rows: String =
        rows.lines().enumerate().map(|(i, row)| format!("{}\t{i}.5\n", row.split('\t').next().unwrap())).collect();
    values.write("train.tsv", rows);
    values.write("run.toml", RUN.replace("\"classification\"", "\"regression\"").replace("test = \"test.tsv\"\n", ""));
    values.fthost(["compare", "run.toml", "--folds", "3", "--out", "c"]).succeeded();
    let found = comparison(&values, "c");
    assert_eq!((&found["metric"], &found["notes"]), (&json!("mse"), &Value::Null));
    let rows = predictions(&values, "c/run/predictions.csv");
    let errors = rows.iter().map(|row| {
        let number = |column: &str| row[column].parse::<f64>().unwrap();
        (number("target") - number("prediction")).powi(2)
    });
    let together = &found["candidates"][0]["out_of_fold"]["report"]["metrics"];
    assert!((together["mse"].as_f64().unwrap() - mean(&errors.collect::<Vec<_>>())).abs() < 1e-3, "{together}");

    let words = text_workdir();
    let row = |i: usize| {
        let word = ["good", "bad"][i % 2];
        format!("{{\"text\": [\"the\", \"film\", \"was\", \"{word}\"], \"label\": [\"O\", \"B-X\", \"O\", \"O\"]}}\n")
    };
    words.write("train.jsonl", (0..9).map(row).collect::<String>());
    let run = RUN.replace("\"classification\"", "\"token-classification\"").replace("train.tsv", "train.jsonl");
    words.write("run.toml", run.replace("test = \"test.tsv\"\n", ""));
    words.fthost(["compare", "run.toml", "--folds", "3", "--out", "c", "--metric", "entity_f1"]).succeeded();
    let found = comparison(&words, "c");
    assert_eq!((&found["metric"], &found["examples"]), (&json!("entity_f1"), &json!(9)));
    let report = &found["candidates"][0]["out_of_fold"]["report"];
    assert!(report["metrics"]["entity_f1"].is_number() && report["entity_report"].is_string(), "{report}");
    assert_eq!(predictions(&words, "c/run/predictions.csv").len(), 36);

    // Embedded images have numbers and no lines.
    let images = Workdir::new();
    let short = ["--set", "train.steps=4", "--set", "train.evaluate_before=false"];
    let arguments = ["compare", "--plugin", "liblora.so", "--folds", "2", "--out", "c"];
    images.fthost(arguments.iter().chain(&short)).succeeded();
    let rows = predictions(&images, "c/lora/predictions.csv");
    assert_eq!(numbers(&rows, "example"), (1..=1442).collect::<Vec<_>>());
    assert!(!rows[0].contains_key("line"));
}

/// Metrics of a single fold may be undefined, and runs may fail: the others are told.
#[test]
fn a_fold_that_fails_is_said_and_the_others_count() {
    let workdir = text_workdir();
    workdir.write("run.toml", RUN.replace(LORA, "plugin = \"full\""));
    let outcome = workdir.fthost(["compare", "run.toml", "--folds", "20", "--out", "c"]).failed(1);
    let error = on_one_line(&outcome);
    assert!(error.contains("nothing could be compared: run failed in 1 of 20 runs"), "{error}");
    assert!(error.contains("examples, and there are 20 folds"), "{error}");
    assert!(!Path::new(&workdir.path().join("c/run/fold-2-seed-0")).exists(), "one fold tells it of all");

    workdir.fthost(["compare", "run.toml", "--folds", "4", "--out", "d"]).succeeded();
    fs::remove_dir_all(workdir.path().join("d/run/fold-3-seed-0")).unwrap();
    // Its model is gone for as long as that fold runs: the file says another.
    let model = fs::read(workdir.path().join("model/config.json")).unwrap();
    workdir.write("model/config.json", "{");
    let outcome = workdir.fthost(["compare", "--resume", "--out", "d"]).succeeded();
    assert!(outcome.stdout.contains("run failed in 1 of 4 runs"), "{}", outcome.stdout);
    let found = comparison(&workdir, "d");
    assert_eq!(found["candidates"][0]["metrics"]["accuracy"]["folds"], 3);
    assert_eq!(found["candidates"][0]["out_of_fold"]["folds"], 3);
    workdir.write("model/config.json", model);
    workdir.fthost(["compare", "--resume", "--out", "d"]).succeeded();
    assert_eq!(comparison(&workdir, "d")["candidates"][0]["metrics"]["accuracy"]["folds"], 4);
}
