//! What is read: which files, how, and for which model.

use std::sync::Arc;

use fthost_autograd::Device;
use fthost_images::Transform;
use fthost_models::Modality;

use super::distinct;
use super::files::Files;
use super::form::{Form, LanguageModel};
use super::label_lists::parted;
use super::part::Part;
use super::row::Labels;
use super::rows::AllRows;
use crate::Result;

/// Where examples come from, and what they become.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The files, or `demo` or `demo-pretrain` for the embedded digits.
    pub files: &'a Files,
    /// Which half of an embedded data set; a file is read whole.
    pub part: Part,
    /// How they are read.
    pub form: &'a Form,
    /// The rows that count, where not all do: what stands in their column of parts.
    pub only: Option<&'a str>,
    /// The classes of the training data in index order, for test data. `None` for training data: the classes are then
    /// what its labels name.
    pub labels: Option<&'a [String]>,
    /// Whether texts are kept, to be shown beside predictions.
    pub texts: bool,
    /// What the model takes.
    pub modality: Modality,
    /// What the model says, where its head is over its vocabulary.
    pub language: Option<LanguageModel>,
    /// What becomes of pictures, for a model that takes some.
    pub transform: Option<&'a Arc<Transform>>,
    /// Where images go; token ids stay on the host.
    pub device: &'a Device,
}

impl<'a> Source<'a> {
    /// Its rows.
    pub(super) fn rows(&self, labels: Labels) -> Result<AllRows<'a>> {
        AllRows::open(self.files, self.form, labels, self.labels, self.only)
    }

    /// The labels of a cell.
    pub(super) fn labels_of(&self, cell: &str) -> Vec<String> {
        match &self.form.label_separator {
            Some(separator) => parted(cell, separator),
            None => vec![cell.to_owned()],
        }
    }

    /// Whether the training data have a label, or one of those that a cell holds.
    pub(super) fn knows(&self, cell: &str) -> bool {
        let known = |label: &String| {
            self.labels.into_iter().flatten().any(|known| distinct::name(known) == distinct::name(label))
        };
        self.labels_of(cell).iter().any(known)
    }
}
