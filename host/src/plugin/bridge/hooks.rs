//! A plugin's hooks as the model's: each call inside a forward pass is a session of its own.

use std::ffi::c_void;
use std::sync::Arc;

use fthost_autograd::{Layout, Tape, Value};
use fthost_models::{AttentionHook, BlockHook, EmbeddingHook, Hook, LinearHook, Prefix, Prompt};
use fthost_plugin_api::abi::calls::HookCall;
use fthost_plugin_api::abi::growth::{Grows, Theirs};
use fthost_plugin_api::abi::tables::{HookVtable, Slice, SliceMut, Status, hook_kind};
use fthost_plugin_api::field;

use super::session::{self, Caller, Scope, Site, What, check};
use crate::handles::RunHandles;

/// A hook of a plugin at one site.
pub(super) struct Bridge {
    caller: Arc<Caller>,
    run: Option<Arc<RunHandles>>,
    site: Site,
    data: *mut c_void,
    vtable: Theirs<'static, HookVtable>,
    forward: Function,
    /// By how many positions an attention hook shifts the tokens of a text.
    position_shift: usize,
}

// SAFETY: the API has hooks be Send and Sync: `forward` and `input` may come from several threads at once. The other functions
// come on the run's thread, which owns the model that owns the hook.
unsafe impl Send for Bridge {}
// SAFETY: as above.
unsafe impl Sync for Bridge {}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(drop) = self.vtable.get(field!(HookVtable, drop)) {
            let _noted = self.caller.enter(self.what("drop"));
            // SAFETY: the host owns `data`, nobody uses it any more, and the vtable was made for it.
            unsafe { drop(self.data) }
        }
    }
}

type Function = unsafe extern "C" fn(*const c_void, *const HookCall) -> Status;

impl Bridge {
    /// Takes a hook over. Dropping the bridge frees it.
    pub(super) fn new(site: &str, data: *mut c_void, vtable: Theirs<'static, HookVtable>) -> Result<Self, String> {
        let (caller, run) = session::who()?;
        let forward = vtable.need(field!(HookVtable, forward)).map_err(|error| error.to_string())?;
        Ok(Self { caller, run, site: Site::new(site), data, vtable, forward, position_shift: 0 })
    }

    /// The hook under its kind's name in the model.
    pub(super) fn into_hook(mut self, kind: u32) -> Result<Hook, String> {
        self.position_shift = self.asked_position_shift().map_err(|error| error.to_string())?;
        Ok(match kind {
            hook_kind::LINEAR => Hook::Linear(Arc::new(self)),
            hook_kind::BLOCK => Hook::Block(Arc::new(self)),
            hook_kind::EMBEDDINGS => Hook::Embeddings(Arc::new(self)),
            hook_kind::ATTENTION => Hook::Attention(Arc::new(self)),
            other => return Err(format!("there is no kind {other} of hooks; this host knows 1 to 4")),
        })
    }

    fn asked_position_shift(&self) -> crate::Result<usize> {
        let Some(function) = self.vtable.get(field!(HookVtable, position_shift)) else { return Ok(0) };
        let mut shift = 0;
        self.caller.call(self.what("position_shift"), Scope::default(), |_| {
            // SAFETY: `data` fits the vtable, and the result may be written.
            check(unsafe { function(self.data, &raw mut shift) })
        })?;
        Ok(shift as usize)
    }

