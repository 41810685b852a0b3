//! Tasks in which an example has any number of classes, or none.

use std::collections::BTreeMap;
use std::fs;

use fthost_tests::{Workdir, on_one_line, result_json};
use serde_json::{Value, json};

use crate::pictures::{RUN as PICTURES, picture_workdir};
use crate::text::{RUN, text_workdir};

/// The tiny run with topics in place of one label: what a text judges, and what it speaks of.
fn topics(form: Form, train: &str, more: &str) -> Workdir {
    let workdir = text_workdir();
    for (name, file) in [("train", "train.tsv"), ("test", "test.tsv")] {
        let rows = fs::read_to_string(workdir.path().join(file)).unwrap();
        let rows = rows.lines().map(|row| {
            let (text, label) = row.split_once('\t').unwrap();
            let mut labels = Vec::new();
            labels.extend((text.contains("film") || text.contains("movie")).then_some("film"));
            labels.extend(text.contains("plot").then_some("plot"));
            labels.extend((label == "1").then_some("praise"));
            form.row(text, &labels)
        });
        let head = if form == Form::Lists { "" } else { "text\tlabel\n" };
        workdir.write(&format!("{name}.{}", form.extension()), head.to_owned() + &rows.collect::<String>());
    }
    let run = RUN.replace("classification", "multi-label").replace("epochs = 2", train);
    let run = run.replace("test = ", &format!("{}{more}test = ", form.key()));
    workdir.write("run.toml", run.replace(".tsv", &format!(".{}", form.extension())));
    workdir
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Lists,
    Cells,
}

impl Form {
    fn extension(self) -> &'static str {
        if self == Self::Lists { "jsonl" } else { "tsv" }
    }

    fn row(self, text: &str, labels: &[&str]) -> String {
        match self {
            Self::Lists => format!("{}\n", json!({ "text": text, "label": labels })),
            Self::Cells => format!("{text}\t{}\n", labels.join(", ")),
        }
    }

    fn key(self) -> &'static str {
        if self == Self::Lists { "" } else { "label_separator = \",\"\n" }
    }
}

const TRAIN: &str = "epochs = 12";

fn rows(jsonl: &str) -> Vec<Value> {
    jsonl.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn lists_and_cells_train_the_same_and_are_reported_by_class() {
    let [lists, cells] = [Form::Lists, Form::Cells].map(|form| {
        let workdir = topics(form, TRAIN, "");
        let said = workdir.fthost(["run.toml", "--out", "run"]).succeeded().stdout;
        assert!(said.contains("samples avg") && said.contains("mean_average_precision"), "{said}");
        let mut result = result_json(&workdir.path().join("run"));
        (workdir, result["tasks"]["sentiment"].take())
    });
    assert_eq!(lists.1["metrics"], cells.1["metrics"]);
    assert_eq!(cells.1["labels"], json!(["film", "plot", "praise"]));
    assert_eq!((&lists.1["label_separator"], &cells.1["label_separator"]), (&json!("|"), &json!(",")));
    // More than is had by saying of each class what is the more frequent.
    let metrics = &lists.1["metrics"];
    assert!(metrics["mean_average_precision"].as_f64().unwrap() > 0.75, "{metrics}");
    assert_eq!(lists.1["classes"]["plot"]["support"], 2);
    assert!(lists.1.get("confusion").is_none() && metrics["hamming_loss"].is_number());

    // predictions.csv has what metrics are of.
    let table = fs::read_to_string(cells.0.path().join("run/predictions.csv")).unwrap();
    assert!(table.starts_with("task,target,prediction,example,text\n"), "{table}");
    assert!(table.contains(",\"film,praise\","), "{table}");
    let (mut whole, mut all) = (0.0, 0.0);
    for row in csv_rows(&table) {
        whole += f64::from(u8::from(row[1] == row[2]));
        all += 1.0;
    }
    assert!((whole / all - metrics["subset_accuracy"].as_f64().unwrap()).abs() < 1e-12);

    // The run evaluates and predicts as it did, in every form.
    for (workdir, data) in [(&lists.0, "test.jsonl"), (&cells.0, "test.tsv")] {
        let found = workdir.fthost(["eval", "run", data, "--json"]).succeeded().stdout;
        let found: Value = serde_json::from_str(&found).unwrap();
        assert_eq!(&found["tasks"]["sentiment"]["metrics"], metrics);
        let printed = rows(&workdir.fthost(["predict", "run", data, "--format", "jsonl"]).succeeded().stdout);
        for row in &printed {
            let chosen = |label: &str| row["probabilities"][label].as_f64().unwrap() >= 0.5;
            let expected: Vec<&str> = ["film", "plot", "praise"].into_iter().filter(|label| chosen(label)).collect();
            assert_eq!(row["labels"], json!(expected));
        }
    }
    let table =
        lists.0.fthost(["predict", "run", "test.jsonl", "--format", "tsv", "--probabilities"]).succeeded().stdout;
    assert!(table.starts_with("line\tlabel\tp(film)\tp(plot)\tp(praise)\ttext\n"), "{table}");
}

/// The cells of a CSV without line breaks in them.
fn csv_rows(table: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let (mut cells, mut quoted) = (vec![String::new()], false);
        for c in line.chars() {
            match c {
                '"' => quoted = !quoted,
                ',' if !quoted => cells.push(String::new()),
                c => cells.last_mut().unwrap().push(c),
            }
        }
        cells
    };
    table.lines().skip(1).map(cells).collect()
}

