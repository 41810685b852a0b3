//! The mock host's table: the functions that plugins call. None lets a panic of ours cross into the plugin.

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::Arc,
};

use super::hook::Set;
use crate::{
    DType, Error, Result,
    abi::{
        calls::{ExamplesCall, LogRecord, OpCall},
        draft::run::{RUN_DRAFT, RunDraft},
        growth::{Grows, Theirs},
        tables::{
            ABI_MAJOR, ABI_MINOR, FAILED, HookVtable, HostApi, OK, Slice, SliceMut, Status, Str, TextSink, dtype,
        },
    },
    field,
    test::{
        forward, model_calls,
        ops::{self, Outputs},
        session::{self, Declares},
        value::Value,
    },
};

/// What plugins get when they are connected.
pub(crate) static TABLE: HostApi = HostApi {
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
    example_gradients: Some(example_gradients),
    example_gradients_of: Some(example_gradients_of),
    get_extension: Some(get_extension),
    ..HostApi::EMPTY
};

static RUN: RunDraft = RunDraft { seed: Some(run_seed), step: Some(run_step), ..RunDraft::EMPTY };

/// Runs a function's body: an error, or a panic of ours, becomes a status, and its text waits for `last_error`.
fn guard(body: impl FnOnce() -> Result<()>) -> Status {
    let text = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return OK,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the mock host panicked".to_owned(),
    };
    let _ = catch_unwind(|| session::set_last_error(text));
    FAILED
}

