//! How probable the classes of a linear map hold each sequence: what preferences between answers are learned by. As for
//! [`linear_cross_entropy`](Tape::linear_cross_entropy), whose chunks these are, logits are never all there at one time.

use candle_core::{DType, Result, Tensor};

use super::embedding::scatter;
use super::linear::Product;
use super::linear_cross_entropy::{Counted, MapGradients, rows_at_once, slope_of_rows};
use crate::{Activation, Tape, Value};

impl Tape {
    /// The sum over each sequence of the log-probabilities of `targets` `[n]` `u32` by the logits `x W^T + b`, where `u32::MAX` means:
    /// ignore the row. `x` `[n, in]`, `weight` `[classes, in]`, `bias` `[classes]`; `offsets` `[sequences + 1]` are where sequences start,
    /// and the end of the last.
    ///
    /// Returns the sums, `[sequences]`, and how many rows count in each. Where `x` alone wants a gradient, that is made with the logits, and
    /// kept. The weight's takes what each sum's is, which comes later: then logits are made once more.
    pub fn linear_log_likelihood(
        &self,
        x: &Value,
        weight: &Value,
        bias: Option<&Value>,
        targets: &Tensor,
        offsets: &[u32],
    ) -> Result<(Value, Vec<u32>)> {
        self.log_likelihood_by(rows_at_once(weight)?, x, weight, bias, targets, offsets)
    }

    /// With so many rows at one time.
    fn log_likelihood_by(
        &self,
        at_once: usize,
        x: &Value,
        weight: &Value,
        bias: Option<&Value>,
        targets: &Tensor,
        offsets: &[u32],
    ) -> Result<(Value, Vec<u32>)> {
        let Counted { rows, targets, x: x_rows } = Counted::of(x, weight, bias, targets)?; // x [counted, in]
        let sequence_of = sequences(&rows, offsets, x.dims2()?.0)?;
        let inputs: Vec<&Value> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
        let wants = |input: &&Value| self.options().recording && input.requires_grad();
        let later = inputs[1..].iter().any(wants);
        let now = wants(&inputs[0]) && !later;
        let parallel = self.options().parallel_ops;
        let map = Product::new(self, weight)?;
        let bias = bias.map(|bias| bias.tensor().clone());
        // The losses of some rows and their gradients by the logits.
        let slopes = move |map: &Product, x: &Tensor, targets: &[u32]| {
            let (logits, _) = map.forward(x, bias.as_ref(), Activation::Identity, false)?; // [some, classes]
            slope_of_rows(logits, targets, parallel)
        };

        let (mut losses, mut slopes_by_x) = (Vec::with_capacity(targets.len()), Vec::new());
        for (i, targets) in targets.chunks(at_once).enumerate() {
            let x = x_rows.narrow(0, i * at_once, targets.len())?;
            let (some, slope) = slopes(&map, &x, targets)?;
            losses.extend(some);
            if now {
                slopes_by_x.push(map.input_gradient(&slope)?); // [some, in]
            }
        }
        let (mut sums, mut numbers) = (vec![0f64; offsets.len() - 1], vec![0; offsets.len() - 1]);
        for (&sequence, loss) in sequence_of.iter().zip(&losses) {
            sums[sequence as usize] -= loss;
            numbers[sequence as usize] += 1;
        }
        let (device, float) = (x.tensor().device().clone(), x.tensor().dtype());
        let dtype = if float == DType::F64 { DType::F64 } else { DType::F32 };
        let sums = Tensor::new(sums, &candle_core::Device::Cpu)?.to_dtype(dtype)?.to_device(&device)?;

        let dims: Vec<Vec<usize>> = inputs.iter().map(|input| input.dims().to_vec()).collect();
        let value = self.record(sums, &inputs, move |gradient, vjp| {
            if rows.is_empty() {
                for (i, dims) in dims.iter().enumerate().filter(|(i, _)| vjp.wants(*i)).collect::<Vec<_>>() {
                    vjp.give(i, Tensor::zeros(dims.as_slice(), float, &device)?)?;
                }
                return Ok(());
            }
            // Of each row the gradient of its loss: it is taken away from its sequence's sum.
            let ids = Tensor::new(sequence_of.as_slice(), &device)?;
            let by = gradient.index_select(&ids, 0)?.neg()?.to_dtype(float)?.unsqueeze(1)?; // [counted, 1]
            if now {
                return vjp.give(0, scatter(&Tensor::cat(&slopes_by_x, 0)?.broadcast_mul(&by)?, &rows, &dims[0])?);
            }
            let (wanted, mut all) = ([0, 1, 2].map(|i| vjp.wants(i)), MapGradients::default());
            for (i, targets) in targets.chunks(at_once).enumerate() {
                let x = x_rows.narrow(0, i * at_once, targets.len())?;
                let by = by.narrow(0, i * at_once, targets.len())?;
                let slope = slopes(&map, &x, targets)?.1.broadcast_mul(&by)?; // [some, classes]
                all.add(&map, &x, slope, wanted, parallel)?;
            }
            for (i, sum) in all.of_all(&rows, &dims[0])?.into_iter().enumerate() {
                sum.map_or(Ok(()), |sum| vjp.give(i, sum))?;
            }
            Ok(())
        });
        Ok((value, numbers))
    }
}

