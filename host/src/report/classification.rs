//! The classification report and the confusion matrix, as scikit-learn prints and counts them.

use super::metrics::{self, Scores};
use super::table::Table;

/// Precision, recall, F1 and support of every class that occurs, accuracy and averages: to the character what
/// `sklearn.metrics.classification_report(y, p, digits=4, zero_division=0)` prints.
pub fn report(targets: &[u32], predictions: &[u32], labels: &[String]) -> String {
    const AVERAGE: &str = "weighted avg";
    let metrics = metrics::classes(targets, predictions, labels.len());
    let rows: Vec<(&str, Scores)> =
        labels.iter().zip(&metrics.classes).filter_map(|(label, scores)| Some((label.as_str(), (*scores)?))).collect();
    let width = rows.iter().map(|(label, _)| label.chars().count()).fold(AVERAGE.len(), usize::max);
    let line = |label: &str, Scores { precision, recall, f1, support }: &Scores| {
        format!("{label:>width$}  {precision:>9.4} {recall:>9.4} {f1:>9.4} {support:>9}\n")
    };

    let mut text = format!("{:>width$}  {:>9} {:>9} {:>9} {:>9}\n\n", "", "precision", "recall", "f1-score", "support");
    for (label, scores) in &rows {
        text += &line(label, scores);
    }
    text += &format!("\n{:>width$}  {:>9} {:>9} {:>9.4} {:>9}\n", "accuracy", "", "", metrics.accuracy, targets.len());
    text += &line("macro avg", &metrics.macro_average);
    text += &line(AVERAGE, &metrics.weighted_average);
    text
}

/// A confusion matrix for people: true classes by row, predicted ones by column.
pub fn confusion_text(counts: &[Vec<u64>], labels: &[String]) -> String {
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
        assert_eq!(report(&targets, &predictions, &labels), reference["report"].as_str().unwrap());
        let confusion: Vec<Vec<u64>> = serde_json::from_value(reference["confusion"].clone()).unwrap();
        assert_eq!(confusion_matrix(&targets, &predictions, labels.len()), confusion);
    }

    #[test]
    fn the_report_is_scikit_learns_to_the_character() {
        check("report.json");
        check("report_wide.json");
    }

    #[test]
    fn classes_that_do_not_occur_are_left_out_of_the_report() {
        let labels = ["no", "rare", "yes"].map(String::from);
        let text = report(&[0, 2, 2], &[0, 2, 0], &labels);
        assert!(!text.contains("rare"), "{text}");
        assert!(text.contains("   macro avg     0.7500    0.7500    0.6667         3\n"), "{text}");
    }

    #[test]
    fn a_confusion_matrix_reads_well() {
        let labels = ["no", "yes"].map(String::from);
        let text = confusion_text(&confusion_matrix(&[0, 1, 1, 1], &[0, 1, 1, 0], 2), &labels);
        assert_eq!(text, "true \\ predicted  no  yes\nno                 1    0\nyes                1    2\n");
    }
}
