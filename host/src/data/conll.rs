//! Sentences of a file with one word a line, as CoNLL's shared tasks publish them.
//!
//! A line has columns between tabs, or where it has no tab between spaces: the word first and its label last, unless
//! [`Columns`] says otherwise. A blank line ends a sentence; one of tabs and spaces alone does too, as in WNUT-17. `-DOCSTART-` lines and
//! comments (`# id ...`, CoNLL-U's `# text = ...`) are left out.

use std::path::Path;

use super::lines::Lines;
use super::row::{Columns, Labels, Row, column_number, data_error, word_row};
use super::scheme::tag;
use crate::{Error, Result};

const DOCUMENT: &str = "-DOCSTART-";

/// The sentences of a file.
pub(super) struct ConllRows {
    lines: Lines,
    labels: Labels,
    /// How many columns lines have.
    width: Option<usize>,
}

impl ConllRows {
    pub(super) fn new(lines: Lines, labels: Labels) -> Self {
        Self { lines, labels, width: None }
    }

    /// The next sentence, with the line of its first word.
    pub(super) fn next_row(&mut self, path: &Path, columns: &Columns) -> Result<Option<Row>> {
        let (mut first, mut words, mut labels) = (0, Vec::new(), Vec::new());
        while let Some((line, text)) = self.lines.any_line(path)? {
            if text.trim().is_empty() {
                if words.is_empty() { continue } else { break }
            }
            let cells = cells(text);
            if cells[0] == DOCUMENT || (words.is_empty() && is_comment(text, &cells, self.width)) {
                continue;
            }
            let width = *self.width.get_or_insert(cells.len());
            if cells.len() != width {
                return Err(uneven(path, line, cells.len(), width));
            }
            if words.is_empty() {
                first = line;
            }
            words.push(cells[place(path, line, columns.text.as_deref(), 0, width)?].to_owned());
            if self.labels == Labels::Read {
                if width == 1 {
                    let message = "this line has a word alone: it has no column for a label";
                    return Err(data_error(path, Some(line), message)
                        .with_help("write the label after the word, behind a tab or a space"));
                }
                let label = place(path, line, columns.label.as_deref(), width - 1, width)?;
                labels.push(cells[label].to_owned());
            }
        }
        if words.is_empty() {
            return Ok(None);
        }
        word_row(path, first, columns, words, (self.labels == Labels::Read).then_some(labels)).map(Some)
    }
}

/// The columns of a line, at least one.
fn cells(text: &str) -> Vec<&str> {
    let cells: Vec<&str> = match text.contains('\t') {
        true => text.split('\t').map(str::trim).collect(),
        false => text.split_whitespace().collect(),
    };
    if cells.is_empty() { vec![""] } else { cells }
}

/// Whether a line before the first word of a sentence says something about it. A word `#` is told from that by its columns.
fn is_comment(text: &str, cells: &[&str], width: Option<usize>) -> bool {
    let as_word = match width {
        Some(width) => cells.len() == width,
        None => text.contains('\t'),
    };
    text.starts_with("# ") && !(as_word && (tag(cells[cells.len() - 1]).is_some() || !text.contains('=')))
}

/// The place of a column that is named by its number, from 1.
fn place(path: &Path, line: u64, name: Option<&str>, default: usize, width: usize) -> Result<usize> {
    let Some(name) = name else { return Ok(default) };
    match column_number(name) {
        Some(number) if number <= width => Ok(number - 1),
        _ => Err(data_error(path, Some(line), format!("there is no column {name}; this line has {width} columns"))
            .with_help("columns of such a file have numbers, from 1: columns = { text = \"1\", label = \"4\" }")),
    }
}

fn uneven(path: &Path, line: u64, has: usize, width: usize) -> Error {
    data_error(path, Some(line), format!("this line has {has} columns, and those before have {width}"))
        .with_help("a word has no space in it, and each of its columns stands behind a tab or a space")
}

/// Whether a text is a file of words with labels that spell entities. `whole` says that it is not cut off.
pub(super) fn looks_like(text: &str, whole: bool) -> bool {
    let end = if whole { text.len() } else { text.rfind('\n').unwrap_or(0) };
    let (mut width, mut words, mut entity, mut begins) = (None, 0, false, true);
    for line in text[..end].lines() {
        let cells = cells(line);
        if line.trim().is_empty() || cells[0] == DOCUMENT || (begins && is_comment(line, &cells, width)) {
            begins = true;
            continue;
        }
        begins = false;
        let Some((letter, _)) = tag(cells[cells.len() - 1]) else { return false };
        if cells.len() < 2 || *width.get_or_insert(cells.len()) != cells.len() {
            return false;
        }
        entity |= letter != b'O';
        words += 1;
    }
    words > 1 && entity
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// Sentences as `line word/label word/label`.
    fn read(content: &str, columns: &Columns) -> Result<Vec<String>> {
        let lines = Lines::new(Box::new(std::io::Cursor::new(content.to_owned())));
        let mut rows = ConllRows::new(lines, Labels::Read);
        let mut found = Vec::new();
        while let Some(row) = rows.next_row(Path::new("a.conll"), columns)? {
            let words = row.words.unwrap();
            let pairs = words.words.iter().zip(&words.labels).map(|(word, label)| format!("{word}/{label}"));
            found.push(format!("{} {}", row.line, pairs.collect::<Vec<_>>().join(" ")));
        }
        Ok(found)
    }

    #[test]
    fn sentences_are_read_as_published() {
        let none = Columns::default();
        let conll = "-DOCSTART- -X- O O\n\nAda NNP I-NP I-PER\nsang VBD I-VP O\n\nYes UH O O\r\n";
        assert_eq!(read(conll, &none).unwrap(), ["3 Ada/I-PER sang/O", "6 Yes/O"]);
        let pos = Columns { label: Some("2".into()), ..Columns::default() };
        assert_eq!(read(conll, &pos).unwrap(), ["3 Ada/NNP sang/VBD", "6 Yes/UH"]);
        assert_eq!(
            read("#\tO\n@ada\tB-person\n\t\nhi\tO\n\t\n\t\n", &none).unwrap(),
            ["1 #/O @ada/B-person", "4 hi/O"]
        );
        let multi = "# id 12-ab\tdomain=en\nthe _ _ O\nsea _ _ B-X\n\n\n# id 3\tdomain=en\n# _ _ O\n";
        assert_eq!(read(multi, &none).unwrap(), ["2 the/O sea/B-X", "7 #/O"]);
        let universal = "# sent_id = 1\n# text = We go\n1\tWe\tPRON\n2\tgo\tVERB\n";
        let columns = Columns { text: Some("2".into()), label: Some("3".into()), ..Columns::default() };
        assert_eq!(read(universal, &columns).unwrap(), ["3 We/PRON go/VERB"]);
        for (text, expected) in
            [(conll, true), ("a\tO\nb\tO\n", false), ("good film\tB-X\nbad\t0\n", false), (universal, false)]
        {
            assert_eq!(looks_like(text, true), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let none = Columns::default();
        let error = |content: &str, columns: &Columns| read(content, columns).unwrap_err().to_string();
        assert_eq!(error("a O\nb c O\n", &none), "a.conll:2: this line has 3 columns, and those before have 2");
        assert_eq!(error("a\n", &none), "a.conll:1: this line has a word alone: it has no column for a label");
        assert_eq!(error("a\tO\nb\t\n", &none), "a.conll:1: word 2 of this row has no label");
        let fourth = Columns { label: Some("4".into()), ..Columns::default() };
        assert_eq!(error("a O\n", &fourth), "a.conll:1: there is no column 4; this line has 2 columns");
    }
}
