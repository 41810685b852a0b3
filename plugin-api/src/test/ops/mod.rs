//! The ops that [`ops`](crate::ops) lists, on [`Value`](super::value::Value)s. Their place in the table is the number that plugins call.

mod basic;
mod call;
mod elementwise;
mod losses;
mod maps;
mod products;
mod rows;
mod shape;

use call::Call;

pub(crate) use self::{
    basic::{add, affine, mul, sub},
    elementwise::{gelu, square, tanh},
    maps::Sweep,
    products::{linear, matmul},
    rows::{layer_norm, log_softmax, softmax, sum},
    shape::{concat, index_select, narrow, reshape, transpose},
};
use super::{pass, value::Value};
use crate::{DType, Error, Result};

/// What is called an op's outputs.
pub(crate) enum Outputs {
    /// Tensors of the call.
    Tensors(Vec<Value>),
    /// One that stays beyond it.
    Kept(Value),
}

struct Op {
    name: &'static str,
    /// Least and greatest number of inputs; those beyond the least may be absent.
    inputs: (usize, usize),
    /// Number of integers; `None` for any.
    ints: Option<usize>,
    floats: usize,
    run: fn(&Call<'_>) -> Result<Outputs>,
}

/// `name, inputs, integers, floats => result`; what may be absent stands after the inputs.
macro_rules! ops {
    ($($name:literal, $least:literal $(+ $optional:expr)?, $ints:expr, $floats:literal => |$call:ident| $result:expr;)+) => {
        &[$(Op {
            name: $name,
            inputs: ($least, $least $(+ $optional)?),
            ints: $ints,
            floats: $floats,
            run: |$call| -> Result<Outputs> { Outputs::from_result($result) },
        }),+]
    };
}

impl Outputs {
    fn from_result(result: impl Into<Outputs>) -> Result<Self> {
        Ok(result.into())
    }
}

impl From<Value> for Outputs {
    fn from(value: Value) -> Self {
        Self::Tensors(vec![value])
    }
}

impl From<[Value; 2]> for Outputs {
    fn from(values: [Value; 2]) -> Self {
        Self::Tensors(values.into())
    }
}

static OPS: &[Op] = ops! {
    "add@1", 2, Some(0), 0 => |c| add(c.x(0)?, c.x(1)?)?;
    "sub@1", 2, Some(0), 0 => |c| sub(c.x(0)?, c.x(1)?)?;
    "mul@1", 2, Some(0), 0 => |c| mul(c.x(0)?, c.x(1)?)?;
    "div@1", 2, Some(0), 0 => |c| basic::div(c.x(0)?, c.x(1)?)?;
    "neg@1", 1, Some(0), 0 => |c| affine(c.x(0)?, -1.0, 0.0);
    "affine@1", 1, Some(0), 2 => |c| affine(c.x(0)?, c.floats[0], c.floats[1]);
    "matmul@1", 2, Some(0), 0 => |c| matmul(c.x(0)?, c.x(1)?)?;
    "linear@1", 2 + 1, Some(0), 0 => |c| linear(c.x(0)?, c.x(1)?, c.optional(2))?;
    "low_rank@1", 4, Some(0), 1 => |c| products::low_rank(c.x(0)?, c.x(1)?, c.x(2)?, c.x(3)?, c.floats[0])?;
    "low_rank_norm@1", 3, Some(0), 1 => |c| {
        pass::stop(&products::low_rank_norm(c.x(0)?, c.x(1)?, c.x(2)?, c.floats[0])?)
    };
    "relu@1", 1, Some(0), 0 => |c| elementwise::relu(c.x(0)?);
    "gelu@1", 1, Some(0), 0 => |c| gelu(c.x(0)?);
    "gelu_tanh@1", 1, Some(0), 0 => |c| elementwise::gelu_tanh(c.x(0)?);
    "tanh@1", 1, Some(0), 0 => |c| tanh(c.x(0)?);
    "sigmoid@1", 1, Some(0), 0 => |c| elementwise::sigmoid(c.x(0)?);
    "silu@1", 1, Some(0), 0 => |c| elementwise::silu(c.x(0)?);
    "exp@1", 1, Some(0), 0 => |c| elementwise::exp(c.x(0)?);
    "log@1", 1, Some(0), 0 => |c| elementwise::log(c.x(0)?);
    "sqrt@1", 1, Some(0), 0 => |c| elementwise::sqrt(c.x(0)?);
    "square@1", 1, Some(0), 0 => |c| square(c.x(0)?);
    "abs@1", 1, Some(0), 0 => |c| elementwise::abs(c.x(0)?);
    "sign@1", 1, Some(0), 0 => |c| elementwise::sign(&c.x(0)?.detached());
    "clamp_min@1", 1, Some(0), 1 => |c| elementwise::clamp_min(c.x(0)?, c.floats[0]);
    "softmax@1", 1, Some(0), 0 => |c| softmax(c.x(0)?)?;
    "log_softmax@1", 1, Some(0), 0 => |c| log_softmax(c.x(0)?)?;
    "layer_norm@1", 2 + 1, Some(0), 1 => |c| layer_norm(c.x(0)?, c.x(1)?, c.optional(2), c.floats[0])?;
    "dropout@1", 1, Some(0), 1 => |c| match pass::dropout_mask(c.x(0)?.data().len(), c.fraction(0)?) {
        Some(mask) => mul(c.x(0)?, &Value::constant(c.x(0)?.dtype(), c.x(0)?.shape(), mask))?,
        None => c.x(0)?.clone(),
    };
    "sum@1", 1, Some(0), 0 => |c| sum(c.x(0)?);
    "mean@1", 1, Some(0), 0 => |c| rows::mean(c.x(0)?);
    "squared_distance@1", 2 + 1, Some(0), 0 => |c| rows::squared_distance(c.x(0)?, c.x(1)?, c.optional(2))?;
    "sum_dim@1", 1, Some(2), 0 => |c| rows::sum_dim(c.x(0)?, c.dim(0)?, c.ints[1] != 0);
    "mean_dim@1", 1, Some(2), 0 => |c| rows::mean_dim(c.x(0)?, c.dim(0)?, c.ints[1] != 0);
    "transpose@1", 1, Some(2), 0 => |c| transpose(c.any(0)?, c.dim(0)?, c.dim(1)?);
    "reshape@1", 1, None, 0 => |c| reshape(c.any(0)?, shape::new_shape(c.any(0)?.data().len(), c.ints)?)?;
    "narrow@1", 1, Some(3), 0 => |c| narrow(c.any(0)?, c.dim(0)?, c.size(1)?, c.size(2)?)?;
    "concat@1", 1 + (usize::MAX - 1), Some(1), 0 => |c| {
        let parts = (0..c.inputs.len()).map(|i| c.any(i)).collect::<Result<Vec<_>>>()?;
        concat(&parts, c.dim(0)?)?
    };
    "index_select@1", 2, Some(1), 0 => |c| {
        let ids: Vec<usize> = c.indices(1)?.iter().map(|&id| id as usize).collect();
        index_select(c.any(0)?, &ids, c.dim(0)?)?
    };
    "detach@1", 1, Some(0), 0 => |c| pass::stop(c.any(0)?);
    "cast@1", 1, Some(1), 0 => |c| {
        let code = c.ints[0];
        let unknown = || Error::new(format!("{code} is the code of no element type"));
        shape::cast(c.any(0)?, DType::from_code(u32::try_from(code).map_err(|_| unknown())?).map_err(|_| unknown())?)
    };
    "keep@1", 1, Some(0), 0 => |c| Outputs::Kept(c.any(0)?.detached());
    "conv2d@1", 2 + 1, Some(9), 0 => |c| maps::conv2d(c)?;
    "conv_transpose2d@1", 2 + 1, Some(11), 0 => |c| maps::conv_transpose2d(c)?;
    "upsample_bilinear2d@1", 1, Some(5), 0 => |c| maps::upsample_bilinear2d(c)?;
    "upsample_nearest2d@1", 1, Some(4), 0 => |c| maps::upsample_nearest2d(c)?;
    "cross_entropy@1", 2 + 1, Some(0), 1 => |c| {
        losses::cross_entropy(c.x(0)?, &c.indices(1)?, c.optional(2), c.fraction(0)?)?
    };
    "linear_cross_entropy@1", 3 + 1, Some(0), 0 => |c| {
        losses::cross_entropy(&linear(c.x(0)?, c.x(1)?, c.optional(3))?, &c.indices(2)?, None, 0.0)?
    };
    "linear_log_likelihood@1", 3 + 1, None, 0 => |c| {
        let offsets = (0..c.ints.len()).map(|i| c.size(i)).collect::<Result<Vec<_>>>()?;
        losses::linear_log_likelihood(c.x(0)?, c.x(1)?, c.optional(3), &c.indices(2)?, &offsets)?
    };
    "linear_argmax@1", 2 + 1, Some(0), 0 => |c| losses::linear_argmax(c.x(0)?, c.x(1)?, c.optional(2))?;
};

/// The number of an op by name and version.
pub(crate) fn resolve(name: &str) -> Option<u32> {
    OPS.iter().position(|op| op.name == name).map(|i| i as u32)
}

/// An op's name.
pub(crate) fn name(number: u32) -> &'static str {
    OPS.get(number as usize).map_or("an unknown op", |op| op.name)
}

