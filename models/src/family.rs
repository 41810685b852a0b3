//! What a family of architectures is, and what it builds a model from.

use std::path::Path;

use candle_core::Device;
use fthost_autograd::Activation;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::activation::{ACTIVATIONS, activation};
use crate::builder::Origin;
use crate::weights::{Quantize, SINGLE_FILE, Weights};
use crate::{LoadError, Model};

pub(crate) const CONFIG_FILE: &str = "config.json";
/// The largest size that is taken for one.
pub(crate) const LARGEST: usize = 1 << 21;

/// Architectures that one implementation builds.
pub(crate) struct Family {
    /// Their `model_type`s in Hugging Face's configs, for an error too.
    pub(crate) model_types: fn() -> Vec<&'static str>,
    /// Their `architecture`s in timm's configs, torchvision's names among them, for an error too.
    pub(crate) architectures: fn() -> Vec<&'static str>,
    /// The config of weights that come without one, by the names and shapes of their tensors.
    pub(crate) recognise: fn(&Weights) -> Option<Json>,
    /// Builds one of them.
    pub(crate) build: fn(&Source<'_>) -> Result<Box<dyn Model>, LoadError>,
}

/// What a model is built from.
pub(crate) struct Source<'a> {
    /// config.json: its path in errors, its text, and what the text says. Of weights that came without one, theirs, and what was made of
    /// their tensors' names.
    pub(crate) file: &'a Path,
    pub(crate) text: &'a str,
    pub(crate) config: Json,
    pub(crate) values: Values<'a>,
    pub(crate) device: &'a Device,
    /// Whether the layer over the vocabulary is built too, and what the numbers follow from that weights lack for it.
    pub(crate) vocabulary: Option<u64>,
    /// Whether the head that compares two streams is used, where the architecture has one.
    pub(crate) contrastive: bool,
    /// Whether batch norms that train keep to their running statistics.
    pub(crate) keeps_statistics: bool,
    /// How the matrices of linear layers are quantised.
    pub(crate) quantize: Option<Quantize>,
}

/// Where weights are.
pub(crate) enum Values<'a> {
    Folder(&'a Path),
    Bytes(&'a [u8]),
    New { seed: u64 },
}

impl Source<'_> {
    /// What Hugging Face's configs say.
    pub(crate) fn model_type(&self) -> Option<&str> {
        self.config.get("model_type").and_then(Json::as_str)
    }

    /// What timm's configs say.
    pub(crate) fn architecture(&self) -> Option<&str> {
        self.config.get("architecture").and_then(Json::as_str)
    }

    /// The config in one family's form.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, LoadError> {
        serde_json::from_str(self.text).map_err(|source| LoadError::Config { file: self.file.into(), source })
    }

    /// What is wrong with a setting.
    pub(crate) fn setting(&self, key: &'static str, value: impl ToString, why: impl Into<String>) -> LoadError {
        LoadError::Setting { file: self.file.into(), key, value: value.to_string(), why: why.into() }
    }

    /// The activation that a key names.
    pub(crate) fn activation(&self, key: &'static str, name: &str) -> Result<Activation, LoadError> {
        activation(name).ok_or_else(|| self.setting(key, name, format!("is not known; known are {ACTIVATIONS}")))
    }

    /// Refuses to build a layer over a vocabulary for an architecture that has none.
    pub(crate) fn refuse_vocabulary(&self) -> Result<(), LoadError> {
        if self.vocabulary.is_none() {
            return Ok(());
        }
        let name = self.model_type().or(self.architecture()).unwrap_or_default();
        let why = "is no language model: it has no layer over a vocabulary";
        Err(self.setting(if self.model_type().is_some() { "model_type" } else { "architecture" }, name, why))
    }

    /// Refuses sizes that are none, by their keys: the product of three of those that are taken still fits into 64 bits.
    pub(crate) fn check_sizes(&self, sizes: &[(&'static str, usize)]) -> Result<(), LoadError> {
        match sizes.iter().find(|(_, size)| *size == 0 || *size > LARGEST) {
            Some(&(key, size)) => Err(self.setting(key, size, format!("must lie between 1 and {LARGEST}"))),
            None => Ok(()),
        }
    }

    /// The weights, once the config has been found good.
    pub(crate) fn origin(&self) -> Result<Origin, LoadError> {
        Ok(match self.values {
            Values::Folder(folder) => Origin::Checkpoint(Weights::open(folder)?),
            Values::Bytes(bytes) => Origin::Checkpoint(Weights::from_bytes(SINGLE_FILE, bytes.to_vec())?),
            Values::New { seed } => Origin::New { seed },
        })
    }
}
