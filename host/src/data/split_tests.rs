#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use fthost_autograd::Device;
use fthost_models::Input;
use fthost_plugin_api::TargetKind;
use miette::Diagnostic;

use super::super::fixtures::{DIGITS, load_digits, load_grouped, load_text};
use super::super::part;
use super::*;

/// Examples of the classes `x`, `y` and `z`, so many each, mixed.
fn content(x: usize, y: usize, z: usize) -> String {
    let mut left = [("x", x), ("y", y), ("z", z)];
    let mut content = String::new();
    while left.iter().any(|(_, n)| *n > 0) {
        for (name, n) in &mut left {
            if *n > 0 {
                *n -= 1;
                content += &format!("{}\t{name}\n", ["a", "b c", "a b c d e f g"][*n % 3]);
            }
        }
    }
    content
}

/// Lines of a data set.
fn lines(data: &Dataset) -> Vec<u64> {
    (0..data.len() as u32).map(|row| data.place(row).unwrap().1.unwrap()).collect()
}

#[test]
fn every_class_is_split() {
    for memory in [0, usize::MAX] {
        let whole = load_text(&content(100, 10, 2), None, memory).unwrap();
        let (train, validation) = whole.clone().split(0.2, 1).unwrap();
        assert_eq!(train.class_counts(), [80, 8, 1]);
        assert_eq!(validation.class_counts(), [20, 2, 1]);
        assert_eq!(train.labels(), whole.labels());
        let (left, held_out) = (lines(&train), lines(&validation));
        assert!(left.is_sorted() && held_out.is_sorted());
        let mut all = [left, held_out.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, lines(&whole));
        assert_ne!(held_out, (1..=23).collect::<Vec<u64>>());

        for part in [&train, &validation] {
            let rows: Vec<u32> = (0..part.len() as u32).collect();
            let of_whole: Vec<u32> = lines(part).iter().map(|&line| line as u32 - 1).collect();
            let (Input::Text(input), Input::Text(expected)) =
                (part.input(&rows).unwrap(), whole.input(&of_whole).unwrap())
            else {
                panic!("not text")
            };
            assert_eq!((input.ids, input.layout.offsets()), (expected.ids, expected.layout.offsets()));
            let targets =
                |data: &Dataset, rows: &[u32]| data.targets(rows, &Device::Cpu).unwrap().to_vec1::<u32>().unwrap();
            assert_eq!(targets(part, &rows), targets(&whole, &of_whole));
        }
        let sum = |of: fn(&Dataset) -> usize| [&train, &validation].map(of).iter().sum::<usize>();
        assert_eq!(sum(Dataset::total_tokens), whole.total_tokens());
        assert_eq!((sum(Dataset::truncated), whole.truncated()), (36, 36));
        if memory == 0 {
            assert!(train.in_memory() < 32, "a bit a row and little more");
        }
    }
}

#[test]
fn a_split_follows_from_its_seed() {
    let held_out = |memory, seed| {
        let data = load_text(&content(50, 30, 20), None, memory).unwrap();
        lines(&data.split(0.3, seed).unwrap().1)
    };
    assert_eq!(held_out(usize::MAX, 1), held_out(0, 1));
    assert_ne!(held_out(0, 1), held_out(0, 2));
}

/// Each example is held out about as often as any other.
#[test]
fn every_example_may_be_held_out() {
    let data = load_text(&content(12, 8, 0), None, usize::MAX).unwrap();
    let mut counts = [0; 20];
    for seed in 0..2000 {
        lines(&data.clone().split(0.25, seed).unwrap().1).iter().for_each(|&line| counts[line as usize - 1] += 1);
    }
    assert!(counts.iter().all(|count| (400..600).contains(count)), "{counts:?}"); // 500, deviation 19
}

#[test]
fn values_are_split_as_one() {
    let content: String = (0..10).map(|i| format!("a\t{i}.5\n")).collect();
    let mut data = load_text(&content, None, usize::MAX).unwrap();
    data.set_targets(TargetKind::Value).unwrap();
    let (train, validation) = data.split(0.3, 4).unwrap();
    assert_eq!((train.len(), validation.len()), (7, 3));
    let values = validation.targets(&[0, 1, 2], &Device::Cpu).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(values, lines(&validation).iter().map(|&line| line as f32 - 0.5).collect::<Vec<_>>());
}

