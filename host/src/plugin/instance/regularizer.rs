//! Calls on a regularizer.

use std::sync::Arc;

use fthost_autograd::{Tape, Value};
use fthost_plugin_api::abi::calls::HeadCall;
use fthost_plugin_api::abi::growth::Grows;
use fthost_plugin_api::abi::tables::{RegularizerVtable, Slice, SliceMut};
use fthost_plugin_api::{Event, field};

use super::{Instance, State, Stateful};
use crate::Result;
use crate::adapted::AdaptedModel;
use crate::plugin::bridge::results;
use crate::plugin::bridge::session::{Failure, Scope, Session, check};
use crate::plugin::{ExampleGradients, Plugin};

/// A regularizer made from options.
#[derive(Debug)]
pub struct RegularizerInstance(Instance<RegularizerVtable>);

impl RegularizerInstance {
    /// Makes an instance of the plugin's regularizer `name`.
    ///
    /// # Errors
    /// Where the plugin has none of that name, or refuses the options.
    pub fn create(plugin: &Plugin, name: &str, config: &serde_json::Value) -> Result<Self> {
        Instance::create(plugin, name, config).map(Self)
    }

    /// The method's name.
    pub fn name(&self) -> &str {
        self.0.caller.method()
    }

    /// Shows it the model, after all strategies and heads have attached.
    pub fn attach(&mut self, model: &mut AdaptedModel) -> Result<()> {
        self.0.run = Some(Arc::clone(model.handles()));
        let Some(attach) = self.0.vtable.get(field!(RegularizerVtable, attach)) else { return Ok(()) };
        let scope = Scope { model: Some(model), ..Scope::default() };
        // SAFETY: the plugin's own function on its own instance.
        self.0.call("attach", scope, |_| check(unsafe { attach(self.0.data) }))
    }

    /// The penalty on parameters, a scalar, where there is one now.
    pub fn penalty(&self, tape: &Tape) -> Result<Option<Value>> {
        let Some(penalty) = self.0.vtable.get(field!(RegularizerVtable, penalty)) else { return Ok(None) };
        self.0.call("penalty", Scope { tape: Some(tape), ..Scope::default() }, |session| {
            let mut handle = 0;
            // SAFETY: the plugin's own function on its own instance; `handle` may be written.
            check(unsafe { penalty(self.0.data, &raw mut handle) })?;
            scalar(session, handle)
        })
    }

    /// Whether it holds what the heads of earlier tasks say.
    pub fn needs_reference(&self) -> Result<bool> {
        let Some(needs_reference) = self.0.vtable.get(field!(RegularizerVtable, needs_reference)) else {
            return Ok(false);
        };
        self.0.call("needs_reference", Scope::default(), |_| {
            let mut answer = 0;
            // SAFETY: the plugin's own function on its own instance; `answer` may be written.
            check(unsafe { needs_reference(self.0.data, &raw mut answer) })?;
            results::yes_or_no(answer).map_err(Failure::Answer)
        })
    }

    /// The penalty on a micro-batch's outputs, a scalar summed over its rows.
    pub fn output_penalty(&self, tape: &Tape, outputs: &Value, reference: &Value) -> Result<Option<Value>> {
        let Some(output_penalty) = self.0.vtable.get(field!(RegularizerVtable, output_penalty)) else {
            return Ok(None);
        };
        self.0.call("output_penalty", Scope { tape: Some(tape), ..Scope::default() }, |session| {
            let (lent, then) = (outputs, reference);
            let (outputs, reference) = ([session.lend(lent.clone())], [session.lend(then.clone())]);
            let mut result = [0];
            let call = HeadCall {
                tensors: Slice::new(&outputs),
                targets: Slice::new(&reference),
                outputs: SliceMut::new(&mut result),
                ..HeadCall::EMPTY
            };
            // SAFETY: the plugin's own function on its own instance; the call and its slices live for the call, and its result may be
            // written.
            check(unsafe { output_penalty(self.0.data, &raw const call) })?;
            let penalty = scalar(session, result[0])?;
            if self.0.is_traced()
                && let Some(penalty) = &penalty
            {
                results::stays_finite([lent, then], penalty).map_err(Failure::Answer)?;
            }
            Ok(penalty)
        })
    }

    /// Tells it what happened; with `gradients` it may measure.
    pub fn event(
        &mut self,
        event: &Event,
        model: &mut AdaptedModel,
        gradients: Option<&mut dyn ExampleGradients>,
    ) -> Result<()> {
        self.0.event(event, model, gradients)
    }
}

/// As errors name it.
impl std::fmt::Display for RegularizerInstance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl Stateful for RegularizerInstance {
    fn save(&self) -> Result<State> {
        self.0.save()
    }

    fn load(&mut self, state: &State) -> Result<()> {
        self.0.load(state)
    }
}

/// A penalty that may be absent and must be a scalar.
fn scalar(session: &Session, handle: u64) -> Result<Option<Value>, Failure> {
    let Some(value) = session.take_optional(handle)? else { return Ok(None) };
    results::scalar(&value, "a penalty").map_err(Failure::Answer)?;
    Ok(Some(value))
}
