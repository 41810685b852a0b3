//! What a plugin hands over, before the host goes on with it: shape, element type, numbers. Whoever calls the plugin says where it was.

use fthost_autograd::{DType, Tensor, Value};

use super::op_call::code_of;
use crate::error::plain;

/// An element type in the words of the API.
pub(in crate::plugin) fn name_of(dtype: DType) -> String {
    format!("{dtype:?}").to_lowercase()
}

/// That a value can stand where another one does.
///
/// # Errors
/// Where its shape or element type is another.
pub(in crate::plugin) fn like(value: &Value, dims: &[usize], dtype: DType) -> Result<(), String> {
    if value.dims() != dims {
        return Err(format!("it gave shape {:?} where {dims:?} is needed", value.dims()));
    }
    if value.dtype() != dtype {
        return Err(format!(
            "it gave {} elements where {} ones are needed: cast them",
            name_of(value.dtype()),
            name_of(dtype)
        ));
    }
    Ok(())
}

/// That `value` is rows of this width, and at least one of them; `what` they are is for the error.
pub(in crate::plugin) fn rows_like(value: &Value, width: usize, dtype: DType, what: &str) -> Result<(), String> {
    match *value.dims() {
        [rows, columns] if rows > 0 && columns == width => like(value, &[rows, width], dtype),
        ref other => Err(format!("{what} are [rows, {width}], and it gave shape {other:?}")),
    }
}

/// That elements are floats.
pub(in crate::plugin) fn floats(value: &Value) -> Result<(), String> {
    if value.dtype().is_float() && code_of(value.dtype()) != 0 {
        return Ok(());
    }
    Err(format!("it gave {} elements where floats are needed: cast them", name_of(value.dtype())))
}

/// That it is a number: one float, whatever its rank.
pub(in crate::plugin) fn scalar(value: &Value, what: &str) -> Result<(), String> {
    if value.tensor().elem_count() != 1 {
        return Err(format!("{what} must be a scalar, and this has shape {:?}", value.dims()));
    }
    floats(value)
}

/// That an answer by 0 or 1 is one.
pub(in crate::plugin) fn yes_or_no(answer: u32) -> Result<bool, String> {
    match answer {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("it answered {other}, and 0 or 1 is needed")),
    }
}

/// The elements, as numbers.
pub(in crate::plugin) fn numbers(tensor: &Tensor) -> Result<Vec<f64>, String> {
    let flat = tensor.to_dtype(DType::F64).and_then(|tensor| tensor.flatten_all()?.to_vec1::<f64>());
    flat.map_err(|error| plain(&error))
}

/// The first element that is wrong, of floats.
///
/// # Errors
/// Where the elements cannot be read.
pub(in crate::plugin) fn find(tensor: &Tensor, wrong: impl Fn(f64) -> bool) -> Result<Option<f64>, String> {
    let found = match tensor.dtype() {
        DType::F32 => {
            let all = tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).map_err(|error| plain(&error))?;
            all.into_iter().map(f64::from).find(|&number| wrong(number))
        }
        _ => numbers(tensor)?.into_iter().find(|&number| wrong(number)),
    };
    Ok(found)
}

/// Whether no element is infinite or no number. What holds no floats is finite.
pub(in crate::plugin) fn are_finite(tensor: &Tensor) -> bool {
    !tensor.dtype().is_float() || matches!(find(tensor, |number| !number.is_finite()), Ok(None))
}

/// That what came of finite numbers is finite: otherwise it is the plugin that has made the others.
pub(in crate::plugin) fn stays_finite<'a>(
    inputs: impl IntoIterator<Item = &'a Value>,
    result: &Value,
) -> Result<(), String> {
    match find(result.tensor(), |number| !number.is_finite())? {
        Some(worst) if inputs.into_iter().all(|input| are_finite(input.tensor())) => {
            Err(format!("of finite numbers it made {worst}"))
        }
        _ => Ok(()),
    }
}
