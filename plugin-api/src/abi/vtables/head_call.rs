//! A call about features or outputs, as heads and regularizers get it.

use super::handles::give_optional;
use crate::{
    Error, Result, Tensor,
    abi::{calls::HeadCall, growth::Theirs, tables::Slice},
    field,
};

/// A call of a head with its slices as the host lent them.
pub(super) struct Frame<'a> {
    pub(super) tensors: &'a [u64],
    pub(super) offsets: &'a [Slice<u32>],
    pub(super) targets: &'a [u64],
    pub(super) support: &'a [u8],
    outputs: &'a mut [u64],
    pub(super) weight: *mut f64,
}

impl Frame<'_> {
    /// # Safety
    /// As [`Theirs::new`], and what its fields point to is lent for the call and this call's alone.
    pub(super) unsafe fn of(call: *const HeadCall) -> Result<Self> {
        // SAFETY: the caller's promise.
        unsafe {
            let call = Theirs::new(call)?;
            Ok(Self {
                tensors: call.get(field!(HeadCall, tensors)).as_slice(),
                offsets: call.get(field!(HeadCall, offsets)).as_slice(),
                targets: call.get(field!(HeadCall, targets)).as_slice(),
                support: call.get(field!(HeadCall, support)).as_slice(),
                outputs: call.get(field!(HeadCall, outputs)).as_mut_slice(),
                weight: call.get(field!(HeadCall, weight)),
            })
        }
    }

    /// The one tensor of a call about outputs.
    pub(super) fn tensor(&self) -> Result<Tensor> {
        one(self.tensors, "tensors")
    }

    pub(super) fn target(&self) -> Result<Tensor> {
        one(self.targets, "targets")
    }

    /// Hands results over, as far as there is room; the host owns them from here.
    pub(super) fn give<const N: usize>(&mut self, results: [Option<Tensor>; N]) -> Result<()> {
        if self.outputs.len() < N {
            let room = self.outputs.len();
            return Err(Error::new(format!("the host made room for {room} results of {N}")));
        }
        for (place, result) in self.outputs.iter_mut().zip(results) {
            *place = give_optional(result)?;
        }
        Ok(())
    }
}

fn one(handles: &[u64], what: &str) -> Result<Tensor> {
    match handles {
        [handle] => Ok(Tensor::borrowed(*handle)),
        handles => Err(Error::new(format!("the host passed {} {what}, and this call takes one", handles.len()))),
    }
}
