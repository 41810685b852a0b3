//! Calls to the host, made safe: everything else in this crate goes through here.

use std::{
    ffi::c_void,
    mem,
    panic::{self, AssertUnwindSafe},
    sync::atomic::{AtomicPtr, Ordering},
    thread,
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    borrow::collect_text,
    calls::{ExamplesCall, LogRecord, OpCall},
    draft::run::{RUN_DRAFT, RunDraft},
    growth::{Grows, Theirs},
    tables::{FAILED, HookVtable, HostApi, OK, Slice, SliceMut, Status, Str, dtype},
};
use crate::{Error, Result, field, later};

static HOST: AtomicPtr<HostApi> = AtomicPtr::new(std::ptr::null_mut());

/// Remembers the host of this process.
pub(crate) fn install(host: Host) {
    HOST.store(host.as_ptr().cast_mut(), Ordering::Release);
}

type Host = Theirs<'static, HostApi>;

fn connected() -> Option<Host> {
    // SAFETY: null, or the table that `install` got, which lives as long as the process and never changes.
    unsafe { Theirs::new(HOST.load(Ordering::Acquire)) }.ok()
}

fn host() -> Result<Host> {
    connected().ok_or_else(|| Error::new("no host is connected: tensors and models exist only in a call from a host"))
}

/// Turns a status into a result, with the host's own words.
fn check(host: Host, status: Status) -> Result<()> {
    if status == OK {
        return Ok(());
    }
    let (_, text) = collect_text(|sink| {
        if let Some(last_error) = host.get(field!(HostApi, last_error)) {
            // SAFETY: the sink lives for the call.
            unsafe { last_error(sink) };
        }
        OK
    });
    Err(Error::new(if text.is_empty() { format!("the host gave status {status} without a reason") } else { text }))
}

pub(crate) fn set_error(status: Status, message: &str) {
    if let Some(set_error) = connected().and_then(|host| host.get(field!(HostApi, set_error))) {
        // SAFETY: the text is borrowed for the call.
        unsafe { set_error(status, Str::new(message)) }
    }
}

pub(crate) fn log(level: u32, what: u32, target: &str, message: &str, fields: &str) {
    if let Some(log) = connected().and_then(|host| host.get(field!(HostApi, log))) {
        let (target, message, fields) = (Str::new(target), Str::new(message), Str::new(fields));
        let record = LogRecord { level, what, target, message, fields, ..LogRecord::EMPTY };
        // SAFETY: the record and its texts live for the call.
        unsafe { log(&raw const record) }
    }
}

pub(crate) fn resolve_op(name: &str) -> Result<u32> {
    let host = host()?;
    let resolve_op = host.need(field!(HostApi, resolve_op))?;
    let mut op = 0;
    // SAFETY: the text is borrowed for the call, and `op` may be written.
    check(host, unsafe { resolve_op(Str::new(name), &raw mut op) })?;
    Ok(op)
}

pub(crate) fn call_op(op: u32, inputs: &[u64], ints: &[i64], floats: &[f64], outputs: &mut [u64]) -> Result<()> {
    let host = host()?;
    let call_op = host.need(field!(HostApi, call_op))?;
    let call = OpCall {
        inputs: Slice::new(inputs),
        ints: Slice::new(ints),
        floats: Slice::new(floats),
        outputs: SliceMut::new(outputs),
        ..OpCall::EMPTY
    };
    // SAFETY: all slices live for the call, and the outputs are ours alone.
    check(host, unsafe { call_op(op, &raw const call) })
}

/// Element types that host memory holds: plain numbers, any bytes of which are a value.
pub(crate) trait Element: Copy + Default {
    const CODE: u32;
}
impl Element for f32 {
    const CODE: u32 = dtype::F32;
}
impl Element for f64 {
    const CODE: u32 = dtype::F64;
}
impl Element for u32 {
    const CODE: u32 = dtype::U32;
}

pub(crate) fn tensor_new<T: Element>(data: &[T], shape: &[usize]) -> Result<u64> {
    let host = host()?;
    let tensor_new = host.need(field!(HostApi, tensor_new))?;
    if data.len() != shape.iter().product::<usize>() {
        return Err(Error::new(format!("{} elements do not fill shape {shape:?}", data.len())));
    }
    let dims: Vec<u64> = shape.iter().map(|&dim| dim as u64).collect();
    let mut handle = 0;
    // SAFETY: `data` holds as many elements of this type as the shape says, checked above; all lives for the call.
    check(host, unsafe { tensor_new(T::CODE, data.as_ptr().cast(), Slice::new(&dims), &raw mut handle) })?;
    Ok(handle)
}

/// Element type and shape.
pub(crate) fn tensor_info(tensor: u64) -> Result<(u32, Vec<usize>)> {
    let host = host()?;
    let tensor_info = host.need(field!(HostApi, tensor_info))?;
    let (mut code, mut rank, mut dims) = (0, 0, vec![0_u64; 8]);
    // SAFETY: all places may be written, and the dims say their length.
    let mut ask = |dims: &mut [u64], rank: &mut usize| {
        check(host, unsafe { tensor_info(tensor, &raw mut code, rank, SliceMut::new(dims)) })
    };
    ask(&mut dims, &mut rank)?;
    if rank > dims.len() {
        dims.resize(rank, 0);
        ask(&mut dims, &mut rank)?;
    }
    Ok((code, dims[..rank].iter().map(|&dim| dim as usize).collect()))
}

