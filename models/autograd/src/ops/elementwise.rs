//! Elementwise ops. Binary ones broadcast as numpy does; a gradient is summed over the dimensions that were broadcast.

use candle_core::{DType, Result, Tensor};

use crate::kernels::elementwise;
use crate::{Tape, Value, slices};

/// Sums `gradient` over the dimensions in which an operand of shape `dims` was broadcast.
pub(crate) fn unbroadcast(gradient: Tensor, dims: &[usize]) -> Result<Tensor> {
    if gradient.dims() == dims {
        return Ok(gradient);
    }
    let lead = gradient.rank() - dims.len();
    if gradient.dims()[lead..] == *dims
        && let Some(sum) =
            slices::read([&gradient], |[gradient]| elementwise::column_sums(gradient, dims.iter().product()))
    {
        return Tensor::from_vec(sum, dims, gradient.device());
    }
    let summed: Vec<usize> =
        (0..gradient.rank()).filter(|&d| d < lead || (dims[d - lead] == 1 && gradient.dims()[d] != 1)).collect();
    super::reduce::sum_over(&gradient, &summed)?.reshape(dims)
}

/// How many elements of a tensor of shape `a` one of shape `b` stands beside: a row where it is one row for all, everything where the
/// shapes are equal. `None` for other shapes.
fn row_length(a: &[usize], b: &[usize]) -> Option<usize> {
    let leading = b.iter().take_while(|&&size| size == 1).count();
    (a == b || (b.len() <= a.len() && leading < b.len() && a.ends_with(&b[leading..]))).then(|| b.iter().product())
}

/// `f` of each element of `a` and of `b`, which is one row for all rows of `a` or has its shape. `None` for other tensors.
///
/// Candle's own loops take turns on one pool of threads, while here several micro-batches are on their way at once.
fn zip(a: &Tensor, b: &Tensor, f: impl Fn(f32, f32) -> f32) -> Option<Result<Tensor>> {
    let length = row_length(a.dims(), b.dims()).filter(|&length| length > 0)?;
    let zipped = slices::read([a, b], |[a, b]| {
        let mut out = Vec::with_capacity(a.len());
        a.chunks_exact(length).for_each(|row| out.extend(row.iter().zip(b).map(|(a, b)| f(*a, *b))));
        out
    })?;
    Some(Tensor::from_vec(zipped, a.dims(), a.device()))
}

fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    zip(a, b, |a, b| a + b).unwrap_or_else(|| a.broadcast_add(b))
}

fn difference(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    zip(a, b, |a, b| a - b).unwrap_or_else(|| a.broadcast_sub(b))
}

fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    zip(a, b, |a, b| a * b).unwrap_or_else(|| a.broadcast_mul(b))
}

fn quotient(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    zip(a, b, |a, b| a / b).unwrap_or_else(|| a.broadcast_div(b))
}

/// `a b`, summed over the dimensions in which an operand of shape `dims` was broadcast.
fn product_sum(a: &Tensor, b: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let width = row_length(a.dims(), dims).filter(|_| a.dims() == b.dims() && a.dims() != dims);
    match width.and_then(|width| slices::read([a, b], |[a, b]| elementwise::column_product_sums(a, b, width))) {
        Some(sums) => Tensor::from_vec(sums, dims, a.device()),
        None => unbroadcast(product(a, b)?, dims),
    }
}

impl Tape {
    /// `a + b`.
    pub fn add(&self, a: &Value, b: &Value) -> Result<Value> {
        let output = sum(a.tensor(), b.tensor())?;
        let (da, db) = (a.dims().to_vec(), b.dims().to_vec());
        Ok(self.record(output, &[a, b], move |gradient, vjp| {
            if vjp.wants(0) {
                vjp.give(0, unbroadcast(gradient.clone(), &da)?)?;
            }
            if vjp.wants(1) {
                vjp.give(1, unbroadcast(gradient, &db)?)?;
            }
            Ok(())
        }))
    }

    /// `a - b`.
    pub fn sub(&self, a: &Value, b: &Value) -> Result<Value> {
        let output = difference(a.tensor(), b.tensor())?;
        let (da, db) = (a.dims().to_vec(), b.dims().to_vec());
        Ok(self.record(output, &[a, b], move |gradient, vjp| {
            if vjp.wants(1) {
                vjp.give(1, unbroadcast(gradient.clone(), &db)?.neg()?)?;
            }
            if vjp.wants(0) {
                vjp.give(0, unbroadcast(gradient, &da)?)?;
            }
            Ok(())
        }))
    }

