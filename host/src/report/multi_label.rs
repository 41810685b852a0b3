//! What is said of predictions of any number of classes for each example, as scikit-learn prints it.

use super::metrics::Scores;
use super::metrics::multi_label::LabelScores;
use super::table::scores_table;
use super::text::{line_width, shortened};

/// Classes that a terminal of 40 rows has room for, beside averages and metrics.
const MOST_CLASSES: usize = 20;
/// What a report's line has beside the class's name.
const SCORES: usize = 44;
/// Characters of a class's name, however wide the terminal is.
const CLASS: usize = 60;

/// Precision, recall, F1 and support of every class, and averages: to the character what
/// `sklearn.metrics.classification_report(y, p, digits=4, zero_division=0)` prints of indicator matrices.
pub fn report(found: &LabelScores, labels: &[String]) -> String {
    let rows: Vec<(&str, Scores)> = labels.iter().map(String::as_str).zip(found.classes.iter().copied()).collect();
    scores_table(&rows, &averages(found))
}

fn averages(found: &LabelScores) -> Vec<(&'static str, Scores)> {
    let name = |average: &str| match average {
        "micro" => "micro avg",
        "macro" => "macro avg",
        "weighted" => "weighted avg",
        _ => "samples avg",
    };
    found.averages.iter().map(|(average, scores)| (name(average), *scores)).collect()
}

/// The report as a terminal can show it: of many classes those with the most examples. `whole` says where all of it is.
pub fn terminal_text(found: &LabelScores, labels: &[String], whole: &str) -> String {
    text_within(found, labels, whole, line_width())
}

fn text_within(found: &LabelScores, labels: &[String], whole: &str, width: usize) -> String {
    let most = CLASS.min(width.saturating_sub(SCORES));
    let mut order: Vec<usize> = (0..labels.len()).collect();
    if labels.len() > MOST_CLASSES {
        order.sort_by_key(|&class| std::cmp::Reverse(found.classes[class].support));
        order.truncate(MOST_CLASSES);
    }
    let names: Vec<_> = order.iter().map(|&class| shortened(&labels[class], most)).collect();
    let rows: Vec<(&str, Scores)> =
        names.iter().map(AsRef::as_ref).zip(order.iter().map(|&class| found.classes[class])).collect();
    let text = scores_table(&rows, &averages(found));
    match labels.len() > MOST_CLASSES {
        true => format!("{text}\nthe {MOST_CLASSES} most frequent of {} classes; all are in {whole}\n", labels.len()),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::Value;

    use super::super::metrics::multi_label::scores;
    use super::*;

    fn check(key: &str, place: usize) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/multi_label.json");
        let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let case = &all["metrics"][place];
        let classes = |key: &str| -> Vec<Vec<u32>> {
            let rows: Vec<Vec<u32>> = serde_json::from_value(case[key].clone()).unwrap();
            rows.into_iter()
                .map(|row| (0..).zip(row).filter(|(_, there)| *there == 1).map(|(i, _)| i).collect())
                .collect()
        };
        let labels: Vec<String> = serde_json::from_value(all[key]["labels"].clone()).unwrap();
        let found = scores(&classes("true"), &classes("predicted"), labels.len());
        assert_eq!(report(&found, &labels), all[key]["text"].as_str().unwrap());
        assert_eq!(text_within(&found, &labels, "report.html", 160), report(&found, &labels));
    }

    #[test]
    fn the_report_is_scikit_learns_to_the_character() {
        check("report", 6);
        check("unseen_report", 4);
    }

    #[test]
    fn of_many_classes_the_most_frequent_are_shown_within_any_width() {
        let labels: Vec<String> = (0..90).map(|class| format!("{}_{class}", "a long name ".repeat(9))).collect();
        let targets: Vec<Vec<u32>> = (0..90).map(|i| (i..90).collect()).collect();
        let found = scores(&targets, &targets, 90);
        for width in [60, 80, 160] {
            let text = text_within(&found, &labels, "report.html", width);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            assert!(text.lines().count() <= 30 && text.contains("_89 ") && !text.contains("_69 "), "{text}");
            assert!(text.ends_with("the 20 most frequent of 90 classes; all are in report.html\n"), "{text}");
        }
    }
}
