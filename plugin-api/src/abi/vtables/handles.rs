//! Handles of tensors that pass to the host.

use std::collections::BTreeMap;

use crate::{Result, Tensor};

/// The handles of named tensors that pass to the host.
pub(super) fn give_all(tensors: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, u64>> {
    tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.give()?))).collect()
}

/// The handle of a tensor that passes to the host, 0 for none.
pub(super) fn give_optional(tensor: Option<Tensor>) -> Result<u64> {
    tensor.map_or(Ok(0), Tensor::give)
}
