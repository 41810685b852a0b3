//! The rows of all files of a part of the data, one after the other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use super::files::Files;
use super::form::{Form, Format};
use super::recognise;
use super::row::{Columns, Labels, Role, Row, data_error, list, shortened};
use super::table::Rows;
use crate::{Error, Result};

/// Reads files row by row.
pub(super) struct AllRows<'a> {
    form: &'a Form,
    labels: Labels,
    /// The classes of the training data.
    known: Option<&'a [String]>,
    /// The value of the column of parts that rows must have, and where that stands among their further cells.
    only: Option<(&'a str, usize)>,
    current: Opened,
    later: IntoIter<Found>,
    /// Whether a row was given, and the parts of those that were not.
    given: bool,
    others: BTreeSet<String>,
    /// The classes of rows that do not count.
    other_classes: BTreeSet<String>,
    notes: Vec<String>,
}

struct Found {
    path: PathBuf,
    /// The class of all its examples.
    class: Option<String>,
}

struct Opened {
    found: Found,
    rows: Rows,
}

/// Values of the column of parts that a message names.
const NAMED: usize = 20;

impl<'a> AllRows<'a> {
    /// Opens the first file.
    ///
    /// # Errors
    /// As [`Rows::open`], and where files by class have what they cannot.
    pub(super) fn open(
        files: &Files,
        form: &'a Form,
        labels: Labels,
        known: Option<&'a [String]>,
        only: Option<&'a str>,
    ) -> Result<Self> {
        let found = |path: &PathBuf, class: Option<String>| Found { path: path.clone(), class };
        let all: Vec<Found> = match files {
            Files::One(path) => vec![found(path, None)],
            Files::Pair { text, .. } => vec![found(text, None)],
            Files::Masks { images, .. } => {
                return Err(Error::usage(format!("{} is a folder of pictures with masks", images.display()))
                    .with_help("they are for a model that takes pictures, and a head that gives each pixel a class"));
            }
            Files::ByClass(files) => files.iter().map(|(class, path)| found(path, Some(class.clone()))).collect(),
        };
        if matches!(files, Files::ByClass(_))
            && [&form.columns.label, &form.columns.weight, &form.columns.group].into_iter().any(Option::is_some)
        {
            return Err(Error::usage(
                "files by class have their label in their name, and no column of a label, a weight or a group",
            )
            .with_help("take these out of columns"));
        }
        let mut later = all.into_iter();
        let Some(first) = later.next() else { return Err(Error::usage("no file is named for the examples")) };
        let current = match files {
            Files::Pair { label, .. } if labels == Labels::Read => {
                Opened { rows: Rows::open_pair(&first.path, label, form)?, found: first }
            }
            _ => open(first, form, labels, known)?,
        };
        let place = form.columns.extra(labels).position(|(role, _)| role == Role::Part);
        let only = only.zip(place);
        let notes = current.rows.notes().to_vec();
        Ok(Self {
            form,
            labels,
            known,
            only,
            current,
            later,
            given: false,
            others: BTreeSet::new(),
            other_classes: BTreeSet::new(),
            notes,
        })
    }

    /// The file that is being read.
    pub(super) fn path(&self) -> &Path {
        &self.current.found.path
    }

    /// The rows of the file that is being read.
    pub(super) fn file(&self) -> &Rows {
        &self.current.rows
    }

    /// What was recognised in the files so far.
    pub(super) fn notes(self) -> Vec<String> {
        self.notes
    }

    /// The next row of the file that is being read.
    pub(super) fn next_of_file(&mut self) -> Result<Option<Row>> {
        loop {
            let Some(mut row) = self.current.rows.next().transpose()? else { return Ok(None) };
            if let Some((wanted, place)) = self.only
                && row.extra[place] != wanted
            {
                if self.others.len() < NAMED {
                    self.others.insert(shortened(&row.extra[place]).to_owned());
                }
                continue;
            }
            if let Some(class) = self.current.found.class.as_ref().filter(|_| self.labels == Labels::Read) {
                row.label.clone_from(class);
            }
            // What has several labels is counted by none of them.
            if self.labels == Labels::Read
                && row.words.is_none()
                && row.labels.is_none()
                && !self.form.counts(&row.label)
            {
                if self.other_classes.len() < NAMED {
                    self.other_classes.insert(shortened(&row.label).to_owned());
                }
                continue;
            }
            self.given = true;
            return Ok(Some(row));
        }
    }

    /// Goes on to the next file; false where there is none.
    ///
    /// # Errors
    /// Where it cannot be opened; after the last one, where no row is of the wanted part or has a class that counts.
    pub(super) fn next_file(&mut self) -> Result<bool> {
        if let Some(next) = self.later.next() {
            self.current = open(next, self.form, self.labels, self.known)?;
            self.notes.extend_from_slice(self.current.rows.notes());
            return Ok(true);
        }
        match self.only {
            Some((wanted, _)) if !self.given => {
                let column = self.form.columns.part.as_deref().unwrap_or_default();
                let message = format!("no row has `{wanted}` in the column `{column}`");
                let there = list(self.others.iter().map(String::as_str));
                Err(data_error(self.path(), None, message).with_help(format!("there are {there}")))
            }
            _ if !self.given && !self.other_classes.is_empty() => {
                Err(no_class(self.path(), self.form, self.other_classes.iter().map(String::as_str)))
            }
            _ => Ok(false),
        }
    }
}

/// The error of a file without an example that counts; `there` are classes that it has.
pub(super) fn no_class<'a>(path: &Path, form: &Form, there: impl Iterator<Item = &'a str>) -> Error {
    let wanted = list(form.only.iter().map(String::as_str));
    data_error(path, None, format!("no example has a class of those that only names, {wanted}"))
        .with_help(format!("there are {}", list(there)))
}

fn open(found: Found, form: &Form, labels: Labels, known: Option<&[String]>) -> Result<Opened> {
    let Some(_) = &found.class else {
        return Ok(Opened { rows: Rows::open(&found.path, form, labels, known)?, found });
    };
    // Names of such files seldom say what they are: texts, one a line.
    let format = form.format.or_else(|| recognise::by_name(&found.path)).unwrap_or(Format::Lines);
    let form = Form { format: Some(format), columns: Columns { label: None, ..form.columns.clone() }, ..form.clone() };
    Ok(Opened { rows: Rows::open(&found.path, &form, Labels::Unread, known)?, found })
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
