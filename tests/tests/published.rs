//! Data sets in the forms in which they are published (`tests/data`), planned through a run file, and trained where they show something.

use fthost_tests::{Workdir, result_json, root};
use serde_json::Value;

use crate::text::{RUN, text_workdir};

/// A run file for files of `tests/data`, after these keys of its task.
fn workdir(task: &str) -> Workdir {
    let workdir = text_workdir();
    let data = root().join("tests/data");
    let files = "train = \"train.tsv\"\ntest = \"test.tsv\"\n";
    workdir.write("run.toml", RUN.replace(files, &task.replace("DATA", &data.display().to_string())));
    workdir
}

fn plan(task: &str) -> Value {
    let printed = workdir(task).fthost(["plan", "run.toml", "--json"]).succeeded().stdout;
    serde_json::from_str(&printed).unwrap()
}

const SUBJ: &str = "train = { objective = \"DATA/subj/plot.tok.gt9.5000\", subjective = \"DATA/subj/quote.tok.gt9.5000\" }\n\
    encoding = \"latin-1\"\nvalidation = 0.25\n";
const EMOBANK: &str = "train = \"DATA/emobank/emobank.csv\"\n\
    split = { column = \"split\", train = \"train\", validation = \"dev\", test = \"test\" }\n\
    columns = { text = \"text\", label = \"V\" }\n";

#[test]
fn each_is_planned_as_published() {
    let check = |task: &str, examples: u64, notes: &[&str]| {
        let plan = plan(task);
        assert_eq!(plan["examples"], examples, "{task}: {plan}");
        let found: Vec<&str> =
            plan["notes"].as_array().into_iter().flatten().map(|note| note.as_str().unwrap()).collect();
        assert_eq!(found.len(), notes.len(), "{found:?}");
        assert!(found.iter().zip(notes).all(|(found, note)| found.contains(note)), "{found:?}");
    };
    check(
        "train = \"DATA/banking77/train.csv\"\ntest = \"DATA/banking77/test.csv\"\ncolumns = { label = \"category\" }\n",
        10,
        &[],
    );
    check("train = \"DATA/sms-spam/SMSSpamCollection\"\n", 9, &["column 1 is taken for the label"]);
    check(SUBJ, 6, &[]);
    check(
        "train = \"DATA/tweeteval/train_text.txt\"\nvalidation = \"DATA/tweeteval/val_text.txt\"\ntest = \"DATA/tweeteval/test_text.txt\"\n",
        6,
        &["its label in train_labels.txt", "its label in val_labels.txt", "its label in test_labels.txt"],
    );
    check(
        "train = \"DATA/10kgnad/train.csv\"\ntest = \"DATA/10kgnad/test.csv\"\n",
        8,
        &[
            "train.csv: cells stand between semicolons",
            "column 1 is taken for",
            "test.csv: cells stand",
            "column 1 is taken for",
        ],
    );
    let values = EMOBANK.to_owned() + "#\n";
    let plan = workdir(&values);
    plan.write(
        "run.toml",
        std::fs::read_to_string(plan.path().join("run.toml")).unwrap().replace("\"classification\"", "\"regression\""),
    );
    let printed = plan.fthost(["run.toml", "--out", "run"]).succeeded().stdout;
    assert!(printed.contains("3 examples"), "{printed}");
    // The run folder's own copy of the run file reads the same rows.
    let eval = plan.fthost(["eval", "run", &root().join("tests/data/emobank/emobank.csv").display().to_string()]);
    eval.succeeded();

    let words = |task: &str, examples: u64, notes: &[&str]| {
        let workdir = workdir(task);
        let run = std::fs::read_to_string(workdir.path().join("run.toml")).unwrap();
        workdir.write("run.toml", run.replace("\"classification\"", "\"token-classification\""));
        let printed = workdir.fthost(["run.toml", "--out", "run"]).succeeded().stdout;
        notes.iter().for_each(|note| assert!(printed.contains(note), "{note}: {printed}"));
        let result = result_json(&workdir.path().join("run"));
        assert_eq!(result["plan"]["examples"], examples);
        result["tasks"]["sentiment"].clone()
    };
    let task = words(
        "train = \"DATA/conll2003/eng.train\"\ntest = \"DATA/conll2003/eng.testb\"\n",
        3,
        &["eng.train: labels in IOB1 are read as IOB2", "eng.testb: labels in IOB1 are read as IOB2"],
    );
    assert_eq!(task["labels"], serde_json::json!(["B-LOC", "B-ORG", "B-PER", "I-PER", "O"]));
    assert!(task["metrics"]["entity_f1"].is_f64(), "{task}");
    words(
        "train = \"DATA/wnut17/wnut17train.conll\"\nvalidation = \"DATA/wnut17/emerging.dev.conll\"\ntest = \"DATA/wnut17/emerging.test.annotated\"\n",
        3,
        &["emerging.test.annotated: read as one word a line"],
    );
}

