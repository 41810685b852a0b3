//! The host's table: the functions that plugins call. None lets a panic of ours cross into the plugin.

use crate::error::plain;
use std::any::Any;
use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fthost_autograd::{DType, Device, Tensor};
use fthost_plugin_api::FisherLabels;
use fthost_plugin_api::abi::calls::{ExamplesCall, LogRecord, OpCall};
use fthost_plugin_api::abi::draft::run::{RUN_DRAFT, RunDraft};
use fthost_plugin_api::abi::growth::{Grows, Theirs};
use fthost_plugin_api::abi::tables::{
    ABI_MAJOR, ABI_MINOR, FAILED, HookVtable, HostApi, OK, Slice, SliceMut, Status, Str, TextSink, dtype,
    fisher_labels, minor_0,
};
use fthost_plugin_api::field;

use super::hooks::Bridge;
use super::lent::{self, Lends, Visit};
use super::session::{self, Declares};
use super::{model_calls, op_call, ops};
use crate::plugin::example_gradients::Examples;
use crate::plugin::probe::{self, Offered};
use crate::plugin::underway;
use crate::report::text::{one_line, printable};
use crate::{Error, memory};

/// What plugins get when they are connected.
pub(in crate::plugin) static HOST_API: HostApi = FUNCTIONS;

const FUNCTIONS: HostApi = HostApi {
    abi_major: ABI_MAJOR,
    abi_minor: ABI_MINOR,
    set_error: Some(set_error),
    last_error: Some(last_error),
    log: Some(log),
    resolve_op: Some(resolve_op),
    call_op: Some(call_op),
    tensor_new: Some(tensor_new),
    tensor_info: Some(tensor_info),
    tensor_read: Some(tensor_read),
    tensor_release: Some(tensor_release),
    model_call: Some(model_call),
    hook: Some(hook),
    example_gradients: Some(lent::may_be_null(example_gradients)),
    example_gradients_of: Some(example_gradients_of),
    get_extension: Some(get_extension),
    ..HostApi::EMPTY
};

/// The same as the first host had it: what came later lies behind its end.
static OLDEST: HostApi = HostApi { struct_size: minor_0::HOST_API, abi_minor: 0, ..FUNCTIONS };

/// A table as a later host has it, with more behind what is known today.
#[repr(C)]
struct Longer {
    table: HostApi,
    more: [u64; 8],
}

static LONGER: Longer = Longer {
    table: HostApi { struct_size: size_of::<Longer>() as u32, abi_minor: ABI_MINOR + 1, ..FUNCTIONS },
    // Whoever takes it for functions falls at once.
    more: [u64::MAX; 8],
};

/// The table that a plugin gets. It lives as long as the process.
pub(in crate::plugin) fn offered() -> *const HostApi {
    match probe::offered() {
        Offered::Whole => &raw const HOST_API,
        Offered::Oldest => &raw const OLDEST,
        Offered::Longer => (&raw const LONGER).cast(),
    }
}

static RUN: RunDraft = RunDraft { seed: Some(run_seed), step: Some(run_step), ..RunDraft::EMPTY };

/// Runs a function's body: an error, or a panic of ours, becomes a status, and its text waits for `last_error`.
fn guard(body: impl FnOnce() -> Result<(), String>) -> Status {
    guard_status(|| body().map(|()| OK))
}

fn guard_status(body: impl FnOnce() -> Result<Status, String>) -> Status {
    underway::beat();
    // Unwind safety: sessions put themselves right by their guards, and the run ends with this error.
    let text = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(status)) => return status,
        Ok(Err(text)) => text,
        Err(payload) => format!("the host panicked: {}", panic_text(&*payload)),
    };
    // Nothing is left to say it with where even this panics.
    let _ = catch_unwind(|| session::set_last_error(text));
    FAILED
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

