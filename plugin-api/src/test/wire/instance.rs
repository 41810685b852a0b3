//! An instance of a method, and the calls on it, through the functions of its table.

use std::{collections::BTreeMap, ffi::c_void, ptr, sync::Arc};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value as Json;

use crate::{
    Error, Evaluation, Group, Progress, Rate, Result, StateSpec,
    abi::{
        borrow::collect_text,
        calls::{self, HeadCall},
        draft::optimizer::{OptimizerVtable, UpdateCall},
        growth::{Grows, Theirs},
        tables::{
            self, BaseVtable, RegularizerVtable, SchedulerVtable, Slice, SliceMut, Status, Str, StrategyVtable,
            TaskHeadVtable, TextSink,
        },
    },
    field, later,
    test::{
        run::Run,
        session::{self, Declares, Scope},
        value::Value,
    },
};

/// The tables of methods, all of which begin with the common part.
///
/// # Safety
/// The type is `repr(C)`, and its first field is a [`BaseVtable`].
pub(crate) unsafe trait Kind: Grows + 'static {
    /// What it is called in errors.
    const WHAT: &'static str;
    /// Whether it may ask for gradients of single examples in its events.
    const MEASURES: bool;
}

// SAFETY: as the tables say.
unsafe impl Kind for StrategyVtable {
    const WHAT: &'static str = "the strategy";
    const MEASURES: bool = true;
}
// SAFETY: as the tables say.
unsafe impl Kind for SchedulerVtable {
    const WHAT: &'static str = "the scheduler";
    const MEASURES: bool = false;
}
// SAFETY: as the tables say.
unsafe impl Kind for RegularizerVtable {
    const WHAT: &'static str = "the regularizer";
    const MEASURES: bool = true;
}
// SAFETY: as the tables say.
unsafe impl Kind for TaskHeadVtable {
    const WHAT: &'static str = "the head";
    const MEASURES: bool = false;
}

// SAFETY: as its table says.
unsafe impl Kind for OptimizerVtable {
    const WHAT: &'static str = "the optimizer";
    const MEASURES: bool = false;
}

/// What an instance saved: JSON and tensors.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) json: Json,
    pub(crate) tensors: BTreeMap<String, Value>,
}

/// A saved state on the wire.
#[derive(Serialize, Deserialize)]
struct WireState {
    #[serde(default)]
    json: Json,
    #[serde(default)]
    tensors: BTreeMap<String, u64>,
}

/// An instance of a method.
pub(crate) struct Instance<V: Kind> {
    data: *mut c_void,
    vtable: Theirs<'static, V>,
}

impl<V: Kind> Drop for Instance<V> {
    fn drop(&mut self) {
        if let Some(drop) = self.base().get(field!(BaseVtable, drop)) {
            // SAFETY: the plugin's own function, and nobody uses the instance any more.
            unsafe { drop(self.data) }
        }
    }
}

/// A call that answers in JSON.
fn json_answer<T: DeserializeOwned>(call: impl FnOnce(TextSink) -> Status) -> Result<T> {
    let (status, text) = collect_text(call);
    session::check(status)?;
    serde_json::from_str(&text).map_err(|error| Error::new(format!("its answer does not read: {error}: {text}")))
}

impl<V: Kind> Instance<V> {
    /// Makes one. `make` reads the options, and is a call of its own.
    pub(crate) fn create(make: impl FnOnce() -> Result<tables::Instance>) -> Result<Self> {
        Self::called("its options", Scope::default(), || {
            let made = make()?;
            // SAFETY: this crate's `vtables` made it, with a static table of this kind.
            Ok(Self { data: made.data, vtable: unsafe { Theirs::new(made.vtable.cast::<V>()) }? })
        })
    }

    fn called<T>(what: &str, scope: Scope, body: impl FnOnce() -> Result<T>) -> Result<T> {
        session::call(what, scope, body).map_err(|error| error.context(V::WHAT))
    }

