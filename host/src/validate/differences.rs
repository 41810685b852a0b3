//! Finite differences: whether the gradients that come back through a plugin's calls are those of what it computes.

use fthost_autograd::{DType, Device, Parameter, Tape, Tensor, Value};

use super::bench::numbers;
use crate::Result;

/// So many elements of each input and parameter are moved.
const ELEMENTS: usize = 8;
/// By how much an element of an input is moved.
const STEP: f64 = 1e-4;
/// By how much an element of a parameter, in `f32`, is moved: as a share of its size where that is above 1.
const PARAMETER_STEP: f64 = 1.0 / 512.0;
/// The same where all is computed in `f32`, whose rounding would cover a small step.
const COARSE_STEP: f64 = 1.0 / 16.0;
/// What steps are multiplied with until one agrees: one that is smaller does not lead over a kink, as a relu has one, and one that is larger
/// does not drown in what an op rounds to `f32` on the way. A wrong gradient agrees with none.
const FACTORS: [f64; 3] = [1.0, 1.0 / 16.0, 16.0];
/// By how much gradient and difference may differ, as a share.
const SHARE: f64 = 2e-3;
const COARSE_SHARE: f64 = 3e-2;

/// What is computed above and below, each with how large what was added up is, and how far above and below are apart.
type Moved = ((f64, f64), (f64, f64), f64);

/// What is differentiated: of some inputs the results that are there.
pub(super) trait Function: Fn(&Tape, &[Value]) -> Result<Vec<Value>> {}
impl<F: Fn(&Tape, &[Value]) -> Result<Vec<Value>>> Function for F {}

