//! How often what belongs together is found: recall and mean rank, each way and both.

use super::metrics::Metrics;
use super::table::Table;

/// Columns: their names, and the names of their metrics.
const COLUMNS: [(&str, &str); 4] = [
    ("recall at 1", "recall_at_1"),
    ("recall at 5", "recall_at_5"),
    ("recall at 10", "recall_at_10"),
    ("mean rank", "mean_rank"),
];

/// The names of the columns.
pub(crate) fn columns() -> [&'static str; 4] {
    COLUMNS.map(|(name, _)| name)
}

/// A row for each way between two sides, and one for the mean of both. Empty where these metrics are not there.
pub(crate) fn rows(metrics: &Metrics, sides: &[String]) -> Vec<(String, [String; 4])> {
    let [first, second, ..] = sides else { return Vec::new() };
    let ways = [
        (format!("{first} → {second}"), "forward_"),
        (format!("{second} → {first}"), "backward_"),
        ("mean".to_owned(), ""),
    ];
    let cell = |name: &str, value: f64| match value.is_finite() {
        true if name == "mean_rank" => format!("{value:.1}"),
        true => format!("{value:.4}"),
        false => "–".to_owned(),
    };
    let row = |(way, begin): (String, &str)| {
        let of =
            |(_, name): (&str, &str)| cell(name, metrics.get(&format!("{begin}{name}")).copied().unwrap_or(f64::NAN));
        (way, COLUMNS.map(of))
    };
    if metrics.contains_key(COLUMNS[0].1) { ways.into_iter().map(row).collect() } else { Vec::new() }
}

/// The same as a terminal shows it.
pub(crate) fn terminal_text(metrics: &Metrics, sides: &[String]) -> String {
    let rows = rows(metrics, sides);
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new().numbers_from(1);
    table.cells(std::iter::once("").chain(columns()));
    for (way, cells) in &rows {
        table.cells(std::iter::once(way.as_str()).chain(cells.iter().map(String::as_str)));
    }
    table.to_text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::metrics::matches::{self, Ranks};

    #[test]
    fn both_ways_are_told_by_the_names_of_the_sides() {
        let ranks = [Ranks { forward: 1.0, backward: 7.0 }, Ranks { forward: 3.0, backward: 1.0 }];
        let sides = ["text", "image"].map(str::to_owned);
        let expected = [
            "              recall at 1  recall at 5  recall at 10  mean rank\n",
            "text → image       0.5000       1.0000        1.0000        2.0\n",
            "image → text       0.5000       0.5000        1.0000        4.0\n",
            "mean               0.5000       0.7500        1.0000        3.0\n",
        ];
        assert_eq!(terminal_text(&matches::of(&ranks), &sides), expected.concat());
        assert_eq!(terminal_text(&Metrics::new(), &sides), "");
        assert_eq!(terminal_text(&matches::of(&ranks), &[]), "");
    }
}