#[test]
fn what_was_recognised_is_said_of_the_data() {
    let workdir = workdir("train = \"DATA/sms-spam/SMSSpamCollection\"\n");
    let printed = workdir.fthost(["data", "run.toml"]).succeeded().stdout;
    assert!(printed.starts_with("SMSSpamCollection: column 1 is taken for the label"), "{printed}");
}

/// A run on files by class, from its own copy of the run file.
#[test]
fn files_by_class_are_trained_on_and_resumed() {
    let workdir = workdir(SUBJ);
    workdir.fthost(["run.toml", "--out", "run"]).succeeded();
    let result = result_json(&workdir.path().join("run"));
    assert_eq!(result["tasks"]["sentiment"]["labels"], serde_json::json!(["objective", "subjective"]));
    assert_eq!(result["tasks"]["sentiment"]["class_counts"], serde_json::json!([3, 3]));
    workdir.fthost(["--resume", "--out", "run"]).succeeded();
    let predicted = workdir.fthost(["predict", "run", "test.tsv"]).succeeded();
    assert_eq!(predicted.stdout.lines().count(), 17);
}

/// As IMDB's reviews are published: `aclImdb/train/pos/0_9.txt`.
#[test]
fn folders_of_texts_are_trained_on_and_predictions_name_the_files() {
    let task = "train = \"DATA/imdb/train\"\ntest = \"DATA/imdb/test\"\ncolumns = { id = \"file\" }\n";
    let workdir = workdir(task);
    let printed = workdir.fthost(["run.toml", "--out", "run"]).succeeded().stdout;
    assert!(printed.contains("a text in each of 6 files, its class is its folder's name"), "{printed}");
    let result = result_json(&workdir.path().join("run"));
    assert_eq!(result["tasks"]["sentiment"]["labels"], serde_json::json!(["neg", "pos"]));
    assert_eq!(result["tasks"]["sentiment"]["class_counts"], serde_json::json!([3, 3]));
    workdir.fthost(["--resume", "--out", "run"]).succeeded();
    let folder = |name: &str| root().join("tests/data/imdb").join(name).display().to_string();
    workdir.fthost(["eval", "run", &folder("test")]).succeeded();
    let predicted = workdir.fthost(["predict", "run", &folder("test/pos"), "--format", "csv"]).succeeded().stdout;
    let ids: Vec<&str> = predicted.lines().map(|line| line.split(',').nth(1).unwrap()).collect();
    assert_eq!(ids, ["id", "0_10.txt", "1_8.txt"], "{predicted}");
    workdir.fthost(["init", &folder("train"), "--model", "model", "--out", "first.toml"]).succeeded();
    workdir.fthost(["plan", "first.toml"]).succeeded();

    let by_class = "train = { good = \"DATA/imdb/train/pos\", bad = \"DATA/imdb/train/neg\" }\nvalidation = 0.25\n";
    assert_eq!(plan(by_class)["examples"], 4);
}

#[test]
fn arrow_folders_are_trained_on() {
    let task = "train = \"DATA/arrow/splits/train\"\ntest = \"DATA/arrow/splits/test\"\n";
    let workdir = workdir(task);
    workdir.fthost(["run.toml", "--out", "run"]).succeeded();
    let result = result_json(&workdir.path().join("run"));
    assert_eq!(result["tasks"]["sentiment"]["labels"], serde_json::json!(["bad", "good"]));
    let folder = root().join("tests/data/arrow/texts").display().to_string();
    workdir.fthost(["eval", "run", &folder]).succeeded();
    workdir.fthost(["predict", "run", &folder]).succeeded();
}
