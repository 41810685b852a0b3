//! What the networks' configs have in common.

use serde::Deserialize;

use crate::LoadError;
use crate::family::Source;

/// The largest size that is taken for one: the product of three still fits into 64 bits.
const LARGEST: usize = 1 << 20;
/// Blocks of a stage.
const DEEPEST: usize = 1 << 10;

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
                return Err(self.source.setting(key, size, format!("must lie between 1 and {LARGEST}")));
            }
        }
        if none { Err(self.source.setting(key, "[]", "must name one size at least")) } else { Ok(()) }
    }

    /// That there are so many numbers of blocks, and that all lie in range.
    pub(super) fn depths(&self, key: &'static str, depths: &[usize], stages: usize) -> Result<(), LoadError> {
        if depths.len() != stages {
            let why = format!("must say a number of blocks for each of {stages} stages");
            return Err(self.source.setting(key, format!("{depths:?}"), why));
        }
        match depths.iter().find(|&&depth| depth == 0 || depth > DEEPEST) {
            Some(depth) => Err(self.source.setting(key, depth, format!("must lie between 1 and {DEEPEST}"))),
            None => Ok(()),
        }
    }

    /// That a factor lies in range.
    pub(super) fn factor(&self, key: &'static str, factor: f64) -> Result<(), LoadError> {
        if factor > 0.0 && factor <= 100.0 {
            return Ok(());
        }
        Err(self.source.setting(key, factor, "must lie between 0 and 100"))
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
        let Timm { in_chans, pretrained_cfg } = source.read()?;
        let said = pretrained_cfg.and_then(|config| config.input_size);
        let channels = in_chans.or(said.map(|size| size[0])).unwrap_or(3);
        let size = said.map_or(size, |size| size[1].max(size[2]));
        let sizes = Sizes::new(source);
        sizes.check("in_chans", [channels])?;
        sizes.check("pretrained_cfg.input_size", [size])?;
        Ok(Self { channels, size })
    }
}
