//! Tensors that plugins keep between calls and for other threads.

use std::sync::{PoisonError, RwLock};

use fthost_autograd::Tensor;

use crate::handles::{Handle, Invalid, Slots};
use crate::plugin::probe;

static KEPT: RwLock<Slots<Tensor>> = RwLock::new(Slots::new());

/// A handle for a tensor that stays until its release, on any thread.
pub(super) fn keep(tensor: Tensor) -> Result<u64, String> {
    let mut kept = KEPT.write().unwrap_or_else(PoisonError::into_inner);
    match kept.insert(tensor) {
        Ok((slot, generation)) => {
            probe::kept();
            Ok(Handle::Kept { slot, generation }.encode())
        }
        Err(_) => Err("plugins keep a million tensors; drop those that are done".to_owned()),
    }
}

/// The tensor of a handle.
pub(super) fn get(slot: u32, generation: u32) -> Option<Tensor> {
    KEPT.read().unwrap_or_else(PoisonError::into_inner).get(slot, generation).cloned()
}

/// Lets one go.
pub(super) fn release(slot: u32, generation: u32) -> Result<(), Invalid> {
    let removed = KEPT.write().unwrap_or_else(PoisonError::into_inner).remove(slot, generation);
    removed.map(|_| probe::let_go()).ok_or(Invalid::Stale)
}
