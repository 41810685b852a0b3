//! Tensors that plugins keep between calls and for other threads.

use std::sync::{Arc, PoisonError, RwLock, Weak};

use fthost_autograd::Tensor;

use crate::handles::{Handle, Invalid, RunHandles, Slots};
use crate::plugin::probe;

static KEPT: RwLock<Slots<Kept>> = RwLock::new(Slots::new());

/// One of them.
struct Kept {
    tensor: Tensor,
    /// The run that it was kept in, which counts it.
    run: Weak<RunHandles>,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.tensor.elem_count() * self.tensor.dtype().size_in_bytes()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(run) = self.run.upgrade() {
            run.let_go(self.bytes());
        }
    }
}

/// A handle for a tensor that stays until its release, on any thread; `run` counts it.
pub(super) fn keep(tensor: Tensor, run: Option<&Arc<RunHandles>>) -> Result<u64, String> {
    let new = Kept { tensor, run: run.map_or_else(Weak::new, Arc::downgrade) };
    if let Some(run) = run {
        run.keep(new.bytes());
    }
    let mut kept = KEPT.write().unwrap_or_else(PoisonError::into_inner);
    match kept.insert(new) {
        Ok((slot, generation)) => {
            probe::kept();
            Ok(Handle::Kept { slot, generation }.encode())
        }
        Err(_) => Err("plugins keep a million tensors; drop those that are done".to_owned()),
    }
}

/// The tensor of a handle.
pub(super) fn get(slot: u32, generation: u32) -> Option<Tensor> {
    KEPT.read().unwrap_or_else(PoisonError::into_inner).get(slot, generation).map(|kept| kept.tensor.clone())
}

/// Lets one go.
pub(super) fn release(slot: u32, generation: u32) -> Result<(), Invalid> {
    let removed = KEPT.write().unwrap_or_else(PoisonError::into_inner).remove(slot, generation);
    removed.map(|_| probe::let_go()).ok_or(Invalid::Stale)
}
