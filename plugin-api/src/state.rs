//! Saved state of a plugin instance.

use std::collections::BTreeMap;

use crate::Tensor;

/// What an instance needs beyond its declared parameters to continue a run: JSON and named tensors.
#[derive(Debug, Default)]
pub struct SavedState {
    /// Counters, flags and whatever else serde can write.
    pub json: serde_json::Value,
    /// Named tensors.
    pub tensors: BTreeMap<String, Tensor>,
}