/// Copies `len` elements; the caller has made sure that the tensor has this type and size.
pub(crate) fn tensor_read<T: Element>(tensor: u64, len: usize) -> Result<Vec<T>> {
    let host = host()?;
    let tensor_read = host.need(field!(HostApi, tensor_read))?;
    let mut data = vec![T::default(); len];
    // SAFETY: the buffer has the bytes it says, and any bytes are a value of `T`.
    check(host, unsafe { tensor_read(tensor, data.as_mut_ptr().cast(), mem::size_of_val(&data[..])) })?;
    Ok(data)
}

pub(crate) fn tensor_release(tensor: u64) -> Result<()> {
    let host = host()?;
    let tensor_release = host.need(field!(HostApi, tensor_release))?;
    // SAFETY: takes a number, and a stale one is an error.
    check(host, unsafe { tensor_release(tensor) })
}

pub(crate) fn model_call<R: DeserializeOwned>(method: &str, params: &impl Serialize) -> Result<R> {
    let host = host()?;
    let model_call = host.need(field!(HostApi, model_call))?;
    let params = serde_json::to_string(params)?;
    let (status, reply) = collect_text(|sink| {
        // SAFETY: texts and sink live for the call.
        unsafe { model_call(Str::new(method), Str::new(&params), sink) }
    });
    check(host, status)?;
    serde_json::from_str(&reply)
        .map_err(|error| Error::new(format!("the host's reply to `{method}` does not read: {error}")))
}

/// Sets a hook; the host owns it from here, also when this fails.
pub(crate) fn hook(site: &str, kind: u32, data: *mut c_void, vtable: &'static HookVtable) -> Result<()> {
    let taker = host().and_then(|host| Ok((host, host.need(field!(HostApi, hook))?)));
    let (host, hook) = match taker {
        Ok(taker) => taker,
        Err(error) => {
            if let Some(drop) = vtable.drop {
                // SAFETY: no host took the hook, so it is ours to free, by the function made for it.
                unsafe { drop(data) };
            }
            return Err(error);
        }
    };
    // SAFETY: `data` fits the vtable, which is static.
    check(host, unsafe { hook(Str::new(site), kind, data, vtable) })
}

/// What a walk's callback gets: parameter, gradient (borrowed), weight.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(u64, u64, f64) -> Result<()>;

/// Walks through per-example gradients of these labels, so many at most, in an order of this seed. The visitor's own error or panic comes
/// out here as it was.
pub(crate) fn example_gradients((labels, limit, seed): (u32, u64, Option<u64>), visit: Visit<'_>) -> Result<()> {
    struct Walk<'a> {
        visit: Visit<'a>,
        outcome: thread::Result<Result<()>>,
    }
    unsafe extern "C" fn step(ctx: *mut c_void, param: u64, gradient: u64, weight: f64) -> Status {
        // SAFETY: `ctx` is the `Walk` below, alive while the host's call runs, and the host visits one at a time.
        let walk = unsafe { &mut *ctx.cast::<Walk<'_>>() };
        let visit = &mut walk.visit;
        walk.outcome = panic::catch_unwind(AssertUnwindSafe(|| visit(param, gradient, weight)));
        if matches!(walk.outcome, Ok(Ok(()))) { OK } else { FAILED }
    }
    let host = host()?;
    let mut walk = Walk { visit, outcome: Ok(Ok(())) };
    let ctx: *mut c_void = (&raw mut walk).cast();
    let status = match seed {
        None => {
            let example_gradients = host.need(field!(HostApi, example_gradients))?;
            // SAFETY: `walk` outlives the call.
            unsafe { example_gradients(labels, limit, ctx, step) }
        }
        Some(seed) => {
            let example_gradients_of = host.need_later(later!(HostApi, example_gradients_of))?;
            let call = ExamplesCall { labels, limit, seed, ctx, visit: Some(step), ..ExamplesCall::EMPTY };
            // SAFETY: `walk` and the call outlive it.
            unsafe { example_gradients_of(&raw const call) }
        }
    };
    match walk.outcome {
        Ok(outcome) => outcome?,
        Err(payload) => panic::resume_unwind(payload),
    }
    check(host, status)
}

/// The host's table of a draft, where it has one of this name and is long enough.
pub(crate) fn run_draft() -> Option<Theirs<'static, RunDraft>> {
    let get_extension = connected()?.get(field!(HostApi, get_extension))?;
    // SAFETY: under this name a host gives a `RunDraft` that lives as long as the process, or null.
    unsafe { Theirs::new(get_extension(Str::new(RUN_DRAFT)).cast()) }.ok()
}

/// The run's seed, by the host's draft.
pub(crate) fn run_seed(draft: Theirs<'static, RunDraft>) -> Result<u64> {
    number(draft.need(field!(RunDraft, seed))?)
}

/// The step under way, by the host's draft.
pub(crate) fn run_step(draft: Theirs<'static, RunDraft>) -> Result<u64> {
    number(draft.need(field!(RunDraft, step))?)
}

fn number(function: unsafe extern "C" fn(out: *mut u64) -> Status) -> Result<u64> {
    let mut number = 0;
    // SAFETY: the result may be written.
    check(host()?, unsafe { function(&raw mut number) })?;
    Ok(number)
}
