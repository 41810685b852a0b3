//! The mock host's table by itself, for who compares it with another host's: `fthost`'s tests run every op through both.

pub use super::cases::{Case, Input, cases};
use super::{
    ops::{self, Outputs},
    session::{self, Scope},
    value::Value,
    wire::TABLE,
};
use crate::{Error, Result, abi::tables::HostApi};

/// The table of functions. Tensors are valid within [`call`].
pub fn table() -> &'static HostApi {
    &TABLE
}

/// Runs a body as a call into a plugin, without a run. It does not make the mock host the host of this process.
///
/// # Errors
/// The body's own; tensors that it made and still holds.
pub fn call<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    session::call("a test's call", Scope::default(), body)
}

/// A tensor of `f64` that need not be released.
pub fn floats(data: &[f64], shape: &[usize]) -> u64 {
    session::lend(&Value::floats(shape, data.to_vec()))
}

/// A tensor of `u32` that need not be released.
pub fn indices(ids: &[u32]) -> u64 {
    session::lend(&Value::indices(ids))
}

/// A result's shape and elements; it need not be released any more.
///
/// # Errors
/// Where the handle is of none.
pub fn take(handle: u64) -> Result<(Vec<usize>, Vec<f64>)> {
    let value = session::take(handle)?;
    Ok((value.shape().to_vec(), value.data().to_vec()))
}

/// What a case gave: shape and elements of each result, and the gradients of the first one's elements, weighed by [`seed`], by each
/// input; `None` by one that is no float or that it does not depend on.
pub type Ran = (Vec<(Vec<usize>, Vec<f64>)>, Vec<Option<Vec<f64>>>);

/// Weights of a result's elements, all different.
pub fn seed(elements: usize) -> Vec<f64> {
    (0..elements).map(|i| ((i as f64 + 1.0) * 0.7391).sin() + 0.1).collect()
}

/// Runs a case, not through the table.
///
/// # Errors
/// The op's own.
pub fn run(case: &Case) -> Result<Ran> {
    let input = |input: &Input| match input {
        Input::Float(shape, data) => Some(Value::variable(shape.clone(), data.clone())),
        Input::Ids(ids) => Some(Value::indices(ids)),
        Input::None => None,
    };
    let values: Vec<Option<Value>> = case.inputs.iter().map(input).collect();
    let number = ops::resolve(case.op).ok_or_else(|| Error::new(format!("there is no op {}", case.op)))?;
    let results = match ops::run(number, &values, &case.ints, &case.floats)? {
        Outputs::Tensors(results) => results,
        Outputs::Kept(result) => vec![result],
    };
    let gradients = results[0].gradients(seed(results[0].data().len()));
    let by = |value: &Option<Value>| value.as_ref().and_then(|value| gradients.by(value).map(<[f64]>::to_vec));
    let shown = |value: Value| (value.shape().to_vec(), value.data().to_vec());
    Ok((results.into_iter().map(shown).collect(), values.iter().map(by).collect()))
}
