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
    tables::{FAILED, HookVtable, HostApi, LogRecord, OK, OpCall, Slice, SliceMut, Status, Str, dtype},
};
use crate::{Error, Result};

static HOST: AtomicPtr<HostApi> = AtomicPtr::new(std::ptr::null_mut());

/// Remembers the host of this process.
pub(crate) fn install(host: &'static HostApi) {
    HOST.store(std::ptr::from_ref(host).cast_mut(), Ordering::Release);
}

fn connected() -> Option<&'static HostApi> {
    // SAFETY: null, or the table that `install` got, which lives as long as the process and never changes.
    unsafe { HOST.load(Ordering::Acquire).as_ref() }
}

fn host() -> Result<&'static HostApi> {
    connected().ok_or_else(|| Error::new("no host is connected: tensors and models exist only in a call from a host"))
}

/// Turns a status into a result, with the host's own words.
fn check(host: &HostApi, status: Status) -> Result<()> {
    if status == OK {
        return Ok(());
    }
    let (_, text) = collect_text(|sink| {
        // SAFETY: the sink lives for the call.
        unsafe { (host.last_error)(sink) };
        OK
    });
    Err(Error::new(if text.is_empty() { format!("the host gave status {status} without a reason") } else { text }))
}

pub(crate) fn set_error(status: Status, message: &str) {
    if let Some(host) = connected() {
        // SAFETY: the text is borrowed for the call.
        unsafe { (host.set_error)(status, Str::new(message)) }
    }
}

pub(crate) fn log(level: u32, what: u32, target: &str, message: &str, fields: &str) {
    if let Some(host) = connected() {
        let record =
            LogRecord { level, what, target: Str::new(target), message: Str::new(message), fields: Str::new(fields) };
        // SAFETY: the record and its texts live for the call.
        unsafe { (host.log)(&raw const record) }
    }
}

pub(crate) fn resolve_op(name: &str) -> Result<u32> {
    let host = host()?;
    let mut op = 0;
    // SAFETY: the text is borrowed for the call, and `op` may be written.
    check(host, unsafe { (host.resolve_op)(Str::new(name), &raw mut op) })?;
    Ok(op)
}

pub(crate) fn call_op(op: u32, inputs: &[u64], ints: &[i64], floats: &[f64], outputs: &mut [u64]) -> Result<()> {
    let host = host()?;
    let call = OpCall {
        inputs: Slice::new(inputs),
        ints: Slice::new(ints),
        floats: Slice::new(floats),
        outputs: SliceMut::new(outputs),
    };
    // SAFETY: all slices live for the call, and the outputs are ours alone.
    check(host, unsafe { (host.call_op)(op, &raw const call) })
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
    if data.len() != shape.iter().product::<usize>() {
        return Err(Error::new(format!("{} elements do not fill shape {shape:?}", data.len())));
    }
    let dims: Vec<u64> = shape.iter().map(|&dim| dim as u64).collect();
    let mut handle = 0;
    // SAFETY: `data` holds as many elements of this type as the shape says, checked above; all lives for the call.
    check(host, unsafe { (host.tensor_new)(T::CODE, data.as_ptr().cast(), Slice::new(&dims), &raw mut handle) })?;
    Ok(handle)
}

/// Element type and shape.
pub(crate) fn tensor_info(tensor: u64) -> Result<(u32, Vec<usize>)> {
    let host = host()?;
    let (mut code, mut rank, mut dims) = (0, 0, vec![0_u64; 8]);
    // SAFETY: all places may be written, and the dims say their length.
    let mut ask = |dims: &mut [u64], rank: &mut usize| {
        check(host, unsafe { (host.tensor_info)(tensor, &raw mut code, rank, SliceMut::new(dims)) })
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
    let mut data = vec![T::default(); len];
    // SAFETY: the buffer has the bytes it says, and any bytes are a value of `T`.
    check(host, unsafe { (host.tensor_read)(tensor, data.as_mut_ptr().cast(), mem::size_of_val(&data[..])) })?;
    Ok(data)
}

pub(crate) fn tensor_release(tensor: u64) -> Result<()> {
    let host = host()?;
    // SAFETY: takes a number, and a stale one is an error.
    check(host, unsafe { (host.tensor_release)(tensor) })
}

pub(crate) fn model_call<R: DeserializeOwned>(method: &str, params: &impl Serialize) -> Result<R> {
    let host = host()?;
    let params = serde_json::to_string(params)?;
    let (status, reply) = collect_text(|sink| {
        // SAFETY: texts and sink live for the call.
        unsafe { (host.model_call)(Str::new(method), Str::new(&params), sink) }
    });
    check(host, status)?;
    serde_json::from_str(&reply)
        .map_err(|error| Error::new(format!("the host's reply to `{method}` does not read: {error}")))
}

/// Sets a hook; the host owns it from here, also when this fails.
pub(crate) fn hook(site: &str, kind: u32, data: *mut c_void, vtable: &'static HookVtable) -> Result<()> {
    let host = match host() {
        Ok(host) => host,
        Err(error) => {
            // SAFETY: no host took the hook, so it is ours to free, by the function made for it.
            unsafe { (vtable.drop)(data) };
            return Err(error);
        }
    };
    // SAFETY: `data` fits the vtable, which is static.
    check(host, unsafe { (host.hook)(Str::new(site), kind, data, vtable) })
}

/// What a walk's callback gets: parameter, gradient (borrowed), weight.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(u64, u64, f64) -> Result<()>;

/// Walks through per-example gradients. The visitor's own error or panic comes out here as it was.
pub(crate) fn example_gradients(labels: u32, limit: u64, visit: Visit<'_>) -> Result<()> {
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
    // SAFETY: `walk` outlives the call.
    let status = unsafe { (host.example_gradients)(labels, limit, (&raw mut walk).cast(), step) };
    match walk.outcome {
        Ok(outcome) => outcome?,
        Err(payload) => panic::resume_unwind(payload),
    }
    check(host, status)
}
