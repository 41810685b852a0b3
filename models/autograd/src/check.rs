//! Finite differences: the check that every op must pass, in `f64`.

use candle_core::{DType, Device, Result, Tensor};

use crate::{Tape, Value};

/// Compares the gradients that `op` gives for `inputs` with central differences.
///
/// `op`'s result, of any shape, is reduced by a fixed random weighting, so that every element counts. Inputs are `f64` on the
/// CPU. Errors name the input, the element and both numbers.
pub fn gradients(inputs: &[Tensor], op: impl Fn(&Tape, &[Value]) -> Result<Value>) -> Result<()> {
    const STEP: f64 = 1e-6;
    const TOLERANCE: f64 = 1e-6;
    let weigh = |output: &Tensor| -> Result<Tensor> {
        let n = output.elem_count();
        let weights: Vec<f64> = (0..n).map(|i| ((i as f64 + 1.0) * 0.7391).sin() + 0.1).collect();
        Tensor::from_vec(weights, output.dims(), &Device::Cpu)
    };
    let scalar = |tensors: &[Tensor]| -> Result<f64> {
        let tape = Tape::recording();
        let values: Vec<Value> = tensors.iter().map(|t| Value::constant(t.clone())).collect();
        let output = op(&tape, &values)?.into_tensor().to_dtype(DType::F64)?;
        (&output * weigh(&output)?)?.sum_all()?.to_scalar::<f64>()
    };

    let tape = Tape::recording();
    let variables: Vec<Value> = inputs.iter().map(|t| tape.variable(t.clone())).collect();
    let output = op(&tape, &variables)?;
    let seed = weigh(output.tensor())?.to_dtype(output.dtype())?;
    let gradients = tape.backward_from(vec![(output, seed)])?;

    for (i, input) in inputs.iter().enumerate() {
        let Some(analytic) = gradients.of(&variables[i]) else {
            candle_core::bail!("input {i} got no gradient");
        };
        if analytic.dims() != input.dims() {
            candle_core::bail!("input {i} has shape {:?}, its gradient {:?}", input.dims(), analytic.dims());
        }
        let analytic = analytic.flatten_all()?.to_vec1::<f64>()?;
        let flat = input.flatten_all()?.to_vec1::<f64>()?;
        for j in 0..flat.len() {
            let at = |delta: f64| -> Result<f64> {
                let mut moved = flat.clone();
                moved[j] += delta;
                let mut tensors = inputs.to_vec();
                tensors[i] = Tensor::from_vec(moved, input.dims(), &Device::Cpu)?;
                scalar(&tensors)
            };
            let numeric = (at(STEP)? - at(-STEP)?) / (2.0 * STEP);
            let error = (numeric - analytic[j]).abs();
            if error > TOLERANCE * (1.0 + numeric.abs()) {
                candle_core::bail!("input {i}, element {j}: gradient {}, finite difference {numeric}", analytic[j]);
            }
        }
    }
    Ok(())
}
