//! The classification report and the confusion matrix, as scikit-learn prints and counts them.

use std::cmp::Reverse;

use super::metrics::{self, ClassMetrics, Scores};
use super::numbers::count;
use super::table::{Table, scores_table};
use super::text::{line_width, shortened};

/// Classes whose report a terminal still shows.
const MOST_CLASSES: usize = 12;
/// Confusions that it shows.
const MOST_CONFUSED: usize = 8;
/// Lines of a report with what is confused: beside them a terminal of 40 rows has the metrics.
const MOST_LINES: usize = 30;
/// What a report's line has beside the class's name, and a line of confusions beside two of them.
const SCORES: usize = 44;
const EXAMPLES: usize = 16;
/// Characters of a class's name, however wide the terminal is.
const CLASS: usize = 60;

/// Precision, recall, F1 and support of every class that occurs, accuracy and averages: to the character what
/// `sklearn.metrics.classification_report(y, p, digits=4, zero_division=0)` prints.
pub fn report(confusion: &[Vec<u64>], labels: &[String]) -> String {
    let metrics = metrics::of_confusion(confusion);
    let scores = labels.iter().zip(&metrics.classes);
    rows_and_averages(scores.filter_map(|(label, scores)| Some((label.as_str(), (*scores)?))).collect(), &metrics)
}

/// Rows of a report, and below them accuracy and averages.
fn rows_and_averages(rows: Vec<(&str, Scores)>, metrics: &ClassMetrics) -> String {
    let support = metrics.macro_average.support;
    let accuracy = Scores { precision: f64::NAN, recall: f64::NAN, f1: metrics.accuracy, support };
    let averages =
        [("accuracy", accuracy), ("macro avg", metrics.macro_average), ("weighted avg", metrics.weighted_average)];
    scores_table(&rows, &averages)
}

/// Report and confusion matrix as a terminal can show them: of many classes the averages and what is confused most. `whole` says where
/// all of it is.
pub fn terminal_text(confusion: &[Vec<u64>], labels: &[String], whole: &str) -> String {
    text_within(confusion, labels, whole, line_width())
}

fn text_within(confusion: &[Vec<u64>], labels: &[String], whole: &str, width: usize) -> String {
    let most = CLASS.min(width - SCORES).min((width - EXAMPLES) / 2);
    let names: Vec<String> = labels.iter().map(|label| shortened(label, most).into_owned()).collect();
    let report = match names.len() <= MOST_CLASSES {
        true => report(confusion, &names),
        false => rows_and_averages(Vec::new(), &metrics::of_confusion(confusion)),
    };
    let left = MOST_LINES.saturating_sub(report.lines().count() + 1);
    if names.len() < left {
        let matrix = confusion_text(confusion, &names);
        if matrix.lines().all(|line| line.chars().count() <= width) {
            return format!("{report}\n{matrix}");
        }
    }
    // Beside the confusions stand their header and two lines below.
    let (confused, shown) = (confused(confusion), left.saturating_sub(3).clamp(3, MOST_CONFUSED));
    let mut table = Table::new().numbers_from(2);
    table.row(["true", "predicted", "examples"]);
    for &(n, class, predicted) in confused.iter().take(shown) {
        table.row([&names[class], &names[predicted], &count(n as usize)]);
    }
    let most = match confused.len() {
        0 => "no class is taken for another\n".to_owned(),
        all if all > shown => format!("{}the {shown} most frequent of {} confusions\n", table.to_text(), count(all)),
        _ => table.to_text(),
    };
    format!("{report}\n{most}all {} classes are in {whole}\n", count(names.len()))
}

/// Pairs of classes of which one is predicted for the other, the most frequent first: how often, the true class, the predicted one.
pub fn confused(counts: &[Vec<u64>]) -> Vec<(u64, usize, usize)> {
    let mut pairs = Vec::new();
    for (class, row) in counts.iter().enumerate() {
        let wrong = row.iter().enumerate().filter(|&(predicted, &n)| predicted != class && n > 0);
        pairs.extend(wrong.map(|(predicted, &n)| (n, class, predicted)));
    }
    pairs.sort_by_key(|&(n, class, predicted)| (Reverse(n), class, predicted));
    pairs
}

