//! Layer norm over the last dimension, alone and with a residual sum before it, and RMS norm.

use candle_core::{D, DType, Result, Tensor};

use super::elementwise::unbroadcast;
use crate::kernels::norm as fast;
use crate::{Tape, Value};

impl Tape {
    /// `(x - mean) / sqrt(variance + eps) * weight + bias` over the last dimension, with the biased variance.
    /// `x` `[.., width]`, `weight` and `bias` `[width]`.
    pub fn layer_norm(&self, x: &Value, weight: &Value, bias: Option<&Value>, eps: f64) -> Result<Value> {
        self.norm(x, None, weight, bias, (eps, true))
    }

    /// [`layer_norm`](Self::layer_norm) of `x + residual`, two tensors of one shape.
    pub fn residual_layer_norm(
        &self,
        x: &Value,
        residual: &Value,
        weight: &Value,
        bias: Option<&Value>,
        eps: f64,
    ) -> Result<Value> {
        if x.dims() != residual.dims() {
            candle_core::bail!(
                "cannot add a residual {:?} to {:?}: the shapes must be equal",
                residual.dims(),
                x.dims()
            );
        }
        self.norm(x, Some(residual), weight, bias, (eps, true))
    }

    /// `x / sqrt(mean(x^2) + eps) * weight` over the last dimension (Zhang and Sennrich 2019, arXiv:1910.07467). `x` `[.., width]`,
    /// `weight` `[width]`.
    pub fn rms_norm(&self, x: &Value, weight: &Value, eps: f64) -> Result<Value> {
        self.norm(x, None, weight, None, (eps, false))
    }

    fn norm(
        &self,
        x: &Value,
        residual: Option<&Value>,
        weight: &Value,
        bias: Option<&Value>,
        (eps, centred): (f64, bool),
    ) -> Result<Value> {
        let width = x.dims().last().copied().unwrap_or(0);
        if weight.dims() != [width] || bias.is_some_and(|bias| bias.dims() != [width]) {
            candle_core::bail!(
                "a norm of {:?} takes a weight and a bias of [{width}], got {:?} and {:?}",
                x.dims(),
                weight.dims(),
                bias.map(Value::dims)
            );
        }
        // Input 0 stands for x, 1 for the residual, then the weight and the bias; an absent one is its neighbour's constant.
        let absent = Value::constant(weight.tensor().clone());
        let inputs = [x, residual.unwrap_or(&absent), weight, bias.unwrap_or(&absent)];
        let records = self.options().recording && inputs.iter().any(|input| input.requires_grad());

        let (x, residual, bias) = (x.tensor(), residual.map(Value::tensor), bias.map(Value::tensor));
        let done = fast::forward(x, residual, weight.tensor(), bias, (eps as f32, centred), records)?;
        let by_rows = done.is_some();
        let (y, statistics) = match done {
            Some(done) => done,
            None => composite(x, residual, weight.tensor(), bias, (eps, centred))?,
        };
        let Some((normalized, reciprocal_std)) = statistics.filter(|_| records) else {
            return Ok(Value::constant(y));
        };
        let weight = weight.tensor().clone();
        // Of a normalized row its result is made by a product a number, which takes less than the memory to keep it.
        let again = (normalized.clone(), weight.clone(), bias.cloned());
        let y = self.record(y, &inputs, move |g, vjp| {
            if vjp.wants(3) {
                vjp.give(3, unbroadcast(g.clone(), &[width])?)?;
            }
            if vjp.wants(2) {
                let dw = match fast::weight_gradient(&g, &normalized)? {
                    Some(dw) => dw,
                    None => unbroadcast((&g * &normalized)?, &[width])?,
                };
                vjp.give(2, dw)?;
            }
            if vjp.wants(0) || vjp.wants(1) {
                let dx = match fast::input_gradient(&g, &normalized, &reciprocal_std, &weight, centred)? {
                    Some(dx) => dx,
                    None => {
                        // (h - mean(h) - x^ mean(h x^)) / std, with h = g * weight; without the mean where none was taken off
                        let half = g.dtype();
                        let h = g.broadcast_mul(&weight)?.to_dtype(normalized.dtype())?;
                        let projection = normalized.broadcast_mul(&(&h * &normalized)?.mean_keepdim(D::Minus1)?)?;
                        let h = if centred { h.broadcast_sub(&h.mean_keepdim(D::Minus1)?)? } else { h };
                        (h - projection)?.broadcast_mul(&reciprocal_std)?.to_dtype(half)?
                    }
                };
                vjp.give(0, dx.clone())?;
                vjp.give(1, dx)?;
            }
            Ok(())
        });
        Ok(y.made_again_by(move || {
            let (normalized, weight, bias) = &again;
            let made = if by_rows { fast::scaled(normalized, weight, bias.as_ref())? } else { None };
            made.map_or_else(|| scaled(normalized, weight, bias.as_ref()), Ok)
        }))
    }
}