#[test]
fn thresholds_of_each_class_are_fitted_on_validation_and_hold_wherever_the_model_is_used() {
    let workdir = topics(Form::Lists, "epochs = 3\nthreshold = \"f1\"", "validation = 0.3\n");
    let said = workdir.fthost(["run.toml", "--out", "run"]).succeeded().stdout;
    assert!(said.contains("a threshold for each class, fitted on 9 validation examples"), "{said}");
    assert!(said.contains("validation mean_average_precision"), "{said}");
    let result = result_json(&workdir.path().join("run"));
    let calibration = &result["tasks"]["sentiment"]["calibration"];
    let thresholds: Vec<f64> = serde_json::from_value(calibration["thresholds"].clone()).unwrap();
    assert!(thresholds.len() == 3 && thresholds.iter().any(|t| *t != 0.5), "{calibration}");
    let decision: Value =
        serde_json::from_slice(&fs::read(workdir.path().join("run/adapter/decision.json")).unwrap()).unwrap();
    assert_eq!(decision["thresholds"], calibration["thresholds"]);
    assert!(decision["multi_label"] == json!(true) && decision["note"].as_str().unwrap().contains("0.5 for all"));
    workdir.fthost(["merge", "run", "merged"]).succeeded();
    let config: Value = serde_json::from_slice(&fs::read(workdir.path().join("merged/config.json")).unwrap()).unwrap();
    assert_eq!(config["problem_type"], "multi_label_classification");
    let of =
        |folder: &str| rows(&workdir.fthost(["predict", folder, "test.jsonl", "--format", "jsonl"]).succeeded().stdout);
    let run = of("run");
    for row in &run {
        let there = |(label, t): (&&str, &f64)| row["probabilities"][label].as_f64().unwrap() >= *t;
        let labels = ["film", "plot", "praise"];
        let expected: Vec<&str> =
            labels.iter().zip(&thresholds).filter(|pair| there(*pair)).map(|(label, _)| *label).collect();
        assert_eq!(row["labels"], json!(expected));
    }
    let table = workdir.fthost(["predict", "run", "test.jsonl", "--format", "tsv"]).succeeded().stdout;
    let joined: Vec<&str> = table.lines().skip(1).map(|row| row.split('\t').nth(1).unwrap()).collect();
    let listed = |row: &Value| serde_json::from_value::<Vec<String>>(row["labels"].clone()).unwrap().join("|");
    assert_eq!(joined, run.iter().map(listed).collect::<Vec<_>>());
    assert!(joined.iter().any(|labels| labels.contains('|')), "{table}");
    // One threshold for all of them is taken as it is.
    let arguments = ["run.toml", "--out", "low", "--set", "train.threshold=0.01"];
    workdir.fthost(arguments).succeeded();
    let low = result_json(&workdir.path().join("low"));
    assert_eq!(low["tasks"]["sentiment"]["calibration"]["threshold"], 0.01);
    assert_eq!(low["tasks"]["sentiment"]["metrics"]["micro_recall"], 1.0);
    for folder in ["run/adapter", "merged"] {
        let found = of(folder);
        assert!(run.iter().zip(&found).all(|(run, found)| run["labels"] == found["labels"]), "{folder}");
        let eval = workdir.fthost(["eval", folder, "test.jsonl", "--json"]).succeeded().stdout;
        let eval: Value = serde_json::from_str(&eval).unwrap();
        let (found, expected) = (eval["tasks"].as_object().unwrap(), &result["tasks"]["sentiment"]["metrics"]);
        for name in ["macro_f1", "subset_accuracy"] {
            assert_eq!(found.values().next().unwrap()["metrics"][name], expected[name], "{folder}: {name}");
        }
    }
    // As Transformers leaves a folder of its own, which says no more than config.json.
    for file in ["labels.json", "decision.json"] {
        fs::remove_file(workdir.path().join("merged").join(file)).unwrap();
    }
    for (run, found) in run.iter().zip(of("merged")) {
        let p = |row: &Value| row["probabilities"]["praise"].as_f64().unwrap();
        assert!((p(run) - p(&found)).abs() < 1e-5 && found["labels"].is_array(), "{found}");
    }
}

