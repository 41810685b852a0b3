//! What is said of predicted masks: intersection over union, precision and recall of each class, over all pixels.

use super::metrics::masks::Overlap;
use super::numbers::percent;
use super::table::Table;
use super::text::{line_width, shortened};

/// Classes that a terminal of 40 rows has room for, beside metrics.
const MOST_CLASSES: usize = 24;
/// What a line has beside the class's name.
const NUMBERS: usize = 50;

/// A line for each class; one that occurs in neither the true nor the predicted pixels has no numbers.
pub fn report(classes: &[Overlap], labels: &[String]) -> String {
    table(&(0..labels.len()).collect::<Vec<_>>(), classes, labels, usize::MAX)
}

/// The report as a terminal can show it: of many classes those with the most pixels. `whole` says where all of it is.
pub fn terminal_text(classes: &[Overlap], labels: &[String], whole: &str) -> String {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    if labels.len() > MOST_CLASSES {
        order.sort_by_key(|&class| std::cmp::Reverse(classes[class].target));
        order.truncate(MOST_CLASSES);
    }
    let text = table(&order, classes, labels, line_width().saturating_sub(NUMBERS));
    match labels.len() > MOST_CLASSES {
        true => format!("{text}\nthe {MOST_CLASSES} most frequent of {} classes; all are in {whole}\n", labels.len()),
        false => text,
    }
}

fn table(order: &[usize], classes: &[Overlap], labels: &[String], width: usize) -> String {
    let all: u64 = classes.iter().map(|of| of.target).sum();
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    let mut rows = Table::new().numbers_from(1);
    rows.row(["", "IoU", "precision", "recall", "of the pixels"]);
    for &class in order {
        let (name, of) = (shortened(&labels[class], width.max(8)), classes[class]);
        let [iou, precision, recall] = [of.iou(), of.precision(), of.accuracy()].map(number);
        let share = percent(of.target as f64 / all.max(1) as f64);
        rows.row([&name, &iou, &precision, &recall, &share]);
    }
    rows.to_text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_line_and_what_does_not_occur_no_numbers() {
        let classes = [
            Overlap { right: 60, target: 75, predicted: 70 },
            Overlap::default(),
            Overlap { right: 15, target: 25, predicted: 30 },
        ];
        let labels = ["road", "car", "sky"].map(str::to_owned);
        let text = "         IoU  precision  recall  of the pixels
road  0.7059     0.8571  0.8000           75 %
car        -          -       -            0 %
sky   0.3750     0.5000  0.6000           25 %
";
        assert_eq!(report(&classes, &labels), text);
        assert_eq!(terminal_text(&classes, &labels, "report.html"), text);
        let many: Vec<String> = (0..90).map(|class| format!("{class} {}", "a long name ".repeat(20))).collect();
        let text = terminal_text(&vec![classes[0]; 90], &many, "report.html");
        assert!(text.lines().count() <= 28 && text.ends_with("of 90 classes; all are in report.html\n"), "{text}");
    }
}
