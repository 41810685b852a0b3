//! A data set: inputs ready for the model, and targets.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fthost_autograd::{Device, Layout, Tensor};
use fthost_models::{Input, TextInput};
use fthost_plugin_api::TargetKind;

use super::distinct::{Distinct, UNNUMBERED};
use super::images::Images;
use super::selection::Selection;
use super::store::{Record, Store};
use crate::{Error, Result};

/// Tokenized texts or images with their targets, in the order of their file.
///
/// A small one is in memory; of a large one nearly nothing is, and its rows are read from disk when they are asked for.
/// A clone shares the rows.
#[derive(Clone, Debug)]
pub struct Dataset {
    pub(super) path: PathBuf,
    /// The rows of the file.
    pub(super) store: Arc<Store>,
    /// The pixels of the store's rows, where they are images.
    pub(super) images: Option<Arc<Images>>,
    /// The labels that the store's records number.
    pub(super) distinct: Arc<Distinct>,
    /// The rows of the store that are examples of this data set.
    pub(super) selection: Selection,
    pub(super) totals: Totals,
    pub(super) labels: Vec<String>,
    pub(super) targets: Targets,
}

/// What a label is to the task's head.
#[derive(Clone, Debug)]
pub(super) enum Targets {
    /// Test data before `set_targets`; training data with too many labels for classes.
    Open,
    /// By its number the class of a label.
    Classes(Arc<[u32]>),
    Values,
}

/// Sums over the examples of a data set.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    tokens: usize,
    truncated: usize,
    empty_texts: usize,
    /// Examples by the number of their label.
    labels: Vec<u64>,
}

impl Totals {
    pub(super) fn add(&mut self, record: &Record) {
        self.tokens += record.tokens as usize;
        self.truncated += usize::from(record.truncated);
        self.empty_texts += usize::from(record.empty);
        if record.label != UNNUMBERED {
            let number = record.label as usize;
            self.labels.resize(self.labels.len().max(number + 1), 0);
            self.labels[number] += 1;
        }
    }
}

impl Dataset {
    /// Number of examples.
    pub fn len(&self) -> usize {
        self.selection.len() as usize
    }

    /// Whether there is no example. A data set that was loaded has at least one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of an example, or what an image counts as. Fails where the disk does, as all that reads examples.
    pub fn tokens(&self, row: u32) -> Result<usize> {
        Ok(self.record(row)?.tokens as usize)
    }

    /// Tokens of all examples.
    pub fn total_tokens(&self) -> usize {
        self.totals.tokens
    }

    /// Texts that were cut to the longest length.
    pub fn truncated(&self) -> usize {
        self.totals.truncated
    }

    /// Texts without a character. They are kept: the model sees its special tokens only.
    pub fn empty_texts(&self) -> usize {
        self.totals.empty_texts
    }

    /// Bytes of examples in memory.
    pub fn in_memory(&self) -> usize {
        let pixels = self.images.as_ref().map_or(0, |images| images.pixels.len());
        self.store.in_memory() + self.selection.in_memory() + pixels
    }

    /// Names of the classes in index order; none where targets are values.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Examples of each class, in the order of [`labels`](Self::labels); zeros until targets are classes.
    pub fn class_counts(&self) -> Vec<u64> {
        let mut counts = vec![0; self.labels.len()];
        if let Targets::Classes(classes) = &self.targets {
            for (&class, count) in classes.iter().zip(&self.totals.labels) {
                counts[class as usize] += count;
            }
        }
        counts
    }

    /// The class of an example; `None` where targets are no classes.
    pub fn class(&self, row: u32) -> Result<Option<u32>> {
        match &self.targets {
            Targets::Classes(classes) => Ok(Some(classes[self.record(row)?.label as usize])),
            Targets::Values | Targets::Open => Ok(None),
        }
    }

