//! What a step is made of: momentum, Newton-Schulz iterations, Adam's moments.

use fthost_plugin_api::{Result, Tensor};

/// Coefficients of the iteration, by which singular values come near 1 fast, and not exactly.
const ITERATION: [f64; 3] = [3.4445, -4.775, 2.0315];

/// `a + share (b - a)`.
fn mix(a: &Tensor, b: &Tensor, share: f64) -> Result<Tensor> {
    a.mul_scalar(1.0 - share)?.add(&b.mul_scalar(share)?)
}

/// The momentum's step, and the new momentum.
pub(crate) fn ahead(gradient: &Tensor, momentum: &Tensor, beta: f64, nesterov: bool) -> Result<(Tensor, Tensor)> {
    let momentum = mix(momentum, gradient, 1.0 - beta)?;
    let step = if nesterov { mix(gradient, &momentum, beta)? } else { momentum.mul_scalar(1.0)? };
    Ok((step, momentum))
}

/// The nearest matrix of orthogonal rows or columns, about: `[rows, columns]`.
pub(crate) fn orthogonal(matrix: &Tensor, iterations: usize) -> Result<Tensor> {
    let shape = matrix.shape()?;
    let tall = shape[0] > shape[1];
    // Products are of the shorter side.
    let mut x = if tall { matrix.t()? } else { matrix.mul_scalar(1.0)? };
    x = x.div(&x.square()?.sum()?.sqrt()?.maximum_scalar(1e-7)?)?;
    let [a, b, c] = ITERATION;
    for _ in 0..iterations {
        let gram = x.matmul(&x.t()?)?; // [shorter, shorter]
        let of_gram = gram.mul_scalar(b)?.add(&gram.matmul(&gram)?.mul_scalar(c)?)?;
        x = x.mul_scalar(a)?.add(&of_gram.matmul(&x)?)?;
    }
    if tall { x.t() } else { Ok(x) }
}

/// Adam's step at rate 1, and its new moments; `step` counts from 1.
pub(crate) fn adam(
    gradient: &Tensor,
    moments: [&Tensor; 2],
    betas: [f64; 2],
    eps: f64,
    step: u64,
) -> Result<(Tensor, [Tensor; 2])> {
    let [beta1, beta2] = betas;
    let first = mix(moments[0], gradient, 1.0 - beta1)?;
    let second = mix(moments[1], &gradient.square()?, 1.0 - beta2)?;
    let corrected = |beta: f64| 1.0 - beta.powf(step as f64);
    let divisor = second.mul_scalar(1.0 / corrected(beta2))?.sqrt()?.add_scalar(eps)?;
    let step = first.mul_scalar(1.0 / corrected(beta1))?.div(&divisor)?;
    Ok((step, [first, second]))
}
