//! The confusion matrix as a table with a colour for each share.

use maud::{Markup, html};

use crate::report::numbers::{count, percent};

/// Classes of which the whole matrix can still be read; of more, only what is confused most is shown.
const READABLE: usize = 24;
/// Pairs of classes that are shown then.
const PAIRS: usize = 25;

/// Counts by true class (row) and predicted class (column), each with its share of the row.
pub(crate) fn matrix(counts: &[Vec<u64>], labels: &[String]) -> Markup {
    if counts.len() > READABLE {
        return most_confused(counts, labels);
    }
    html! {
        h3 { "Confusion matrix" }
        div.scroll {
            table.confusion {
                thead {
                    tr { td {} th colspan=(counts.len()) { "predicted" } td {} }
                    tr {
                        th.label { "true" }
                        @for class in 0..counts.len() { th.label scope="col" { (label(labels, class)) } }
                        th.label { "examples" }
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

/// The pairs of classes that are confused most often.
fn most_confused(counts: &[Vec<u64>], labels: &[String]) -> Markup {
    let mut pairs = Vec::new();
    for (class, row) in counts.iter().enumerate() {
        let wrong = row.iter().enumerate().filter(|&(predicted, &n)| predicted != class && n > 0);
        pairs.extend(wrong.map(|(predicted, &n)| (n, class, predicted)));
    }
    let confused = pairs.len();
    pairs.sort_by_key(|&(n, class, predicted)| (std::cmp::Reverse(n), class, predicted));
    pairs.truncate(PAIRS);
    html! {
        h3 { "Most confused classes" }
        p.note {
            "The whole confusion matrix of " (count(counts.len())) " classes is in result.json. "
            (count(confused)) " pairs of classes are confused at least once."
        }
        @if !pairs.is_empty() {
            table.rows {
                thead {
                    tr { th { "true" } th { "predicted" } th.number { "examples" } th.number { "of the true class" } }
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
            }
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
}
