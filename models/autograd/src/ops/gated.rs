//! Gated linear units (Shazeer 2020, arXiv:2002.05202): one half of a feed-forward layer opens and shuts the other.

use candle_core::{Result, Tensor, bail};

use crate::kernels::joined as fast;
use crate::{Activation, Tape, Value, slices};

impl Tape {
    /// `activation(gate) * up`, two values of one shape: SwiGLU with [`Silu`](Activation::Silu), GeGLU with
    /// [`GeluTanh`](Activation::GeluTanh).
    pub fn gated(&self, gate: &Value, up: &Value, activation: Activation) -> Result<Value> {
        if gate.dims() != up.dims() {
            bail!("a gate {:?} cannot open {:?}: the shapes must be equal", gate.dims(), up.dims());
        }
        let parallel = self.options().parallel_ops;
        let inputs = [gate, up];
        let [gate, up] = inputs.map(|value| value.tensor().clone());
        let make = move |gate: &Tensor, up: &Tensor| -> Result<Tensor> {
            match slices::read([gate, up], |[gate, up]| fast::gate(activation, gate, up, parallel)) {
                Some(y) => Tensor::from_vec(y, gate.dims(), gate.device()),
                None => activation.forward(gate)? * up,
            }
        };
        let y = make(&gate, &up)?;
        // Both operands are kept anyway.
        let again = (gate.clone(), up.clone());
        let y = self.record(y, &inputs, move |g, vjp| {
            let g = g.contiguous()?;
            let done =
                slices::read([&gate, &up, &g], |[gate, up, g]| fast::gate_backward(activation, gate, up, g, parallel));
            let [of_gate, of_up] = match done {
                Some((of_gate, of_up)) => [
                    Tensor::from_vec(of_gate, gate.dims(), gate.device())?,
                    Tensor::from_vec(of_up, up.dims(), up.device())?,
                ],
                None => [activation.backward(&gate, &(&g * &up)?)?, (activation.forward(&gate)? * &g)?],
            };
            vjp.give(0, of_gate)?;
            vjp.give(1, of_up)
        });
        Ok(y.made_again_by(move || make(&again.0, &again.1)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use candle_core::{DType, Device};

    use super::*;
    use crate::{TapeOptions, check, random::Stream};

    fn random(seed: u64, dims: &[usize], dtype: DType) -> Tensor {
        let mut data = vec![0f32; dims.iter().product()];
        Stream::keyed(seed, &[29]).fill_uniform(&mut data, -3.0, 3.0);
        Tensor::from_vec(data, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for activation in [Activation::Silu, Activation::GeluTanh, Activation::Identity] {
            let inputs = [random(1, &[3, 5], DType::F64), random(2, &[3, 5], DType::F64)];
            check::gradients(&inputs, |tape, v| tape.gated(&v[0], &v[1], activation)).unwrap();
        }
    }

    #[test]
    fn the_fast_form_agrees_with_the_composite_at_any_number_of_threads() {
        let dims = [37, 1000]; // more than one chunk
        let run = |dtype, parallel_ops| {
            let tape = Tape::new(TapeOptions { recording: true, parallel_ops, ..TapeOptions::default() });
            let v = [1, 2].map(|seed| tape.variable(random(seed, &dims, dtype)));
            let y = tape.gated(&v[0], &v[1], Activation::Silu).unwrap();
            let gradients = tape.backward_from(vec![(y.clone(), random(3, &dims, dtype))]).unwrap();
            let all = [y.tensor(), gradients.of(&v[0]).unwrap(), gradients.of(&v[1]).unwrap()];
            all.map(|t| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap())
        };
        let (exact, fast) = (run(DType::F64, false), run(DType::F32, false));
        for (i, (fast, exact)) in fast.iter().zip(&exact).enumerate() {
            let error = fast.iter().zip(exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(error < 1e-5, "result {i}: off by {error}");
        }
        assert_eq!(fast, run(DType::F32, true), "threads changed the bits");
    }

    /// What a later op keeps of the result is made of the operands, with the same bits.
    #[test]
    fn what_is_made_again_has_the_same_bits() {
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            let tape = Tape::recording();
            let v = [1, 2].map(|seed| tape.variable(random(seed, &[5, 37], dtype)));
            let y = tape.gated(&v[0], &v[1], Activation::Silu).unwrap();
            let kept = y.kept().unwrap();
            assert!(kept.is_made_again());
            let bits = |x: &Tensor| x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert_eq!(bits(&kept.tensor().unwrap()), bits(y.tensor()), "{dtype:?}");
        }
    }
}
