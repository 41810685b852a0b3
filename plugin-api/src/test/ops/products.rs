//! Matrix products.

use super::{
    basic::{add, affine, sum_of_products},
    elementwise::{sqrt, square},
    rows::sum_dim,
};
use crate::{Error, Result, test::value::Value};

/// `a` `[.., m, k]` times `b` `[.., k, n]`.
pub(crate) fn matmul(a: &Value, b: &Value) -> Result<Value> {
    let unfit = || Error::new("these are no matrices to be multiplied: [.., m, k] and [.., k, n]");
    let ([lead @ .., m, k], [others @ .., inner, n]) = (a.shape(), b.shape()) else { return Err(unfit()) };
    if k != inner || !(others.is_empty() || lead == others) {
        return Err(unfit());
    }
    let (&m, &k, &n, batches, shared) = (m, k, n, lead.iter().product::<usize>(), others.is_empty());
    Ok(sum_of_products(a, b, [lead, &[m, n]].concat(), move |product| {
        for batch in 0..batches {
            let (of_a, of_b) = (batch * m * k, if shared { 0 } else { batch * k * n });
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                for l in 0..k {
                    product((batch * m + i) * n + j, of_a + i * k + l, of_b + l * n + j);
                }
            }
        }
    }))
}

/// `x` `[.., in]` times the transpose of `weight` `[out, in]`.
pub(crate) fn linear(x: &Value, weight: &Value, bias: Option<&Value>) -> Result<Value> {
    let unfit = || Error::new("a linear map takes x [.., in], weight [out, in] and bias [out]");
    let ([lead @ .., width], [out, inner]) = (x.shape(), weight.shape()) else { return Err(unfit()) };
    if width != inner || bias.is_some_and(|bias| bias.shape() != [*out]) {
        return Err(unfit());
    }
    let (&width, &out, rows) = (width, out, lead.iter().product::<usize>());
    let y = sum_of_products(x, weight, [lead, &[out]].concat(), move |product| {
        for (row, j) in (0..rows).flat_map(|row| (0..out).map(move |j| (row, j))) {
            (0..width).for_each(|l| product(row * out + j, row * width + l, j * width + l));
        }
    });
    bias.map_or_else(|| Ok(y.clone()), |bias| add(&y, bias))
}

/// `y + scale (x a^T) b^T`
pub(crate) fn low_rank(y: &Value, x: &Value, a: &Value, b: &Value, scale: f64) -> Result<Value> {
    let update = linear(&linear(x, a, None)?, b, None)?;
    if update.shape() != y.shape() {
        return Err(Error::new(format!("the update has shape {:?}", update.shape())));
    }
    add(y, &affine(&update, scale, 0.0))
}

/// The norms of the rows of `weight + scale b a`.
pub(crate) fn low_rank_norm(weight: &Value, a: &Value, b: &Value, scale: f64) -> Result<Value> {
    let sum = add(weight, &affine(&matmul(b, a)?, scale, 0.0))?;
    if sum.shape() != weight.shape() {
        return Err(Error::new("b a has another shape than the weight"));
    }
    Ok(sqrt(&sum_dim(&square(&sum), 1, false)))
}