    fn base(&self) -> Theirs<'static, BaseVtable> {
        // SAFETY: every vtable begins with the common part.
        unsafe { self.vtable.prefix() }
    }

    /// One call that needs nothing but the run.
    fn call<T>(&self, what: &str, run: &Arc<Run>, body: impl FnOnce() -> Result<T>) -> Result<T> {
        Self::called(what, Scope { run: Some(Arc::clone(run)), ..Scope::default() }, body)
    }

    fn attached<T>(&self, run: &Arc<Run>, declares: Declares, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let scope = Scope { run: Some(Arc::clone(run)), model: true, declares, measures: false };
        Self::called("attach", scope, body)
    }

    /// Whatever it saves.
    pub(crate) fn save(&self, run: &Arc<Run>) -> Result<State> {
        let Some(save) = self.base().get(field!(BaseVtable, save)) else { return Ok(State::default()) };
        self.call("save", run, || {
            // SAFETY: the plugin's own function on its own instance.
            let state: WireState = json_answer(|sink| unsafe { save(self.data, sink) })?;
            let take = |(name, handle)| Ok((name, session::take(handle)?.detached()));
            Ok(State { json: state.json, tensors: state.tensors.into_iter().map(take).collect::<Result<_>>()? })
        })
    }

    /// Gives a state back to it.
    pub(crate) fn load(&self, run: &Arc<Run>, state: &State) -> Result<()> {
        let Some(load) = self.base().get(field!(BaseVtable, load)) else { return Ok(()) };
        self.call("load", run, || {
            let hand_over =
                |(name, value): (&String, &Value)| Ok((name.clone(), session::hand_over(value.clone(), "load")?));
            let tensors = state.tensors.iter().map(hand_over).collect::<Result<_>>()?;
            let text = serde_json::to_string(&WireState { json: state.json.clone(), tensors })?;
            // SAFETY: the plugin's own function on its own instance; the text lives for the call.
            session::check(unsafe { load(self.data, Str::new(&text)) })
        })
    }

    /// Tells it what happened, where it listens. `event` is an [`Event`](crate::Event) as it crosses.
    pub(crate) fn event(&self, run: &Arc<Run>, event: &Json) -> Result<()> {
        let Some(hear) = self.base().get(field!(BaseVtable, event)) else { return Ok(()) };
        let scope = Scope { run: Some(Arc::clone(run)), model: true, measures: V::MEASURES, ..Scope::default() };
        let text = event.to_string();
        Self::called(&format!("the event {text}"), scope, || {
            // SAFETY: the plugin's own function on its own instance; the text lives for the call.
            session::check(unsafe { hear(self.data, Str::new(&text)) })
        })
    }
}

impl Instance<StrategyVtable> {
    pub(crate) fn attach(&self, run: &Arc<Run>) -> Result<()> {
        let attach = self.vtable.need(field!(StrategyVtable, attach))?;
        // SAFETY: the plugin's own function on its own instance.
        self.attached(run, Declares::Strategy, || session::check(unsafe { attach(self.data) }))
    }

    pub(crate) fn starts_at_base(&self, run: &Arc<Run>) -> Result<bool> {
        let Some(function) = self.vtable.get(field!(StrategyVtable, starts_at_base)) else { return Ok(false) };
        self.call("starts_at_base", run, || {
            let mut answer = 0;
            // SAFETY: the plugin's own function on its own instance; `answer` may be written.
            session::check(unsafe { function(self.data, &raw mut answer) })?;
            Ok(answer != 0)
        })
    }

    pub(crate) fn adapter_config(&self, run: &Arc<Run>) -> Result<Option<Json>> {
        let Some(function) = self.vtable.get(field!(StrategyVtable, adapter_config)) else { return Ok(None) };
        // SAFETY: the plugin's own function on its own instance.
        self.call("adapter_config", run, || json_answer(|sink| unsafe { function(self.data, sink) }))
    }

