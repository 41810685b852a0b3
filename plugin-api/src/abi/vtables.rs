//! From the author's traits to the tables of functions that the host calls.

#![allow(clippy::needless_update, reason = "a later minor appends fields")]

use std::{collections::BTreeMap, ffi::c_void};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    calls::{self, HeadCall},
    draft::optimizer::{OptimizerVtable, UpdateCall},
    failure::{Guarded, free},
    growth::{Grows, Place, Theirs},
    tables::{
        BaseVtable, Instance, RegularizerVtable, SchedulerVtable, Slice, Status, Str, StrategyVtable, TaskHeadVtable,
        TextSink,
    },
};
use crate::{
    Error, Evaluation, Event, Features, Group, Model, Optimizer, Progress, Regularizer, Result, SavedState, Scheduler,
    Strategy, TaskHead, TaskTargets, Tensor, Update, Updated, field,
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
        drop: Some(free::<M>),
        save: Some(save::<M>),
        load: Some(load::<M>),
        event: Some(event::<M>),
        ..BaseVtable::EMPTY
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
                attach: Some(attach::<S>),
                adapter_config: Some(adapter_config::<S>),
                adapter_tensors: Some(adapter_tensors::<S>),
                starts_at_base: Some(starts_at_base::<S>),
                ..StrategyVtable::EMPTY
            }
        },
    )
}

/// # Safety
/// As [`Theirs::new`].
unsafe fn read_progress(progress: *const calls::Progress) -> Result<Progress> {
    // SAFETY: the caller's promise.
    let progress = unsafe { Theirs::new(progress) }?;
    Ok(Progress {
        step: progress.get(field!(calls::Progress, step)),
        total_steps: progress.get(field!(calls::Progress, total_steps)),
        steps_per_epoch: progress.get(field!(calls::Progress, steps_per_epoch)),
    })
}

/// # Safety
/// As [`Theirs::new`], and its texts are lent for `'a`.
unsafe fn read_group<'a>(group: *const calls::Group) -> Result<Group<'a>> {
    // SAFETY: the caller's promise.
    unsafe {
        let group = Theirs::new(group)?;
        Ok(Group {
            name: group.get(field!(calls::Group, name)).as_str()?,
            number: group.get(field!(calls::Group, number)) as usize,
            stream: group.get(field!(calls::Group, stream)).as_str()?,
            lr: group.get(field!(calls::Group, lr)),
            momentum: group.get(field!(calls::Group, momentum)),
        })
    }
}

