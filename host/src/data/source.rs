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
    /// What the streams take that the examples are for.
    pub modalities: &'a [Modality],
    /// What the model says, where its head is over its vocabulary.
    pub language: Option<LanguageModel>,
    /// What becomes of pictures, for a model that takes some.
    pub transform: Option<&'a Arc<Transform>>,
    /// Where images go; token ids stay on the host.
    pub device: &'a Device,
}

/// What a stream of images takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Images {
    pub(super) channels: usize,
    pub(super) size: usize,
    /// What an image counts as.
    pub(super) tokens: usize,
}

impl<'a> Source<'a> {
    /// The size of the vocabulary, where examples have texts.
    pub(super) fn vocabulary(&self) -> Option<usize> {
        self.modalities.iter().find_map(|modality| match *modality {
            Modality::Text { vocabulary, .. } => Some(vocabulary),
            Modality::Images { .. } => None,
        })
    }

    /// What images are, where examples have some.
    pub(super) fn images(&self) -> Option<Images> {
        self.modalities.iter().find_map(|modality| match *modality {
            Modality::Text { .. } => None,
            Modality::Images { channels, size, tokens, .. } => Some(Images { channels, size, tokens }),
        })
    }

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
