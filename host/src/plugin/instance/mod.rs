//! Instances: methods made from options, and the calls on them.

mod answers;
mod head;
mod optimizer;
mod regularizer;
mod scheduler;
mod strategy;

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;

use fthost_autograd::{Tensor, Value};
use fthost_plugin_api::abi::borrow::collect_text;
use fthost_plugin_api::abi::draft::optimizer::{OPTIMIZER, OptimizerExtension, OptimizerVtable};
use fthost_plugin_api::abi::growth::{Field, Grows, Theirs};
use fthost_plugin_api::abi::tables::{self, BaseVtable, PluginApi, Status, Str, TextSink};
use fthost_plugin_api::{Event, MethodKind, field};
use serde::{Deserialize, Serialize};

pub use self::head::HeadInstance;
#[cfg(test)]
pub(in crate::plugin) use self::head::of_this_model;
pub use self::optimizer::OptimizerInstance;
pub use self::regularizer::RegularizerInstance;
pub use self::scheduler::SchedulerInstance;
pub use self::strategy::StrategyInstance;
use super::bridge::session::{Caller, Failure, Scope, Session, View, check};
use super::{ExampleGradients, Plugin};
use crate::Result;
use crate::adapted::AdaptedModel;
use crate::handles::RunHandles;

/// What an instance needs, beyond its parameters, to go on in another process.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Whatever the plugin wrote.
    pub json: serde_json::Value,
    /// Named tensors.
    pub tensors: BTreeMap<String, Tensor>,
}

impl State {
    /// Whether there is nothing to save.
    pub fn is_empty(&self) -> bool {
        self.json.is_null() && self.tensors.is_empty()
    }
}

/// What every instance can: give its state for a checkpoint, and take it back after it was attached.
pub trait Stateful {
    /// Its state beyond parameters.
    fn save(&self) -> Result<State>;

    /// Takes a state back.
    fn load(&mut self, state: &State) -> Result<()>;
}

/// A saved state on the wire.
#[derive(Serialize, Deserialize)]
struct WireState {
    #[serde(default)]
    json: serde_json::Value,
    #[serde(default)]
    tensors: BTreeMap<String, u64>,
}

/// An instance of a method whose functions stand in a `V`.
struct Instance<V: Vtable> {
    caller: Arc<Caller>,
    data: *mut c_void,
    vtable: Theirs<'static, V>,
    /// The run it was attached to.
    run: Option<Arc<RunHandles>>,
    /// The stream of the model that it sees alone.
    stream: Option<usize>,
}

// SAFETY: the API has all four traits be Send, and heads and regularizers, some of whose functions take `&self` on several threads, be
// Sync too: `forward`, `loss` and `predict`; `output_penalty`. The other calls take `&mut self` or come on the run's thread, which is what `[run thread]` asks.
unsafe impl<V: Vtable> Send for Instance<V> {}
// SAFETY: as above.
unsafe impl Sync for Instance<tables::TaskHeadVtable> {}
// SAFETY: as above.
unsafe impl Sync for Instance<tables::RegularizerVtable> {}

/// The vtables, all of which begin with the common part.
///
/// # Safety
/// The type is `repr(C)`, its first field is a [`BaseVtable`], and a plugin's `create` gives it for this kind.
pub(in crate::plugin) unsafe trait Vtable: Grows + 'static {
    const KIND: MethodKind;

    /// How a plugin makes an instance.
    fn make(plugin: &Plugin) -> Result<Make, Failure> {
        let create = needed(plugin.api(), field!(PluginApi, create))?;
        // SAFETY: the plugin's own function, whose texts live for the call and whose result may be written.
        Ok(Box::new(move |name, config, out| unsafe { create(Self::KIND.code(), name, config, out) }))
    }

    /// Of each function that nothing of the kind can do without, that it is there, or by its name that it is null.
    fn required(table: Theirs<'static, Self>) -> Vec<fthost_plugin_api::Result<()>>;
}

/// How a plugin makes instances of a kind.
///
/// # Errors
/// Where it does not say how.
pub(in crate::plugin) fn make(plugin: &Plugin, kind: MethodKind) -> Result<Make, String> {
    let make = match kind {
        MethodKind::Strategy => tables::StrategyVtable::make(plugin),
        MethodKind::Scheduler => tables::SchedulerVtable::make(plugin),
        MethodKind::Regularizer => tables::RegularizerVtable::make(plugin),
        MethodKind::TaskHead => tables::TaskHeadVtable::make(plugin),
        MethodKind::Optimizer => OptimizerVtable::make(plugin),
    };
    make.map_err(|failure| match failure {
        Failure::Answer(text) => text,
        Failure::Status(status) => format!("status {status}"),
    })
}

