#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::collections::BTreeSet;

use fthost_autograd::Device;
use fthost_plugin_api::TargetKind;
use miette::Diagnostic;
use serde_json::Value;

use super::super::fixtures::{DIGITS, TEXT, load_digits, load_file, load_grouped, load_text};
use super::super::part;
use super::*;

/// Lines of a data set, or where there are none the rows of its store.
fn places(data: &Dataset) -> Vec<u64> {
    let place = |row| data.place(row).unwrap().1.unwrap_or_else(|| u64::from(data.selection.row(row)));
    (0..data.len() as u32).map(place).collect()
}

/// The test parts of all folds, which are a partition; each beside what is left to train on.
#[track_caller]
fn folds(whole: &Dataset, of: u32) -> Vec<(Dataset, Dataset)> {
    let parts: Vec<(Dataset, Dataset)> = Fold::all(of).map(|fold| whole.clone().split_fold(fold).unwrap()).collect();
    for (train, test) in &parts {
        assert!(places(train).is_sorted() && places(test).is_sorted());
        let mut both = [places(train), places(test)].concat();
        both.sort_unstable();
        assert_eq!(both, places(whole), "every example is trained on or tested");
        assert_eq!(train.total_tokens() + test.total_tokens(), whole.total_tokens());
        assert_eq!(train.labels(), whole.labels());
    }
    let mut tested: Vec<u64> = parts.iter().flat_map(|(_, test)| places(test)).collect();
    tested.sort_unstable();
    assert_eq!(tested, places(whole), "every example is tested once");
    parts
}

/// The difference of the largest and the smallest.
fn range(values: impl Iterator<Item = u64> + Clone) -> u64 {
    values.clone().max().unwrap() - values.min().unwrap()
}

fn rows(counts: &[usize]) -> String {
    let most = *counts.iter().max().unwrap();
    let of = |i: usize| counts.iter().enumerate().filter(move |&(_, &count)| i < count).map(|(class, _)| class);
    (0..most).flat_map(of).enumerate().map(|(i, class)| format!("{}\tc{class}\n", ["a", "b c", "d"][i % 3])).collect()
}

#[test]
fn folds_are_a_partition_in_memory_and_on_disk() {
    for (counts, of) in [(&[40, 10, 3][..], 3), (&[7, 6], 5), (&[9], 4), (&[2, 2, 2, 2, 2], 2), (&[30, 70], 10)] {
        let mut found = Vec::new();
        for memory in [0, usize::MAX] {
            let whole = load_text(&rows(counts), None, memory).unwrap();
            let parts = folds(&whole, of);
            for class in 0..counts.len() {
                assert!(range(parts.iter().map(|(_, test)| test.class_counts()[class])) <= 1, "{counts:?} in {of}");
            }
            assert!(range(parts.iter().map(|(_, test)| test.len() as u64)) <= 1, "{counts:?} in {of}");
            found.push(parts.iter().map(|(_, test)| places(test)).collect::<Vec<_>>());
        }
        assert_eq!(found[0], found[1], "they do not depend on where rows are kept");
    }
}

/// A file that is sorted by anything does not give folds that are.
#[test]
fn folds_are_no_blocks_and_no_combs() {
    let whole = load_text(&rows(&[200]), None, usize::MAX).unwrap();
    for (_, test) in folds(&whole, 4) {
        let lines = places(&test);
        let (low, gaps) =
            (lines.iter().filter(|&&line| line <= 100).count(), lines.windows(2).map(|two| two[1] - two[0]));
        assert!((15..=35).contains(&low), "{lines:?}");
        assert!(gaps.collect::<BTreeSet<u64>>().len() > 4, "{lines:?}");
    }
}

#[test]
fn values_words_and_images_are_dealt_out_as_one() {
    let content: String = (0..23).map(|i| format!("a\t{i}.5\n")).collect();
    let words: String =
        (0..11).map(|i| format!("{{\"text\": [\"a\", \"b\"], \"label\": [\"O\", \"L{i}\"]}}\n")).collect();
    for memory in [0, usize::MAX] {
        let mut values = load_text(&content, None, memory).unwrap();
        values.set_targets(TargetKind::Value).unwrap();
        let parts = folds(&values, 5);
        assert_eq!(parts.iter().map(|(_, test)| test.len()).collect::<BTreeSet<_>>(), BTreeSet::from([4, 5]));
        let (_, test) = &parts[0];
        let targets = test.targets(&[0, 1], &Device::Cpu).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(targets, places(test)[..2].iter().map(|&line| line as f32 - 0.5).collect::<Vec<_>>());

        // Eleven labels that one sentence each has: no class of words has to be in every fold.
        let mut words = load_file(("a.jsonl", words.as_bytes()), None, TEXT, memory).unwrap();
        words.set_targets(TargetKind::TokenClass).unwrap();
        let sizes: Vec<usize> = folds(&words, 3).iter().map(|(_, test)| test.len()).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 11);
        assert!(sizes.iter().all(|size| (3..=4).contains(size)), "{sizes:?}");
    }
    let digits = load_digits("demo", part::Part::Train, DIGITS).unwrap();
    for (_, test) in folds(&digits, 5) {
        assert!((288..=289).contains(&test.len()));
        assert!(test.class_counts().iter().all(|count| (27..=30).contains(count)), "{:?}", test.class_counts());
    }
}