/// A confusion matrix for people: true classes by row, predicted ones by column.
fn confusion_text(counts: &[Vec<u64>], labels: &[String]) -> String {
    let mut table = Table::new().numbers_from(1);
    table.cells(std::iter::once("true \\ predicted").chain(labels.iter().map(String::as_str)));
    for (label, row) in labels.iter().zip(counts) {
        let row: Vec<String> = row.iter().map(u64::to_string).collect();
        table.cells(std::iter::once(label.as_str()).chain(row.iter().map(String::as_str)));
    }
    table.to_text()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::metrics::confusion_matrix;
    use super::super::text::LINE;
    use super::*;

    fn check(file: &str) {
        let path = format!("{}/../tests/reference/{file}", env!("CARGO_MANIFEST_DIR"));
        let reference: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let strings = |key: &str| serde_json::from_value::<Vec<String>>(reference[key].clone()).unwrap();
        let labels = strings("labels");
        let classes = |key: &str| {
            let class = |label: &String| labels.iter().position(|l| l == label).unwrap() as u32;
            strings(key).iter().map(class).collect::<Vec<_>>()
        };
        let (targets, predictions) = (classes("true"), classes("predicted"));
        let confusion: Vec<Vec<u64>> = serde_json::from_value(reference["confusion"].clone()).unwrap();
        assert_eq!(confusion_matrix(&targets, &predictions, labels.len()), confusion);
        assert_eq!(report(&confusion, &labels), reference["report"].as_str().unwrap());
    }

    #[test]
    fn the_report_is_scikit_learns_to_the_character() {
        check("report.json");
        check("report_wide.json");
    }

    #[test]
    fn classes_that_do_not_occur_are_left_out_of_the_report() {
        let labels = ["no", "rare", "yes"].map(String::from);
        let text = report(&confusion_matrix(&[0, 2, 2], &[0, 2, 0], 3), &labels);
        assert!(!text.contains("rare"), "{text}");
        assert!(text.contains("   macro avg     0.7500    0.7500    0.6667         3\n"), "{text}");
    }

    #[test]
    fn a_confusion_matrix_reads_well() {
        let labels = ["no", "yes"].map(String::from);
        let text = confusion_text(&confusion_matrix(&[0, 1, 1, 1], &[0, 1, 1, 0], 2), &labels);
        assert_eq!(text, "true \\ predicted  no  yes\nno                 1    0\nyes                1    2\n");
    }

    /// Classes with these names, each taken `wrong` times for the next one.
    fn shown(names: &[String], wrong: &[u64]) -> String {
        let mut counts = vec![vec![0; names.len()]; names.len()];
        for (class, wrong) in wrong.iter().enumerate() {
            counts[class][class] = 5;
            counts[class][(class + 1) % names.len()] += wrong;
        }
        for width in [LINE, 80, 60] {
            let text = text_within(&counts, names, "report.html", width);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            assert!(text.lines().count() <= MOST_LINES, "{text}");
        }
        text_within(&counts, names, "report.html", LINE)
    }

    #[test]
    fn of_few_classes_everything_is_shown() {
        let names: Vec<String> = (0..11).map(|class| format!("c{class}")).collect();
        let text = shown(&names, &[1; 11]);
        assert!(text.contains("true \\ predicted  c0") && text.contains("\n         c10  "), "{text}");
        assert!(!text.contains("report.html"), "{text}");
        // Of some more the report, and the most frequent confusions.
        let names: Vec<String> = (0..12).map(|class| format!("c{class}")).collect();
        let text = shown(&names, &[1; 12]);
        assert!(text.contains("\n         c11  ") && text.contains("the 8 most frequent of 12 confusions"), "{text}");
    }

    #[test]
    fn of_many_classes_the_averages_and_the_most_frequent_confusions_are_shown() {
        let names: Vec<String> =
            (0..77).map(|class| format!("{}_{class}", "balance_not_updated_after".repeat(9))).collect();
        let text = shown(&names, &(0..77).collect::<Vec<_>>());
        let rows: Vec<&str> = text.lines().collect();
        assert!(
            rows[0].contains("precision") && rows[2].contains("accuracy") && rows[4].contains("weighted avg"),
            "{text}"
        );
        assert!(rows[7].contains("_76") && rows[7].ends_with("76"), "{text}");
        assert_eq!(rows.len(), 4 + 2 + 1 + 8 + 2, "{text}");
        assert!(text.ends_with("the 8 most frequent of 76 confusions\nall 77 classes are in report.html\n"), "{text}");
        assert!(shown(&names, &[0; 77]).contains("no class is taken for another"));
    }

    #[test]
    fn a_matrix_whose_names_are_too_long_is_shown_as_its_confusions() {
        let names: Vec<String> = (0..9).map(|class| format!("{}\n{class}", "a very long name ".repeat(9))).collect();
        let text = shown(&names, &[1, 0, 4, 0, 0, 0, 0, 0, 0]);
        assert!(!text.contains('\\') && text.contains("weighted avg"), "{text}");
        assert_eq!(text.lines().filter(|line| line.ends_with(" 4")).count(), 1, "{text}");
        assert!(text.ends_with("all 9 classes are in report.html\n"), "{text}");
    }
}
