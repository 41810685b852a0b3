//! Instances: methods made from options, and the calls on them.

mod head;
mod regularizer;
mod scheduler;
mod strategy;

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;

use fthost_autograd::{Tensor, Value};
use fthost_plugin_api::MethodKind;
use fthost_plugin_api::abi::borrow::collect_text;
use fthost_plugin_api::abi::tables::{self, BaseVtable, Status, Str, TextSink};
use serde::{Deserialize, Serialize};

pub use self::head::HeadInstance;
pub use self::regularizer::RegularizerInstance;
pub use self::scheduler::SchedulerInstance;
pub use self::strategy::StrategyInstance;
use super::Plugin;
use super::bridge::session::{Caller, Failure, Scope, Session, check};
use crate::Result;
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
struct Instance<V: 'static> {
    caller: Arc<Caller>,
    data: *mut c_void,
    vtable: &'static V,
    /// The run it was attached to.
    run: Option<Arc<RunHandles>>,
}

// SAFETY: the API has all four traits be Send, and heads and regularizers, some of whose functions take `&self` on several threads, be
// Sync too: `forward`, `loss` and `predict`; `output_penalty`. The other calls take `&mut self` or come on the run's thread, which is what `[run thread]` asks.
unsafe impl<V> Send for Instance<V> {}
// SAFETY: as above.
unsafe impl Sync for Instance<tables::TaskHeadVtable> {}
// SAFETY: as above.
unsafe impl Sync for Instance<tables::RegularizerVtable> {}

/// The vtables, all of which begin with the common part.
///
/// # Safety
/// The type is `repr(C)`, its first field is a [`BaseVtable`], and a plugin's `create` gives it for this kind.
unsafe trait Vtable: 'static {
    const KIND: MethodKind;
}

// SAFETY: as the tables say.
unsafe impl Vtable for tables::StrategyVtable {
    const KIND: MethodKind = MethodKind::Strategy;
}
// SAFETY: as the tables say.
unsafe impl Vtable for tables::SchedulerVtable {
    const KIND: MethodKind = MethodKind::Scheduler;
}
// SAFETY: as the tables say.
unsafe impl Vtable for tables::RegularizerVtable {
    const KIND: MethodKind = MethodKind::Regularizer;
}
// SAFETY: as the tables say.
unsafe impl Vtable for tables::TaskHeadVtable {
    const KIND: MethodKind = MethodKind::TaskHead;
}

impl<V> fmt::Debug for Instance<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.caller)
    }
}

impl<V> Drop for Instance<V> {
    fn drop(&mut self) {
        // What a panic left half done is not touched again, not even to free it.
        if self.caller.poisoned() {
            return;
        }
        // SAFETY: every vtable begins with the common part, and nobody uses the instance any more.
        unsafe { ((*std::ptr::from_ref(self.vtable).cast::<BaseVtable>()).drop)(self.data) }
    }
}

impl<V: Vtable> Instance<V> {
    /// Makes an instance from options that fit the method's schema.
    fn create(plugin: &Plugin, name: &str, config: &serde_json::Value) -> Result<Self> {
        plugin.method(V::KIND, name)?;
        let caller = Caller::new(plugin.clone(), name);
        let config = config.to_string();
        let instance = caller.call(&"its options", Scope::default(), |_| {
            let mut instance = tables::Instance { data: std::ptr::null_mut(), vtable: std::ptr::null() };
            // SAFETY: the plugin's own function; the texts live for the call, and `instance` may be written.
            let status =
                unsafe { (plugin.api().create)(V::KIND.code(), Str::new(name), Str::new(&config), &raw mut instance) };
            check(status)?;
            // SAFETY: the plugin gives a table that lives as long as the process, or null; its first field is its size.
            let size = unsafe { instance.vtable.cast::<u32>().as_ref() };
            match size {
                Some(size) if *size as usize >= size_of::<V>() => Ok(instance),
                Some(size) => Err(Failure::Answer(format!("its table has {size} bytes, not {}", size_of::<V>()))),
                None => Err(Failure::Answer("it gave no table".to_owned())),
            }
        })?;
        // SAFETY: not null and big enough, checked above, and of this type by the promise of [`Vtable`].
        let vtable = unsafe { &*instance.vtable.cast::<V>() };
        Ok(Self { caller, data: instance.data, vtable, run: None })
    }

    fn base(&self) -> &'static BaseVtable {
        // SAFETY: every vtable begins with the common part.
        unsafe { &*std::ptr::from_ref(self.vtable).cast::<BaseVtable>() }
    }

    /// One call with what outlives it: the run's parameters, where the instance is attached.
    fn call<'a, T>(
        &'a self,
        what: &str,
        scope: Scope<'a>,
        body: impl FnOnce(&Session) -> Result<T, Failure>,
    ) -> Result<T> {
        self.caller.call(&what, Scope { run: self.run.as_ref(), ..scope }, body)
    }

    fn save(&self) -> Result<State> {
        self.call("save", Scope::default(), |session| {
            // SAFETY: the plugin's own function on its own instance.
            let state: WireState = json_answer(|sink| unsafe { (self.base().save)(self.data, sink) })?;
            Ok(State { json: state.json, tensors: take_all(session, state.tensors)? })
        })
    }

    fn load(&mut self, state: &State) -> Result<()> {
        self.call("load", Scope::default(), |session| {
            let lend =
                |(name, tensor): (&String, &Tensor)| (name.clone(), session.hand_over(Value::constant(tensor.clone())));
            let state = WireState { json: state.json.clone(), tensors: state.tensors.iter().map(lend).collect() };
            let text = json_text(&state)?;
            // SAFETY: the plugin's own function on its own instance; the text lives for the call.
            check(unsafe { (self.base().load)(self.data, Str::new(&text)) })
        })
    }
}

/// The tensors of named results.
fn take_all(session: &Session, handles: BTreeMap<String, u64>) -> Result<BTreeMap<String, Tensor>, Failure> {
    let copy = |handle| {
        // A copy, because what was given may be a parameter's tensor, which changes in place.
        let copy = session.take(handle)?.tensor().copy().map_err(|error| Failure::Answer(error.to_string()))?;
        Ok(copy.detach())
    };
    handles.into_iter().map(|(name, handle)| Ok((name, copy(handle)?))).collect()
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
