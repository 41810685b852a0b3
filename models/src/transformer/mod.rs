//! Transformer encoders of the BERT family, and ViT: one implementation, and a table of where they differ.

pub(crate) mod architecture;
mod block;
pub(crate) mod config;
mod embeddings;
mod encoder;
pub(crate) mod tower;

use architecture::Architecture;
use encoder::Encoder;

use crate::family::Family;

/// The rows of the table.
pub(crate) const FAMILY: Family = Family {
    model_types: Architecture::model_types,
    architectures: Vec::new,
    recognise: |_| None,
    build: |source| Ok(Box::new(Encoder::build(source)?)),
};
