//! From the author's four traits to the tables of functions that the host calls.

use std::{collections::BTreeMap, ffi::c_void};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    failure::{Guarded, free},
    tables::{
        BaseVtable, HeadCall, Instance, RegularizerVtable, SchedulerVtable, Status, Str, StrategyVtable,
        TaskHeadVtable, TextSink,
    },
};
use crate::{
    Error, Event, Features, Group, Model, Progress, Rate, Regularizer, Result, SavedState, Scheduler, Strategy,
    TaskHead, TaskTargets, Tensor,
};

/// An instance for the host, and the vtable of its kind. Where the functions below say "this instance", `data` is the
/// pointer made here and the host keeps its promise of one exclusive `[run thread]` call at a time.
fn instance<T, V>(value: T, vtable: &'static V) -> Instance {
    Instance { data: Box::into_raw(Box::new(Guarded::new(value))).cast(), vtable: std::ptr::from_ref(vtable).cast() }
}

/// Calls into an instance. `[any thread]`
///
/// # Safety
/// `data` is this instance, holding a `T`, and no exclusive call is under way.
unsafe fn call<T>(data: *const c_void, body: impl FnOnce(&T) -> Result<()>) -> Status {
    // SAFETY: the caller's promise.
    unsafe { &*data.cast::<Guarded<T>>() }.call(body)
}

/// Calls into an instance that may change. `[run thread]`
///
/// # Safety
/// `data` is this instance, holding a `T`, and no other call is under way.
unsafe fn call_mut<T>(data: *mut c_void, body: impl FnOnce(&mut T) -> Result<()>) -> Status {
    // SAFETY: the caller's promise.
    unsafe { &mut *data.cast::<Guarded<T>>() }.call_mut(body)
}

/// What the four traits have in common.
trait Method: 'static {
    fn save(&self) -> Result<SavedState>;
    fn load(&mut self, state: SavedState) -> Result<()>;
    fn event(&mut self, event: &Event) -> Result<()>;
}

/// A saved state on the wire.
#[derive(Serialize, Deserialize)]
struct WireState {
    #[serde(default)]
    json: Value,
    #[serde(default)]
    tensors: BTreeMap<String, u64>,
}