    /// The file, and the line where an example begins, from 1; no line for embedded data.
    pub fn place(&self, row: u32) -> Result<(&Path, Option<u64>)> {
        Ok((&self.path, self.record(row)?.line))
    }

    /// Takes the labels as what the task's head learns from: classes, or with [`TargetKind::Value`] real values, and
    /// then there are no class names any more. Training data are classes until then; test data have no targets until
    /// then.
    ///
    /// # Errors
    ///
    /// A class that the training data does not have, or a value that is no finite number, with its line; more labels
    /// than there can be classes; kinds of targets that have no files yet.
    pub fn set_targets(&mut self, kind: TargetKind) -> Result<()> {
        match kind {
            TargetKind::Class => {
                self.targets = Targets::Classes(self.distinct.classes(&self.path, &self.labels)?.into());
                Ok(())
            }
            TargetKind::Value => {
                self.distinct.check_values(&self.path)?;
                self.targets = Targets::Values;
                self.labels.clear();
                Ok(())
            }
            TargetKind::TokenClass | TargetKind::Mask => Err(Error::Data {
                file: self.path.clone(),
                line: None,
                message: "has one label per example, and the task's head wants one per token or pixel".into(),
                help: Some("choose a head that learns classes or values".into()),
            }),
        }
    }

    /// As [`set_targets`](Self::set_targets), where the classes' names were made by no one who saw the labels: where the labels are
    /// not these names but the numbers of classes, from 0, those count.
    ///
    /// # Errors
    ///
    /// As [`set_targets`](Self::set_targets).
    pub fn set_named_or_numbered_targets(&mut self, kind: TargetKind) -> Result<()> {
        self.set_targets(kind).or_else(|error| {
            let numbers: Vec<String> = (0..self.labels.len()).map(|number| number.to_string()).collect();
            match self.distinct.classes(&self.path, &numbers) {
                Ok(classes) if kind == TargetKind::Class => {
                    self.targets = Targets::Classes(classes.into());
                    Ok(())
                }
                _ => Err(error),
            }
        })
    }

    /// The examples of these rows, packed in their order. Images are on the data set's device.
    pub fn input(&self, rows: &[u32]) -> Result<Input> {
        if let Some(images) = &self.images {
            let rows: Vec<u32> = rows.iter().map(|&row| self.selection.row(row)).collect();
            return Ok(Input::Images(images.take(&rows)?));
        }
        let records = rows.iter().map(|&row| self.record(row)).collect::<Result<Vec<_>>>()?;
        let layout = Layout::from_lengths(records.iter().map(|record| record.tokens as usize));
        let mut packed =
            TextInput { ids: Vec::with_capacity(layout.tokens()), types: Vec::with_capacity(layout.tokens()), layout };
        for record in &records {
            self.store.append(record, &mut packed.ids, &mut packed.types)?;
        }
        Ok(Input::Text(packed))
    }

    /// The targets of these rows, `[rows]`: `u32` classes or `f32` values.
    pub fn targets(&self, rows: &[u32], device: &Device) -> Result<Tensor> {
        let records = rows.iter().map(|&row| self.record(row));
        Ok(match &self.targets {
            Targets::Classes(classes) => {
                let classes =
                    records.map(|record| Ok(classes[record?.label as usize])).collect::<Result<Vec<u32>>>()?;
                Tensor::from_vec(classes, rows.len(), device)?
            }
            Targets::Values => {
                let values = records.map(|record| Ok(record?.value)).collect::<Result<Vec<f32>>>()?;
                Tensor::from_vec(values, rows.len(), device)?
            }
            Targets::Open => return Err(self.never_set()),
        })
    }

    fn record(&self, row: u32) -> Result<Record> {
        self.store.record(self.selection.row(row))
    }

    pub(super) fn never_set(&self) -> Error {
        Error::run(format!("{}: what the labels mean was never set", self.path.display()))
    }
}

#[cfg(test)]
#[path = "dataset_tests.rs"]
mod tests;
