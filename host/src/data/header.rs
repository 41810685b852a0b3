//! Whether the first row of a TSV or CSV file names its columns, and where the wanted ones stand.
//!
//! What the run file says counts first: `header`, then `columns` by name. Else a row that names the wanted columns is a header. A row
//! that may be one or may be an example is neither in silence: its words decide here, its label where all labels are known.

use std::path::Path;

use super::row::{Columns, Labels, Role, column_number, data_error, list, shortened};
use crate::{Error, Result};

/// What to do where a row may be both.
const SAY: &str = "say which in the task of the run file, header = true or header = false; where a run or adapter is used, by --header";
/// Words that name columns. Of a name in parts, as `review_text`, one is enough.
const NAMES: &str = "abstract answer body category categories class classes comment content context description doc document \
    emotion gold headline hypothesis id idx index input intent label labels message outcome output pair paragraph \
    passage phrase polarity premise prompt query question rating response result review reviews score sentence \
    sentences sentiment similarity stars summary tag tags target targets text texts title tokens topic tweet \
    utterance value words y";

/// Where the wanted cells stand in a row, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) text: usize,
    pub(super) pair: Option<usize>,
    pub(super) label: Option<usize>,
    /// Of each of [`Columns::extra`]; `None` where it is not there and need not be.
    pub(super) extra: Vec<Option<usize>>,
}

/// The first row of a file.
#[derive(Clone, Debug)]
pub(super) struct First {
    pub(super) places: Places,
    /// Whether it is no example.
    pub(super) is_header: bool,
    /// Whether it names the wanted columns, or `columns` and `header` say together what it is. Otherwise its label may still tell
    /// that it is something else.
    sure: bool,
    line: u64,
    cells: Vec<String>,
}

/// The first row of a file as what it is.
///
/// # Errors
/// Where it lacks a wanted column, or may be a header as well as an example.
pub(super) fn first_row(
    path: &Path,
    line: u64,
    cells: &[String],
    columns: &Columns,
    header: Option<bool>,
    labels: Labels,
) -> Result<First> {
    let read = labels == Labels::Read;
    let numbered = columns.are_numbers();
    let named = columns.given().next().is_some();
    let first =
        |places: Places, is_header: bool, sure: bool| First { places, is_header, sure, line, cells: cells.to_vec() };
    if header == Some(false) && !numbered {
        let names = list(columns.given());
        return Err(data_error(
            path,
            Some(line),
            format!("columns are named {names}, and header = false says that the file has no names"),
        )
        .with_help("name them by number, from 1: columns = { text = \"1\", label = \"2\" }; or leave header out"));
    }

    let (text, label) = if header == Some(false) || (named && numbered && header.is_none()) {
        (None, None)
    } else {
        let find = |name: &str, given: &Option<String>| find(path, line, name, given.is_some(), cells);
        let label = if read { find(columns.label(), &columns.label)? } else { None };
        (find(columns.text(), &columns.text)?, label)
    };
    if let (Some(text), true) = (text, label.is_some() || !read) {
        let pair = find(path, line, columns.text_pair(), columns.text_pair.is_some(), cells)?;
        let extra = |(role, name): (Role, &str)| match find(path, line, name, true, cells)? {
            None if role.needed(labels) => Err(missing(path, line, name, cells)),
            place => Ok(place),
        };
        let extra = columns.extra(labels).map(extra).collect::<Result<_>>()?;
        return match (&columns.text_pair, pair) {
            (Some(name), None) => Err(missing(path, line, name, cells)),
            _ => Ok(first(Places { text, pair, label, extra }, true, true)),
        };
    }
    if named && numbered {
        let place =
            |name: &Option<String>, default: usize| name.as_deref().and_then(column_number).unwrap_or(default) - 1;
        let pair = columns.text_pair.as_deref().and_then(column_number).map(|number| number - 1);
        let extra = columns.extra(labels).map(|(_, name)| column_number(name).map(|number| number - 1)).collect();
        let label = read.then(|| place(&columns.label, 2));
        let places = Places { text: place(&columns.text, 1), pair, label, extra };
        return first(places, header == Some(true), header == Some(false)).not_in_doubt(path, header);
    }
    let here = |place: Option<usize>, expected: usize| place.is_none_or(|place| place == expected);
    let by_place = header == Some(true) && here(text, 0) && here(label, 1) && cells.len() <= 2;
    if named || ((text.is_some() || label.is_some()) && !by_place) {
        // It looks like a header, or must be one, and a column is not there.
        return Err(missing(path, line, if text.is_none() { columns.text() } else { columns.label() }, cells));
    }
    // Without names there are the text and the label, and nothing else.
    if cells.len() > 2 {
        let message = format!(
            "this row has {} cells, and nothing says which is the text{}",
            cells.len(),
            if read { " and which the label" } else { "" }
        );
        let help = if header == Some(true) {
            COLUMNS
        } else {
            "a text with a comma or tab needs quotes in .csv; where there are more columns, name them in the run file: columns = { text = \"...\", label = \"...\" }, or by number where there is no header: columns = { text = \"1\", label = \"3\" }"
        };
        return Err(data_error(path, Some(line), message).with_help(help));
    }
    let places = Places { text: 0, pair: None, label: read.then_some(1), extra: Vec::new() };
    first(places, header == Some(true), header == Some(false)).not_in_doubt(path, header)
}