/// The sequence of each row, of `n` rows in all.
fn sequences(rows: &[u32], offsets: &[u32], n: usize) -> Result<Vec<u32>> {
    if offsets.first() != Some(&0) || offsets.last() != Some(&(n as u32)) || !offsets.is_sorted() {
        candle_core::bail!("sequences of {n} rows start at 0, go up and end at {n}; got {offsets:?}");
    }
    Ok(rows.iter().map(|row| offsets.partition_point(|start| start <= row) as u32 - 1).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use candle_core::Device;

    use super::super::loss::IGNORED;
    use super::*;
    use crate::{Precision, TapeOptions, check};

    fn random(seed: u64, dims: &[usize], dtype: DType) -> Tensor {
        let mut data = vec![0f32; dims.iter().product()];
        crate::random::Stream::keyed(seed, &[5]).fill_uniform(&mut data, -1.0, 1.0);
        Tensor::from_vec(data, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    /// The second sequence has no row, and of the last none counts.
    const OFFSETS: [u32; 6] = [0, 3, 3, 4, 7, 8];
    const TARGETS: [u32; 8] = [3, IGNORED, 0, 10, IGNORED, 3, 7, IGNORED];

    fn inputs(dtype: DType) -> [Tensor; 3] {
        [random(1, &[8, 5], dtype), random(2, &[11, 5], dtype), random(3, &[11], dtype)]
    }

    fn targets() -> Tensor {
        Tensor::new(&TARGETS, &Device::Cpu).unwrap()
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let all = inputs(DType::F64);
        for at_once in [1, 2, 5, 100] {
            check::gradients(&all, |tape, v| {
                Ok(tape.log_likelihood_by(at_once, &v[0], &v[1], Some(&v[2]), &targets(), &OFFSETS)?.0)
            })
            .unwrap();
            // Of a frozen layer the gradient is made with the logits.
            check::gradients(&all[..1], |tape, v| {
                let [_, weight, bias] = inputs(DType::F64).map(Value::constant);
                Ok(tape.log_likelihood_by(at_once, &v[0], &weight, Some(&bias), &targets(), &OFFSETS)?.0)
            })
            .unwrap();
        }
    }

    /// Sums, numbers and the gradient of x for these gradients of the sums.
    fn run(options: TapeOptions, dtype: DType, at_once: usize, frozen: bool) -> (Vec<f64>, Vec<u32>, Vec<f64>) {
        let tape = Tape::new(TapeOptions { recording: true, ..options });
        let [x, weight, bias] = inputs(dtype);
        let x = tape.variable(x);
        let [weight, bias] = [weight, bias].map(|t| if frozen { Value::constant(t) } else { tape.variable(t) });
        let (sums, numbers) = tape.log_likelihood_by(at_once, &x, &weight, Some(&bias), &targets(), &OFFSETS).unwrap();
        let seed = Tensor::new(&[0.5f64, 3.0, -1.0, 2.0, 7.0], &Device::Cpu).unwrap().to_dtype(sums.dtype()).unwrap();
        let gradients = tape.backward_from(vec![(sums.clone(), seed)]).unwrap();
        let flat = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        (flat(sums.tensor()), numbers, flat(gradients.of(&x).unwrap()))
    }

    /// Each sequence's is what its rows lose in a cross entropy of their own, in every float type, however many rows are taken at once, and
    /// whether the layer trains or not.
    #[test]
    fn is_the_loss_of_each_sequence() {
        let (expected, numbers, slopes) = run(TapeOptions::default(), DType::F64, 100, false);
        assert_eq!(numbers, [2, 0, 1, 2, 0]);
        let [x, weight, bias] = inputs(DType::F64).map(Value::constant);
        let tape = Tape::evaluation();
        for (i, sum) in expected.iter().enumerate() {
            let (start, len) = (OFFSETS[i] as usize, (OFFSETS[i + 1] - OFFSETS[i]) as usize);
            let some = Value::constant(x.tensor().narrow(0, start, len).unwrap());
            let of = targets().narrow(0, start, len).unwrap().contiguous().unwrap();
            let (loss, _) = tape.linear_cross_entropy(&some, &weight, Some(&bias), &of).unwrap();
            assert!((loss.tensor().to_scalar::<f64>().unwrap() + sum).abs() < 1e-12);
        }
        for (dtype, precision, tolerance) in [
            (DType::F64, Precision::F32, 1e-12),
            (DType::F32, Precision::F32, 3e-6),
            (DType::F32, Precision::Bf16, 5e-2),
            (DType::BF16, Precision::F32, 1e-1),
        ] {
            for (at_once, parallel_ops, frozen) in
                [(1, false, false), (2, true, true), (3, false, true), (100, true, false)]
            {
                let options = TapeOptions { precision, parallel_ops, ..TapeOptions::default() };
                let found = run(options, dtype, at_once, frozen);
                assert_eq!(found.1, numbers);
                for (found, expected) in found.0.iter().zip(&expected).chain(found.2.iter().zip(&slopes)) {
                    let error = (found - expected).abs();
                    assert!(error <= tolerance * expected.abs().max(1.0), "{dtype:?} {precision:?}: off by {error}");
                }
            }
        }
    }

    #[test]
    fn without_a_row_that_counts_every_gradient_is_0() {
        let tape = Tape::recording();
        let values = inputs(DType::F32).map(|t| tape.variable(t));
        let none = Tensor::new(&[IGNORED; 8], &Device::Cpu).unwrap();
        let (sums, numbers) = tape.linear_log_likelihood(&values[0], &values[1], None, &none, &[0, 8]).unwrap();
        assert_eq!((sums.tensor().to_vec1::<f32>().unwrap(), numbers), (vec![0.0], vec![0]));
        let sum = tape.sum(&sums).unwrap();
        let gradients = tape.backward(&sum).unwrap();
        for value in &values[..2] {
            let gradient = gradients.of(value).unwrap();
            assert_eq!(gradient.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
        }
    }

    #[test]
    fn sequences_that_do_not_cover_the_rows_are_refused() {
        let [x, weight, bias] = inputs(DType::F32).map(Value::constant);
        for offsets in [&[][..], &[0], &[0, 7], &[1, 8], &[0, 5, 4, 8]] {
            let tape = Tape::evaluation();
            let error = tape.linear_log_likelihood(&x, &weight, Some(&bias), &targets(), offsets).unwrap_err();
            assert!(error.to_string().contains("sequences of 8 rows"), "{error}");
        }
    }
}