/// Makes an instance of the method of this name from these options, and writes it.
pub(in crate::plugin) type Make = Box<dyn Fn(Str, Str, *mut tables::Instance) -> Status>;

// SAFETY: as the tables say.
unsafe impl Vtable for tables::StrategyVtable {
    const KIND: MethodKind = MethodKind::Strategy;

    fn required(table: Theirs<'static, Self>) -> Vec<fthost_plugin_api::Result<()>> {
        vec![table.need(field!(tables::StrategyVtable, attach)).map(drop)]
    }
}
// SAFETY: as the tables say.
unsafe impl Vtable for tables::SchedulerVtable {
    const KIND: MethodKind = MethodKind::Scheduler;

    fn required(table: Theirs<'static, Self>) -> Vec<fthost_plugin_api::Result<()>> {
        vec![table.need(field!(tables::SchedulerVtable, rate)).map(drop)]
    }
}
// SAFETY: as the tables say.
unsafe impl Vtable for tables::RegularizerVtable {
    const KIND: MethodKind = MethodKind::Regularizer;

    /// It may have a penalty on parameters or on outputs, or hear of events alone.
    fn required(_: Theirs<'static, Self>) -> Vec<fthost_plugin_api::Result<()>> {
        Vec::new()
    }
}
// SAFETY: as its table says.
unsafe impl Vtable for OptimizerVtable {
    const KIND: MethodKind = MethodKind::Optimizer;

    fn make(plugin: &Plugin) -> Result<Make, Failure> {
        let get_extension = needed(plugin.api(), field!(PluginApi, get_extension))?;
        // SAFETY: the plugin's own function; under this name it gives an `OptimizerExtension` that lives as long as the process, or null.
        let table = unsafe { Theirs::new(get_extension(Str::new(OPTIMIZER)).cast::<OptimizerExtension>()) };
        let table = table.map_err(|error| Failure::Answer(error.to_string()))?;
        let create = needed(table, field!(OptimizerExtension, create))?;
        // SAFETY: the plugin's own function, whose texts live for the call and whose result may be written.
        Ok(Box::new(move |name, config, out| unsafe { create(name, config, out) }))
    }

    fn required(table: Theirs<'static, Self>) -> Vec<fthost_plugin_api::Result<()>> {
        vec![table.need(field!(OptimizerVtable, step)).map(drop)]
    }
}
// SAFETY: as the tables say.
unsafe impl Vtable for tables::TaskHeadVtable {
    const KIND: MethodKind = MethodKind::TaskHead;

    fn required(table: Theirs<'static, Self>) -> Vec<fthost_plugin_api::Result<()>> {
        vec![
            table.need(field!(tables::TaskHeadVtable, attach)).map(drop),
            table.need(field!(tables::TaskHeadVtable, forward)).map(drop),
            table.need(field!(tables::TaskHeadVtable, loss)).map(drop),
            table.need(field!(tables::TaskHeadVtable, predict)).map(drop),
        ]
    }
}

impl<V: Vtable> fmt::Debug for Instance<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.caller)
    }
}

impl<V: Vtable> Drop for Instance<V> {
    fn drop(&mut self) {
        // What a panic left half done is not touched again, not even to free it.
        if self.caller.poisoned() {
            return;
        }
        if let Some(drop) = self.base().get(field!(BaseVtable, drop)) {
            let _noted = self.caller.enter("drop".into());
            // SAFETY: the plugin's own function, and nobody uses the instance any more.
            unsafe { drop(self.data) }
        }
    }
}

impl<V: Vtable> Instance<V> {
    /// Makes an instance from options that fit the method's schema.
    fn create(plugin: &Plugin, name: &str, config: &serde_json::Value) -> Result<Self> {
        plugin.method(V::KIND, name)?;
        let caller = Caller::new(plugin.clone(), name);
        let config = config.to_string();
        let made = caller.call("its options".into(), Scope::default(), |_| {
            let make = V::make(plugin)?;
            let mut instance = tables::Instance { data: std::ptr::null_mut(), vtable: std::ptr::null() };
            check(make(Str::new(name), Str::new(&config), &raw mut instance))?;
            // SAFETY: the plugin gives a table of this kind, by the promise of [`Vtable`], that lives as long as the process, or null.
            let vtable = unsafe { Theirs::new(instance.vtable.cast::<V>()) };
            let vtable = vtable.map_err(|error| Failure::Answer(error.to_string()))?;
            // From here on it is ours to drop, whatever it lacks.
            let made = Self { caller: Arc::clone(&caller), data: instance.data, vtable, run: None, stream: None };
            let whole = V::required(vtable).into_iter().collect::<fthost_plugin_api::Result<()>>();
            whole.map(|()| made).map_err(|error| Failure::Answer(error.to_string()))
        })?;
        Ok(made)
    }
}