/// Numbers that spread over -1 to 1, `f64`.
pub(super) fn spread(shape: &[usize], seed: f64) -> Result<Tensor> {
    let elements: usize = shape.iter().product();
    let values: Vec<f64> = (0..elements).map(|i| (seed + 0.731 * i as f64 + 0.017 * (i * i) as f64).sin()).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// Moves a parameter's values a little, each differently: what starts at zero hides gradients.
pub(super) fn stir(parameter: &Parameter, seed: f64) -> Result<()> {
    let moved = (spread(parameter.dims(), seed)? * 0.05)?.to_dtype(parameter.dtype())?;
    Ok(parameter.set(&(parameter.tensor() + moved)?)?)
}

/// The first element of an input or parameter whose gradient is not the central difference, in words.
///
/// # Errors
/// The function's own.
pub(super) fn wrong_gradient(
    names: &[&str],
    inputs: &[Tensor],
    parameters: &[Parameter],
    of: &impl Function,
) -> Result<Option<String>> {
    let tape = Tape::recording();
    let variables: Vec<Value> = inputs.iter().map(|input| tape.variable(input.clone())).collect();
    let results = of(&tape, &variables)?;
    let coarse = results.iter().any(|result| result.dtype() != DType::F64);
    let seeds = results
        .into_iter()
        .enumerate()
        .map(|(i, result)| {
            let seed = weights(result.dims(), i)?.to_dtype(result.dtype())?;
            Ok((result, seed))
        })
        .collect::<Result<Vec<_>>>()?;
    let gradients = tape.backward_from(seeds)?;
    let (share, rounding) = if coarse { (COARSE_SHARE, 1e-6) } else { (SHARE, 1e-14) };

    let here = value(inputs, of)?.0;
    // What is wrong where no step agrees.
    let judge =
        |name: &str, at: usize, gradient: f64, found: &dyn Fn(f64) -> Result<Moved>| -> Result<Option<String>> {
            let mut differences = Vec::new();
            for factor in FACTORS {
                let (above, below, apart) = found(factor)?;
                let difference = (above.0 - below.0) / apart;
                // Beside a kink the slope lies between those to both sides. A long step would call a curve a kink.
                let kink = if factor <= 1.0 { (above.0 - 2.0 * here + below.0).abs() / apart } else { 0.0 };
                let rounded = rounding * above.1.max(below.1) / apart;
                let allowed = share * gradient.abs().max(difference.abs()) + kink + rounded + 1e-7;
                if gradient.is_finite() && (difference - gradient).abs() <= allowed {
                    return Ok(None);
                }
                differences.push(format!("{difference:.6e} by a step of {:.1e}", apart / 2.0));
            }
            let differences = differences.join(", ");
            Ok(Some(format!(
                "element {at} of {name} has the gradient {gradient:.6e}, and the differences are {differences}"
            )))
        };
    for (i, input) in inputs.iter().enumerate() {
        let flat = numbers(input)?;
        let gradient = gradients.of(&variables[i]).map(numbers).transpose()?;
        let step = if coarse { COARSE_STEP } else { STEP };
        for at in places(flat.len()) {
            let moved = |by: f64| -> Result<(f64, f64)> {
                let mut values = flat.clone();
                values[at] += by;
                let mut inputs = inputs.to_vec();
                inputs[i] = Tensor::from_vec(values, input.dims(), &Device::Cpu)?;
                value(&inputs, of)
            };
            let found = |factor: f64| -> Result<_> {
                let step = step * factor;
                Ok((moved(step)?, moved(-step)?, 2.0 * step))
            };
            let gradient = gradient.as_ref().map_or(0.0, |gradient| gradient[at]);
            let wrong = judge(names.get(i).unwrap_or(&"an input"), at, gradient, &found)?;
            if wrong.is_some() {
                return Ok(wrong);
            }
        }
    }
    for parameter in parameters {
        let before = parameter.tensor().copy()?;
        let flat = numbers(&before)?;
        let gradient = match gradients.get(parameter) {
            Some(gradient) => Some(numbers(&gradient.to_dense(parameter.dims())?)?),
            None => None,
        };
        for at in places(flat.len()) {
            let step = if coarse { COARSE_STEP } else { PARAMETER_STEP } * flat[at].abs().max(1.0);
            let moved = |to: f32| -> Result<(f64, f64)> {
                let mut values: Vec<f32> = flat.iter().map(|value| *value as f32).collect();
                values[at] = to;
                let values = Tensor::from_vec(values, parameter.dims(), before.device())?;
                parameter.set(&values.to_dtype(parameter.dtype())?)?;
                value(inputs, of)
            };
            let found = |factor: f64| -> Result<_> {
                let step = step * factor;
                let (up, down) = ((flat[at] + step) as f32, (flat[at] - step) as f32);
                Ok((moved(up)?, moved(down)?, f64::from(up) - f64::from(down)))
            };
            let gradient = gradient.as_ref().map_or(0.0, |gradient| gradient[at]);
            let wrong = judge(parameter.name(), at, gradient, &found)?;
            if wrong.is_some() {
                parameter.set(&before)?;
                return Ok(wrong);
            }
        }
        parameter.set(&before)?;
    }
    Ok(None)
}

/// Of all results one number, in which each element counts, and how large what was added up is.
fn value(inputs: &[Tensor], of: &impl Function) -> Result<(f64, f64)> {
    let inputs: Vec<Value> = inputs.iter().map(|input| Value::constant(input.clone())).collect();
    let (mut sum, mut size) = (0.0, 0.0);
    for (i, result) in of(&Tape::evaluation(), &inputs)?.iter().enumerate() {
        let weights = numbers(&weights(result.dims(), i)?)?;
        for (value, weight) in numbers(result.tensor())?.into_iter().zip(weights) {
            sum += value * weight;
            size += (value * weight).abs();
        }
    }
    Ok((sum, size))
}

fn weights(shape: &[usize], result: usize) -> Result<Tensor> {
    if shape.iter().product::<usize>() == 1 {
        return Ok(Tensor::ones(shape, DType::F64, &Device::Cpu)?);
    }
    Ok((spread(shape, 0.3 + result as f64)? + 0.1)?)
}

/// Some places of so many, spread over them.
fn places(elements: usize) -> impl Iterator<Item = usize> {
    let number = elements.min(ELEMENTS);
    (0..number).map(move |i| i * elements / number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use fthost_autograd::Activation;

    use super::*;

    #[test]
    fn a_gradient_that_is_not_the_functions_is_seen() {
        let parameter = Parameter::new("p", Tensor::new(&[0.5f32, -1.5, 2.0], &Device::Cpu).unwrap(), true);
        let x = spread(&[3], 0.2).unwrap();
        type Function<'a> = &'a dyn Fn(&Tape, &[Value]) -> Result<Vec<Value>>;
        let check = |of: Function<'_>| {
            wrong_gradient(&["x"], std::slice::from_ref(&x), std::slice::from_ref(&parameter), &of).unwrap()
        };
        let p = |tape: &Tape| tape.cast(&tape.parameter(&parameter), DType::F64).unwrap();
        let right = |tape: &Tape, v: &[Value]| -> Result<Vec<Value>> {
            let squared = tape.mul(&v[0], &v[0])?;
            Ok(vec![tape.mul(&squared, &p(tape))?])
        };
        assert_eq!(check(&right), None);
        let of_input = |tape: &Tape, v: &[Value]| -> Result<Vec<Value>> {
            Ok(vec![tape.mul(&tape.mul(&v[0], &v[0].detach())?, &p(tape))?])
        };
        assert!(check(&of_input).unwrap().contains("of x has the gradient"));
        let of_parameter = |tape: &Tape, v: &[Value]| -> Result<Vec<Value>> {
            let squared = tape.mul(&p(tape), &p(tape).detach())?;
            Ok(vec![tape.mul(&v[0], &squared)?])
        };
        assert!(check(&of_parameter).unwrap().contains("of p has the gradient"));
        assert_eq!(parameter.tensor().to_vec1::<f32>().unwrap(), [0.5, -1.5, 2.0], "it is put back");
    }

    /// Many relus, as of a weight that a map shares: a step leads over some of their kinks, and a shorter one drowns where an op adds in `f32`.
    #[test]
    fn kinks_under_a_step_are_no_wrong_gradients() {
        let weight = Parameter::new("p", Tensor::new(&[0.5f32], &Device::Cpu).unwrap(), true);
        let function = |detached: bool| {
            let weight = weight.clone();
            move |tape: &Tape, v: &[Value]| -> Result<Vec<Value>> {
                let p = tape.parameter(&weight);
                let p = if detached { p.detach() } else { p };
                // Half of the kinks lie far below p, the others close above.
                let kink = |i: u32| if i < 32 { 0.25 } else { 0.50005 + 1e-4 * f64::from(i - 32) };
                let kinks = Tensor::from_vec((0..64).map(kink).collect::<Vec<f64>>(), 64, &Device::Cpu)?;
                let inside = tape.sub(&tape.mul(&v[0], &tape.cast(&p, DType::F64)?)?, &Value::constant(kinks))?;
                let relus = tape.activation(&inside, Activation::Relu)?;
                let far = tape.affine(&tape.cast(&relus, DType::F32)?, 1.0, 64.0)?;
                Ok(vec![tape.cast(&far, DType::F64)?])
            }
        };
        let x = Tensor::ones(64, DType::F64, &Device::Cpu).unwrap();
        let parameters = std::slice::from_ref(&weight);
        assert_eq!(wrong_gradient(&["x"], std::slice::from_ref(&x), parameters, &function(false)).unwrap(), None);
        assert!(wrong_gradient(&["x"], std::slice::from_ref(&x), parameters, &function(true)).unwrap().is_some());
    }
}