/// # Safety
/// As [`Theirs::new`], and its texts are lent for `'a`.
unsafe fn read_evaluation<'a>(evaluation: *const calls::Evaluation) -> Result<Evaluation<'a>> {
    // SAFETY: the caller's promise.
    unsafe {
        let evaluation = Theirs::new(evaluation)?;
        Ok(Evaluation {
            value: evaluation.get(field!(calls::Evaluation, value)),
            metric: evaluation.get(field!(calls::Evaluation, metric)).as_str()?,
            higher_is_better: evaluation.get(field!(calls::Evaluation, higher_is_better)) != 0,
            task: evaluation.get(field!(calls::Evaluation, task)).as_str()?,
        })
    }
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
        progress: *const calls::Progress,
        group: *const calls::Group,
        out: *mut calls::Rate,
    ) -> Status {
        let body = |method: &AsScheduler<S>| {
            // SAFETY: the host lends all three for this call, and the last may be written.
            let (progress, group, mut out) =
                unsafe { (read_progress(progress)?, read_group(group)?, Place::new(out)?) };
            let rate = method.0.rate(&progress, &group)?;
            out.set(field!(calls::Rate, lr), rate.lr);
            out.set(field!(calls::Rate, momentum), rate.momentum);
            #[cfg(feature = "longer-tables")]
            out.set_later(crate::later!(calls::Rate, later), calls::Appended::MINE);
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    unsafe extern "C" fn on_evaluation<S: Scheduler>(
        data: *mut c_void,
        progress: *const calls::Progress,
        evaluation: *const calls::Evaluation,
    ) -> Status {
        let body = |method: &mut AsScheduler<S>| {
            // SAFETY: the host lends both for this call.
            let (progress, evaluation) = unsafe { (read_progress(progress)?, read_evaluation(evaluation)?) };
            method.0.on_evaluation(&progress, &evaluation)
        };
        // SAFETY: the host passes this instance.
        unsafe { call_mut(data, body) }
    }
    instance(
        AsScheduler(scheduler),
        const {
            &SchedulerVtable {
                base: base::<AsScheduler<S>>(size_of::<SchedulerVtable>()),
                rate: Some(rate::<S>),
                on_evaluation: Some(on_evaluation::<S>),
                ..SchedulerVtable::EMPTY
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
    unsafe extern "C" fn needs_reference<R: Regularizer>(data: *const c_void, out: *mut u32) -> Status {
        let body = |method: &AsRegularizer<R>| {
            // SAFETY: `out` is the host's place for the result.
            unsafe { out.write(u32::from(method.0.needs_reference())) };
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    unsafe extern "C" fn output_penalty<R: Regularizer>(data: *const c_void, head_call: *const HeadCall) -> Status {
        let body = |method: &AsRegularizer<R>| {
            // SAFETY: the host lends the call for this call.
            let mut call = unsafe { Frame::of(head_call) }?;
            let penalty = method.0.output_penalty(&call.tensor()?, &call.target()?)?;
            call.give([penalty])
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    instance(
        AsRegularizer(regularizer),
        const {
            &RegularizerVtable {
                base: base::<AsRegularizer<R>>(size_of::<RegularizerVtable>()),
                attach: Some(attach::<R>),
                penalty: Some(penalty::<R>),
                needs_reference: Some(needs_reference::<R>),
                output_penalty: Some(output_penalty::<R>),
                ..RegularizerVtable::EMPTY
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

/// A call of a head with its slices as the host lent them.
struct Frame<'a> {
    tensors: &'a [u64],
    offsets: &'a [Slice<u32>],
    targets: &'a [u64],
    support: &'a [u8],
    outputs: &'a mut [u64],
    weight: *mut f64,
}

impl Frame<'_> {
    /// # Safety
    /// As [`Theirs::new`], and what its fields point to is lent for the call and this call's alone.
    unsafe fn of(call: *const HeadCall) -> Result<Self> {
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
    fn tensor(&self) -> Result<Tensor> {
        one(self.tensors, "tensors")
    }

    fn target(&self) -> Result<Tensor> {
        one(self.targets, "targets")
    }

    /// Hands results over, as far as there is room; the host owns them from here.
    fn give<const N: usize>(&mut self, results: [Option<Tensor>; N]) -> Result<()> {
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
    /// `data` is this instance, and `head_call` points to a call of this moment, whose results may be written.
    unsafe fn run<H: TaskHead>(
        data: *const c_void,
        head_call: *const HeadCall,
        body: impl FnOnce(&H, &mut Frame<'_>) -> Result<Tensor>,
    ) -> Status {
        // SAFETY: the caller's promise.
        unsafe {
            call(data, |method: &AsHead<H>| {
                let mut frame = Frame::of(head_call)?;
                let result = body(&method.0, &mut frame)?;
                frame.give([Some(result)])
            })
        }
    }
    unsafe extern "C" fn forward<H: TaskHead>(data: *const c_void, call: *const HeadCall) -> Status {
        let body = |head: &H, call: &mut Frame<'_>| {
            let tensors: Vec<Tensor> = call.tensors.iter().map(|&tensor| Tensor::borrowed(tensor)).collect();
            // SAFETY: the host lends the offsets for this call.
            let offsets = |at: usize| call.offsets.get(at).map_or(&[][..], |offsets| unsafe { offsets.as_slice() });
            let next = call.targets.first().map(|&tensor| Tensor::borrowed(tensor));
            let of = |(at, tensor)| Features { tensor, offsets: offsets(at), next: next.as_ref() };
            let features = tensors.iter().enumerate().map(of);
            head.forward_streams(&features.collect::<Vec<_>>())
        };
        // SAFETY: the host passes this instance and its call.
        unsafe { run(data, call, body) }
    }
    unsafe extern "C" fn loss<H: TaskHead>(data: *const c_void, call: *const HeadCall) -> Status {
        let body = |head: &H, call: &mut Frame<'_>| {
            let targets = TaskTargets { tensor: &call.target()?, support: call.support };
            let loss = head.loss(&call.tensor()?, &targets)?;
            if call.weight.is_null() {
                return Err(Error::new("the host left no place for the loss's weight"));
            }
            // SAFETY: not null, and in a loss call the weight may be written.
            unsafe { call.weight.write(loss.weight) };
            Ok(loss.sum)
        };
        // SAFETY: the host passes this instance and its call.
        unsafe { run(data, call, body) }
    }
    unsafe extern "C" fn predict<H: TaskHead>(data: *const c_void, call: *const HeadCall) -> Status {
        // SAFETY: the host passes this instance and its call.
        unsafe { run(data, call, |head: &H, call| head.predict(&call.tensor()?)) }
    }
    unsafe extern "C" fn fit<H: TaskHead>(data: *mut c_void, call: *const HeadCall) -> Status {
        let body = |method: &mut AsHead<H>| {
            // SAFETY: the host lends the call for this call.
            let call = unsafe { Frame::of(call) }?;
            method.0.fit(&call.tensor()?, &call.target()?, &mut Model::new())
        };
        // SAFETY: the host passes this instance.
        unsafe { call_mut(data, body) }
    }
    unsafe extern "C" fn metrics<H: TaskHead>(data: *const c_void, call: *const HeadCall, sink: TextSink) -> Status {
        let body = |method: &AsHead<H>| {
            // SAFETY: the host lends the call for this call.
            let frame = unsafe { Frame::of(call) }?;
            let found = method.0.metrics(&frame.tensor()?, &frame.target()?)?;
            // SAFETY: the sink belongs to this call.
            unsafe { sink.put(&serde_json::to_string(&found)?) };
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { self::call(data, body) }
    }
    instance(
        AsHead(head),
        const {
            &TaskHeadVtable {
                base: base::<AsHead<H>>(size_of::<TaskHeadVtable>()),
                attach: Some(attach::<H>),
                forward: Some(forward::<H>),
                loss: Some(loss::<H>),
                predict: Some(predict::<H>),
                fit: Some(fit::<H>),
                metrics: Some(metrics::<H>),
                ..TaskHeadVtable::EMPTY
            }
        },
    )
}

struct AsOptimizer<O>(O);

/// A rule has no state but that of parameters.
impl<O: Optimizer> Method for AsOptimizer<O> {
    fn save(&self) -> Result<SavedState> {
        Ok(SavedState::default())
    }
    fn load(&mut self, _: SavedState) -> Result<()> {
        Ok(())
    }
    fn event(&mut self, _: &Event) -> Result<()> {
        Ok(())
    }
}

pub(crate) fn optimizer<O: Optimizer>(optimizer: O) -> Instance {
    unsafe extern "C" fn momentum<O: Optimizer>(data: *const c_void, out: *mut f64) -> Status {
        let body = |method: &AsOptimizer<O>| {
            // SAFETY: `out` is the host's place for the result.
            unsafe { out.write(method.0.momentum()) };
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    unsafe extern "C" fn states<O: Optimizer>(
        data: *const c_void,
        name: Str,
        shape: Slice<u64>,
        sink: TextSink,
    ) -> Status {
        let body = |method: &AsOptimizer<O>| {
            // SAFETY: the host lends name and shape for this call.
            let (name, shape) = unsafe { (name.as_str()?, shape.as_slice()) };
            let shape: Vec<usize> = shape.iter().map(|&dim| dim as usize).collect();
            let text = serde_json::to_string(&method.0.states(name, &shape)?)?;
            // SAFETY: the sink belongs to this call.
            unsafe { sink.put(&text) };
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    unsafe extern "C" fn step<O: Optimizer>(data: *const c_void, update: *const UpdateCall) -> Status {
        let body = |method: &AsOptimizer<O>| {
            // SAFETY: the host lends the call and what it points to for this call, and lets us write the outputs.
            let (update, outputs) = unsafe {
                let call = Theirs::new(update)?;
                let states: &[u64] = call.get(field!(UpdateCall, states)).as_slice();
                let update = Update {
                    name: call.get(field!(UpdateCall, name)).as_str()?,
                    value: Tensor::borrowed(call.get(field!(UpdateCall, value))),
                    gradient: Tensor::borrowed(call.get(field!(UpdateCall, gradient))),
                    states: states.iter().map(|&state| Tensor::borrowed(state)).collect(),
                    step: call.get(field!(UpdateCall, step)),
                    lr: call.get(field!(UpdateCall, lr)),
                    momentum: call.get(field!(UpdateCall, momentum)),
                    weight_decay: call.get(field!(UpdateCall, weight_decay)),
                };
                (update, call.get(field!(UpdateCall, outputs)).as_mut_slice())
            };
            let Updated { value, states } = method.0.step(&update)?;
            if states.len() != update.states.len() || outputs.len() != 1 + states.len() {
                let (given, kept) = (states.len(), update.states.len());
                return Err(Error::new(format!("an update gives each state anew: {given} came, and there are {kept}")));
            }
            for (place, tensor) in outputs.iter_mut().zip(std::iter::once(value).chain(states)) {
                *place = tensor.give()?;
            }
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    instance(
        AsOptimizer(optimizer),
        const {
            &OptimizerVtable {
                base: base::<AsOptimizer<O>>(size_of::<OptimizerVtable>()),
                momentum: Some(momentum::<O>),
                states: Some(states::<O>),
                step: Some(step::<O>),
            }
        },
    )
}