const fn base<M: Method>(struct_size: usize) -> BaseVtable {
    unsafe extern "C" fn save<M: Method>(data: *const c_void, sink: TextSink) -> Status {
        let body = |method: &M| {
            let state = method.save()?;
            let text = serde_json::to_string(&WireState { json: state.json, tensors: give_all(state.tensors)? })?;
            // SAFETY: the sink belongs to this call.
            unsafe { sink.put(&text) };
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    unsafe extern "C" fn load<M: Method>(data: *mut c_void, state: Str) -> Status {
        let body = |method: &mut M| {
            // SAFETY: the host lends the text for this call.
            let state: WireState = serde_json::from_str(unsafe { state.as_str()? })?;
            let tensors = state.tensors.into_iter().map(|(name, handle)| (name, Tensor::owned(handle))).collect();
            method.load(SavedState { json: state.json, tensors })
        };
        // SAFETY: the host passes this instance.
        unsafe { call_mut(data, body) }
    }
    unsafe extern "C" fn event<M: Method>(data: *mut c_void, event: Str) -> Status {
        let body = |method: &mut M| {
            // SAFETY: the host lends the text for this call.
            let text = unsafe { event.as_str()? };
            let Ok(event) = serde_json::from_str(text) else {
                tracing::debug!("an event of a newer host, not for this plugin: {text}");
                return Ok(());
            };
            method.event(&event)
        };
        // SAFETY: the host passes this instance.
        unsafe { call_mut(data, body) }
    }
    BaseVtable {
        struct_size: struct_size as u32,
        reserved: 0,
        drop: free::<M>,
        save: save::<M>,
        load: load::<M>,
        event: event::<M>,
    }
}

struct AsStrategy<S>(S);

impl<S: Strategy> Method for AsStrategy<S> {
    fn save(&self) -> Result<SavedState> {
        self.0.save()
    }
    fn load(&mut self, state: SavedState) -> Result<()> {
        self.0.load(state)
    }
    fn event(&mut self, event: &Event) -> Result<()> {
        self.0.on_event(event, &mut Model::new())
    }
}

pub(crate) fn strategy<S: Strategy>(strategy: S) -> Instance {
    unsafe extern "C" fn attach<S: Strategy>(data: *mut c_void) -> Status {
        // SAFETY: the host passes this instance.
        unsafe { call_mut(data, |method: &mut AsStrategy<S>| method.0.attach(&mut Model::new())) }
    }
    unsafe extern "C" fn adapter_config<S: Strategy>(data: *const c_void, sink: TextSink) -> Status {
        let body = |method: &AsStrategy<S>| {
            let text = serde_json::to_string(&method.0.adapter_config()?)?;
            // SAFETY: the sink belongs to this call.
            unsafe { sink.put(&text) };
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    unsafe extern "C" fn adapter_tensors<S: Strategy>(data: *const c_void, sink: TextSink) -> Status {
        let body = |method: &AsStrategy<S>| {
            let text = serde_json::to_string(&method.0.adapter_tensors()?.map(give_all).transpose()?)?;
            // SAFETY: the sink belongs to this call.
            unsafe { sink.put(&text) };
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    unsafe extern "C" fn starts_at_base<S: Strategy>(data: *const c_void, out: *mut u32) -> Status {
        let body = |method: &AsStrategy<S>| {
            // SAFETY: `out` is the host's place for the result.
            unsafe { out.write(u32::from(method.0.starts_at_base())) };
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    instance(
        AsStrategy(strategy),
        const {
            &StrategyVtable {
                base: base::<AsStrategy<S>>(size_of::<StrategyVtable>()),
                attach: attach::<S>,
                adapter_config: adapter_config::<S>,
                adapter_tensors: adapter_tensors::<S>,
                starts_at_base: starts_at_base::<S>,
            }
        },
    )
}

struct AsScheduler<S>(S);

impl<S: Scheduler> Method for AsScheduler<S> {
    fn save(&self) -> Result<SavedState> {
        self.0.save()
    }
    fn load(&mut self, state: SavedState) -> Result<()> {
        self.0.load(state)
    }
    fn event(&mut self, _: &Event) -> Result<()> {
        Ok(())
    }
}

pub(crate) fn scheduler<S: Scheduler>(scheduler: S) -> Instance {
    unsafe extern "C" fn rate<S: Scheduler>(
        data: *const c_void,
        progress: *const Progress,
        group: *const Group,
        out: *mut Rate,
    ) -> Status {
        // SAFETY: the host passes this instance, lends both structs for this call, and `out` may be written.
        unsafe {
            call(data, |method: &AsScheduler<S>| {
                out.write(method.0.rate(&*progress, &*group)?);
                Ok(())
            })
        }
    }
    unsafe extern "C" fn on_evaluation<S: Scheduler>(
        data: *mut c_void,
        progress: *const Progress,
        value: f64,
    ) -> Status {
        // SAFETY: the host passes this instance and lends the struct for this call.
        unsafe { call_mut(data, |method: &mut AsScheduler<S>| method.0.on_evaluation(&*progress, value)) }
    }
    instance(
        AsScheduler(scheduler),
        const {
            &SchedulerVtable {
                base: base::<AsScheduler<S>>(size_of::<SchedulerVtable>()),
                rate: rate::<S>,
                on_evaluation: on_evaluation::<S>,
            }
        },
    )
}

struct AsRegularizer<R>(R);

impl<R: Regularizer> Method for AsRegularizer<R> {
    fn save(&self) -> Result<SavedState> {
        self.0.save()
    }
    fn load(&mut self, state: SavedState) -> Result<()> {
        self.0.load(state)
    }
    fn event(&mut self, event: &Event) -> Result<()> {
        self.0.on_event(event, &mut Model::new())
    }
}

pub(crate) fn regularizer<R: Regularizer>(regularizer: R) -> Instance {
    unsafe extern "C" fn attach<R: Regularizer>(data: *mut c_void) -> Status {
        // SAFETY: the host passes this instance.
        unsafe { call_mut(data, |method: &mut AsRegularizer<R>| method.0.attach(&mut Model::new())) }
    }
    unsafe extern "C" fn penalty<R: Regularizer>(data: *const c_void, out: *mut u64) -> Status {
        // SAFETY: the host passes this instance, and `out` may be written.
        unsafe {
            call(data, |method: &AsRegularizer<R>| {
                out.write(give_optional(method.0.penalty()?)?);
                Ok(())
            })
        }
    }
    unsafe extern "C" fn needs_reference<R: Regularizer>(data: *const c_void) -> u32 {
        let mut needs = false;
        // A failure was reported; without a reference the run then stops at the next call to the poisoned instance.
        // SAFETY: the host passes this instance.
        let _ = unsafe {
            call(data, |method: &AsRegularizer<R>| {
                needs = method.0.needs_reference();
                Ok(())
            })
        };
        u32::from(needs)
    }
    unsafe extern "C" fn output_penalty<R: Regularizer>(
        data: *const c_void,
        outputs: u64,
        reference: u64,
        out: *mut u64,
    ) -> Status {
        let body = |method: &AsRegularizer<R>| {
            let penalty = method.0.output_penalty(&Tensor::borrowed(outputs), &Tensor::borrowed(reference))?;
            // SAFETY: `out` may be written.
            unsafe { out.write(give_optional(penalty)?) };
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    instance(
        AsRegularizer(regularizer),
        const {
            &RegularizerVtable {
                base: base::<AsRegularizer<R>>(size_of::<RegularizerVtable>()),
                attach: attach::<R>,
                penalty: penalty::<R>,
                needs_reference: needs_reference::<R>,
                output_penalty: output_penalty::<R>,
            }
        },
    )
}

/// The handles of named tensors that pass to the host.
fn give_all(tensors: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, u64>> {
    tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.give()?))).collect()
}

/// The handle of a tensor that passes to the host, 0 for none.
fn give_optional(tensor: Option<Tensor>) -> Result<u64> {
    tensor.map_or(Ok(0), Tensor::give)
}

struct AsHead<H>(H);

impl<H: TaskHead> Method for AsHead<H> {
    fn save(&self) -> Result<SavedState> {
        self.0.save()
    }
    fn load(&mut self, state: SavedState) -> Result<()> {
        self.0.load(state)
    }
    fn event(&mut self, _: &Event) -> Result<()> {
        Ok(())
    }
}

pub(crate) fn task_head<H: TaskHead>(head: H) -> Instance {
    unsafe extern "C" fn attach<H: TaskHead>(data: *mut c_void, task: Str, spec: TextSink) -> Status {
        let body = |method: &mut AsHead<H>| {
            // SAFETY: the host lends the text for this call.
            let task = serde_json::from_str(unsafe { task.as_str()? })
                .map_err(|error| Error::new(error).context("the host's description of the task"))?;
            let text = serde_json::to_string(&method.0.attach(&task, &mut Model::new())?)?;
            // SAFETY: the sink belongs to this call.
            unsafe { spec.put(&text) };
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call_mut(data, body) }
    }
    /// # Safety
    /// `data` is this instance, and `call` points to a call of this moment, whose results may be written.
    unsafe fn run<H: TaskHead>(
        data: *const c_void,
        head_call: *const HeadCall,
        body: impl FnOnce(&H, &Tensor, &HeadCall) -> Result<Tensor>,
    ) -> Status {
        // SAFETY: the caller's promise.
        unsafe {
            call(data, |method: &AsHead<H>| {
                let head_call = &*head_call;
                let result = body(&method.0, &Tensor::borrowed(head_call.tensor), head_call)?;
                head_call.output.write(result.give()?);
                Ok(())
            })
        }
    }
    unsafe extern "C" fn forward<H: TaskHead>(data: *const c_void, call: *const HeadCall) -> Status {
        let body = |head: &H, tensor: &Tensor, call: &HeadCall| {
            // SAFETY: the host lends the offsets for this call.
            head.forward(&Features { tensor, offsets: unsafe { call.offsets.as_slice() } })
        };
        // SAFETY: the host passes this instance and its call.
        unsafe { run(data, call, body) }
    }
    unsafe extern "C" fn loss<H: TaskHead>(data: *const c_void, call: *const HeadCall) -> Status {
        let body = |head: &H, outputs: &Tensor, call: &HeadCall| {
            // SAFETY: the host lends the flags for this call.
            let support = unsafe { call.support.as_slice() };
            let loss = head.loss(outputs, &TaskTargets { tensor: &Tensor::borrowed(call.targets), support })?;
            // SAFETY: in a loss call the weight may be written.
            unsafe { call.weight.write(loss.weight) };
            Ok(loss.sum)
        };
        // SAFETY: the host passes this instance and its call.
        unsafe { run(data, call, body) }
    }
    unsafe extern "C" fn predict<H: TaskHead>(data: *const c_void, call: *const HeadCall) -> Status {
        // SAFETY: the host passes this instance and its call.
        unsafe { run(data, call, |head: &H, outputs, _| head.predict(outputs)) }
    }
    unsafe extern "C" fn fit<H: TaskHead>(data: *mut c_void, call: *const HeadCall) -> Status {
        // SAFETY: the host passes this instance and its call.
        unsafe {
            call_mut(data, |method: &mut AsHead<H>| {
                let call = &*call;
                method.0.fit(&Tensor::borrowed(call.tensor), &Tensor::borrowed(call.targets), &mut Model::new())
            })
        }
    }
    instance(
        AsHead(head),
        const {
            &TaskHeadVtable {
                base: base::<AsHead<H>>(size_of::<TaskHeadVtable>()),
                attach: attach::<H>,
                forward: forward::<H>,
                loss: loss::<H>,
                predict: predict::<H>,
                fit: fit::<H>,
            }
        },
    )
}