#[test]
fn weights_groups_surveys_and_first_run_files_know_any_number_of_classes() {
    let workdir = topics(Form::Lists, TRAIN, "validation = 0.3\ncolumns = { weight = \"w\", group = \"g\" }\n");
    for file in ["train.jsonl", "test.jsonl"] {
        let text = fs::read_to_string(workdir.path().join(file)).unwrap();
        let rows = text.lines().enumerate().map(|(i, line)| {
            let mut row: Value = serde_json::from_str(line).unwrap();
            (row["w"], row["g"]) = (json!(1.0 + (i % 3) as f64), json!(i / 3));
            format!("{row}\n")
        });
        workdir.write(file, rows.collect::<String>());
    }
    let data = workdir.fthost(["data", "run.toml", "--json"]).succeeded().stdout;
    let data: Value = serde_json::from_str(&data).unwrap();
    let part = &data["data"][0]["parts"][0];
    assert!(part["classes_each"].as_f64().unwrap() > 0.9 && part["of_none"].as_u64().unwrap() > 0, "{part}");
    assert!(part.get("majority").is_none_or(Value::is_null), "{part}");
    let text = workdir.fthost(["data", "run.toml"]).succeeded().stdout;
    assert!(text.contains("classes, mean") && text.contains("of no class") && text.contains("praise"), "{text}");
    workdir.fthost(["run.toml", "--out", "run"]).succeeded();
    let made = workdir.fthost(["init", "train.jsonl", "--model", "model"]).succeeded().stdout;
    assert!(made.contains("plugin = \"multi-label\"") && made.contains("holds lists of labels"), "{made}");
}

#[test]
fn folds_and_candidates_are_compared() {
    let workdir = topics(Form::Cells, "epochs = 2", "");
    let folded = workdir.fthost(["compare", "run.toml", "--folds", "3", "--out", "folds"]).succeeded().stdout;
    assert!(folded.contains("macro_f1"), "{folded}");
    let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
    workdir.write("slow.toml", run.replace("lr = 0.01", "lr = 0.0001"));
    let by = ["--metric", "mean_average_precision", "--seeds", "2", "--out", "both"];
    let both = workdir.fthost(["compare", "run.toml", "slow.toml"].into_iter().chain(by)).succeeded().stdout;
    assert!(both.contains("mean_average_precision"), "{both}");
}

#[test]
fn what_cannot_be_meant_is_refused_before_training() {
    let check = |form: Form, change: &dyn Fn(String) -> String, expected: &str, help: &str| {
        let workdir = topics(form, TRAIN, "");
        let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
        workdir.write("run.toml", change(run));
        let error = on_one_line(&workdir.fthost(["run.toml", "--out", "run"]).failed(2));
        assert!(error.contains(expected) && error.contains(help), "{error}");
        assert!(!workdir.path().join("run").exists());
    };
    let replace = |from: &'static str, to: &'static str| move |run: String| run.replace(from, to);
    let workdir = topics(Form::Cells, TRAIN, "");
    let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
    workdir.write("run.toml", run.replace("label_separator = \",\"\n", ""));
    for file in ["train.tsv", "test.tsv"] {
        workdir.write(file, "text\tlabel\na good film\tfilm, praise\na bad film\tfilm\n");
    }
    let error = on_one_line(&workdir.fthost(["run.toml", "--out", "run"]).failed(2));
    assert!(error.contains("train.tsv:2: the label `film, praise` looks like several"), "{error}");
    assert!(error.contains("label_separator = \",\""), "{error}");
    check(
        Form::Lists,
        &replace("multi-label", "classification"),
        "any number of labels for an example",
        "any number of classes",
    );
    check(
        Form::Lists,
        &replace("test = ", "balance = \"oversample\"\ntest = "),
        "task[0].balance needs one class",
        "leave it out",
    );
    check(
        Form::Lists,
        &replace("test = ", "validation = 0.3\ntest = ").then_calibrate(),
        "a temperature is for one class of several",
        "leave it out",
    );
    let weights = "\"multi-label\", positive_weights = { prose = 2.0 }";
    check(Form::Lists, &replace("\"multi-label\"", weights), "names the class `prose`", "film, plot, praise");
}

