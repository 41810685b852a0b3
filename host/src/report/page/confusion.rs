//! The confusion matrix as a table with a colour for each share.

use maud::{Markup, html};

use crate::report::classification::confused;
use crate::report::numbers::{count, percent};

/// Classes of which the matrix can still be read with shares; of more, all that is confused is listed first.
const READABLE: usize = 24;
/// Classes of which there is still a matrix: more would be megabytes of zeros.
const MATRIX: usize = 150;
/// Pairs of classes that are listed.
const PAIRS: usize = 5_000;

/// Counts by true class (row) and predicted class (column), each with its share of the row.
pub(crate) fn matrix(counts: &[Vec<u64>], labels: &[String]) -> Markup {
    if counts.len() > READABLE {
        return html! {
            (most_confused(counts, labels))
            @if counts.len() <= MATRIX { (whole(counts, labels, &short_cell)) }
        };
    }
    whole(counts, labels, &cell)
}

/// The whole matrix, made of such cells.
fn whole(counts: &[Vec<u64>], labels: &[String], cell: &dyn Fn(u64, &[u64], bool) -> Markup) -> Markup {
    let many = counts.len() > READABLE;
    html! {
        h3 { "Confusion matrix" }
        div.scroll.tall[many] {
            table.confusion.many[many] {
                thead {
                    tr { td {} th colspan=(counts.len()) { "predicted" } td {} }
                    tr {
                        th.label { "true" }
                        @for class in 0..counts.len() { th.label scope="col" { (label(labels, class)) } }
                        th.label { "support" }
                    }
                }
                tbody {
                    @for (class, row) in counts.iter().enumerate() {
                        tr {
                            th.label scope="row" { (label(labels, class)) }
                            @for (predicted, &n) in row.iter().enumerate() { (cell(n, row, class == predicted)) }
                            td.total { (count(total(row))) }
                        }
                    }
                }
            }
        }
    }
}

fn cell(n: u64, row: &[u64], right: bool) -> Markup {
    let share = share(n, row);
    let kind = match n {
        0 => "none",
        _ if right => "right",
        _ => "wrong",
    };
    html! {
        td.(kind).strong[share > 0.55] style=(format!("--share:{share:.3}")) {
            (count(n as usize))
            small { (format!("{:.1} %", 100.0 * share)) }
        }
    }
}

/// A cell without its share; empty where nothing is counted.
fn short_cell(n: u64, row: &[u64], right: bool) -> Markup {
    let share = share(n, row);
    match n {
        0 => html! { td.none {} },
        _ => html! {
            td.(if right { "right" } else { "wrong" }).strong[share > 0.55] style=(format!("--share:{share:.2}")) {
                (count(n as usize))
            }
        },
    }
}

/// The pairs of classes that are confused, those most often first.
fn most_confused(counts: &[Vec<u64>], labels: &[String]) -> Markup {
    let mut pairs = confused(counts);
    let all = pairs.len();
    pairs.truncate(PAIRS);
    html! {
        h3 { "Most confused classes" }
        p.note {
            (count(all)) " pairs of the " (count(counts.len())) " classes are confused at least once."
            @if all > PAIRS { " The first " (count(PAIRS)) " are listed; the whole matrix is in result.json." }
        }
        @if !pairs.is_empty() {
            div.scroll.tall { table.rows {
                thead {
                    tr { th { "true" } th { "predicted" } th.number { "predicted so" } th.number { "of the true class" } }
                }
                tbody {
                    @for (n, class, predicted) in pairs {
                        tr {
                            td { (label(labels, class)) }
                            td { (label(labels, predicted)) }
                            td.number { (count(n as usize)) }
                            td.number { (percent(share(n, &counts[class]))) }
                        }
                    }
                }
            } }
        }
    }
}

fn label(labels: &[String], class: usize) -> String {
    labels.get(class).cloned().unwrap_or_else(|| format!("class {class}"))
}

fn total(row: &[u64]) -> usize {
    row.iter().sum::<u64>() as usize
}

fn share(n: u64, row: &[u64]) -> f64 {
    n as f64 / total(row).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_counts_and_shares_of_their_row() {
        let text = matrix(&[vec![3, 1], vec![0, 0]], &["no".into(), "<yes>".into()]).into_string();
        assert!(
            text.contains(r#"<td class="right strong" style="--share:0.750">3<small>75.0 %</small></td>"#),
            "{text}"
        );
        assert!(text.contains(r#"<td class="wrong" style="--share:0.250">1<small>25.0 %</small></td>"#), "{text}");
        assert!(text.contains(r#"<td class="none" style="--share:0.000">0<small>0.0 %</small></td>"#), "{text}");
        assert!(text.contains("&lt;yes&gt;") && !text.contains("<yes>"), "{text}");
    }

    #[test]
    fn of_many_classes_the_worst_pairs_are_shown() {
        let mut counts = vec![vec![0; 1000]; 1000];
        (0..1000).for_each(|class| counts[class][class] = 50);
        counts[7][8] = 9;
        counts[900][7] = 4;
        let text = matrix(&counts, &[]).into_string();
        let row = "<td>class 7</td><td>class 8</td><td class=\"number\">9</td><td class=\"number\">15.25 %</td>";
        assert!(text.contains(row), "{text}");
        assert!(text.find("class 8<").unwrap() < text.find("class 900<").unwrap());
        assert!(text.len() < 2_000);
    }

    #[test]
    fn of_more_classes_than_can_be_read_all_is_still_there() {
        let mut counts = vec![vec![0; 77]; 77];
        (0..77).for_each(|class| counts[class][class] = 50);
        (0..40).for_each(|class| counts[class][class + 1] = 3);
        let text = matrix(&counts, &[]).into_string();
        assert_eq!(text.matches("<td class=\"number\">3</td>").count(), 40, "every pair is listed");
        assert_eq!(
            text.matches(">50</td>").count(),
            77 + 37,
            "each class, and the sums of those that are always right"
        );
        assert_eq!(text.matches("<td class=\"wrong\" style=\"--share:0.06\">3</td>").count(), 40);
        assert_eq!(text.matches("<td class=\"right strong\" style=\"--share:0.94\">50</td>").count(), 40);
        assert!(text.len() < 250_000, "{}", text.len());
    }
}