/// A part may be dealt out too: validation examples of files with a column of parts are left out of it.
#[test]
fn a_part_can_be_dealt_out() {
    let (train, _) = load_text(&rows(&[40, 40]), None, usize::MAX).unwrap().split(0.5, 1).unwrap();
    for (_, test) in folds(&train, 4) {
        assert_eq!(test.class_counts(), [5, 5]);
    }
}

fn reference() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/folds.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers<T: serde::de::DeserializeOwned>(case: &Value, key: &str) -> T {
    serde_json::from_value(case[key].clone()).unwrap()
}

/// Counts of each class over the folds, in order of size: `[classes][folds]`.
fn by_class(counts: &[Vec<u64>]) -> Vec<Vec<u64>> {
    let of_class = |class: usize| {
        let mut column: Vec<u64> = counts.iter().map(|fold| fold[class]).collect();
        column.sort_unstable();
        column
    };
    (0..counts[0].len()).map(of_class).collect()
}

#[test]
fn classes_are_as_even_as_scikit_learns() {
    for case in reference()["stratified"].as_array().unwrap() {
        let classes: Vec<u64> = numbers(case, "classes");
        let content: String = classes.iter().map(|class| format!("a\tc{class}\n")).collect();
        let whole = load_text(&content, None, usize::MAX).unwrap();
        let ours: Vec<Vec<u64>> =
            folds(&whole, numbers(case, "folds")).iter().map(|(_, test)| test.class_counts()).collect();
        assert_eq!(by_class(&ours), by_class(&numbers::<Vec<Vec<u64>>>(case, "counts")), "{case}");
    }
}

fn of_groups(classes: &[u64], groups: &[u64]) -> Dataset {
    let row = |(class, group): (&u64, &u64)| {
        format!("{{\"text\": \"a b\", \"label\": \"c{class}\", \"author\": \"g{group}\"}}\n")
    };
    load_grouped(&classes.iter().zip(groups).map(row).collect::<String>())
}

#[test]
fn groups_are_dealt_out_whole_as_scikit_learns() {
    for case in reference()["grouped"].as_array().unwrap() {
        let (classes, groups): (Vec<u64>, Vec<u64>) = (numbers(case, "classes"), numbers(case, "groups"));
        let parts = folds(&of_groups(&classes, &groups), numbers(case, "folds"));
        let group = |line: u64| groups[line as usize - 1];
        for (train, test) in &parts {
            let of = |data: &Dataset| places(data).into_iter().map(group).collect::<BTreeSet<u64>>();
            assert!(of(train).is_disjoint(&of(test)));
        }
        // Which of two equal folds comes first is not told.
        let mut ours: Vec<Vec<u64>> = parts.iter().map(|(_, test)| test.class_counts()).collect();
        let mut theirs: Vec<Vec<u64>> = numbers(case, "counts");
        ours.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(ours, theirs, "{case}");
    }
}

#[test]
fn what_cannot_be_dealt_out_is_said() {
    let check = |data: Result<Dataset>, fold: u32, of: u32, expected: &str| {
        let error = data.unwrap().split_fold(Fold { fold, of }).unwrap_err();
        let text = format!("{error} ({})", error.help().map(|help| help.to_string()).unwrap_or_default());
        assert!(text.contains(expected), "{text}");
    };
    let text = |counts: &[usize]| load_text(&rows(counts), None, usize::MAX);
    let few = "a.tsv:2: the class `c1` has 4 examples, and there are 5 folds (take 4 folds at most, leave the class out, or add";
    check(text(&[9, 4]), 1, 5, few);
    check(
        text(&[9, 1]),
        1,
        2,
        "the class `c1` has 1 example, and there are 2 folds (add examples or leave the class out)",
    );
    check(text(&[9, 9]), 6, 5, "there is no fold 6 of 5");
    check(text(&[9, 9]), 0, 5, "there is no fold 0 of 5");
    let values = || {
        let mut data = load_text("a\t1\nb\t2\nc\t3\n", None, usize::MAX)?;
        data.set_targets(TargetKind::Value)?;
        Ok(data)
    };
    check(values(), 1, 4, "there are 3 examples, and there are 4 folds (take 3 folds at most, or add examples)");
    let known = ["c0", "c1"].map(String::from);
    check(load_text(&rows(&[4, 4]), Some(&known), usize::MAX), 1, 2, "was never set");
    let groups = |groups: &[u64]| Ok(of_groups(&[0, 0, 0, 1, 1, 1], groups));
    check(
        groups(&[0, 1, 1, 0, 1, 1]),
        1,
        3,
        "the examples are of 2 groups, and there are 3 folds (take 2 folds at most",
    );
    check(groups(&[0, 0, 0, 0, 0, 0]), 1, 2, "the examples are of 1 group, and there are 2 folds (take group out of");
    let alone = "a.jsonl:4: all examples of the class `c1` are of groups in one fold: nothing is left to learn it from";
    check(groups(&[0, 1, 2, 3, 3, 3]), 1, 2, alone);
}