/// Text that a plugin lends for a call.
///
/// # Safety
/// As [`Str::as_str`], but that it may be null.
unsafe fn text<'a>(text: Str) -> Result<&'a str, String> {
    lent::check(text.ptr, text.len, "a text")?;
    // SAFETY: the caller's promise.
    unsafe { text.as_str() }.map_err(|error| error.to_string())
}

/// Words of a plugin for people. What of them is no UTF-8 is shown as such: a byte must not cost the reason.
///
/// # Safety
/// As [`Str::as_str`].
unsafe fn words<'a>(text: Str) -> Cow<'a, str> {
    if let Err(why) = lent::check(text.ptr, text.len, "a text") {
        return Cow::Owned(why);
    }
    // SAFETY: the caller's promise, for bytes.
    String::from_utf8_lossy(unsafe { Slice { ptr: text.ptr, len: text.len }.as_slice() })
}

/// A table or call that a plugin passes.
///
/// # Safety
/// As [`Theirs::new`].
unsafe fn theirs<'a, T: Grows>(at: *const T) -> Result<Theirs<'a, T>, String> {
    // SAFETY: the caller's promise.
    unsafe { Theirs::new(at) }.map_err(|error| error.to_string())
}

unsafe extern "C" fn set_error(_: Status, message: Str) {
    guard(|| {
        // SAFETY: the plugin lends the text for this call.
        session::report(unsafe { words(message) }.into_owned());
        Ok(())
    });
}

unsafe extern "C" fn last_error(sink: TextSink) {
    guard(|| {
        // SAFETY: the plugin's sink is valid for this call.
        unsafe { sink.put(&session::last_error()) };
        Ok(())
    });
}

unsafe extern "C" fn resolve_op(name: Str, op: *mut u32) -> Status {
    guard(|| {
        // SAFETY: the plugin lends the text for this call.
        let name = unsafe { text(name) }?;
        let number = ops::resolve(name).ok_or_else(|| format!("this host has no op {name:?}; update fthost"))?;
        // SAFETY: `op` is the plugin's place for the result, or null.
        unsafe { lent::Place::of(op, "the op's number")?.write(number) };
        Ok(())
    })
}

unsafe extern "C" fn call_op(op: u32, call: *const OpCall) -> Status {
    guard(|| {
        // SAFETY: the plugin lends the call and its slices, and lets us write the outputs.
        let (inputs, ints, floats, outputs) = unsafe {
            let call = theirs(call)?;
            (
                call.get(field!(OpCall, inputs)).lent("the inputs of an op")?,
                call.get(field!(OpCall, ints)).lent("the integers of an op")?,
                call.get(field!(OpCall, floats)).lent("the floats of an op")?,
                lent::written(call.get(field!(OpCall, outputs)), "the outputs of an op")?,
            )
        };
        probe::host_call("call_op", || ops::name(op).to_owned())?;
        session::run_op(inputs, outputs, |tape, values| ops::run(op, tape, values, ints, floats))
    })
}

/// A tensor of `len` elements of host memory.
///
/// # Safety
/// `data` points to so many elements of this type, or is null.
unsafe fn made<T: candle_core::WithDType>(
    data: *const c_void,
    len: usize,
    shape: Vec<usize>,
    device: &Device,
) -> fthost_autograd::Result<Tensor> {
    // SAFETY: the caller's promise.
    let elements = unsafe { Slice { ptr: data.cast::<T>(), len }.lent("the elements of a tensor") };
    Tensor::from_slice(elements.map_err(fthost_autograd::Error::Msg)?, shape, device)
}