    pub(crate) fn adapter_tensors(&self, run: &Arc<Run>) -> Result<Option<BTreeMap<String, Value>>> {
        let Some(function) = self.vtable.get(field!(StrategyVtable, adapter_tensors)) else { return Ok(None) };
        self.call("adapter_tensors", run, || {
            // SAFETY: the plugin's own function on its own instance.
            let handles: Option<BTreeMap<String, u64>> = json_answer(|sink| unsafe { function(self.data, sink) })?;
            let take = |(name, handle)| Ok((name, session::take(handle)?.detached()));
            handles.map(|handles| handles.into_iter().map(take).collect()).transpose()
        })
    }
}

impl Instance<SchedulerVtable> {
    pub(crate) fn rate(&self, progress: &Progress, group: &Group<'_>) -> Result<Rate> {
        let function = self.vtable.need(field!(SchedulerVtable, rate))?;
        Self::called(&format!("rate at step {}", progress.step), Scope::default(), || {
            let now = wire_progress(progress);
            let &Group { name, number, stream, lr, momentum } = group;
            let (name, number, stream) = (Str::new(name), number as u32, Str::new(stream));
            let of = calls::Group { number, name, stream, lr, momentum, ..calls::Group::EMPTY };
            // A rate that it does not write is none.
            let mut rate = calls::Rate { lr: f64::NAN, momentum, ..calls::Rate::EMPTY };
            // SAFETY: the plugin's own function on its own instance; the structs live for the call, and `rate` may be written.
            session::check(unsafe { function(self.data, &raw const now, &raw const of, &raw mut rate) })?;
            Ok(Rate { lr: rate.lr, momentum: rate.momentum })
        })
    }

    pub(crate) fn on_evaluation(&self, progress: &Progress, evaluation: &Evaluation<'_>) -> Result<()> {
        let Some(hear) = self.vtable.get(field!(SchedulerVtable, on_evaluation)) else { return Ok(()) };
        Self::called("on_evaluation", Scope::default(), || {
            let now = wire_progress(progress);
            let evaluation = calls::Evaluation {
                value: evaluation.value,
                metric: Str::new(evaluation.metric),
                higher_is_better: u32::from(evaluation.higher_is_better),
                task: Str::new(evaluation.task),
                ..calls::Evaluation::EMPTY
            };
            // SAFETY: the plugin's own function on its own instance; the structs live for the call.
            session::check(unsafe { hear(self.data, &raw const now, &raw const evaluation) })
        })
    }
}

fn wire_progress(progress: &Progress) -> calls::Progress {
    let &Progress { step, total_steps, steps_per_epoch } = progress;
    calls::Progress { step, total_steps, steps_per_epoch, ..calls::Progress::EMPTY }
}

/// A penalty that may be absent and must be a scalar.
fn scalar(handle: u64) -> Result<Option<Value>> {
    match session::take_optional(handle)? {
        Some(value) if value.data().len() != 1 => {
            Err(Error::new(format!("a penalty must be a scalar, and this has shape {:?}", value.shape())))
        }
        value => Ok(value),
    }
}

impl Instance<RegularizerVtable> {
    pub(crate) fn attach(&self, run: &Arc<Run>) -> Result<()> {
        let Some(attach) = self.vtable.get(field!(RegularizerVtable, attach)) else { return Ok(()) };
        // SAFETY: the plugin's own function on its own instance.
        self.attached(run, Declares::Nothing, || session::check(unsafe { attach(self.data) }))
    }

    pub(crate) fn penalty(&self, run: &Arc<Run>) -> Result<Option<Value>> {
        let Some(penalty) = self.vtable.get(field!(RegularizerVtable, penalty)) else { return Ok(None) };
        self.call("penalty", run, || {
            let mut handle = 0;
            // SAFETY: the plugin's own function on its own instance; `handle` may be written.
            session::check(unsafe { penalty(self.data, &raw mut handle) })?;
            scalar(handle)
        })
    }

    pub(crate) fn needs_reference(&self, run: &Arc<Run>) -> Result<bool> {
        let Some(function) = self.vtable.get(field!(RegularizerVtable, needs_reference)) else { return Ok(false) };
        self.call("needs_reference", run, || {
            let mut answer = 0;
            // SAFETY: the plugin's own function on its own instance; `answer` may be written.
            session::check(unsafe { function(self.data, &raw mut answer) })?;
            Ok(answer != 0)
        })
    }