    /// `a b`, element by element.
    pub fn mul(&self, a: &Value, b: &Value) -> Result<Value> {
        let output = product(a.tensor(), b.tensor())?;
        let (ta, tb) = (a.tensor().clone(), b.tensor().clone());
        Ok(self.record(output, &[a, b], move |gradient, vjp| {
            if vjp.wants(0) {
                vjp.give(0, product_sum(&gradient, &tb, ta.dims())?)?;
            }
            if vjp.wants(1) {
                vjp.give(1, product_sum(&gradient, &ta, tb.dims())?)?;
            }
            Ok(())
        }))
    }

    /// `a / b`.
    pub fn div(&self, a: &Value, b: &Value) -> Result<Value> {
        let output = quotient(a.tensor(), b.tensor())?;
        let (da, tb, y) = (a.dims().to_vec(), b.tensor().clone(), output.clone());
        Ok(self.record(output, &[a, b], move |gradient, vjp| {
            let scaled = quotient(&gradient, &tb)?;
            if vjp.wants(1) {
                vjp.give(1, unbroadcast((&scaled * &y)?, tb.dims())?.neg()?)?; // -a / b^2
            }
            if vjp.wants(0) {
                vjp.give(0, unbroadcast(scaled, &da)?)?;
            }
            Ok(())
        }))
    }

    /// `-x`.
    pub fn neg(&self, x: &Value) -> Result<Value> {
        self.affine(x, -1.0, 0.0)
    }

    /// `mul x + add`.
    pub fn affine(&self, x: &Value, mul: f64, add: f64) -> Result<Value> {
        let output = x.tensor().affine(mul, add)?;
        Ok(self.record(output, &[x], move |gradient, vjp| vjp.give(0, gradient.affine(mul, 0.0)?)))
    }

    /// e^x.
    pub fn exp(&self, x: &Value) -> Result<Value> {
        let output = x.tensor().exp()?;
        let y = output.clone();
        Ok(self.record(output, &[x], move |gradient, vjp| vjp.give(0, (gradient * y)?)))
    }

    /// The natural logarithm.
    pub fn log(&self, x: &Value) -> Result<Value> {
        let saved = x.tensor().clone();
        Ok(self.record(x.tensor().log()?, &[x], move |gradient, vjp| vjp.give(0, (gradient / saved)?)))
    }

    /// The square root. Its derivative at 0 is infinite.
    pub fn sqrt(&self, x: &Value) -> Result<Value> {
        let output = x.tensor().sqrt()?;
        let y = output.clone();
        Ok(self.record(output, &[x], move |gradient, vjp| vjp.give(0, (gradient.affine(0.5, 0.0)? / y)?)))
    }

    /// x^2.
    pub fn square(&self, x: &Value) -> Result<Value> {
        let saved = x.tensor().clone();
        Ok(self
            .record(x.tensor().sqr()?, &[x], move |gradient, vjp| vjp.give(0, (gradient.affine(2.0, 0.0)? * saved)?)))
    }

    /// |x|, with derivative 0 at 0.
    pub fn abs(&self, x: &Value) -> Result<Value> {
        let saved = x.tensor().clone();
        Ok(self.record(x.tensor().abs()?, &[x], move |gradient, vjp| vjp.give(0, (gradient * saved.sign()?)?)))
    }

    /// max(x, `min`). The gradient passes where x is at least `min`, as in torch.
    pub fn clamp_min(&self, x: &Value, min: f64) -> Result<Value> {
        let saved = x.tensor().clone();
        Ok(self.record(x.tensor().maximum(min)?, &[x], move |gradient, vjp| {
            let passes = saved.ge(min)?.to_dtype(gradient.dtype())?;
            vjp.give(0, (gradient * passes)?)
        }))
    }

    /// The same numbers in another float type; the gradient comes back in `x`'s.
    pub fn cast(&self, x: &Value, dtype: DType) -> Result<Value> {
        if x.dtype() == dtype {
            return Ok(x.clone());
        }
        let original = x.dtype();
        Ok(self
            .record(x.tensor().to_dtype(dtype)?, &[x], move |gradient, vjp| vjp.give(0, gradient.to_dtype(original)?)))
    }
}