/// Gives y, the normalized input `[.., width]` and 1 / std `[.., 1]`. Half floats are normalized in `f32`.
fn composite(
    x: &Tensor,
    residual: Option<&Tensor>,
    weight: &Tensor,
    bias: Option<&Tensor>,
    (eps, centred): (f64, bool),
) -> Result<(Tensor, Option<fast::Statistics>)> {
    let original = x.dtype();
    let float = if original == DType::F64 { DType::F64 } else { DType::F32 };
    let x = match residual {
        Some(residual) => (x + residual)?,
        None => x.clone(),
    };
    let x = x.to_dtype(float)?;
    let centered = if centred { x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)? } else { x };
    let reciprocal_std = centered.sqr()?.mean_keepdim(D::Minus1)?.affine(1.0, eps)?.sqrt()?.recip()?;
    let normalized = centered.broadcast_mul(&reciprocal_std)?;
    Ok((scaled(&normalized, weight, bias)?, Some((normalized, reciprocal_std))))
}

/// `normalized * weight + bias`, in the float type of the weight.
fn scaled(normalized: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = normalized.to_dtype(weight.dtype())?.broadcast_mul(weight)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;
    use crate::check;

    fn random(seed: u64, dims: &[usize], dtype: DType) -> Tensor {
        let mut data = vec![0f32; dims.iter().product()];
        crate::random::Stream::keyed(seed, &[13]).fill_uniform(&mut data, -1.0, 2.0);
        Tensor::from_vec(data, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    fn inputs(lead: &[usize], width: usize, dtype: DType) -> Vec<Tensor> {
        let dims = [lead, &[width]].concat();
        vec![random(1, &dims, dtype), random(2, &dims, dtype), random(3, &[width], dtype), random(4, &[width], dtype)]
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let x = inputs(&[2, 3], 5, DType::F64);
        check::gradients(&x, |tape, v| tape.residual_layer_norm(&v[0], &v[1], &v[2], Some(&v[3]), 1e-5)).unwrap();
        check::gradients(&x[1..], |tape, v| tape.layer_norm(&v[0], &v[1], Some(&v[2]), 1e-5)).unwrap();
        check::gradients(&x[1..3], |tape, v| tape.layer_norm(&v[0], &v[1], None, 1e-5)).unwrap();
        check::gradients(&x[1..3], |tape, v| tape.rms_norm(&v[0], &v[1], 1e-5)).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn the_fast_form_agrees_with_the_composite(rows in 1usize..20, width in 2usize..150, form in 0usize..3) {
            let run = |dtype| {
                let tape = Tape::recording();
                let v: Vec<Value> = inputs(&[rows], width, dtype).into_iter().map(|t| tape.variable(t)).collect();
                let y = match form {
                    0 => tape.residual_layer_norm(&v[0], &v[1], &v[2], Some(&v[3]), 1e-5),
                    1 => tape.layer_norm(&v[0], &v[2], Some(&v[3]), 1e-5),
                    _ => tape.rms_norm(&v[0], &v[2], 1e-5),
                };
                let y = y.unwrap();
                let gradients = tape.backward_from(vec![(y.clone(), random(9, &[rows, width], dtype))]).unwrap();
                let mut all = vec![y.into_tensor()];
                all.extend(v.iter().filter_map(|v| gradients.of(v).cloned()));
                all.iter()
                    .map(|t| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap())
                    .collect::<Vec<_>>()
            };
            let (exact, fast) = (run(DType::F64), run(DType::F32));
            prop_assert_eq!(exact.len(), 5 - form);
            for (i, (fast, exact)) in fast.iter().zip(&exact).enumerate() {
                let scale = exact.iter().fold(1.0f64, |a, x| a.max(x.abs()));
                let error = fast.iter().zip(exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / scale;
                prop_assert!(error < 5e-5, "result {i}: off by {error}");
            }
        }
    }

    /// What a later op keeps of a norm is made of the normalized input, with the same bits.
    #[test]
    fn what_is_made_again_has_the_same_bits() {
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            let x = inputs(&[7], 37, dtype);
            let turned = x[0].t().unwrap().contiguous().unwrap().t().unwrap();
            let tape = Tape::recording();
            let leaf = |t: &Tensor| tape.variable(t.clone());
            let (weight, bias) = (leaf(&x[2]), leaf(&x[3]));
            let made = [
                tape.residual_layer_norm(&leaf(&x[0]), &leaf(&x[1]), &weight, Some(&bias), 1e-5),
                tape.layer_norm(&leaf(&turned), &weight, Some(&bias), 1e-5),
                tape.layer_norm(&leaf(&x[0]), &weight, None, 1e-5),
                tape.rms_norm(&leaf(&x[0]), &weight, 1e-5),
            ];
            for (i, y) in made.into_iter().enumerate() {
                let y = y.unwrap();
                let kept = y.kept().unwrap();
                assert!(kept.is_made_again(), "norm {i} of {dtype:?} is kept");
                assert_eq!(bits(&kept.tensor().unwrap()), bits(y.tensor()), "norm {i} of {dtype:?}");
            }
        }
    }

    fn bits(x: &Tensor) -> Vec<f64> {
        x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }
}