    pub(crate) fn output_penalty(&self, run: &Arc<Run>, outputs: &Value, reference: &Value) -> Result<Option<Value>> {
        let Some(function) = self.vtable.get(field!(RegularizerVtable, output_penalty)) else { return Ok(None) };
        self.call("output_penalty", run, || {
            let (outputs, reference, mut result) = ([session::lend(outputs)], [session::lend(reference)], [0]);
            let call = HeadCall {
                tensors: Slice::new(&outputs),
                targets: Slice::new(&reference),
                outputs: SliceMut::new(&mut result),
                ..HeadCall::EMPTY
            };
            // SAFETY: the plugin's own function on its own instance; the call and its slices live for it, and its result may be written.
            session::check(unsafe { function(self.data, &raw const call) })?;
            scalar(result[0])
        })
    }
}

/// Which function of a head is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadFunction {
    Forward,
    Loss,
    Predict,
    Fit,
}

/// What it is given.
#[derive(Default)]
pub(crate) struct HeadInputs<'a> {
    pub(crate) tensors: &'a [&'a Value],
    pub(crate) offsets: &'a [&'a [u32]],
    pub(crate) targets: Option<&'a Value>,
    pub(crate) support: &'a [u8],
}

impl Instance<TaskHeadVtable> {
    /// Gives its [`HeadSpec`](crate::HeadSpec) as it crosses.
    pub(crate) fn attach(&self, run: &Arc<Run>, task: &Json) -> Result<Json> {
        let attach = self.vtable.need(field!(TaskHeadVtable, attach))?;
        let task = task.to_string();
        // SAFETY: the plugin's own function on its own instance; the text lives for the call.
        self.attached(run, Declares::Head, || json_answer(|sink| unsafe { attach(self.data, Str::new(&task), sink) }))
    }

    /// The first result and the weight that it wrote.
    pub(crate) fn head_call(
        &self,
        run: &Arc<Run>,
        function: HeadFunction,
        inputs: &HeadInputs<'_>,
    ) -> Result<(Option<Value>, f64)> {
        let (function, name) = match function {
            HeadFunction::Forward => (self.vtable.need(field!(TaskHeadVtable, forward))?, "forward"),
            HeadFunction::Loss => (self.vtable.need(field!(TaskHeadVtable, loss))?, "loss"),
            HeadFunction::Predict => (self.vtable.need(field!(TaskHeadVtable, predict))?, "predict"),
            HeadFunction::Fit => return self.fit(run, inputs),
        };
        self.call(name, run, || {
            let tensors: Vec<u64> = inputs.tensors.iter().map(|tensor| session::lend(tensor)).collect();
            let targets: Vec<u64> = inputs.targets.iter().map(|tensor| session::lend(tensor)).collect();
            let offsets: Vec<Slice<u32>> = inputs.offsets.iter().map(|offsets| Slice::new(offsets)).collect();
            let (mut results, mut weight) = ([0, 0], f64::NAN);
            let room = if name == "loss" { 2 } else { 1 };
            let call = HeadCall {
                tensors: Slice::new(&tensors),
                offsets: Slice::new(&offsets),
                targets: Slice::new(&targets),
                support: Slice::new(inputs.support),
                outputs: SliceMut::new(&mut results[..room]),
                weight: if name == "loss" { &raw mut weight } else { ptr::null_mut() },
                ..HeadCall::EMPTY
            };
            // SAFETY: the plugin's own function on its own instance; the call and its slices live for it, and its results may be written.
            session::check(unsafe { function(self.data, &raw const call) })?;
            if let Some(tensor) = session::take_optional(results[1])? {
                weight = tensor.data().first().copied().unwrap_or(f64::NAN);
            }
            session::take(results[0]).map(|value| (Some(value), weight))
        })
    }

