//! From the author's hooks to the functions that the host calls inside a forward pass.

use std::ffi::c_void;

use super::{
    calls::HookCall,
    failure::{Guarded, free, guard},
    growth::{Grows, Theirs},
    host,
    tables::{HookVtable, Status, hook_kind},
};
use crate::{AttentionHook, BlockHook, EmbeddingHook, Error, LinearHook, Result, Tensor, field};

/// One call with its slices as the host lent them.
struct Frame<'a> {
    inputs: &'a [u64],
    offsets: &'a [u32],
    outputs: &'a mut [u64],
    flags: &'a mut [i64],
}

impl Frame<'_> {
    fn inputs<const N: usize>(&self) -> Result<[Tensor; N]> {
        let handles: [u64; N] = self.inputs.try_into().map_err(|_| self.misfit("inputs", N, self.inputs.len()))?;
        Ok(handles.map(Tensor::borrowed))
    }

    /// Hands results over; the host owns them from here.
    fn give<const N: usize>(&mut self, results: [Option<Tensor>; N]) -> Result<()> {
        if self.outputs.len() != N {
            return Err(self.misfit("outputs", N, self.outputs.len()));
        }
        for (place, result) in self.outputs.iter_mut().zip(results) {
            *place = result.map_or(Ok(0), Tensor::give)?;
        }
        Ok(())
    }

    fn misfit(&self, what: &str, takes: usize, got: usize) -> Error {
        Error::new(format!("this hook has {takes} {what}, and the host passed {got}"))
    }
}

/// Runs a hook's function on one call.
///
/// # Safety
/// `data` is the box that [`install`] made for an `H`; `call` points to a call of this moment.
unsafe fn run<H>(data: *const c_void, call: *const HookCall, body: impl FnOnce(&H, Frame<'_>) -> Result<()>) -> Status {
    // SAFETY: the caller's promise.
    let call = match unsafe { Theirs::new(call) } {
        Ok(call) => call,
        Err(error) => return guard(|| Err(error)),
    };
    // SAFETY: the caller's promise; the slices are lent for the call, and the results are this call's alone.
    let (hook, frame) = unsafe {
        let frame = Frame {
            inputs: call.get(field!(HookCall, inputs)).as_slice(),
            offsets: call.get(field!(HookCall, offsets)).as_slice(),
            outputs: call.get(field!(HookCall, outputs)).as_mut_slice(),
            flags: call.get(field!(HookCall, flags)).as_mut_slice(),
        };
        (&*data.cast::<Guarded<H>>(), frame)
    };
    hook.call(|hook| body(hook, frame))
}

fn install<H: Send + Sync + 'static>(site: &str, kind: u32, hook: H, vtable: &'static HookVtable) -> Result<()> {
    host::hook(site, kind, Box::into_raw(Box::new(Guarded::new(hook))).cast(), vtable)
}

type Forward = unsafe extern "C" fn(*const c_void, *const HookCall) -> Status;

/// What every kind of hook has.
const fn vtable<H>(forward: Forward) -> HookVtable {
    HookVtable { drop: Some(free::<H>), forward: Some(forward), ..HookVtable::EMPTY }
}

