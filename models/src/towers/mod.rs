//! Models of two towers, one for texts and one for images: CLIP, and any two folders that are joined, a decoder that sees by
//! the other among them.

mod clip;
mod config;
pub(crate) mod pair;
mod projector;

use clip::{CLIP, Clip};

use crate::family::Family;

/// The rows of the table.
pub(crate) const FAMILY: Family = Family {
    model_types: || vec![CLIP],
    architectures: Vec::new,
    recognise: |_| None,
    build: |source| Ok(Box::new(Clip::build(source)?)),
};