unsafe extern "C" fn set_error(_: Status, message: Str) {
    guard(|| {
        // SAFETY: the plugin lends the text for this call.
        session::report(unsafe { message.as_str() }?.to_owned());
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

unsafe extern "C" fn log(record: *const LogRecord) {
    guard(|| {
        // SAFETY: the plugin lends the record and its texts for this call.
        let (what, message, fields) = unsafe {
            let record = Theirs::new(record)?;
            let message = record.get(field!(LogRecord, message)).as_str()?;
            (record.get(field!(LogRecord, what)), message, record.get(field!(LogRecord, fields)).as_str()?)
        };
        if what == 0 {
            let fields = Some(fields).filter(|fields| *fields != "{}").unwrap_or_default();
            session::log(format!("{message} {fields}").trim_end().to_owned());
        }
        Ok(())
    });
}

unsafe extern "C" fn resolve_op(name: Str, op: *mut u32) -> Status {
    guard(|| {
        // SAFETY: the plugin lends the text for this call.
        let name = unsafe { name.as_str() }?;
        let number = ops::resolve(name).ok_or_else(|| Error::new(format!("the mock host has no op {name:?}")))?;
        // SAFETY: `op` is the plugin's place for the result.
        unsafe { op.write(number) };
        Ok(())
    })
}

unsafe extern "C" fn call_op(op: u32, call: *const OpCall) -> Status {
    guard(|| {
        // SAFETY: the plugin lends the call and its slices, and lets us write the outputs.
        let (inputs, ints, floats, outputs) = unsafe {
            let call = Theirs::new(call)?;
            (
                call.get(field!(OpCall, inputs)).as_slice(),
                call.get(field!(OpCall, ints)).as_slice(),
                call.get(field!(OpCall, floats)).as_slice(),
                call.get(field!(OpCall, outputs)).as_mut_slice(),
            )
        };
        let value = |&handle: &u64| if handle == 0 { Ok(None) } else { session::value(handle).map(Some) };
        let inputs = inputs.iter().map(value).collect::<Result<Vec<_>>>()?;
        session::scope()?;
        match ops::run(op, &inputs, ints, floats)? {
            Outputs::Kept(value) if outputs.len() == 1 => outputs[0] = session::keep(value),
            Outputs::Tensors(values) if outputs.len() == values.len() => {
                for (output, value) in outputs.iter_mut().zip(values) {
                    *output = session::hand_over(value, ops::name(op))?;
                }
            }
            _ => {
                let (room, name) = (outputs.len(), ops::name(op));
                return Err(Error::new(format!(
                    "the caller made room for {room} results, which is not what {name} gives"
                )));
            }
        }
        Ok(())
    })
}

unsafe extern "C" fn tensor_new(dtype: u32, data: *const c_void, shape: Slice<u64>, out: *mut u64) -> Status {
    guard(|| {
        // SAFETY: the plugin lends the shape for this call.
        let shape: Vec<usize> = unsafe { shape.as_slice() }.iter().map(|&dim| dim as usize).collect();
        let elements = shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
        let len = elements.ok_or_else(|| Error::new(format!("shape {shape:?} has too many elements")))?;
        // SAFETY: `data` points to as many elements of this type as the shape says.
        let data: Vec<f64> = unsafe {
            match dtype {
                dtype::F32 => Slice { ptr: data.cast::<f32>(), len }.as_slice().iter().map(|&x| f64::from(x)).collect(),
                dtype::F64 => Slice { ptr: data.cast::<f64>(), len }.as_slice().to_vec(),
                dtype::U32 => Slice { ptr: data.cast::<u32>(), len }.as_slice().iter().map(|&x| f64::from(x)).collect(),
                dtype::U8 => Slice { ptr: data.cast::<u8>(), len }.as_slice().iter().map(|&x| f64::from(x)).collect(),
                other => {
                    return Err(Error::new(format!(
                        "tensors are made from f32, f64, u32 or u8, not from element type {other}"
                    )));
                }
            }
        };
        let handle = session::hand_over(Value::constant(DType::from_code(dtype)?, shape, data), "tensor_new")?;
        // SAFETY: `out` is the plugin's place for the result.
        unsafe { out.write(handle) };
        Ok(())
    })
}

unsafe extern "C" fn tensor_info(tensor: u64, dtype: *mut u32, rank: *mut usize, dims: SliceMut<u64>) -> Status {
    guard(|| {
        let value = session::value(tensor)?;
        // SAFETY: all three are the plugin's places for results.
        unsafe {
            dtype.write(value.dtype().code());
            rank.write(value.shape().len());
            for (place, &dim) in dims.as_mut_slice().iter_mut().zip(value.shape()) {
                *place = dim as u64;
            }
        }
        Ok(())
    })
}

unsafe extern "C" fn tensor_read(tensor: u64, data: *mut c_void, bytes: usize) -> Status {
    /// Copies the elements out.
    fn copy<T: Copy>(value: &Value, data: *mut c_void, bytes: usize, of: impl Fn(f64) -> T) -> Result<()> {
        let elements: Vec<T> = value.data().iter().map(|&x| of(x)).collect();
        let size = size_of_val(elements.as_slice());
        if size != bytes {
            return Err(Error::new(format!("a tensor {:?} has {size} bytes, not {bytes}", value.shape())));
        }
        // SAFETY: `data` has room for `bytes` bytes, which is what the elements take; they are plain numbers.
        unsafe { ptr::copy_nonoverlapping(elements.as_ptr().cast::<u8>(), data.cast::<u8>(), size) };
        Ok(())
    }
    guard(|| {
        let value = session::value(tensor)?;
        match value.dtype() {
            DType::F32 => copy(&value, data, bytes, |x| x as f32),
            DType::F64 => copy(&value, data, bytes, |x| x),
            DType::U32 => copy(&value, data, bytes, |x| x as u32),
            DType::U8 => copy(&value, data, bytes, |x| x as u8),
            DType::I64 => copy(&value, data, bytes, |x| x as i64),
            half => Err(Error::new(format!("the mock host gives no bits of {half:?}: cast to f32 first"))),
        }
    })
}

unsafe extern "C" fn tensor_release(tensor: u64) -> Status {
    guard(|| session::release(tensor))
}

unsafe extern "C" fn model_call(method: Str, params: Str, reply: TextSink) -> Status {
    guard(|| {
        // SAFETY: the plugin lends both texts for this call.
        let (method, params) = unsafe { (method.as_str()?, params.as_str()?) };
        let answer = model_calls::call(method, params)?;
        // SAFETY: the plugin's sink is valid for this call.
        unsafe { reply.put(&answer.to_string()) };
        Ok(())
    })
}

unsafe extern "C" fn hook(site: Str, kind: u32, data: *mut c_void, vtable: *const HookVtable) -> Status {
    guard(|| {
        // SAFETY: the plugin passes a table that lives as long as the process, or null.
        let vtable = unsafe { Theirs::new(vtable) }.map_err(|error| error.context("the hook cannot be set"))?;
        // The hook is ours from here, also when something below fails.
        let mut hook = Set::new(kind, data, vtable);
        // SAFETY: the plugin lends the text for this call.
        let site = unsafe { site.as_str() }?;
        let scope = session::scope()?;
        let (Some(run), Declares::Strategy) = (scope.run, scope.declares) else {
            return Err(Error::new("hooks are set in the `attach` of strategies only"));
        };
        hook.prepare(site)?;
        run.set_hook(site, Arc::new(hook))
    })
}

/// What a walk calls with each gradient: context, parameter, gradient, weight.
type Visit = unsafe extern "C" fn(ctx: *mut c_void, param: u64, gradient: u64, weight: f64) -> Status;

unsafe extern "C" fn example_gradients(labels: u32, limit: u64, ctx: *mut c_void, visit: Visit) -> Status {
    // SAFETY: the plugin lends its function and context for the walk.
    unsafe { walk(labels, limit, ctx, visit) }
}

/// The toy has few examples: whatever the seed is, all are seen.
unsafe extern "C" fn example_gradients_of(call: *const ExamplesCall) -> Status {
    let mut walked = OK;
    let read = guard(|| {
        // SAFETY: the plugin lends the call, and with it function and context for the walk.
        unsafe {
            let call = Theirs::new(call)?;
            let visit = call.need(field!(ExamplesCall, visit))?;
            let (labels, limit) = (call.get(field!(ExamplesCall, labels)), call.get(field!(ExamplesCall, limit)));
            walked = walk(labels, limit, call.get(field!(ExamplesCall, ctx)), visit);
        }
        Ok(())
    });
    if read == OK { walked } else { read }
}

/// # Safety
/// `visit` may be called with `ctx` until this returns.
unsafe fn walk(labels: u32, limit: u64, ctx: *mut c_void, visit: Visit) -> Status {
    let mut stopped = OK;
    let status = guard(|| {
        let scope = session::scope()?;
        let Some(run) = scope.run.filter(|_| scope.measures) else {
            return Err(Error::new("gradients of single examples are measured in events only"));
        };
        forward::example_gradients(&run, labels, limit, &mut |index, gradient, weight| {
            let gradient = session::lend(&gradient);
            // SAFETY: the caller's promise.
            stopped = unsafe { visit(ctx, run.handle(index), gradient, weight) };
            // It is stale where the visitor released what was only lent.
            session::release(gradient)?;
            if stopped == OK { Ok(()) } else { Err(Error::new("the plugin ended the walk over examples")) }
        })
    });
    if stopped == OK { status } else { stopped }
}

unsafe extern "C" fn get_extension(name: Str) -> *const c_void {
    // SAFETY: the plugin lends the text for this call.
    match unsafe { name.as_str() } {
        Ok(RUN_DRAFT) => (&raw const RUN).cast(),
        _ => ptr::null(),
    }
}

unsafe extern "C" fn run_seed(out: *mut u64) -> Status {
    // SAFETY: `out` is the plugin's place for the result.
    guard(|| session::run().map(|run| unsafe { out.write(run.seed) }))
}

unsafe extern "C" fn run_step(out: *mut u64) -> Status {
    // SAFETY: `out` is the plugin's place for the result.
    guard(|| session::run().map(|run| unsafe { out.write(run.state().step) }))
}
