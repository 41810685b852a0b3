//! Data sets whose examples have any number of classes each: labels come as lists, or in cells with something between them.

use std::hash::{DefaultHasher, Hash, Hasher};

use fthost_autograd::{Device, Tensor};

use super::dataset::{Dataset, Targets};
use super::store::Record;
use crate::{Error, Result};

/// What stands between labels in tables that this program writes, where the run file says nothing else.
pub const SEPARATOR: &str = "|";
/// What is likely to stand between labels.
const USUAL: [char; 3] = [',', ';', '|'];

/// The labels of a cell, in their order; none of a cell that is empty.
pub(super) fn parted(cell: &str, separator: &str) -> Vec<String> {
    let cell = cell.trim();
    if cell.is_empty() { Vec::new() } else { cell.split(separator).map(|label| label.trim().to_owned()).collect() }
}

impl Dataset {
    /// The classes of an example, ascending, where it may have any number of them.
    ///
    /// # Errors
    /// Where it cannot be read, or targets are something else.
    pub fn classes_of(&self, row: u32) -> Result<Vec<u32>> {
        self.classes_of_record(&self.record(row)?)
    }

    fn classes_of_record(&self, record: &Record) -> Result<Vec<u32>> {
        let Targets::Sets(classes) = &self.targets else { return Err(self.never_set()) };
        let numbers = if self.lists { self.store.extra(record)?.labels } else { vec![record.label] };
        let mut found: Vec<u32> = numbers.iter().filter_map(|&number| classes.get(number as usize).copied()).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Stands for what is to be predicted of an example: its class, or all that it has; none where targets are something else.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn answer(&self, row: u32) -> Result<Option<u64>> {
        if !self.is_multi_label() {
            return Ok(self.class(row)?.map(u64::from));
        }
        let mut hash = DefaultHasher::new();
        self.classes_of(row)?.hash(&mut hash);
        Ok(Some(hash.finish()))
    }

    /// Whether examples may have any number of classes.
    pub fn is_multi_label(&self) -> bool {
        matches!(self.targets, Targets::Sets(_))
    }

    /// The numbers of a row's labels that do not stand in its record: of its tokens, or of its list.
    pub(super) fn further_labels(&self, record: &Record) -> Result<Vec<u32>> {
        if self.lists { Ok(self.store.extra(record)?.labels) } else { self.store.marks(record) }
    }

    /// 1 where an example has a class, 0 elsewhere: `f32` `[rows, classes]`.
    pub(super) fn indicators(&self, rows: &[u32], device: &Device) -> Result<Tensor> {
        let classes = self.labels.len();
        let mut values = vec![0f32; rows.len() * classes];
        for (&row, values) in rows.iter().zip(values.chunks_exact_mut(classes.max(1))) {
            self.classes_of(row)?.into_iter().for_each(|class| values[class as usize] = 1.0);
        }
        Ok(Tensor::from_vec(values, (rows.len(), classes), device)?)
    }

    /// Refuses cells that hold several labels, where nothing says what stands between them.
    pub(super) fn check_parted(&self) -> Result<()> {
        if self.lists {
            return Ok(());
        }
        let names = self.distinct.names();
        let several = names.iter().find_map(|label| Some((label, USUAL.into_iter().find(|c| label.contains(*c))?)));
        let Some((label, separator)) = several else { return Ok(()) };
        Err(Error::Data {
            file: self.path.clone(),
            line: self.distinct.line(label),
            message: format!("the label `{label}` looks like several, and nothing says what stands between them"),
            help: Some(format!(
                "say it in the task of the run file: label_separator = \"{separator}\"; where it is one label, name what no label has"
            )),
        })
    }
}

/// By which examples are shared out in proportion. Examples that may have any number of classes go by their rarest one, of equally rare
/// ones the first: rare classes are what a share would miss. Those of none go together, and so do all examples where targets are values or
/// classes of words.
pub(super) struct Strata {
    /// Examples of each class.
    counts: Vec<u64>,
}

impl Strata {
    pub(super) fn of(data: &Dataset) -> Self {
        Self { counts: data.class_counts() }
    }

    /// The stratum of an example: its class, its rarest class, or one beyond the last where it has none of several; 0 where there are no
    /// classes of examples.
    pub(super) fn stratum(&self, data: &Dataset, record: &Record) -> Result<usize> {
        match &data.targets {
            Targets::Classes(classes) => Ok(classes[record.label as usize] as usize),
            Targets::Sets(_) => {
                let rarest =
                    data.classes_of_record(record)?.into_iter().min_by_key(|&class| self.counts[class as usize]);
                Ok(rarest.map_or(self.counts.len(), |class| class as usize))
            }
            Targets::WordClasses(_)
            | Targets::Values
            | Targets::Masks
            | Targets::Next
            | Targets::Pairs(_)
            | Targets::Chosen(_)
            | Targets::Matches
            | Targets::Open => Ok(0),
        }
    }

    /// Examples of each stratum.
    ///
    /// # Errors
    /// Where examples cannot be read, or targets were never set.
    pub(super) fn counts(&self, data: &Dataset) -> Result<Vec<u64>> {
        match &data.targets {
            Targets::Classes(_) => Ok(self.counts.clone()),
            Targets::WordClasses(_)
            | Targets::Values
            | Targets::Masks
            | Targets::Next
            | Targets::Pairs(_)
            | Targets::Chosen(_)
            | Targets::Matches => Ok(vec![data.len() as u64]),
            Targets::Open => Err(data.never_set()),
            Targets::Sets(_) => {
                let mut counts = vec![0; self.counts.len() + 1];
                data.store.each_record(|row, record| {
                    if data.selection.contains(row) {
                        counts[self.stratum(data, record)?] += 1;
                    }
                    Ok(())
                })?;
                Ok(counts)
            }
        }
    }
}

#[cfg(test)]
#[path = "label_lists_tests.rs"]
mod tests;
