//! One text a line: beside a file of labels, or all of one class.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::form::Encoding;
use super::input::Input;
use super::lines::Lines;
use super::row::{Row, data_error, no_label, shortened};
use crate::Result;

/// What TweetEval names its classes in, beside their numbers.
pub(super) const MAPPING: &str = "mapping.txt";

/// The texts of a file, one a line.
pub(super) struct TextRows {
    lines: Lines,
    labels: Option<LabelLines>,
}

/// The labels of the texts, one a line.
struct LabelLines {
    path: PathBuf,
    lines: Lines,
    /// Names by what stands in the file.
    names: BTreeMap<String, String>,
}

impl TextRows {
    /// Texts without labels, or with those of another file.
    pub(super) fn new(lines: Lines, labels: Option<&Path>, encoding: Encoding) -> Result<Self> {
        let of_file = |path: &Path| -> Result<LabelLines> {
            let lines = Lines::new(Input::open(path, encoding)?.into_reader());
            Ok(LabelLines { path: path.to_owned(), lines, names: names(path)? })
        };
        Ok(Self { lines, labels: labels.map(of_file).transpose()? })
    }

    /// The next text. Beside labels a blank line is an empty text.
    pub(super) fn next_row(&mut self, path: &Path) -> Result<Option<Row>> {
        let Some(labels) = &mut self.labels else {
            let line = self.lines.next_line(path)?;
            return Ok(line.map(|(line, text)| Row { line, text: text.to_owned(), ..Row::default() }));
        };
        let text = self.lines.any_line(path)?.map(|(line, text)| (line, text.to_owned()));
        let label = labels.lines.any_line(&labels.path)?.map(|(_, label)| label.trim().to_owned());
        match (text, label) {
            (None, None) => Ok(None),
            (Some((line, _)), Some(label)) if label.is_empty() => Err(no_label(&labels.path, line)),
            (Some((line, text)), Some(label)) => {
                let label = match labels.names.get(&label) {
                    Some(name) => name.clone(),
                    None if labels.names.is_empty() => label,
                    None => {
                        let message = format!("the label `{}` has no name in {MAPPING}", shortened(&label));
                        return Err(data_error(&labels.path, Some(line), message)
                            .with_help(format!("add it to {MAPPING} beside this file, or take that file away")));
                    }
                };
                Ok(Some(Row { line, text, label, ..Row::default() }))
            }
            (Some((line, _)), None) => {
                let message = format!("this text has no label: {} ends after line {}", labels.path.display(), line - 1);
                Err(data_error(path, Some(line), message).with_help("each line has its label on the same line"))
            }
            (None, Some(_)) => {
                let message = format!("has more lines than {}", path.display());
                Err(data_error(&labels.path, None, message).with_help("each line has its text on the same line"))
            }
        }
    }
}

/// The names of labels that are numbers, from `mapping.txt` beside their file: `0<TAB>negative`. None where there is no such file.
fn names(labels: &Path) -> Result<BTreeMap<String, String>> {
    let path = labels.with_file_name(MAPPING);
    let mut names = BTreeMap::new();
    if !path.is_file() {
        return Ok(names);
    }
    let mut lines = Lines::new(Input::open(&path, Encoding::Utf8)?.into_reader());
    while let Some((line, text)) = lines.next_line(&path)? {
        let mut cells = text.split('\t').map(str::trim);
        let (Some(label), Some(name)) = (cells.next(), cells.next().filter(|name| !name.is_empty())) else {
            return Err(data_error(&path, Some(line), "this line has no name")
                .with_help("a line has a label, a tab and the name of its class"));
        };
        names.insert(label.to_owned(), name.to_owned());
    }
    Ok(names)
}