unsafe extern "C" fn tensor_new(dtype: u32, data: *const c_void, shape: Slice<u64>, out: *mut u64) -> Status {
    guard(|| {
        probe::host_call("tensor_new", String::new)?;
        // SAFETY: the plugin lends the shape for this call.
        let shape: Vec<usize> =
            unsafe { shape.lent("the shape of a tensor") }?.iter().map(|dim| *dim as usize).collect();
        // SAFETY: `out` is the plugin's place for the result, or null.
        let out = unsafe { lent::Place::of(out, "the tensor's handle") }?;
        let elements = memory::elements(&shape);
        let size = op_call::dtype_of(dtype).map_or(1, |dtype| dtype.size_in_bytes()) as u128;
        memory::room_for(elements.saturating_mul(size))
            .map_err(|text| format!("a tensor of shape {shape:?} cannot be made: {text}"))?;
        let len = elements as usize; // what there is room for has an address
        // SAFETY: `data` points to as many elements of this type as the shape says, or is null.
        let handle = session::new_tensor(|device| unsafe {
            match dtype {
                dtype::F32 => made::<f32>(data, len, shape, device),
                dtype::F64 => made::<f64>(data, len, shape, device),
                dtype::U32 => made::<u32>(data, len, shape, device),
                dtype::U8 => made::<u8>(data, len, shape, device),
                other => candle_core::bail!("tensors are made from f32, f64, u32 or u8, not from element type {other}"),
            }
        })?;
        out.write(handle);
        Ok(())
    })
}

unsafe extern "C" fn tensor_info(tensor: u64, dtype: *mut u32, rank: *mut usize, dims: SliceMut<u64>) -> Status {
    guard(|| {
        probe::host_call("tensor_info", String::new)?;
        let value = session::value(tensor)?;
        // SAFETY: all three are the plugin's places for results, or null.
        let (dtype, rank, dims) = unsafe {
            (
                lent::Place::of(dtype, "the element type")?,
                lent::Place::of(rank, "the rank")?,
                lent::written(dims, "the dimensions of a tensor")?,
            )
        };
        dtype.write(op_call::code_of(value.dtype()));
        rank.write(value.dims().len());
        for (place, dim) in dims.iter_mut().zip(value.dims()) {
            *place = *dim as u64;
        }
        Ok(())
    })
}

unsafe extern "C" fn tensor_read(tensor: u64, data: *mut c_void, bytes: usize) -> Status {
    /// Copies the elements out.
    fn copy<T: candle_core::WithDType>(tensor: &Tensor, data: *mut c_void, bytes: usize) -> Result<(), String> {
        let elements = tensor.flatten_all().and_then(|flat| flat.to_vec1::<T>()).map_err(|error| plain(&error))?;
        let size = size_of_val(elements.as_slice());
        if size != bytes {
            return Err(format!("a tensor {:?} of {:?} has {size} bytes, not {bytes}", tensor.dims(), tensor.dtype()));
        }
        lent::check(data.cast::<u8>(), bytes, "the memory for a tensor's elements")?;
        // SAFETY: `data` has room for `bytes` bytes, which is what the elements take; they are plain numbers.
        unsafe { std::ptr::copy_nonoverlapping(elements.as_ptr().cast::<u8>(), data.cast::<u8>(), size) };
        Ok(())
    }
    guard(|| {
        probe::host_call("tensor_read", String::new)?;
        let value = session::value(tensor)?;
        let tensor = value.tensor();
        match tensor.dtype() {
            DType::F32 => copy::<f32>(tensor, data, bytes),
            DType::F64 => copy::<f64>(tensor, data, bytes),
            DType::U32 => copy::<u32>(tensor, data, bytes),
            DType::U8 => copy::<u8>(tensor, data, bytes),
            DType::I64 => copy::<i64>(tensor, data, bytes),
            // Halves have no type of their own in plugins: they cross as their bits.
            DType::BF16 => copy::<half::bf16>(tensor, data, bytes),
            DType::F16 => copy::<half::f16>(tensor, data, bytes),
            other => Err(format!("elements of type {other:?} cannot be read")),
        }
    })
}

unsafe extern "C" fn tensor_release(tensor: u64) -> Status {
    guard(|| session::release(tensor))
}