    fn what(&self, call: &'static str) -> What<'_> {
        What { call, site: Some(&self.site) }
    }

    /// One call: inputs in, `N` results out, the first `required` of which must be there.
    fn call<const I: usize, const N: usize>(
        &self,
        what: &'static str,
        function: Function,
        tape: &Tape,
        inputs: [Value; I],
        layout: Option<&Layout>,
        flags: &mut [i64],
    ) -> fthost_autograd::Result<[Option<Value>; N]> {
        let scope = Scope { tape: Some(tape), run: self.run.as_ref(), ..Scope::default() };
        let answer = self.caller.call(self.what(what), scope, |session| {
            let inputs = inputs.map(|value| session.lend(value));
            let mut outputs = [0; N];
            let call = HookCall {
                inputs: Slice::new(&inputs),
                offsets: Slice::new(layout.map_or(&[], Layout::offsets)),
                outputs: SliceMut::new(&mut outputs),
                flags: SliceMut::new(flags),
                ..HookCall::EMPTY
            };
            // SAFETY: `data` fits the vtable, the call and its slices live for the call, and the results are its alone.
            check(unsafe { function(self.data, &raw const call) })?;
            let mut results = [const { None }; N];
            for (result, handle) in results.iter_mut().zip(outputs) {
                *result = session.take_optional(handle)?;
            }
            Ok(results)
        });
        answer.map_err(|error| fthost_autograd::Error::Msg(error.to_string()))
    }

    /// A result that must be there and have the shape of what it replaces.
    fn required(&self, value: Option<Value>, like: &[usize]) -> fthost_autograd::Result<Value> {
        match value {
            Some(value) if value.dims() == like => Ok(value),
            Some(value) => candle_core::bail!(
                "{} failed at {}: its hook gave shape {:?} where {like:?} is needed",
                self.caller,
                self.site,
                value.dims()
            ),
            None => candle_core::bail!("{} failed at {}: its hook gave no tensor", self.caller, self.site),
        }
    }
}

impl LinearHook for Bridge {
    fn input(&self, tape: &Tape, x: &Value) -> fthost_autograd::Result<Option<Value>> {
        let Some(function) = self.vtable.get(field!(HookVtable, input)) else { return Ok(None) };
        let [input] = self.call("its input hook", function, tape, [x.clone()], None, &mut [])?;
        input.map(|input| self.required(Some(input), x.dims())).transpose()
    }

    fn forward(&self, tape: &Tape, x: &Value, y: Value, weight: &Value) -> fthost_autograd::Result<Value> {
        let like = y.dims().to_vec();
        let inputs = [x.clone(), y, weight.clone()];
        let [output] = self.call("its linear hook", self.forward, tape, inputs, None, &mut [])?;
        self.required(output, &like)
    }

    fn merge(&self, tape: &Tape, weight: &Value) -> fthost_autograd::Result<Option<Value>> {
        let Some(function) = self.vtable.get(field!(HookVtable, merge)) else { return Ok(None) };
        let [merged] = self.call("its merge", function, tape, [weight.clone()], None, &mut [])?;
        merged.map(|merged| self.required(Some(merged), weight.dims())).transpose()
    }

    fn merge_bias(&self, tape: &Tape, bias: &Value) -> fthost_autograd::Result<Option<Value>> {
        let Some(function) = self.vtable.get(field!(HookVtable, merge_bias)) else { return Ok(None) };
        let [merged] = self.call("its merge of the bias", function, tape, [bias.clone()], None, &mut [])?;
        merged.map(|merged| self.required(Some(merged), bias.dims())).transpose()
    }
}

impl BlockHook for Bridge {
    fn forward(&self, tape: &Tape, x: Value, residual: &Value) -> fthost_autograd::Result<Value> {
        let like = x.dims().to_vec();
        let [output] = self.call("its block hook", self.forward, tape, [x, residual.clone()], None, &mut [])?;
        self.required(output, &like)
    }
}

impl EmbeddingHook for Bridge {
    fn forward(
        &self,
        tape: &Tape,
        embeddings: Value,
        layout: &Layout,
    ) -> fthost_autograd::Result<(Value, Option<Prompt>)> {
        let like = embeddings.dims().to_vec();
        let mut flags = [0];
        let [output, prompt] =
            self.call("its embedding hook", self.forward, tape, [embeddings], Some(layout), &mut flags)?;
        let prompt = prompt.map(|rows| Prompt { rows, pool_first_token: flags[0] != 0 });
        Ok((self.required(output, &like)?, prompt))
    }
}

impl AttentionHook for Bridge {
    fn forward(
        &self,
        tape: &Tape,
        keys: Value,
        values: Value,
        layout: &Layout,
    ) -> fthost_autograd::Result<(Value, Value, Option<Prefix>)> {
        let like = keys.dims().to_vec();
        let [keys, values, prefix_keys, prefix_values] =
            self.call("its attention hook", self.forward, tape, [keys, values], Some(layout), &mut [])?;
        let prefix = match (prefix_keys, prefix_values) {
            (Some(keys), Some(values)) => Some(Prefix { keys, values }),
            (None, None) => None,
            _ => candle_core::bail!("{} failed at {}: a prefix needs keys and values", self.caller, self.site),
        };
        Ok((self.required(keys, &like)?, self.required(values, &like)?, prefix))
    }

    fn position_shift(&self) -> usize {
        self.position_shift
    }
}