pub(crate) fn linear<H: LinearHook>(site: &str, hook: H) -> Result<()> {
    unsafe extern "C" fn forward<H: LinearHook>(data: *const c_void, call: *const HookCall) -> Status {
        let body = |hook: &H, mut frame: Frame<'_>| {
            let [x, y, weight] = frame.inputs()?;
            frame.give([Some(hook.forward(&x, y, &weight)?)])
        };
        // SAFETY: the host passes what `install` gave it, and its call.
        unsafe { run(data, call, body) }
    }
    unsafe extern "C" fn merge<H: LinearHook>(data: *const c_void, call: *const HookCall) -> Status {
        let body = |hook: &H, mut frame: Frame<'_>| {
            let [weight] = frame.inputs()?;
            frame.give([hook.merge(&weight)?])
        };
        // SAFETY: the host passes what `install` gave it, and its call.
        unsafe { run(data, call, body) }
    }
    unsafe extern "C" fn input<H: LinearHook>(data: *const c_void, call: *const HookCall) -> Status {
        let body = |hook: &H, mut frame: Frame<'_>| {
            let [x] = frame.inputs()?;
            frame.give([hook.input(&x)?])
        };
        // SAFETY: the host passes what `install` gave it, and its call.
        unsafe { run(data, call, body) }
    }
    unsafe extern "C" fn merge_bias<H: LinearHook>(data: *const c_void, call: *const HookCall) -> Status {
        let body = |hook: &H, mut frame: Frame<'_>| {
            let [bias] = frame.inputs()?;
            frame.give([hook.merge_bias(&bias)?])
        };
        // SAFETY: the host passes what `install` gave it, and its call.
        unsafe { run(data, call, body) }
    }
    let vtable = const {
        &HookVtable {
            merge: Some(merge::<H>),
            input: Some(input::<H>),
            merge_bias: Some(merge_bias::<H>),
            ..vtable::<H>(forward::<H>)
        }
    };
    install(site, hook_kind::LINEAR, hook, vtable)
}

pub(crate) fn block<H: BlockHook>(site: &str, hook: H) -> Result<()> {
    unsafe extern "C" fn forward<H: BlockHook>(data: *const c_void, call: *const HookCall) -> Status {
        let body = |hook: &H, mut frame: Frame<'_>| {
            let [x, residual] = frame.inputs()?;
            frame.give([Some(hook.forward(x, &residual)?)])
        };
        // SAFETY: the host passes what `install` gave it, and its call.
        unsafe { run(data, call, body) }
    }
    install(site, hook_kind::BLOCK, hook, const { &vtable::<H>(forward::<H>) })
}

pub(crate) fn embeddings<H: EmbeddingHook>(site: &str, hook: H) -> Result<()> {
    unsafe extern "C" fn forward<H: EmbeddingHook>(data: *const c_void, call: *const HookCall) -> Status {
        let body = |hook: &H, mut frame: Frame<'_>| {
            let [x] = frame.inputs()?;
            let (x, prompt) = hook.forward(x, frame.offsets)?;
            if let (Some(prompt), Some(flag)) = (&prompt, frame.flags.first_mut()) {
                *flag = i64::from(prompt.pool_first_token);
            }
            frame.give([Some(x), prompt.map(|prompt| prompt.rows)])
        };
        // SAFETY: the host passes what `install` gave it, and its call.
        unsafe { run(data, call, body) }
    }
    install(site, hook_kind::EMBEDDINGS, hook, const { &vtable::<H>(forward::<H>) })
}

pub(crate) fn attention<H: AttentionHook>(site: &str, hook: H) -> Result<()> {
    unsafe extern "C" fn forward<H: AttentionHook>(data: *const c_void, call: *const HookCall) -> Status {
        let body = |hook: &H, mut frame: Frame<'_>| {
            let [keys, values] = frame.inputs()?;
            let (keys, values, prefix) = hook.forward(keys, values, frame.offsets)?;
            let (prefix_keys, prefix_values) = prefix.map(|prefix| (prefix.keys, prefix.values)).unzip();
            frame.give([Some(keys), Some(values), prefix_keys, prefix_values])
        };
        // SAFETY: the host passes what `install` gave it, and its call.
        unsafe { run(data, call, body) }
    }
    unsafe extern "C" fn position_shift<H: AttentionHook>(data: *const c_void, out: *mut u64) -> Status {
        // SAFETY: the host passes what `install` gave it, and `out` may be written.
        unsafe {
            (*data.cast::<Guarded<H>>()).call(|hook| {
                out.write(hook.position_shift() as u64);
                Ok(())
            })
        }
    }
    let vtable = const { &HookVtable { position_shift: Some(position_shift::<H>), ..vtable::<H>(forward::<H>) } };
    install(site, hook_kind::ATTENTION, hook, vtable)
}
