//! Tensors and parameters as the plugin names them, by handles.

use fthost_autograd::{Device, Parameter, Tape, Tensor, Value};

use super::kept;
use super::stack::{CALLS, innermost, insert, who, with_tape};
use crate::error::plain;
use crate::handles::{Handle, Invalid};
use crate::plugin::probe;

/// Runs an op on the values of these handles; 0 is an absent one. Gives the handles of the results.
pub(in crate::plugin::bridge) fn run_op(
    inputs: &[u64],
    outputs: &mut [u64],
    run: impl FnOnce(&Tape, &[Option<Value>]) -> Result<Results, String>,
) -> Result<(), String> {
    with_tape(|tape| {
        let values: Vec<Option<Value>> = CALLS
            .with_borrow(|calls| {
                let value = |handle: &u64| if *handle == 0 { Ok(None) } else { calls.value(tape, *handle).map(Some) };
                inputs.iter().map(value).collect::<Result<_, Invalid>>()
            })
            .map_err(said)?;
        match (run(tape, &values)?, outputs) {
            (Results::One(value), [output]) => *output = insert(value, false)?,
            (Results::Two(first, second), [one, two]) => {
                *one = insert(first, false)?;
                *two = insert(second, false)?;
            }
            (Results::Kept(tensor), [output]) => *output = kept::keep(tensor, who()?.1.as_ref())?,
            (_, outputs) => {
                return Err(format!("the caller made room for {} results, which is not what it gives", outputs.len()));
            }
        }
        Ok(())
    })?
}

/// What an op gives.
pub(in crate::plugin::bridge) enum Results {
    One(Value),
    Two(Value, Value),
    /// Values that stay beyond the call.
    Kept(Tensor),
}

/// The value of one handle.
pub(in crate::plugin::bridge) fn value(handle: u64) -> Result<Value, String> {
    with_tape(|tape| CALLS.with_borrow(|calls| calls.value(tape, handle)))?.map_err(said)
}

/// Makes a tensor on the run's device; the plugin owns its handle.
pub(in crate::plugin::bridge) fn new_tensor(
    make: impl FnOnce(&Device) -> fthost_autograd::Result<Tensor>,
) -> Result<u64, String> {
    let run = innermost(|frame| frame.run)?;
    // SAFETY: the innermost frame is alive, and so is what it points to.
    let device = run.map_or(&Device::Cpu, |run| unsafe { (*run).device() });
    insert(Value::constant(make(device).map_err(|error| plain(&error))?), false)
}

/// Releases a tensor. Needs no session where it is a kept one.
pub(in crate::plugin::bridge) fn release(handle: u64) -> Result<(), String> {
    released(handle).map_err(said)
}

fn released(handle: u64) -> Result<(), Invalid> {
    match Handle::decode(handle) {
        Handle::Tensor { thread, slot, generation } => {
            CALLS.with_borrow_mut(|calls| calls.release((thread, slot, generation)))
        }
        Handle::Kept { slot, generation } => kept::release(slot, generation),
        // Parameters live as long as the run; whoever "releases" one has lost nothing.
        Handle::Parameter { .. } => Ok(()),
    }
}

/// Why a handle names nothing, in words. What no plugin that keeps its handles in order does is remembered for who tries plugins.
pub(super) fn said(invalid: Invalid) -> String {
    if !matches!(invalid, Invalid::Null | Invalid::NoRun) {
        probe::invalid(&invalid);
    }
    invalid.to_string()
}

/// Lends a gradient for one visit of a walk, within the session that asked for the walk.
pub(in crate::plugin::bridge) fn lend_for_visit<T>(tensor: Tensor, visit: impl FnOnce(u64) -> T) -> Result<T, String> {
    let handle = insert(Value::constant(tensor), true)?;
    let result = visit(handle);
    // It is stale where the visitor released what was only lent, which does no harm.
    let _ = released(handle);
    Ok(result)
}

/// A handle for a tensor that passes to the plugin.
pub(in crate::plugin::bridge) fn hand_over(tensor: Tensor) -> Result<u64, String> {
    insert(Value::constant(tensor), false)
}

/// The number and parameter of a handle.
pub(in crate::plugin::bridge) fn parameter(handle: u64) -> Result<(usize, Parameter), String> {
    let run = innermost(|frame| frame.run)?.ok_or_else(|| Invalid::NoRun.to_string())?;
    // SAFETY: the innermost frame is alive, and so is what it points to.
    let found = unsafe { (*run).get(handle) };
    found.map(|(i, parameter)| (i, parameter.clone())).ok_or_else(|| said(Invalid::OtherRun))
}
