//! Cross entropy with the classes of a linear map, whose logits are never all there at one time: of a vocabulary of 128,000 and
//! 4,096 tokens they are two gigabytes.

use candle_core::{D, DType, Result, Tensor};
use rayon::prelude::*;

use super::elementwise::unbroadcast;
use super::embedding::{gather, scatter};
use super::linear::Product;
use super::loss::{IGNORED, true_classes};
use super::reduce::log_softmax;
use crate::gradients::Sum;
use crate::kernels::softmax::softmax;
use crate::logits::rows_of_logits;
use crate::tape::add_to;
use crate::{Activation, Tape, Value, slices};

impl Tape {
    /// [`cross_entropy`](Self::cross_entropy) of `x W^T + b` with `targets` `[n]` `u32`, where `u32::MAX` means: ignore the row.
    /// `x` `[n, in]`, `weight` `[classes, in]`, `bias` `[classes]`.
    ///
    /// Returns the sum over the rows that count, and their number. Logits are made of those rows alone, some rows at a time, in `f32` at
    /// least, and each row's gradients in the same pass: what is kept for the backward pass is as large as `x`, and as the weight where
    /// that trains.
    pub fn linear_cross_entropy(
        &self,
        x: &Value,
        weight: &Value,
        bias: Option<&Value>,
        targets: &Tensor,
    ) -> Result<(Value, f64)> {
        self.cross_entropy_by(rows_at_once(weight)?, x, weight, bias, targets)
    }

    /// The class with the largest logit of `x W^T + b` for each row, `[n]` `u32`, the first of several; shapes as in
    /// [`linear_cross_entropy`](Self::linear_cross_entropy). No gradient flows, and logits are never all there at one time.
    pub fn linear_argmax(&self, x: &Value, weight: &Value, bias: Option<&Value>) -> Result<Tensor> {
        let (n, at_once) = (x.dims2()?.0, rows_at_once(weight)?);
        check_map(x, weight, bias)?;
        if n > 0 && weight.dims2()?.0 == 0 {
            candle_core::bail!("the largest of no logits: the weight has shape {:?}", weight.dims());
        }
        let map = Product::new(self, weight)?;
        let rows = x.tensor().contiguous()?;
        let mut found = Vec::with_capacity(n.div_ceil(at_once));
        for start in (0..n).step_by(at_once) {
            let some = rows.narrow(0, start, at_once.min(n - start))?;
            let (logits, _) = map.forward(&some, bias.map(Value::tensor), Activation::Identity, false)?; // [some, classes]
            found.push(logits.argmax(D::Minus1)?); // [some]
        }
        if found.is_empty() { Tensor::zeros(0, DType::U32, rows.device()) } else { Tensor::cat(&found, 0) }
    }

    /// With so many rows at one time.
    fn cross_entropy_by(
        &self,
        at_once: usize,
        x: &Value,
        weight: &Value,
        bias: Option<&Value>,
        targets: &Tensor,
    ) -> Result<(Value, f64)> {
        let Counted { rows: counted, targets, x: x_rows } = Counted::of(x, weight, bias, targets)?;

        let inputs = [Some(x), Some(weight), bias];
        let inputs: Vec<&Value> = inputs.into_iter().flatten().collect();
        let wants = |i: usize| self.options().recording && inputs.get(i).is_some_and(|input| input.requires_grad());
        let wanted = [wants(0), wants(1), wants(2)];
        let map = Product::new(self, weight)?;
        let (mut loss, mut slopes) = (0.0, MapGradients::default());
        for (i, targets) in targets.chunks(at_once).enumerate() {
            let x = x_rows.narrow(0, i * at_once, targets.len())?;
            let (logits, _) = map.forward(&x, bias.map(Value::tensor), Activation::Identity, false)?; // [some, classes]
            let parallel = self.options().parallel_ops;
            let (losses, slope) = slope_of_rows(logits, targets, parallel)?;
            loss += losses.iter().sum::<f64>();
            slopes.add(&map, &x, slope, wanted, parallel)?;
        }

        let number = targets.len() as f64;
        let dtype = if x.tensor().dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let loss = Tensor::new(loss, &candle_core::Device::Cpu)?.to_dtype(dtype)?.to_device(x.tensor().device())?;
        let dims: Vec<Vec<usize>> = inputs.iter().map(|input| input.dims().to_vec()).collect();
        let value = self.record(loss, &inputs, move |gradient, vjp| {
            let by = gradient.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            for (i, sum) in slopes.of_all(&counted, &dims[0])?.into_iter().enumerate() {
                match sum {
                    Some(sum) => vjp.give(i, sum.affine(by, 0.0)?)?,
                    // No row counts.
                    None if vjp.wants(i) => {
                        vjp.give(i, Tensor::zeros(dims[i].as_slice(), x_rows.dtype(), x_rows.device())?)?
                    }
                    None => {}
                }
            }
            Ok(())
        });
        Ok((value, number))
    }
}