/// A change of a run file, and a key more in it.
trait Change {
    fn then_calibrate(self) -> impl Fn(String) -> String;
}

impl<F: Fn(String) -> String> Change for F {
    fn then_calibrate(self) -> impl Fn(String) -> String {
        move |run| self(run).replace("lr = 0.01", "lr = 0.01\ncalibrate = true")
    }
}

#[test]
fn a_killed_run_ends_with_the_same_bits() {
    let [through, stopped] =
        [(); 2].map(|()| topics(Form::Cells, "epochs = 6\ncheckpoint_steps = 5", "validation = 0.3\n"));
    through.fthost(["run.toml", "--out", "run"]).succeeded();
    let mut child = crate::resume::start_until_checkpoint(&stopped, &["run.toml", "--out", "run"]);
    child.kill().unwrap();
    child.wait().unwrap();
    if stopped.path().join("run/result.json").is_file() {
        crate::resume::set_back(&stopped.path().join("run"));
    }
    stopped.fthost(["--resume", "--out", "run"]).succeeded();
    let of = |workdir: &Workdir| crate::resume::bits(&workdir.path().join("run"));
    let (expected, found) = (of(&through), of(&stopped));
    assert!(expected.0 == found.0 && expected.1 == found.1);
    let counts: BTreeMap<String, Value> = serde_json::from_value(found.2["sentiment"]["classes"].clone()).unwrap();
    assert_eq!(counts.len(), 3);
}

/// Pictures have any number of classes as texts have: cells beside their paths.
#[test]
fn pictures_have_any_number_of_classes() {
    let workdir = picture_workdir();
    for part in ["train", "test"] {
        let mut rows = String::from("file_name\tlabel\n");
        for (class, labels) in [("across", "across|bars"), ("down", "bars"), ("plain", "")] {
            let mut files: Vec<_> = fs::read_dir(workdir.path().join(part).join(class)).unwrap().collect();
            files.sort_by_key(|file| file.as_ref().unwrap().file_name());
            for file in files {
                let name = file.unwrap().file_name();
                rows += &format!("{part}/{class}/{}\t{labels}\n", name.display());
            }
        }
        workdir.write(&format!("{part}.tsv"), rows);
    }
    let run = PICTURES.replace("\"classification\"", "\"multi-label\"").replace("epochs = 4", "epochs = 8");
    let run = run.replace("train = \"train\"", "train = \"train.tsv\"\nlabel_separator = \"|\"");
    workdir.write("run.toml", run.replace("test = \"test\"", "test = \"test.tsv\""));
    let said = workdir.fthost(["run.toml", "--out", "run"]).succeeded().stdout;
    let mut result = result_json(&workdir.path().join("run"));
    let task = result["tasks"]["shapes"].take();
    assert_eq!(task["labels"], json!(["across", "bars"]), "{said}");
    assert!(task["metrics"]["mean_average_precision"].as_f64().unwrap() > 0.9, "{said}");
    assert!(task["metrics"]["subset_accuracy"].as_f64().unwrap() > 0.8, "{said}");

    let found = workdir.fthost(["eval", "run", "test.tsv", "--json"]).succeeded().stdout;
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["tasks"]["shapes"]["metrics"], task["metrics"]);
    let printed = rows(&workdir.fthost(["predict", "run", "test/plain", "--format", "jsonl"]).succeeded().stdout);
    assert_eq!(printed.len(), 4);
    assert!(printed.iter().any(|row| row["labels"] == json!([])), "{printed:?}");
}