    fn fit(&self, run: &Arc<Run>, inputs: &HeadInputs<'_>) -> Result<(Option<Value>, f64)> {
        let Some(fit) = self.vtable.get(field!(TaskHeadVtable, fit)) else { return Ok((None, 0.0)) };
        let scope = Scope { run: Some(Arc::clone(run)), model: true, ..Scope::default() };
        Self::called("fit", scope, || {
            let tensors: Vec<u64> = inputs.tensors.iter().map(|tensor| session::lend(tensor)).collect();
            let targets: Vec<u64> = inputs.targets.iter().map(|tensor| session::lend(tensor)).collect();
            let call = HeadCall { tensors: Slice::new(&tensors), targets: Slice::new(&targets), ..HeadCall::EMPTY };
            // SAFETY: the plugin's own function on its own instance; the call and its slices live for it.
            session::check(unsafe { fit(self.data, &raw const call) })?;
            Ok((None, 0.0))
        })
    }

    /// Its own metrics of all predictions of an evaluation, as they cross: null is no number.
    pub(crate) fn metrics(
        &self,
        run: &Arc<Run>,
        predictions: &Value,
        targets: &Value,
    ) -> Result<BTreeMap<String, Option<f64>>> {
        let metrics = self.vtable.need_later(later!(TaskHeadVtable, metrics))?;
        self.call("metrics", run, || {
            let (tensors, targets) = ([session::lend(predictions)], [session::lend(targets)]);
            let call = HeadCall { tensors: Slice::new(&tensors), targets: Slice::new(&targets), ..HeadCall::EMPTY };
            // SAFETY: the plugin's own function on its own instance; the call and its slices live for it.
            json_answer(|sink| unsafe { metrics(self.data, &raw const call, sink) })
        })
    }
}

/// What one update is made of.
pub(crate) struct UpdateInputs<'a> {
    pub(crate) name: &'a str,
    pub(crate) value: &'a Value,
    pub(crate) gradient: &'a Value,
    pub(crate) states: &'a [Value],
    pub(crate) step: u64,
    pub(crate) lr: f64,
    pub(crate) momentum: f64,
    pub(crate) weight_decay: f64,
}

impl Instance<OptimizerVtable> {
    pub(crate) fn momentum(&self, run: &Arc<Run>) -> Result<f64> {
        let Some(momentum) = self.vtable.get(field!(OptimizerVtable, momentum)) else { return Ok(0.0) };
        self.call("momentum", run, || {
            let mut answer = 0.0;
            // SAFETY: the plugin's own function on its own instance; `answer` may be written.
            session::check(unsafe { momentum(self.data, &raw mut answer) })?;
            Ok(answer)
        })
    }

    pub(crate) fn states(&self, run: &Arc<Run>, name: &str, shape: &[usize]) -> Result<Vec<StateSpec>> {
        let Some(states) = self.vtable.get(field!(OptimizerVtable, states)) else { return Ok(Vec::new()) };
        self.call("states", run, || {
            let dims: Vec<u64> = shape.iter().map(|&dim| dim as u64).collect();
            // SAFETY: the plugin's own function on its own instance; name and shape live for the call.
            json_answer(|sink| unsafe { states(self.data, Str::new(name), Slice::new(&dims), sink) })
        })
    }

    /// The new value and the new states; none is one that stays as it is.
    pub(crate) fn update(&self, run: &Arc<Run>, of: &UpdateInputs<'_>) -> Result<Vec<Option<Value>>> {
        let step = self.vtable.need(field!(OptimizerVtable, step))?;
        self.call(&format!("the update of {}", of.name), run, || {
            let states: Vec<u64> = of.states.iter().map(session::lend).collect();
            let mut outputs = vec![0; 1 + states.len()];
            let call = UpdateCall {
                name: Str::new(of.name),
                value: session::lend(of.value),
                gradient: session::lend(of.gradient),
                states: Slice::new(&states),
                step: of.step,
                lr: of.lr,
                momentum: of.momentum,
                weight_decay: of.weight_decay,
                outputs: SliceMut::new(&mut outputs),
                ..UpdateCall::EMPTY
            };
            // SAFETY: the plugin's own function on its own instance; the call and its slices live for it, and its results may be written.
            session::check(unsafe { step(self.data, &raw const call) })?;
            outputs.into_iter().map(session::take_optional).collect()
        })
    }
}
