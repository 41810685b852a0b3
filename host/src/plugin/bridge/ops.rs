//! The ops that plugins call by number: from `fthost_plugin_api::ops` to the engine's tape.

use crate::error::plain;
use fthost_autograd::{DType, Result, Tape, Tensor, Value};

use super::op_call::Call;
use super::results::name_of;
use super::session::Results;
use super::sizes::{self, Elements};
use crate::memory;

/// One op: what it is called with, and what it does on the tape.
struct Op {
    name: &'static str,
    /// Least and greatest number of inputs. From the first on, the least number must be there; the others may be 0.
    inputs: (usize, usize),
    /// Number of integers; `None` for any.
    ints: Option<usize>,
    floats: usize,
    takes: Takes,
    /// Elements of the largest tensor that it makes, where these may be more than its inputs have.
    makes: Option<Elements>,
    run: fn(&Call<'_>) -> Result<Results>,
}

/// Which element types inputs may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// Floats.
    Floats,
    /// Floats, and at this place indices.
    Indices(usize),
    /// Any.
    Any,
    /// Any, and at this place indices.
    AnyBy(usize),
}

impl Takes {
    /// That the inputs have such.
    fn check(self, inputs: &[Option<Value>]) -> Result<()> {
        for (i, input) in inputs.iter().enumerate() {
            let Some(dtype) = input.as_ref().map(Value::dtype) else { continue };
            match self {
                Self::Indices(at) | Self::AnyBy(at) if at == i && dtype == DType::U32 => {}
                Self::Indices(at) | Self::AnyBy(at) if at == i => {
                    candle_core::bail!("input {i} holds indices and must be u32, not {}", name_of(dtype));
                }
                Self::Floats | Self::Indices(_) if !dtype.is_float() => {
                    candle_core::bail!("input {i} must hold floats, not {}: cast it", name_of(dtype));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

const fn op(name: &'static str, inputs: usize, run: fn(&Call<'_>) -> Result<Results>) -> Op {
    Op { name, inputs: (inputs, inputs), ints: Some(0), floats: 0, takes: Takes::Floats, makes: None, run }
}

const fn takes(takes: Takes, mut op: Op) -> Op {
    op.takes = takes;
    op
}

const fn makes(elements: Elements, mut op: Op) -> Op {
    op.makes = Some(elements);
    op
}

const fn with_ints(mut op: Op, ints: usize) -> Op {
    op.ints = Some(ints);
    op
}

const fn with_floats(mut op: Op, floats: usize) -> Op {
    op.floats = floats;
    op
}

const fn with_optional_input(mut op: Op) -> Op {
    op.inputs.1 += 1;
    op
}

/// Their place is the number that `resolve_op` gives.
static OPS: &[Op] = &[
    makes(sizes::broadcast, op("add@1", 2, |c| c.tape.add(c.x(0)?, c.x(1)?).map(Results::One))),
    makes(sizes::broadcast, op("sub@1", 2, |c| c.tape.sub(c.x(0)?, c.x(1)?).map(Results::One))),
    makes(sizes::broadcast, op("mul@1", 2, |c| c.tape.mul(c.x(0)?, c.x(1)?).map(Results::One))),
    makes(sizes::broadcast, op("div@1", 2, |c| c.tape.div(c.x(0)?, c.x(1)?).map(Results::One))),
    op("neg@1", 1, |c| c.tape.neg(c.x(0)?).map(Results::One)),
    with_floats(op("affine@1", 1, |c| c.tape.affine(c.x(0)?, c.floats[0], c.floats[1]).map(Results::One)), 2),
    makes(sizes::matmul, op("matmul@1", 2, |c| c.tape.matmul(c.x(0)?, c.x(1)?).map(Results::One))),
    makes(
        sizes::linear,
        with_optional_input(op("linear@1", 2, |c| c.tape.linear(c.x(0)?, c.x(1)?, c.optional(2)).map(Results::One))),
    ),
    with_floats(
        makes(
            sizes::low_rank,
            op("low_rank@1", 4, |c| {
                c.tape.low_rank(c.x(0)?.clone(), c.x(1)?, c.x(2)?, c.x(3)?, c.floats[0]).map(Results::One)
            }),
        ),
        1,
    ),
    with_floats(
        op("low_rank_norm@1", 3, |c| c.tape.low_rank_norm(c.x(0)?, c.x(1)?, c.x(2)?, c.floats[0]).map(Results::One)),
        1,
    ),
    op("relu@1", 1, |c| c.tape.relu(c.x(0)?).map(Results::One)),
    op("gelu@1", 1, |c| c.tape.gelu(c.x(0)?).map(Results::One)),
    op("gelu_tanh@1", 1, |c| c.tape.gelu_tanh(c.x(0)?).map(Results::One)),
    op("tanh@1", 1, |c| c.tape.tanh(c.x(0)?).map(Results::One)),
    op("sigmoid@1", 1, |c| c.tape.sigmoid(c.x(0)?).map(Results::One)),
    op("silu@1", 1, |c| c.tape.silu(c.x(0)?).map(Results::One)),
    op("exp@1", 1, |c| c.tape.exp(c.x(0)?).map(Results::One)),
    op("log@1", 1, |c| c.tape.log(c.x(0)?).map(Results::One)),
    op("sqrt@1", 1, |c| c.tape.sqrt(c.x(0)?).map(Results::One)),
    op("square@1", 1, |c| c.tape.square(c.x(0)?).map(Results::One)),
    op("abs@1", 1, |c| c.tape.abs(c.x(0)?).map(Results::One)),
    op("sign@1", 1, |c| Ok(Results::One(Value::constant(c.x(0)?.tensor().sign()?)))),
    with_floats(op("clamp_min@1", 1, |c| c.tape.clamp_min(c.x(0)?, c.floats[0]).map(Results::One)), 1),
    op("softmax@1", 1, |c| c.tape.softmax(c.wide()?).map(Results::One)),
    op("log_softmax@1", 1, |c| c.tape.log_softmax(c.wide()?).map(Results::One)),
    with_floats(
        with_optional_input(op("layer_norm@1", 2, |c| {
            c.tape.layer_norm(c.wide()?, c.x(1)?, c.optional(2), c.floats[0]).map(Results::One)
        })),
        1,
    ),
    with_floats(op("dropout@1", 1, |c| c.tape.dropout(c.x(0)?, c.fraction(0)?).map(Results::One)), 1),
    op("sum@1", 1, |c| c.tape.sum(c.x(0)?).map(Results::One)),
    op("mean@1", 1, |c| c.tape.mean(c.x(0)?).map(Results::One)),
    with_optional_input(op("squared_distance@1", 2, |c| {
        let weights = c.optional(2).map(Value::tensor);
        c.tape.squared_distance(c.x(0)?, c.x(1)?.tensor(), weights).map(Results::One)
    })),
    with_ints(op("sum_dim@1", 1, |c| c.tape.sum_dim(c.x(0)?, c.dim(0)?, c.ints[1] != 0).map(Results::One)), 2),
    with_ints(op("mean_dim@1", 1, |c| c.tape.mean_dim(c.x(0)?, c.dim(0)?, c.ints[1] != 0).map(Results::One)), 2),
    with_ints(
        takes(Takes::Any, op("transpose@1", 1, |c| c.tape.transpose(c.x(0)?, c.dim(0)?, c.dim(1)?).map(Results::One))),
        2,
    ),
    Op {
        ints: None,
        takes: Takes::Any,
        ..op("reshape@1", 1, |c| {
            let dims = new_dims(c.x(0)?.tensor().elem_count(), c.ints)?;
            c.tape.reshape(c.x(0)?, &dims).map(Results::One)
        })
    },
    with_ints(
        takes(
            Takes::Any,
            op("narrow@1", 1, |c| c.tape.narrow(c.x(0)?, c.dim(0)?, c.size(1)?, c.size(2)?).map(Results::One)),
        ),
        3,
    ),
    with_ints(
        Op {
            inputs: (1, usize::MAX),
            takes: Takes::Any,
            makes: Some(sizes::concat),
            ..op("concat@1", 1, |c| {
                let inputs: Vec<&Value> = (0..c.inputs.len()).map(|i| c.x(i)).collect::<Result<_>>()?;
                c.tape.concat(&inputs, c.dim(0)?).map(Results::One)
            })
        },
        1,
    ),
    with_ints(
        makes(
            sizes::index_select,
            takes(
                Takes::AnyBy(1),
                op("index_select@1", 2, |c| {
                    c.tape.index_select(c.x(0)?, c.x(1)?.tensor(), c.dim(0)?).map(Results::One)
                }),
            ),
        ),
        1,
    ),
    takes(Takes::Any, op("detach@1", 1, |c| Ok(Results::One(c.x(0)?.detach())))),
    with_ints(takes(Takes::Any, op("cast@1", 1, |c| c.tape.cast(c.x(0)?, c.dtype(0)?).map(Results::One))), 1),
    // A copy, because a parameter's own tensor changes in place.
    takes(Takes::Any, op("keep@1", 1, |c| Ok(Results::Kept(c.x(0)?.tensor().copy()?.detach())))),
    with_ints(
        makes(
            sizes::conv2d,
            with_optional_input(op("conv2d@1", 2, |c| {
                let (x, weight, bias) = (c.x(0)?, c.x(1)?, c.optional(2));
                c.tape.conv2d(x, c.map()?, weight, bias, &c.window(weight)?, c.side(8)?).map(|(y, _)| Results::One(y))
            })),
        ),
        9,
    ),
    with_ints(
        makes(
            sizes::conv_transpose2d,
            with_optional_input(op("conv_transpose2d@1", 2, |c| {
                let (x, weight, bias) = (c.x(0)?, c.x(1)?, c.optional(2));
                let (window, more) = (c.window(weight)?, [c.side(8)?, c.side(9)?]);
                let y = c.tape.conv_transpose2d(x, c.map()?, weight, bias, &window, more, c.side(10)?);
                y.map(|(y, _)| Results::One(y))
            })),
        ),
        11,
    ),
    with_ints(
        makes(
            sizes::upsample,
            op("upsample_bilinear2d@1", 1, |c| {
                let size = [c.side(2)?, c.side(3)?];
                c.tape.upsample_bilinear2d(c.x(0)?, c.map()?, size, c.ints[4] != 0).map(|(y, _)| Results::One(y))
            }),
        ),
        5,
    ),
    with_ints(
        makes(
            sizes::upsample,
            op("upsample_nearest2d@1", 1, |c| {
                c.tape.upsample_nearest2d(c.x(0)?, c.map()?, [c.side(2)?, c.side(3)?]).map(|(y, _)| Results::One(y))
            }),
        ),
        4,
    ),
    with_floats(
        takes(
            Takes::Indices(1),
            with_optional_input(op("cross_entropy@1", 2, |c| {
                let logits = c.x(0)?;
                let weights = c.optional(2).map(Value::tensor);
                let (sum, weight) = c.tape.cross_entropy(logits, c.x(1)?.tensor(), weights, c.fraction(0)?)?;
                let weight = Tensor::new(weight, logits.tensor().device())?.to_dtype(sum.dtype())?;
                Ok(Results::Two(sum, Value::constant(weight)))
            })),
        ),
        1,
    ),
    takes(
        Takes::Indices(2),
        with_optional_input(op("linear_cross_entropy@1", 3, |c| {
            let x = c.x(0)?;
            let (sum, number) = c.tape.linear_cross_entropy(x, c.x(1)?, c.optional(3), c.x(2)?.tensor())?;
            let number = Tensor::new(number, x.tensor().device())?.to_dtype(sum.dtype())?;
            Ok(Results::Two(sum, Value::constant(number)))
        })),
    ),
    Op {
        ints: None,
        takes: Takes::Indices(2),
        ..with_optional_input(op("linear_log_likelihood@1", 3, |c| {
            let (x, offsets) = (c.x(0)?, (0..c.ints.len()).map(|i| c.offset(i)).collect::<Result<Vec<_>>>()?);
            let targets = c.x(2)?.tensor();
            let (sums, numbers) = c.tape.linear_log_likelihood(x, c.x(1)?, c.optional(3), targets, &offsets)?;
            let numbers = Tensor::new(numbers, x.tensor().device())?.to_dtype(sums.dtype())?;
            Ok(Results::Two(sums, Value::constant(numbers)))
        }))
    },
    with_optional_input(op("linear_argmax@1", 2, |c| {
        let classes = c.tape.linear_argmax(c.x(0)?, c.x(1)?, c.optional(2))?;
        Ok(Results::One(Value::constant(classes)))
    })),
];

/// The dimensions that `reshape` asks for; one may be -1 and takes what is left.
fn new_dims(elements: usize, asked: &[i64]) -> Result<Vec<usize>> {
    let mut known = asked.iter().filter(|dim| **dim != -1);
    let known = known.try_fold(1i64, |known, dim| known.checked_mul(*dim));
    let open = asked.iter().filter(|dim| **dim == -1).count();
    let Some(known) = known else { candle_core::bail!("{elements} elements do not fit shape {asked:?}") };
    if open > 1 || asked.iter().any(|dim| *dim < -1) || (open == 1 && (known == 0 || elements as i64 % known != 0)) {
        candle_core::bail!("{elements} elements do not fit shape {asked:?}");
    }
    Ok(asked.iter().map(|dim| if *dim == -1 { elements / known as usize } else { *dim as usize }).collect())
}

/// The number of an op by name and version.
pub(in crate::plugin) fn resolve(name: &str) -> Option<u32> {
    OPS.iter().position(|op| op.name == name).map(|i| i as u32)
}

/// The name of an op's number; empty for none.
pub(super) fn name(number: u32) -> &'static str {
    OPS.get(number as usize).map_or("", |op| op.name)
}

/// Runs an op. Errors name it and the shapes it got.
pub(super) fn run(
    number: u32,
    tape: &Tape,
    inputs: &[Option<Value>],
    ints: &[i64],
    floats: &[f64],
) -> std::result::Result<Results, String> {
    let Some(op) = OPS.get(number as usize) else { return Err(format!("there is no op {number}; ask resolve_op")) };
    let fits = inputs.len() >= op.inputs.0
        && inputs.len() <= op.inputs.1
        && op.ints.is_none_or(|n| ints.len() == n)
        && floats.len() == op.floats;
    if !fits {
        return Err(format!(
            "{} takes {} inputs, {} integers and {} floats; got {}, {} and {}",
            op.name,
            op.inputs.0,
            op.ints.unwrap_or(ints.len()),
            op.floats,
            inputs.len(),
            ints.len(),
            floats.len()
        ));
    }
    let call = |inputs: &[Option<Value>]| {
        let call = Call { tape, inputs, ints, floats };
        if let Some(elements) = op.makes {
            // Eight bytes are those of the widest element.
            memory::room_for(elements(&call)?.saturating_mul(8)).map_err(candle_core::Error::Msg)?;
        }
        (op.run)(&call)
    };
    op.takes
        .check(inputs)
        .and_then(|()| match widen(tape, inputs)? {
            Some(widened) => call(&widened),
            None => call(inputs),
        })
        .map_err(|error| {
            let shapes =
                inputs.iter().map(|input| input.as_ref().map_or("none".to_owned(), |x| format!("{:?}", x.dims())));
            format!("{} on {}: {}", op.name, shapes.collect::<Vec<_>>().join(", "), plain(&error))
        })
}

/// Floating inputs in the widest of their types, `None` where they have one type already, as is usual.
fn widen(tape: &Tape, inputs: &[Option<Value>]) -> Result<Option<Vec<Option<Value>>>> {
    let floating = || inputs.iter().flatten().map(Value::dtype).filter(DType::is_float);
    let Some(first) = floating().next() else { return Ok(None) };
    if floating().all(|dtype| dtype == first) {
        return Ok(None);
    }
    // Neither half type holds the other, so they meet in f32.
    let widest = if floating().any(|dtype| dtype == DType::F64) { DType::F64 } else { DType::F32 };
    let cast = |input: &Option<Value>| match input {
        Some(x) if x.dtype().is_float() && x.dtype() != widest => tape.cast(x, widest).map(Some),
        other => Ok(other.clone()),
    };
    inputs.iter().map(cast).collect::<Result<_>>().map(Some)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::collections::BTreeSet;

    use fthost_autograd::Device;
    use fthost_plugin_api::ops;

    use super::*;

    fn tensor(data: &[f32], shape: &[usize]) -> Option<Value> {
        Some(Value::constant(Tensor::from_slice(data, shape, &Device::Cpu).unwrap()))
    }

    fn call(
        name: &str,
        inputs: &[Option<Value>],
        ints: &[i64],
        floats: &[f64],
    ) -> std::result::Result<Results, String> {
        run(resolve(name).unwrap(), &Tape::evaluation(), inputs, ints, floats)
    }

    #[test]
    fn every_listed_op_is_there_and_nothing_more() {
        let listed: BTreeSet<&str> = ops::OPS.iter().map(|op| op.name).collect();
        assert_eq!(OPS.iter().map(|op| op.name).collect::<BTreeSet<_>>(), listed);
        for signature in ops::OPS {
            let op = &OPS[resolve(signature.name).unwrap() as usize];
            let count = |text: &str| text.split(", ").filter(|part| !part.is_empty()).count();
            if let Some(ints) = op.ints
                && ints != 1
                && !signature.ints.contains('(')
            {
                assert_eq!(ints, count(signature.ints), "{}", signature.name);
            }
            assert_eq!(op.floats > 0, !signature.floats.is_empty(), "{}", signature.name);
        }
    }

    #[test]
    fn errors_name_op_and_shapes() {
        let Err(text) = call("matmul@1", &[tensor(&[1.0; 6], &[2, 3]), tensor(&[1.0; 4], &[2, 2])], &[], &[]) else {
            panic!("shapes do not fit")
        };
        assert!(text.starts_with("matmul@1 on [2, 3], [2, 2]: "), "{text}");
        let Err(text) = call("sum_dim@1", &[tensor(&[1.0; 6], &[2, 3])], &[2, 0], &[]) else {
            panic!("no dimension 2")
        };
        assert_eq!(text, "sum_dim@1 on [2, 3]: dimension 2 is outside a tensor of rank 2");
        let Err(text) = call("affine@1", &[tensor(&[1.0], &[1])], &[], &[1.0]) else { panic!("one float is missing") };
        assert_eq!(text, "affine@1 takes 1 inputs, 0 integers and 2 floats; got 1, 0 and 1");
        let Err(text) = call("relu@1", &[None], &[], &[]) else { panic!("no input") };
        assert_eq!(text, "relu@1 on none: input 0 is missing");
    }

    #[test]
    fn floats_are_widened() {
        let x = Some(Value::constant(Tensor::new(&[1f64, 2.0], &Device::Cpu).unwrap()));
        let Ok(Results::One(sum)) = call("add@1", &[x, tensor(&[0.5, 0.5], &[2])], &[], &[]) else { panic!("add") };
        assert_eq!(sum.tensor().to_vec1::<f64>().unwrap(), [1.5, 2.5]);
    }

    #[test]
    fn one_new_dimension_may_be_open() {
        let check = |elements, asked: &[i64], expected: Option<&[usize]>| {
            assert_eq!(new_dims(elements, asked).ok().as_deref(), expected, "{asked:?}");
        };
        check(6, &[2, 3], Some(&[2, 3]));
        check(6, &[-1, 3], Some(&[2, 3]));
        check(6, &[-1], Some(&[6]));
        check(6, &[4, -1], None);
        check(6, &[-1, -1], None);
        check(6, &[-2, 3], None);
        check(0, &[0, -1], None);
    }
}