impl First {
    /// The row, unless its words, or those that another separator would divide it into, are such as name columns.
    fn not_in_doubt(self, path: &Path, header: Option<bool>) -> Result<Self> {
        if header.is_some() {
            return Ok(self);
        }
        if let [cell] = self.cells.as_slice()
            && let Some(separator) = separator(cell)
            && cell.split(separator).all(names_a_column)
        {
            return Err(separated_otherwise(path, self.line, cell, separator));
        }
        let Places { text, pair, label, .. } = self.places;
        let wanted = || [Some(text), pair, label].into_iter().flatten();
        let all = |is_name: &dyn Fn(usize, &str) -> bool| {
            wanted().all(|place| self.cells.get(place).is_some_and(|cell| is_name(place, cell)))
        };
        // Programs that have no names for columns number them from 0.
        if all(&|_, cell| names_a_column(cell)) || all(&|place, cell| cell.trim() == place.to_string()) {
            return Err(self.in_doubt(path, "its cells are such as name columns"));
        }
        Ok(self)
    }

    /// Compares the row with the labels of the file. `count` gives how many rows have a label, `known` whether the training data
    /// have it.
    ///
    /// # Errors
    /// A first example whose label stands nowhere else; a header that has the label of examples.
    pub(super) fn check_label(
        &self,
        path: &Path,
        count: impl Fn(&str) -> u64,
        known: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let Some(label) = self.places.label.and_then(|place| self.cells.get(place)).filter(|_| !self.sure) else {
            return Ok(());
        };
        let label = label.trim();
        if self.is_header && (count(label) > 0 || known(label)) {
            let message =
                format!("this row should be a header, and its label `{}` is that of other rows", shortened(label));
            let help = "header = true is for files whose first row names the columns: leave it out for this file";
            return Err(data_error(path, Some(self.line), message).with_help(help));
        }
        // A number is no name.
        let is_number = label.parse::<f64>().is_ok_and(f64::is_finite);
        if self.is_header || is_number || count(label) != 1 || known(label) {
            return Ok(());
        }
        Err(self.in_doubt(path, &format!("its label `{}` is that of no other row", shortened(label))))
    }

    /// Refuses the row, and says what it would be as a header and as an example.
    pub(super) fn in_doubt(&self, path: &Path, why: &str) -> Error {
        let cell = |place: usize| self.cells.get(place).map_or("", |cell| shortened(cell.trim()));
        let Places { text, pair, label, .. } = self.places;
        let parts =
            [Some(("text", text)), pair.map(|place| ("second text", place)), label.map(|place| ("label", place))];
        let list = |one: &dyn Fn(&str, usize) -> String| {
            parts.iter().flatten().map(|&(what, place)| one(what, place)).collect::<Vec<_>>().join(" and ")
        };
        let as_header = list(&|what, place| format!("the {what} stands in the column `{}`", cell(place)));
        let as_example = list(&|what, place| format!("its {what} is {:?}", cell(place)));
        let message = format!("the first row may be a header or an example: {why}");
        data_error(path, Some(self.line), message)
            .with_help(format!("as a header: {as_header}; as an example: {as_example}; {SAY}"))
    }
}