unsafe extern "C" fn model_call(method: Str, params: Str, reply: TextSink) -> Status {
    guard(|| {
        // SAFETY: the plugin lends both texts for this call.
        let (method, params) = unsafe { (text(method)?, text(params)?) };
        probe::host_call("model_call", || method.to_owned())?;
        if reply.write.is_none() {
            return Err(format!("there is no place for the reply of {method}: the sink's function is null"));
        }
        let answer = model_calls::call(method, params)?;
        // SAFETY: the plugin's sink is valid for this call.
        unsafe { reply.put(&answer) };
        Ok(())
    })
}

unsafe extern "C" fn hook(site: Str, kind: u32, data: *mut c_void, vtable: *const HookVtable) -> Status {
    guard(|| {
        // SAFETY: the plugin passes a table that lives as long as the process, or null.
        let vtable = unsafe { theirs(vtable) }.map_err(|text| format!("the hook cannot be set: {text}"))?;
        // SAFETY: the plugin lends the text for this call.
        let site = lent::check(site.ptr, site.len, "a text").map(|()| unsafe { words(site) });
        // The hook is ours from here, also when something below fails.
        let bridge = match site.and_then(|site| Bridge::new(&site, data, vtable)) {
            Ok(bridge) => bridge,
            Err(error) => {
                if let Some(drop) = vtable.get(field!(HookVtable, drop)) {
                    // SAFETY: nobody else owns `data`, and the vtable was made for it.
                    unsafe { drop(data) };
                }
                return Err(error);
            }
        };
        probe::host_call("hook", String::new)?;
        let site = bridge.site().to_owned();
        let hook = bridge.into_hook(kind)?;
        session::with_model_mut(|model, view| match view.declares {
            Declares::Strategy(_) => model.set_hook(&site, hook).map_err(|error| plain(&error)),
            _ => Err("hooks are set in the `attach` of strategies only".to_owned()),
        })
    })
}

unsafe extern "C" fn example_gradients(labels: u32, limit: u64, ctx: *mut c_void, visit: Option<Visit>) -> Status {
    guard_status(|| {
        let visit = visit.ok_or(NOBODY)?;
        // SAFETY: the plugin lends its function and context for the walk.
        unsafe { walk(labels, limit, None, ctx, visit) }
    })
}

/// Why there is no walk.
const NOBODY: &str = "gradients of single examples have nobody to visit: the function is null";

unsafe extern "C" fn example_gradients_of(call: *const ExamplesCall) -> Status {
    guard_status(|| {
        // SAFETY: the plugin lends the call, and with it function and context for the walk.
        unsafe {
            let call = theirs(call)?;
            let visit = call.get(field!(ExamplesCall, visit)).ok_or(NOBODY)?;
            let (labels, limit) = (call.get(field!(ExamplesCall, labels)), call.get(field!(ExamplesCall, limit)));
            let seed = Some(call.get(field!(ExamplesCall, seed)));
            walk(labels, limit, seed, call.get(field!(ExamplesCall, ctx)), visit)
        }
    })
}

