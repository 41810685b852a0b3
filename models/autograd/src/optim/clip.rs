//! Gradient clipping.

use candle_core::Result;

use crate::{Gradients, slices};

/// Scales all gradients so that their global L2 norm is at most `max_norm`, and returns the norm before. As torch's
/// `clip_grad_norm_`: the factor is max_norm / (norm + 1e-6), at most 1. A norm that is not finite leaves nothing usable;
/// callers should look at the result before they step.
pub fn clip_norm(gradients: &mut Gradients, max_norm: f64) -> Result<f64> {
    gradients.densify()?;
    let norm = gradients.norm()?;
    gradients.scale((max_norm / (norm + 1e-6)).min(1.0))?;
    Ok(norm)
}

/// Clamps every element to [-`limit`, `limit`], as torch's `clip_grad_value_`.
pub fn clip_value(gradients: &mut Gradients, limit: f64) -> Result<()> {
    gradients.densify()?;
    let bound = limit as f32;
    gradients.update(|tensor, owned| {
        let clamp = |x: &mut [f32]| slices::each_chunk(x, |x| x.iter_mut().for_each(|x| *x = x.max(-bound).min(bound)));
        if owned && slices::write(tensor, clamp)? { Ok(tensor.clone()) } else { tensor.clamp(-limit, limit) }
    })
}
