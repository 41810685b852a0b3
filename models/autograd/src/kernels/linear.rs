//! Products with a weight, on tensors. Each gives `None` where a tensor is not contiguous `f32` on the CPU.

use candle_core::{Result, Tensor};

use super::gemm::{Direction, PackedView, Product, Strided, scratch_len};
use super::scratch;
use crate::slices::{is_f32_slice, read};
use crate::{Activation, Precision, Value};

/// A weight `[out, in]`, and how to multiply with it.
#[derive(Clone, Copy)]
pub(crate) struct Weight<'a> {
    /// Where it is a parameter, that keeps the packed form.
    pub(crate) value: &'a Value,
    pub(crate) precision: Precision,
    pub(crate) parallel: bool,
}

impl Weight<'_> {
    fn dims(&self) -> Result<(usize, usize)> {
        self.value.dims2()
    }

    /// Runs `f` with the weight as B of a product.
    fn packed<R>(&self, direction: Direction, f: impl FnOnce(PackedView<'_>) -> R) -> Result<Option<R>> {
        if let Some(parameter) = self.value.parameter() {
            return Ok(parameter.packed(self.precision)?.map(|packed| f(packed.view(direction))));
        }
        let (out, width) = self.dims()?;
        Ok(read([self.value.tensor()], |[data]| {
            let rows = Strided::rows(data, width);
            let (b, k, n) = match direction {
                Direction::Forward => (rows.transposed(), width, out),
                Direction::Backward => (rows, out, width),
            };
            scratch::with(scratch_len(k, n, self.precision), |lanes| {
                f(PackedView::pack(b, k, n, self.precision, lanes))
            })
        }))
    }
}

/// `activation(x W^T + bias)`, `x` `[rows, in]`, and the derivative of the activation there if `slope` asks for it.
pub(crate) fn forward(
    weight: Weight<'_>,
    x: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
    slope: bool,
) -> Result<Option<(Tensor, Option<Tensor>)>> {
    let (out, width) = weight.dims()?;
    let m = x.elem_count().checked_div(width).unwrap_or(0);
    let slope = slope && activation != Activation::Identity;
    let result = read([x, bias.unwrap_or(x)], |[x, b]| {
        weight.packed(Direction::Forward, |packed| {
            let product = Product {
                bias: bias.map(|_| b),
                activation,
                parallel: weight.parallel,
                ..Product::new(m, Strided::rows(x, width), packed)
            };
            product.compute_and_slope(slope)
        })
    });
    let Some((y, slope)) = result.transpose()?.flatten() else { return Ok(None) };
    let tensor = |data| Tensor::from_vec(data, (m, out), x.device());
    Ok(Some((tensor(y)?, slope.map(tensor).transpose()?)))
}

/// `y + scale x W^T`, `x` `[rows, in]`, `y` `[rows, out]`.
pub(crate) fn add_scaled(weight: Weight<'_>, x: &Tensor, scale: f64, y: &Tensor) -> Result<Option<Tensor>> {
    let (m, width) = x.dims2()?;
    let result = read([x, y], |[x, y]| {
        weight.packed(Direction::Forward, |packed| {
            let product = Product::new(m, Strided::rows(x, width), packed);
            Product { alpha: scale as f32, addend: Some(y), parallel: weight.parallel, ..product }.compute()
        })
    });
    result.transpose()?.flatten().map(|sum| Tensor::from_vec(sum, y.dims(), y.device())).transpose()
}

/// `g W`, `g` `[rows, out]`.
pub(crate) fn input_gradient(weight: Weight<'_>, g: &Tensor) -> Result<Option<Tensor>> {
    let (out, width) = weight.dims()?;
    let m = g.elem_count().checked_div(out).unwrap_or(0);
    let result = read([g], |[g]| {
        weight.packed(Direction::Backward, |packed| {
            Product { parallel: weight.parallel, ..Product::new(m, Strided::rows(g, out), packed) }.compute()
        })
    });
    result.transpose()?.flatten().map(|dx| Tensor::from_vec(dx, (m, width), g.device())).transpose()
}

/// `scale g^T x`, `g` `[rows, out]`, `x` `[rows, in]`; gives `[out, in]`.
pub(crate) fn weight_gradient(
    g: &Tensor,
    x: &Tensor,
    scale: f64,
    precision: Precision,
    parallel: bool,
) -> Result<Option<Tensor>> {
    let ((rows, out), (_, width)) = (g.dims2()?, x.dims2()?);
    let result = read([g, x], |[g, x]| {
        scratch::with(scratch_len(rows, width, precision), |lanes| {
            let b = PackedView::pack_by_all(Strided::rows(x, width), rows, width, precision, lanes, parallel);
            let product = Product::new(out, Strided::rows(g, out).transposed(), b);
            Product { alpha: scale as f32, parallel, ..product }.compute()
        })
    });
    result.map(|dw| Tensor::from_vec(dw, (out, width), g.device())).transpose()
}

/// `a b` for `[.., m, k]` and `[.., k, n]` with equal leading dimensions; either may be a transposed view of a contiguous
/// tensor.
pub(crate) fn matmul(a: &Tensor, b: &Tensor, precision: Precision, parallel: bool) -> Result<Option<Tensor>> {
    let &[ref lead @ .., m, k] = a.dims() else { return Ok(None) };
    let n = b.dims()[b.dims().len() - 1];
    // The contiguous one of a tensor and its transpose.
    let contiguous = |t: &Tensor| -> Result<(Tensor, bool)> {
        let transposed = t.t()?;
        let flipped = !t.is_contiguous() && transposed.is_contiguous();
        Ok((if flipped { transposed } else { t.clone() }, flipped))
    };
    let ((a_tensor, a_flipped), (b_tensor, b_flipped)) = (contiguous(a)?, contiguous(b)?);
    if !is_f32_slice(&a_tensor) || !is_f32_slice(&b_tensor) {
        return Ok(None);
    }
    let shape = [lead, &[m, n]].concat();
    let result = read([&a_tensor, &b_tensor], |[a, b]| {
        scratch::with(scratch_len(k, n, precision), |lanes| {
            // One matrix product of the batch, to `y` or to memory of its own.
            let mut one = |a, b, y: Option<&mut [f32]>| {
                let b = PackedView::pack(matrix(b, k, n, b_flipped), k, n, precision, lanes);
                let product = Product { parallel, ..Product::new(m, matrix(a, m, k, a_flipped), b) };
                match y {
                    None => product.compute(),
                    Some(y) => {
                        product.store(y, n);
                        Vec::new()
                    }
                }
            };
            if lead.iter().product::<usize>() == 1 {
                return one(a, b, None);
            }
            let mut y = vec![0.0; shape.iter().product()];
            for (i, y) in y.chunks_exact_mut((m * n).max(1)).enumerate() {
                one(&a[i * m * k..][..m * k], &b[i * k * n..][..k * n], Some(y));
            }
            y
        })
    });
    result.map(|y| Tensor::from_vec(y, shape, a.device())).transpose()
}

/// `rows` by `columns`, kept in row-major order, or flipped: its transpose is.
fn matrix(data: &[f32], rows: usize, columns: usize, flipped: bool) -> Strided<'_> {
    if flipped { Strided::rows(data, rows).transposed() } else { Strided::rows(data, columns) }
}
