//! The norms of a weight's rows with its low-rank update on top: what DoRA divides by.

use candle_core::{Result, Tensor};

use super::reduce::sum_over;
use crate::{Parameter, Tape, Value, slices};

impl Tape {
    /// The Euclidean norm of each row of `weight + scale b a`: `weight` `[out, in]`, `a` `[rank, in]`, `b` `[out, rank]`; gives
    /// `[out]`. No gradient flows through it: DoRA (Liu et al. 2024, arXiv:2402.09353, section 4.3) takes it as a constant.
    ///
    /// Where all three are parameters it is computed once for each of their versions, not for each micro-batch.
    pub fn low_rank_norm(&self, weight: &Value, a: &Value, b: &Value, scale: f64) -> Result<Value> {
        let ((out, width), (rank, a_width), (b_out, columns)) = (weight.dims2()?, a.dims2()?, b.dims2()?);
        if rank != columns || width != a_width || out != b_out {
            candle_core::bail!(
                "the norms of a low-rank update take weight [out, in], a [rank, in], b [out, rank]; got {:?}, {:?}, {:?}",
                weight.dims(),
                a.dims(),
                b.dims()
            );
        }
        let compute = || norms(weight.tensor(), a.tensor(), b.tensor(), scale);
        let norms = match (weight.parameter(), a.parameter(), b.parameter()) {
            (Some(weight), Some(a), Some(b)) => {
                let key: Vec<u64> = [weight, a, b].into_iter().flat_map(version).chain([scale.to_bits()]).collect();
                b.derived(key, compute)?
            }
            _ => compute()?,
        };
        Ok(Value::constant(norms))
    }
}

/// What tells a parameter's value from all others.
fn version(parameter: &Parameter) -> [u64; 2] {
    [parameter.id(), parameter.version()]
}

/// On one thread: it runs under the lock of a parameter, where waiting for other threads' work could wait for that lock.
fn norms(weight: &Tensor, a: &Tensor, b: &Tensor, scale: f64) -> Result<Tensor> {
    let out = weight.dims()[0];
    let rows = slices::read([weight, a, b], |[weight, a, b]| row_norms(weight, a, b, out, scale as f32));
    match rows {
        Some(norms) => Tensor::from_vec(norms, out, weight.device()),
        None => {
            let sum = (weight + b.matmul(a)?.affine(scale, 0.0)?)?; // [out, in]
            sum_over(&sum.sqr()?, &[1])?.sqrt()?.reshape(out)
        }
    }
}

fn row_norms(weight: &[f32], a: &[f32], b: &[f32], out: usize, scale: f32) -> Vec<f32> {
    let (width, rank) = (weight.len() / out.max(1), b.len() / out.max(1));
    let mut row = vec![0f32; width];
    let norm = |i: usize| {
        row.copy_from_slice(&weight[i * width..][..width]);
        for (b, a) in b[i * rank..][..rank].iter().zip(a.chunks_exact(width.max(1))) {
            let factor = scale * b;
            row.iter_mut().zip(a).for_each(|(sum, a)| *sum += factor * a);
        }
        length(&row)
    };
    (0..out).map(norm).collect()
}

/// The Euclidean norm, summed in `f64` and rounded once.
fn length(row: &[f32]) -> f32 {
    // Lanes let the loop vectorise; their number fixes the bits.
    let mut lanes = [0f64; 8];
    let (whole, rest) = row.as_chunks::<8>();
    for x in whole {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane += f64::from(*x) * f64::from(*x);
        }
    }
    let rest: f64 = rest.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    (rest + lanes.iter().sum::<f64>()).sqrt() as f32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use candle_core::{DType, Device};

    use super::*;

    fn random(seed: u64, dims: &[usize]) -> Tensor {
        let mut data = vec![0f32; dims.iter().product()];
        crate::random::Stream::keyed(seed, &[7]).fill_uniform(&mut data, -1.0, 1.0);
        Tensor::from_vec(data, dims, &Device::Cpu).unwrap()
    }

    fn of(weight: &Value, a: &Value, b: &Value) -> Vec<f32> {
        Tape::recording().low_rank_norm(weight, a, b, 0.7).unwrap().tensor().to_vec1().unwrap()
    }

    #[test]
    fn the_fast_form_agrees_with_the_composite() {
        let (weight, a, b) = (random(1, &[5, 19]), random(2, &[3, 19]), random(3, &[5, 3]));
        let wide = |tensor: &Tensor| tensor.to_dtype(DType::F64).unwrap();
        let exact = norms(&wide(&weight), &wide(&a), &wide(&b), 0.7).unwrap().to_vec1::<f64>().unwrap();
        let values = [weight, a, b].map(Value::constant);
        for (found, exact) in of(&values[0], &values[1], &values[2]).iter().zip(exact) {
            assert!((f64::from(*found) - exact).abs() < 1e-6 * exact, "{found} is not {exact}");
        }
    }

    #[test]
    fn it_follows_every_change_and_has_no_gradient() {
        let parameters = [random(1, &[5, 19]), random(2, &[3, 19]), random(3, &[5, 3])]
            .map(|tensor| Parameter::new("parameter", tensor, true));
        let tape = Tape::recording();
        let norms = || {
            let [weight, a, b] = [0, 1, 2].map(|i| tape.parameter(&parameters[i]));
            assert!(!tape.low_rank_norm(&weight, &a, &b, 0.7).unwrap().requires_grad());
            of(&weight, &a, &b)
        };
        let mut before = norms();
        assert_eq!(before, norms());
        for parameter in &parameters {
            parameter.set(&parameter.tensor().affine(2.0, 0.5).unwrap()).unwrap();
            let after = norms();
            assert_ne!(before, after, "a changed parameter changes the norms");
            before = after;
        }
    }

    #[test]
    fn without_an_update_it_is_the_weights_to_the_bit() {
        let weight = random(1, &[5, 19]);
        let plain = slices::read([&weight], |[weight]| weight.chunks(19).map(length).collect::<Vec<_>>()).unwrap();
        let [weight, a, b] = [weight, random(2, &[3, 19]), Tensor::zeros((5, 3), DType::F32, &Device::Cpu).unwrap()]
            .map(Value::constant);
        assert_eq!(of(&weight, &a, &b), plain);
    }

    #[test]
    fn wrong_shapes_are_named() {
        let [weight, a, b] = [random(1, &[5, 19]), random(2, &[3, 18]), random(3, &[5, 3])].map(Value::constant);
        let error = Tape::evaluation().low_rank_norm(&weight, &a, &b, 1.0).unwrap_err().to_string();
        assert!(error.contains("[3, 18]"), "{error}");
    }
}