/// Walks over examples in an order of this seed; the status with which the visitor ended it.
///
/// # Safety
/// `visit` may be called with `ctx` until this returns.
unsafe fn walk(labels: u32, limit: u64, seed: Option<u64>, ctx: *mut c_void, visit: Visit) -> Result<Status, String> {
    let labels = match labels {
        fisher_labels::SAMPLED => FisherLabels::Sampled,
        fisher_labels::EMPIRICAL => FisherLabels::Empirical,
        fisher_labels::EXACT => FisherLabels::Exact,
        fisher_labels::SQUARED_OUTPUT_NORM => FisherLabels::SquaredOutputNorm,
        other => return Err(format!("there is no kind {other} of labels; this host knows 1 to 4")),
    };
    let function = if seed.is_some() { "example_gradients_of" } else { "example_gradients" };
    probe::host_call(function, String::new)?;
    let mut stopped = OK;
    let walked = session::with_gradients(|model, view, gradients| {
        let handles = model.handles();
        let numbers: std::collections::HashMap<u64, usize> =
            model.parameters.iter().enumerate().map(|(i, p)| (p.parameter.id(), i)).collect();
        let examples = Examples { labels, limit: (limit > 0).then_some(limit), seed };
        let walk = gradients.visit(model, examples, &mut |parameter, gradient, weight| {
            let Some(index) = numbers.get(&parameter.id()) else {
                return Err(Error::plugin(format!("{} is no parameter of the model", parameter.name())));
            };
            // Others train too: the walk is over what the caller sees.
            if !view.sees(model.parameters[*index].stream) {
                return Ok(());
            }
            let param = handles.handle(*index);
            // SAFETY: the caller's promise.
            stopped =
                session::lend_for_visit(gradient.clone(), |gradient| unsafe { visit(ctx, param, gradient, weight) })
                    .map_err(Error::plugin)?;
            if stopped == OK { Ok(()) } else { Err(Error::plugin("the plugin ended the walk over examples")) }
        });
        walk.map_err(|error| error.to_string())
    });
    if stopped == OK { walked.map(|()| OK) } else { Ok(stopped) }
}

unsafe extern "C" fn get_extension(name: Str) -> *const c_void {
    // SAFETY: the plugin lends the text for this call.
    match unsafe { text(name) } {
        Ok(RUN_DRAFT) => (&raw const RUN).cast(),
        _ => std::ptr::null(),
    }
}

unsafe extern "C" fn run_seed(out: *mut u64) -> Status {
    guard(|| {
        // SAFETY: `out` is the plugin's place for the result, or null.
        let out = unsafe { lent::Place::of(out, "the seed") }?;
        out.write(session::run()?.seed());
        Ok(())
    })
}

unsafe extern "C" fn run_step(out: *mut u64) -> Status {
    guard(|| {
        // SAFETY: `out` is the plugin's place for the result, or null.
        let out = unsafe { lent::Place::of(out, "the step") }?;
        out.write(session::run()?.step());
        Ok(())
    })
}

thread_local! {
    /// Spans of plugins that this thread is in.
    static SPANS: RefCell<Vec<tracing::span::EnteredSpan>> = const { RefCell::new(Vec::new()) };
}

unsafe extern "C" fn log(record: *const LogRecord) {
    guard(|| {
        // SAFETY: the plugin lends the record and its texts for this call.
        let (level, what, target, message, fields) = unsafe {
            let record = theirs(record)?;
            let read = |field| words(record.get(field));
            (
                record.get(field!(LogRecord, level)),
                record.get(field!(LogRecord, what)),
                read(field!(LogRecord, target)),
                read(field!(LogRecord, message)),
                read(field!(LogRecord, fields)),
            )
        };
        // The log goes to a terminal.
        let (target, message, fields) = (&*one_line(&target), &*printable(&message), &*one_line(&fields));
        let fields = Some(fields).filter(|fields| !fields.is_empty() && *fields != "{}");
        // `tracing` wants level and target at compile time, so plugins share a target and name their own in a field.
        macro_rules! forward {
            ($event:ident, $span:ident) => {
                match what {
                    0 => tracing::$event!(target: "plugin", module = target, fields, "{message}"),
                    _ => {
                        let span = tracing::$span!(target: "plugin", "plugin", module = target, name = message, fields);
                        SPANS.with_borrow_mut(|spans| spans.push(span.entered()));
                    }
                }
            };
        }
        if what == 2 {
            let left = SPANS.with_borrow_mut(Vec::pop);
            drop(left);
            return Ok(());
        }
        match level {
            1 => forward!(error, error_span),
            2 => forward!(warn, warn_span),
            3 => forward!(info, info_span),
            4 => forward!(debug, debug_span),
            _ => forward!(trace, trace_span),
        }
        Ok(())
    });
}