/// How many rows are taken at one time.
pub(super) fn rows_at_once(weight: &Value) -> Result<usize> {
    Ok(rows_of_logits(weight.dims2()?.0))
}

/// The number of rows and of classes, where `x` `[n, in]`, `weight` `[classes, in]` and `bias` `[classes]` fit together.
fn check_map(x: &Value, weight: &Value, bias: Option<&Value>) -> Result<(usize, usize)> {
    let ((n, width), (classes, of)) = (x.dims2()?, weight.dims2()?);
    if width != of || bias.is_some_and(|bias| bias.dims() != [classes]) {
        candle_core::bail!(
            "the logits of a linear map take x [n, in], a weight [classes, in], and a bias [classes]; got {:?}, {:?}, {:?}",
            x.dims(),
            weight.dims(),
            bias.map(Value::dims)
        );
    }
    Ok((n, classes))
}

/// The rows that count.
pub(super) struct Counted {
    /// Their places, ascending.
    pub(super) rows: Vec<u32>,
    /// The class of each.
    pub(super) targets: Vec<u32>,
    /// What is multiplied, `[counted, in]`.
    pub(super) x: Tensor,
}

impl Counted {
    /// Those of `x` `[n, in]` whose target is not [`IGNORED`].
    pub(super) fn of(x: &Value, weight: &Value, bias: Option<&Value>, targets: &Tensor) -> Result<Self> {
        let (n, classes) = check_map(x, weight, bias)?;
        let targets = true_classes(n, classes, targets)?;
        let rows: Vec<u32> = (0u32..).zip(&targets).filter(|(_, class)| **class != IGNORED).map(|(i, _)| i).collect();
        let targets: Vec<u32> = targets.into_iter().filter(|class| *class != IGNORED).collect();
        let x = gather(&x.tensor().contiguous()?, &rows)?; // [counted, in]
        Ok(Self { rows, targets, x })
    }
}

/// Gradients of a linear map's `x`, weight and bias, which grow by some rows at a time.
#[derive(Default)]
pub(super) struct MapGradients {
    /// Of the rows of `x`, in their order.
    x: Vec<Tensor>,
    weight: Option<Sum>,
    bias: Option<Sum>,
}

impl MapGradients {
    /// Adds what some rows give, `x` `[some, in]` with the gradient of their logits, `slope` `[some, classes]`, to those that are wanted.
    pub(super) fn add(
        &mut self,
        map: &Product,
        x: &Tensor,
        slope: Tensor,
        wanted: [bool; 3],
        parallel: bool,
    ) -> Result<()> {
        if wanted[0] {
            self.x.push(map.input_gradient(&slope)?); // [some, in]
        }
        if wanted[1] {
            add_to(&mut self.weight, Sum::dense(map.weight_gradient(&slope, x)?), parallel)?; // [classes, in]
        }
        if wanted[2] {
            let classes = slope.dims2()?.1;
            add_to(&mut self.bias, Sum::dense(unbroadcast(slope, &[classes])?), parallel)?; // [classes]
        }
        Ok(())
    }

