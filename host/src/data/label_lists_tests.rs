//! Examples with any number of classes, in every form in which they come.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fthost_autograd::Device;
use fthost_plugin_api::TargetKind;

use super::super::fixtures::{TEXT, load_file, load_separated};
use super::*;
use crate::data::Fold;

/// As its help says it, and its message.
fn words(error: &Error) -> String {
    format!("{error} | {}", miette::Diagnostic::help(error).map(|help| help.to_string()).unwrap_or_default())
}

fn multi(data: Result<Dataset>) -> Dataset {
    let mut data = data.unwrap();
    data.set_targets(TargetKind::MultiLabel).unwrap();
    data
}

fn classes(data: &Dataset) -> Vec<Vec<u32>> {
    (0..data.len() as u32).map(|row| data.classes_of(row).unwrap()).collect()
}

const LISTS: &str = "{\"text\": \"a\", \"label\": [\"joy\", \"anger\"]}\n{\"text\": \"b\", \"label\": []}\n{\"text\": \"c\", \"label\": [\"joy\", \"joy\"]}\n";

fn lists(memory: usize, labels: Option<&[String]>) -> Result<Dataset> {
    load_file(("a.jsonl", LISTS.as_bytes()), labels, TEXT, memory)
}

#[test]
fn lists_and_cells_hold_the_same() {
    let cells = "text,label\na,\"joy, anger\"\nb,\nc,\"joy,joy\"\n";
    for data in [lists(usize::MAX, None), lists(0, None), load_separated(("a.csv", cells), ",")] {
        let data = multi(data);
        assert_eq!(data.labels(), ["anger", "joy"]);
        assert_eq!(classes(&data), [vec![0, 1], vec![], vec![1]]);
        assert_eq!(data.class_counts(), [1, 2]);
        let indicators = data.targets(&[2, 0, 1], &Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(indicators, [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]);
        assert_eq!((data.first_text("anger"), data.first_text("joy")), (Some("a"), Some("a")));
        assert!(data.is_multi_label() && data.class(0).unwrap().is_none());
    }
    let json = format!("[{}]", LISTS.trim().replace('\n', ",\n"));
    assert_eq!(
        classes(&multi(load_file(("a.json", json.as_bytes()), None, TEXT, usize::MAX))),
        [vec![0, 1], vec![], vec![1]]
    );
}

#[test]
fn a_cell_that_is_plainly_one_label_is_one() {
    let data = multi(load_file(("a.tsv", b"a\tx\nb\ty\nc\tx\n"), None, TEXT, usize::MAX));
    assert_eq!(classes(&data), [[0], [1], [0]]);
    let mut data = load_file(("a.tsv", b"a\tx\nb\tx;y\nc\tx\n"), None, TEXT, usize::MAX).unwrap();
    let error = words(&data.set_targets(TargetKind::MultiLabel).unwrap_err());
    assert!(
        error.contains("a.tsv:2: the label `x;y` looks like several") && error.contains("label_separator = \";\""),
        "{error}"
    );
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let load = |content: &str| load_file(("a.jsonl", content.as_bytes()), None, TEXT, usize::MAX);
    let check = |content: &str, expected: &str| {
        let error = words(&load(content).unwrap_err());
        assert!(error.contains(expected), "{error}");
    };
    check(
        &format!("{LISTS}{{\"text\": \"d\", \"label\": \"joy\"}}\n"),
        "a.jsonl:4: this row has one label, and rows before it have lists",
    );
    check(
        "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"label\": [\"x\"]}\n",
        "a.jsonl:2: this row has a list of labels",
    );
    check("{\"text\": \"a\", \"label\": [\"x\", \"\"]}\n", "a.jsonl:1: label 2 of this row is empty");
    check("{\"text\": \"a\", \"label\": [[\"x\"]]}\n", "element 1 of `label` is an array");
    let mut data = load(LISTS).unwrap();
    for kind in [TargetKind::Class, TargetKind::Value] {
        let error = words(&data.set_targets(kind).unwrap_err());
        assert!(error.contains("has any number of labels for an example"), "{error}");
    }
    // A label that training has not.
    let mut test = lists(usize::MAX, Some(&["joy".into()])).unwrap();
    let error = words(&test.set_targets(TargetKind::MultiLabel).unwrap_err());
    assert!(error.contains("a.jsonl:1: the label `anger` does not occur in the training data"), "{error}");
}

/// Rows of one class in so many, of both, and of none.
fn rows(a: usize, b: usize, both: usize, none: usize) -> Dataset {
    let of = |list: &str, n: usize| format!("{{\"text\": \"a b\", \"label\": {list}}}\n").repeat(n);
    let all = [of("[\"a\"]", a), of("[\"b\"]", b), of("[\"a\", \"b\"]", both), of("[]", none)].concat();
    multi(load_file(("a.jsonl", all.as_bytes()), None, TEXT, usize::MAX))
}

#[test]
fn shares_and_folds_have_the_rarest_class_of_each_example_in_proportion() {
    // b is the rarer: those of both count as its.
    let (train, held_out) = rows(40, 10, 10, 20).split(0.2, 3).unwrap();
    let numbers = |data: &Dataset| {
        let of = |wanted: &[u32]| classes(data).iter().filter(|classes| classes.as_slice() == wanted).count();
        [of(&[0]), of(&[1]) + of(&[0, 1]), of(&[])]
    };
    assert_eq!((numbers(&train), numbers(&held_out)), ([32, 16, 16], [8, 4, 4]));
    assert_eq!(held_out.class_counts().len(), 2);
    assert_eq!(held_out.class_counts()[1], 4);
    for fold in Fold::all(4) {
        let (_, tested) = rows(40, 10, 10, 20).split_fold(fold).unwrap();
        assert_eq!(numbers(&tested), [10, 5, 5]);
    }
    // A class of a single example stays in training.
    let (train, held_out) = rows(10, 0, 1, 0).split(0.5, 1).unwrap();
    assert_eq!((train.class_counts(), held_out.class_counts()), (vec![6, 1], vec![5, 0]));
}