/// The place of a column. A default name may be written in any letter case.
fn find(path: &Path, line: u64, name: &str, given: bool, cells: &[String]) -> Result<Option<usize>> {
    let places = |same: &dyn Fn(&str) -> bool| {
        let found = cells.iter().enumerate().filter(|(_, cell)| same(cell.trim()));
        found.map(|(place, _)| place).collect::<Vec<usize>>()
    };
    let exact = places(&|cell| cell == name);
    let found = if exact.is_empty() && !given { places(&|cell| cell.eq_ignore_ascii_case(name)) } else { exact };
    if found.len() > 1 {
        let message =
            format!("columns {} and {} are both named `{}`", found[0] + 1, found[1] + 1, cells[found[1]].trim());
        return Err(data_error(path, Some(line), message).with_help("give each column a name of its own"));
    }
    Ok(found.first().copied())
}

const COLUMNS: &str = "name the columns in the run file: columns = { text = \"...\", label = \"...\" }; in a file without a header, by number: columns = { text = \"1\", label = \"2\" }";

fn missing(path: &Path, line: u64, name: &str, first: &[String]) -> Error {
    if let [cell] = first
        && let Some(separator) = separator(cell)
    {
        return separated_otherwise(path, line, cell, separator);
    }
    let there = list(first.iter().take(20).map(|cell| shortened(cell.trim())));
    data_error(path, Some(line), format!("there is no column `{name}`; the first row has {there}")).with_help(COLUMNS)
}

/// What may separate cells where the file's own separator does not occur.
fn separator(cell: &str) -> Option<char> {
    ['\t', ';', ',', '|'].into_iter().find(|&separator| cell.contains(separator))
}

fn separated_otherwise(path: &Path, line: u64, cell: &str, separator: char) -> Error {
    let message = format!("this row is one cell, `{}`, and {separator:?} seems to separate its cells", shortened(cell));
    data_error(path, Some(line), message).with_help(format!(
        "cells stand between tabs in .tsv, and between commas in .csv: say what separates them in the task, separator = {:?}",
        separator.to_string()
    ))
}

/// Whether the first row of a table names its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// It does.
    Yes,
    /// Its cells could be names, and nothing else tells.
    Perhaps,
    /// It is an example.
    No,
}

/// What the first of some rows is, before anyone has said which columns are wanted: names are short, differ, are no numbers, and one of
/// them at least is such as names a column, or stands over numbers.
pub(super) fn naming(rows: &[&[String]]) -> Naming {
    let Some((first, rest)) = rows.split_first() else { return Naming::No };
    let is_number = |cell: &str| cell.trim().parse::<f64>().is_ok();
    let distinct = first.iter().enumerate().all(|(i, cell)| !first[..i].contains(cell));
    let short = first.iter().all(|cell| (1..=40).contains(&cell.trim().len()) && cell.split_whitespace().count() < 4);
    if !distinct || !short || first.iter().any(|cell| is_number(cell)) {
        return Naming::No;
    }
    let over_numbers =
        |place: usize| !rest.is_empty() && rest.iter().all(|row| row.get(place).is_some_and(|cell| is_number(cell)));
    if first.iter().enumerate().any(|(place, cell)| names_a_column(cell) || over_numbers(place)) {
        return Naming::Yes;
    }
    // A label that comes again is one of an example.
    let again = |place: usize| rest.iter().any(|row| row.get(place) == first.get(place));
    if (0..first.len()).any(again) { Naming::No } else { Naming::Perhaps }
}

/// Whether a cell is such as names a column: `text`, `Review Text`, `sentence1`, `comment_body`.
fn names_a_column(cell: &str) -> bool {
    let known = |part: &str| {
        let part = part.trim_end_matches(|c: char| c.is_ascii_digit()).to_lowercase();
        NAMES.split(' ').any(|name| name == part)
    };
    let mut words = cell.trim().trim_matches('"').split_whitespace().peekable();
    words.peek().is_some() && words.all(|word| word.split(['_', '-', '.']).any(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_columns_are_told_from_texts_and_labels() {
        for name in [
            "text",
            "Text",
            " SENTENCE ",
            "sentence1",
            "review_text",
            "Review Text",
            "\"label\"",
            "class-id",
            "tweet.body",
        ] {
            assert!(names_a_column(name), "{name}");
        }
        for text in ["", "good", "pos", "a good text", "0", "text and more", "great_film", "classy"] {
            assert!(!names_a_column(text), "{text}");
        }
    }
}