    /// Those of `x`, of this shape, whose `rows` they were made of, of the weight and of the bias; none where nothing was added.
    pub(super) fn of_all(self, rows: &[u32], shape: &[usize]) -> Result<[Option<Tensor>; 3]> {
        let x = if self.x.is_empty() { None } else { Some(scatter(&Tensor::cat(&self.x, 0)?, rows, shape)?) };
        let [weight, bias] = [self.weight, self.bias].map(|sum| sum.map(Sum::into_dense).transpose());
        Ok([x, weight?, bias?])
    }
}

/// The loss of each row of `logits` `[some, classes]`, and its gradient by them, which may take their place.
pub(super) fn slope_of_rows(logits: Tensor, targets: &[u32], parallel: bool) -> Result<(Vec<f64>, Tensor)> {
    let classes = logits.dims2()?.1.max(1);
    let one = |(row, class): (&mut [f32], &u32)| {
        let true_logit = row[*class as usize];
        let log_sum = softmax(row);
        row[*class as usize] -= 1.0;
        f64::from(log_sum) - f64::from(true_logit)
    };
    let mut losses = Vec::new();
    let done = slices::write(&logits, |logits| {
        losses = if parallel {
            logits.par_chunks_mut(classes).zip(targets).map(one).collect::<Vec<f64>>()
        } else {
            logits.chunks_mut(classes).zip(targets).map(one).collect()
        };
    })?;
    if done {
        return Ok((losses, logits));
    }
    let dtype = logits.dtype();
    let wide = if dtype == DType::F64 { logits } else { logits.to_dtype(DType::F32)? };
    let log_p = log_softmax(&wide)?;
    let targets = Tensor::new(targets, log_p.device())?.unsqueeze(1)?; // [some, 1]
    let losses = log_p.gather(&targets, D::Minus1)?.neg()?.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
    let ones = targets.ones_like()?.to_dtype(log_p.dtype())?;
    let slope = log_p.exp()?.scatter_add(&targets, &ones.neg()?, 1)?;
    Ok((losses, slope.to_dtype(dtype)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use candle_core::Device;

    use super::*;
    use crate::{Precision, TapeOptions, check};

    fn random(seed: u64, dims: &[usize], dtype: DType) -> Tensor {
        let mut data = vec![0f32; dims.iter().product()];
        crate::random::Stream::keyed(seed, &[3]).fill_uniform(&mut data, -1.0, 1.0);
        Tensor::from_vec(data, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    const TARGETS: [u32; 7] = [3, IGNORED, 0, 10, IGNORED, 3, 7];

    fn inputs(dtype: DType) -> [Tensor; 3] {
        [random(1, &[7, 5], dtype), random(2, &[11, 5], dtype), random(3, &[11], dtype)]
    }

    fn targets(classes: &[u32]) -> Tensor {
        Tensor::new(classes, &Device::Cpu).unwrap()
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for at_once in [1, 2, 5, 100] {
            check::gradients(&inputs(DType::F64), |tape, v| {
                Ok(tape.cross_entropy_by(at_once, &v[0], &v[1], Some(&v[2]), &targets(&TARGETS))?.0)
            })
            .unwrap();
        }
    }

    type Op = dyn Fn(&Tape, &[Value]) -> Result<(Value, f64)>;

    /// The loss, the number of rows and the gradients of `x`, weight and bias.
    fn run(options: TapeOptions, dtype: DType, loss: &Op) -> (Vec<Tensor>, f64) {
        let tape = Tape::new(TapeOptions { recording: true, ..options });
        let values = inputs(dtype).map(|t| tape.variable(t));
        let (sum, number) = loss(&tape, &values).unwrap();
        let mean = tape.affine(&sum, 1.0 / number, 0.0).unwrap();
        let gradients = tape.backward(&mean).unwrap();
        let of = |value: &Value| gradients.of(value).unwrap().to_dtype(DType::F64).unwrap();
        let mut all = vec![sum.tensor().to_dtype(DType::F64).unwrap()];
        all.extend(values.iter().map(of));
        (all, number)
    }

    /// The same as a product and the loss of its logits, in every float type and however many rows are taken at one time.
    #[test]
    fn is_the_loss_of_a_linear_map() {
        let plain = |tape: &Tape, v: &[Value]| {
            let logits = tape.linear(&v[0], &v[1], Some(&v[2]))?;
            tape.cross_entropy(&logits, &targets(&TARGETS), None, 0.0)
        };
        let (expected, rows) = run(TapeOptions::default(), DType::F64, &plain);
        assert_eq!(rows, 5.0);
        let float = |dtype, precision, tolerance| (dtype, precision, tolerance);
        for (dtype, precision, tolerance) in [
            float(DType::F64, Precision::F32, 1e-12),
            float(DType::F32, Precision::F32, 1e-6),
            float(DType::F32, Precision::Bf16, 2e-2),
            float(DType::BF16, Precision::F32, 5e-2),
        ] {
            for (at_once, parallel_ops) in [(1, false), (2, true), (3, false), (100, true)] {
                let options = TapeOptions { precision, parallel_ops, ..TapeOptions::default() };
                let (found, rows) = run(options, dtype, &move |tape, v| {
                    tape.cross_entropy_by(at_once, &v[0], &v[1], Some(&v[2]), &targets(&TARGETS))
                });
                assert_eq!(rows, 5.0);
                for (found, expected) in found.iter().zip(&expected) {
                    let error = (found - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
                    let error = error.to_scalar::<f64>().unwrap();
                    let size =
                        expected.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f64>().unwrap();
                    assert!(
                        error <= tolerance * size.max(1.0),
                        "{dtype:?} {precision:?}, {at_once} at once: off by {error}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_most_probable_class_is_that_of_the_logits() {
        let [x, weight, bias] = inputs(DType::F32).map(Value::constant);
        let tape = Tape::evaluation();
        let logits = tape.linear(&x, &weight, Some(&bias)).unwrap().into_tensor();
        let expected = logits.argmax(D::Minus1).unwrap().to_vec1::<u32>().unwrap();
        let found = tape.linear_argmax(&x, &weight, Some(&bias)).unwrap();
        assert_eq!(found.to_vec1::<u32>().unwrap(), expected);
        let none = Value::constant(x.tensor().narrow(0, 0, 0).unwrap());
        assert_eq!(tape.linear_argmax(&none, &weight, None).unwrap().dims(), [0]);
    }

    #[test]
    fn without_a_row_that_counts_nothing_is_lost_and_every_gradient_is_0() {
        let tape = Tape::recording();
        let values = inputs(DType::F32).map(|t| tape.variable(t));
        let none = targets(&[IGNORED; 7]);
        let (sum, rows) = tape.linear_cross_entropy(&values[0], &values[1], None, &none).unwrap();
        assert_eq!((sum.tensor().to_scalar::<f32>().unwrap(), rows), (0.0, 0.0));
        let gradients = tape.backward(&sum).unwrap();
        for value in &values[..2] {
            let gradient = gradients.of(value).unwrap();
            assert_eq!(gradient.dims(), value.dims());
            assert_eq!(gradient.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
        }
    }

    #[test]
    fn mistakes_are_named() {
        let [x, weight, bias] = inputs(DType::F32).map(Value::constant);
        let error = |x: &Value, classes: &[u32]| {
            let tape = Tape::evaluation();
            tape.linear_cross_entropy(x, &weight, Some(&bias), &targets(classes)).unwrap_err().to_string()
        };
        assert!(error(&x, &[11; 7]).contains("target 11 of row 0 is not one of 11 classes"));
        assert!(error(&x, &[0]).contains("wants u32 targets [7]"));
        let narrow = Value::constant(random(1, &[7, 4], DType::F32));
        assert!(error(&narrow, &[0; 7]).contains("take x [n, in]"));
    }
}