#[test]
fn a_part_can_be_split_again() {
    let data = load_text(&content(40, 40, 0), None, usize::MAX).unwrap();
    let (train, _) = data.split(0.5, 1).unwrap();
    let before = lines(&train);
    let (a, b) = train.split(0.5, 2).unwrap();
    assert_eq!((a.class_counts(), b.class_counts()), (vec![10, 10], vec![10, 10]));
    assert!(lines(&a).iter().chain(&lines(&b)).all(|line| before.contains(line)));
}

#[test]
fn images_are_split() {
    let whole = load_digits("demo", part::Part::Train, DIGITS).unwrap();
    let (train, validation) = whole.clone().split(0.1, 0).unwrap();
    assert_eq!((train.len() + validation.len(), validation.len()), (1442, 145));
    let Input::Images(part) = validation.input(&[0, 143]).unwrap() else { panic!("not images") };
    let row = |row| validation.selection.row(row);
    let Input::Images(expected) = whole.input(&[row(0), row(143)]).unwrap() else { panic!("not images") };
    let pixels = |images: fthost_autograd::Tensor| images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(pixels(part), pixels(expected));
    assert_eq!(validation.total_tokens(), 145 * 17);
}

#[test]
fn what_cannot_be_split_is_said() {
    let check = |outcome: Result<(Dataset, Dataset)>, expected: &str| {
        let error = outcome.unwrap_err();
        let text = format!("{error} ({})", error.help().map(|help| help.to_string()).unwrap_or_default());
        assert!(text.contains(expected), "{text}");
    };
    let split = |content: &str, fraction| load_text(content, None, usize::MAX).unwrap().split(fraction, 1);
    check(
        split(&content(9, 1, 9), 0.1),
        "a.tsv:2: the class `y` has a single example: it cannot be both trained on and held out for validation (add examples, remove this one, or name a file",
    );
    for fraction in [0.0, 1.0, -1.0, f64::NAN] {
        check(split(&content(9, 9, 9), fraction), "must lie between 0 and 1");
    }
    let known = ["x", "y", "z"].map(String::from);
    check(load_text(&content(2, 2, 2), Some(&known), usize::MAX).unwrap().split(0.5, 1), "was never set");
    let mut one = load_text("a\t1\n", None, usize::MAX).unwrap();
    one.set_targets(TargetKind::Value).unwrap();
    check(one.split(0.5, 1), "there is a single example");
    // A class without examples is none of a split's business.
    let mut data = load_text(&content(4, 4, 0), Some(&known), usize::MAX).unwrap();
    data.set_targets(TargetKind::Class).unwrap();
    assert_eq!(data.split(0.5, 1).unwrap().1.class_counts(), [2, 2, 0]);
}

/// Rows of groups of several sizes, as JSON lines.
#[test]
fn groups_are_split_whole_and_in_proportion() {
    let mut content = String::new();
    for i in 0..300usize {
        let (label, group) = (["x", "y", "y"][i % 3], i * i % 41);
        content += &format!("{{\"text\": \"a b\", \"label\": \"{label}\", \"author\": {group}}}\n");
    }
    let whole = load_grouped(&content);
    assert!(whole.grouped());
    let groups = |data: &Dataset| {
        (0..data.len() as u32).map(|row| data.group(row).unwrap().unwrap()).collect::<std::collections::BTreeSet<u64>>()
    };
    let parts = |seed| whole.clone().split(0.2, seed).unwrap();
    for seed in 0..20 {
        let (train, held_out) = parts(seed);
        assert_eq!(train.len() + held_out.len(), 300);
        assert!(groups(&train).is_disjoint(&groups(&held_out)));
        let counts = held_out.class_counts();
        assert!((17..=23).contains(&counts[0]) && (36..=44).contains(&counts[1]), "{counts:?}");
    }
    assert_ne!(lines(&parts(1).1), lines(&parts(2).1));
    assert_eq!(lines(&parts(1).1), lines(&parts(1).1));
    assert_eq!(lines(&whole.clone().split_test(0.2).unwrap().1), lines(&whole.clone().split_test(0.2).unwrap().1));
}
