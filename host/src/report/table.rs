//! Aligned text tables.

use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, presets};

use super::metrics::Scores;

/// A table without lines: columns two spaces apart, as wide as their widest cell.
#[derive(Clone, Debug)]
pub struct Table {
    inner: comfy_table::Table,
    numbers_from: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    /// An empty table, every column aligned to the left.
    pub fn new() -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        Self { inner, numbers_from: usize::MAX }
    }

    /// Aligns the columns from `column` (from 0) on to the right, as numbers are. To be called before the rows.
    #[must_use]
    pub fn numbers_from(mut self, column: usize) -> Self {
        self.numbers_from = column;
        self
    }

    /// Adds a row of as many cells as it has; the first row may be a header.
    pub fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.cells(cells);
    }

    /// Adds a row whose number of cells is known only now.
    pub fn cells<'a>(&mut self, cells: impl IntoIterator<Item = &'a str>) {
        let cell = |(column, text)| {
            let alignment = if column < self.numbers_from { CellAlignment::Left } else { CellAlignment::Right };
            Cell::new(text).set_alignment(alignment)
        };
        let row: Vec<Cell> = cells.into_iter().enumerate().map(cell).collect();
        self.inner.add_row(row);
    }

    /// The table, one line per row, each ended; no spaces at the ends of lines.
    pub fn to_text(&self) -> String {
        let mut table = self.inner.clone();
        for column in table.column_iter_mut() {
            column.set_padding((0, 2)).set_constraint(ColumnConstraint::ContentWidth);
        }
        let mut text = table.trim_fmt();
        if !text.is_empty() {
            text.push('\n');
        }
        text
    }
}

/// Precision, recall, F1 and support by name, and below a gap their averages, in the form of scikit-learn's and seqeval's reports with
/// four digits. An average may be a line of its own, of which only the F1 stands there.
pub(super) fn scores_table(rows: &[(&str, Scores)], averages: &[(&str, Scores)]) -> String {
    let names = rows.iter().chain(averages).map(|(name, _)| name.chars().count());
    let width = names.max().unwrap_or_default();
    let line = |(name, Scores { precision, recall, f1, support }): &(&str, Scores)| match precision.is_nan() {
        true => format!("{name:>width$}  {:>9} {:>9} {f1:>9.4} {support:>9}\n", "", ""),
        false => format!("{name:>width$}  {precision:>9.4} {recall:>9.4} {f1:>9.4} {support:>9}\n"),
    };
    let head = format!("{:>width$}  {:>9} {:>9} {:>9} {:>9}\n\n", "", "precision", "recall", "f1-score", "support");
    let gap = if rows.is_empty() { "" } else { "\n" };
    let lines = |of: &[(&str, Scores)]| of.iter().map(line).collect::<String>();
    format!("{head}{}{gap}{}", lines(rows), lines(averages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new().numbers_from(1);
        table.row(["method", "accuracy", "s"]);
        table.row(["lora", "0.9", &12.to_string()]);
        table.row(["größer", "1", ""]);
        assert_eq!(table.to_text(), "method  accuracy   s\nlora         0.9  12\ngrößer         1\n");
        let mut table = Table::new();
        table.row(["model", "bert"]);
        table.row(["", "pattern"]);
        table.row(["x"]);
        assert_eq!(table.to_text(), "model  bert\n       pattern\nx\n");
        assert_eq!(Table::new().to_text(), "");
    }
}