/// A function that a call cannot do without.
fn needed<T: Grows, F: Copy>(table: Theirs<'static, T>, field: Field<T, Option<F>>) -> Result<F, Failure> {
    table.need(field).map_err(|error| Failure::Answer(error.to_string()))
}

impl<V: Vtable> Instance<V> {
    fn base(&self) -> Theirs<'static, BaseVtable> {
        // SAFETY: every vtable begins with the common part.
        unsafe { self.vtable.prefix() }
    }

    /// A function of its table that there must be.
    fn need<F: Copy>(&self, field: Field<V, Option<F>>) -> Result<F, Failure> {
        needed(self.vtable, field)
    }

    /// Tells it what happened, where it listens: it may change the model, and with `gradients` measure.
    fn event(
        &mut self,
        event: &Event,
        model: &mut AdaptedModel,
        gradients: Option<&mut dyn ExampleGradients>,
    ) -> Result<()> {
        if let (Event::StepBegin { step, .. }, Some(run)) = (event, &self.run) {
            run.begin_step(*step);
        }
        let Some(hear) = self.base().get(field!(BaseVtable, event)) else { return Ok(()) };
        let gradients = gradients.map(|gradients| gradients as &mut dyn ExampleGradients);
        let view = View { stream: self.stream, ..View::default() };
        let scope = Scope { model: Some(model), gradients, view, ..Scope::default() };
        self.call("an event", scope, |_| {
            let text = json_text(event)?;
            // SAFETY: the plugin's own function on its own instance; the text lives for the call.
            check(unsafe { hear(self.data, Str::new(&text)) })
        })
    }

    /// Whether calls look for the first number that is none.
    fn is_traced(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.is_traced())
    }

    /// One call with what outlives it: the run's parameters, where the instance is attached.
    fn call<'a, T>(
        &'a self,
        what: &'static str,
        scope: Scope<'a>,
        body: impl FnOnce(&Session) -> Result<T, Failure>,
    ) -> Result<T> {
        self.caller.call(what.into(), Scope { run: self.run.as_ref(), ..scope }, body)
    }

    fn save(&self) -> Result<State> {
        let Some(save) = self.base().get(field!(BaseVtable, save)) else { return Ok(State::default()) };
        self.call("save", Scope::default(), |session| {
            // SAFETY: the plugin's own function on its own instance.
            let state: WireState = json_answer(|sink| unsafe { save(self.data, sink) })?;
            Ok(State { json: state.json, tensors: take_all(session, state.tensors)? })
        })
    }

    fn load(&self, state: &State) -> Result<()> {
        let Some(load) = self.base().get(field!(BaseVtable, load)) else { return Ok(()) };
        self.call("load", Scope::default(), |session| {
            let lend =
                |(name, tensor): (&String, &Tensor)| (name.clone(), session.hand_over(Value::constant(tensor.clone())));
            let state = WireState { json: state.json.clone(), tensors: state.tensors.iter().map(lend).collect() };
            let text = json_text(&state)?;
            // SAFETY: the plugin's own function on its own instance; the text lives for the call.
            check(unsafe { load(self.data, Str::new(&text)) })
        })
    }
}

/// The tensors of named results.
fn take_all(session: &Session, handles: BTreeMap<String, u64>) -> Result<BTreeMap<String, Tensor>, Failure> {
    let copy = |name: &str, handle| {
        let named = |text: String| Failure::Answer(format!("its tensor {name:?}: {text}"));
        let taken = session.take(handle).map_err(|failure| match failure {
            Failure::Answer(text) => named(text),
            other => other,
        })?;
        if name.is_empty() {
            return Err(named("a tensor needs a name".to_owned()));
        }
        // A copy, because what was given may be a parameter's tensor, which changes in place.
        let copy = taken.tensor().copy().map_err(|error| named(error.to_string()))?;
        Ok(copy.detach())
    };
    handles.into_iter().map(|(name, handle)| copy(&name, handle).map(|tensor| (name, tensor))).collect()
}

/// Text of something for the plugin.
fn json_text(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::Answer(error.to_string()))
}

/// A call that answers in JSON.
fn json_answer<T: for<'de> Deserialize<'de>>(call: impl FnOnce(TextSink) -> Status) -> Result<T, Failure> {
    let (status, text) = collect_text(call);
    check(status)?;
    serde_json::from_str(&text).map_err(|error| Failure::Answer(format!("its answer does not read: {error}: {text}")))
}
