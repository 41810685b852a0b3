//! What the networks' configs have in common.

use fthost_autograd::Activation;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::LoadError;
use crate::family::Source;
use crate::transformer::{ACTIVATIONS, activation};

/// The largest size that is taken for one: the product of three still fits into 64 bits.
const LARGEST: usize = 1 << 20;
/// Blocks of a stage.
const DEEPEST: usize = 1 << 10;

pub(super) fn read<T: DeserializeOwned>(source: &Source<'_>) -> Result<T, LoadError> {
    serde_json::from_str(source.text).map_err(|error| LoadError::Config { file: source.file.into(), source: error })
}

pub(super) fn setting(
    source: &Source<'_>,
    key: &'static str,
    value: impl ToString,
    why: impl Into<String>,
) -> LoadError {
    LoadError::Setting { file: source.file.into(), key, value: value.to_string(), why: why.into() }
}

pub(super) fn known_activation(source: &Source<'_>, name: &str) -> Result<Activation, LoadError> {
    activation(name)
        .ok_or_else(|| setting(source, "hidden_act", name, format!("is not known; known are {ACTIVATIONS}")))
}

/// Checks sizes before anything is made of them.
pub(super) struct Sizes<'a> {
    source: &'a Source<'a>,
}

impl<'a> Sizes<'a> {
    pub(super) fn new(source: &'a Source<'a>) -> Self {
        Self { source }
    }

    /// That all lie in range, and that there is one.
    pub(super) fn check(&self, key: &'static str, sizes: impl IntoIterator<Item = usize>) -> Result<(), LoadError> {
        let mut none = true;
        for size in sizes {
            none = false;
            if size == 0 || size > LARGEST {
                return Err(setting(self.source, key, size, format!("must lie between 1 and {LARGEST}")));
            }
        }
        if none { Err(setting(self.source, key, "[]", "must name one size at least")) } else { Ok(()) }
    }

    /// That there are so many numbers of blocks, and that all lie in range.
    pub(super) fn depths(&self, key: &'static str, depths: &[usize], stages: usize) -> Result<(), LoadError> {
        if depths.len() != stages {
            let why = format!("must say a number of blocks for each of {stages} stages");
            return Err(setting(self.source, key, format!("{depths:?}"), why));
        }
        match depths.iter().find(|&&depth| depth == 0 || depth > DEEPEST) {
            Some(depth) => Err(setting(self.source, key, depth, format!("must lie between 1 and {DEEPEST}"))),
            None => Ok(()),
        }
    }

    /// That a factor lies in range.
    pub(super) fn factor(&self, key: &'static str, factor: f64) -> Result<(), LoadError> {
        if factor > 0.0 && factor <= 100.0 {
            return Ok(());
        }
        Err(setting(self.source, key, factor, "must lie between 0 and 100"))
    }
}

/// The images that a config of timm's, or one that was made from tensors' names, speaks of.
pub(super) struct Images {
    pub(super) channels: usize,
    pub(super) size: usize,
}

#[derive(Deserialize)]
struct Timm {
    in_chans: Option<usize>,
    pretrained_cfg: Option<Pretrained>,
}

#[derive(Deserialize)]
struct Pretrained {
    /// Channels, height, width.
    input_size: Option<[usize; 3]>,
}

impl Images {
    /// `size`: that of the architecture.
    pub(super) fn read(source: &Source<'_>, size: usize) -> Result<Self, LoadError> {
        let Timm { in_chans, pretrained_cfg } = read(source)?;
        let said = pretrained_cfg.and_then(|config| config.input_size);
        let channels = in_chans.or(said.map(|size| size[0])).unwrap_or(3);
        let size = said.map_or(size, |size| size[1].max(size[2]));
        let sizes = Sizes::new(source);
        sizes.check("in_chans", [channels])?;
        sizes.check("pretrained_cfg.input_size", [size])?;
        Ok(Self { channels, size })
    }
}