/// Runs an op. Errors name it and the shapes it got.
pub(crate) fn run(number: u32, inputs: &[Option<Value>], ints: &[i64], floats: &[f64]) -> Result<Outputs> {
    let op = OPS.get(number as usize);
    let op = op.ok_or_else(|| Error::new(format!("there is no op {number}; ask resolve_op")))?;
    let fits = (op.inputs.0..=op.inputs.1).contains(&inputs.len())
        && op.ints.is_none_or(|n| ints.len() == n)
        && floats.len() == op.floats;
    if !fits {
        return Err(Error::new(format!(
            "{} takes {} inputs, {} integers and {} floats; got {}, {} and {}",
            op.name,
            op.inputs.0,
            op.ints.unwrap_or(ints.len()),
            op.floats,
            inputs.len(),
            ints.len(),
            floats.len()
        )));
    }
    (op.run)(&Call { inputs, ints, floats }).map_err(|error| {
        let shapes = inputs.iter().map(|x| x.as_ref().map_or("none".to_owned(), |x| format!("{:?}", x.shape())));
        error.context(format!("{} on {}", op.name, shapes.collect::<Vec<_>>().join(", ")))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_listed_op_is_there_and_nothing_more() {
        let listed: BTreeSet<&str> = crate::ops::OPS.iter().map(|op| op.name).collect();
        assert_eq!(OPS.iter().map(|op| op.name).collect::<BTreeSet<_>>(), listed);
    }
}
