//! Calls on a task head.

use std::sync::Arc;

use fthost_autograd::{Layout, Tape, Tensor, Value};
use fthost_plugin_api::abi::tables::{HeadCall, Slice, Status, Str, TaskHeadVtable};
use fthost_plugin_api::{HeadSpec, TaskInfo};

use super::{Instance, State, Stateful, json_answer, json_text};
use crate::Result;
use crate::adapted::AdaptedModel;
use crate::plugin::Plugin;
use crate::plugin::bridge::session::{Declares, Failure, Scope, Session, check};

/// A task head made from options.
#[derive(Debug)]
pub struct HeadInstance(Instance<TaskHeadVtable>);

type Function = unsafe extern "C" fn(*const std::ffi::c_void, *const HeadCall) -> Status;

impl HeadInstance {
    /// Makes an instance of the plugin's task head `name`.
    ///
    /// # Errors
    /// Where the plugin has none of that name, or refuses the options.
    pub fn create(plugin: &Plugin, name: &str, config: &serde_json::Value) -> Result<Self> {
        Instance::create(plugin, name, config).map(Self)
    }

    /// Lets it declare its parameters; says what it reads. `index` is the task's place in the run file.
    pub fn attach(&mut self, task: &TaskInfo, model: &mut AdaptedModel, index: usize) -> Result<HeadSpec> {
        self.0.run = Some(Arc::clone(model.handles()));
        let prefix = if model.tasks > 1 { format!("{}.", task.name) } else { String::new() };
        let declares = Declares::Head { task: index, prefix };
        self.0.call("attach", Scope { model: Some(model), declares, ..Scope::default() }, |_| {
            let task = json_text(task)?;
            // SAFETY: the plugin's own function on its own instance; the text lives for the call.
            json_answer(|sink| unsafe { (self.0.vtable.attach)(self.0.data, Str::new(&task), sink) })
        })
    }

    /// From features to outputs. `layout` is that of `[tokens, width]` features.
    pub fn forward(&self, tape: &Tape, features: &Value, layout: &Layout) -> Result<Value> {
        self.run("forward", tape, |session| {
            let call = Arguments { offsets: layout.offsets(), ..Arguments::new(session.lend(features.clone())) };
            self.raw(session, self.0.vtable.forward, &call).map(|(outputs, _)| outputs)
        })
    }

    /// The sum of the loss terms and the sum of their weights. `support` marks the support rows of an episode.
    pub fn loss(&self, tape: &Tape, outputs: &Value, targets: &Tensor, support: &[u8]) -> Result<(Value, f64)> {
        self.run("loss", tape, |session| {
            let (outputs, targets) = (session.lend(outputs.clone()), session.lend(Value::constant(targets.clone())));
            let call = Arguments { targets, support, ..Arguments::new(outputs) };
            let (sum, weight) = self.raw(session, self.0.vtable.loss, &call)?;
            if sum.tensor().elem_count() != 1 {
                return Err(Failure::Answer(format!("a loss must be a scalar, and this has shape {:?}", sum.dims())));
            }
            if !(weight.is_finite() && weight >= 0.0) {
                return Err(Failure::Answer(format!(
                    "the weight of the loss must be a number from 0 up, not {weight}"
                )));
            }
            Ok((sum, weight))
        })
    }

    /// Lets it take what it predicts by from the outputs of training examples and their targets.
    pub fn fit(&mut self, model: &mut AdaptedModel, outputs: &Tensor, targets: &Tensor) -> Result<()> {
        self.0.call("fit", Scope { model: Some(model), ..Scope::default() }, |session| {
            let lend = |tensor: &Tensor| session.lend(Value::constant(tensor.clone()));
            let with = Arguments { targets: lend(targets), ..Arguments::new(lend(outputs)) };
            let call = with.call(std::ptr::null_mut(), std::ptr::null_mut());
            // SAFETY: the plugin's own function on its own instance; the call lives for it.
            check(unsafe { (self.0.vtable.fit)(self.0.data, &raw const call) })
        })
    }

    /// From outputs to probabilities or values.
    pub fn predict(&self, tape: &Tape, outputs: &Value) -> Result<Tensor> {
        self.predictions(tape, outputs).map(Value::into_tensor)
    }

    /// As [`predict`](Self::predict), recorded on the tape.
    pub fn predictions(&self, tape: &Tape, outputs: &Value) -> Result<Value> {
        self.run("predict", tape, |session| {
            let call = Arguments::new(session.lend(outputs.clone()));
            self.raw(session, self.0.vtable.predict, &call).map(|(predictions, _)| predictions)
        })
    }

    fn run<T>(&self, what: &str, tape: &Tape, body: impl FnOnce(&Session) -> Result<T, Failure>) -> Result<T> {
        self.0.call(what, Scope { tape: Some(tape), ..Scope::default() }, body)
    }

    fn raw(&self, session: &Session, function: Function, with: &Arguments<'_>) -> Result<(Value, f64), Failure> {
        let (mut output, mut weight) = (0, 0.0);
        let call = with.call(&raw mut output, &raw mut weight);
        // SAFETY: the plugin's own function on its own instance; the call and its slices live for the call, and its results may
        // be written.
        check(unsafe { function(self.0.data, &raw const call) })?;
        Ok((session.take(output)?, weight))
    }
}

impl Stateful for HeadInstance {
    fn save(&self) -> Result<State> {
        self.0.save()
    }

    fn load(&mut self, state: &State) -> Result<()> {
        self.0.load(state)
    }
}

/// What one call of a head takes.
struct Arguments<'a> {
    tensor: u64,
    targets: u64,
    offsets: &'a [u32],
    support: &'a [u8],
}

impl Arguments<'_> {
    fn new(tensor: u64) -> Self {
        Self { tensor, targets: 0, offsets: &[], support: &[] }
    }

    /// As it crosses; valid as long as `self`.
    fn call(&self, output: *mut u64, weight: *mut f64) -> HeadCall {
        HeadCall {
            tensor: self.tensor,
            targets: self.targets,
            offsets: Slice::new(self.offsets),
            support: Slice::new(self.support),
            output,
            weight,
        }
    }
}
