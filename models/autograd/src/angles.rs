//! Angles of rotary positions.

use candle_core::{DType, Device, Result, Tensor};

/// The angles of tokens, by which their queries and keys are turned.
#[derive(Clone, Debug)]
pub struct Angles {
    /// `[tokens, dim / 2]`
    pub(crate) cos: Tensor,
    pub(crate) sin: Tensor,
}

impl Angles {
    /// Position times frequency, for tokens at these positions. An angle is rounded to `f32` before its cosine and sine are taken, as
    /// PyTorch does, so that both agree far from the start; `scale` multiplies both.
    pub fn new(positions: &[u32], frequencies: &[f32], scale: f64, dtype: DType, device: &Device) -> Result<Self> {
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for (position, frequency) in positions.iter().flat_map(|p| frequencies.iter().map(move |f| (*p, f))) {
            let (s, c) = f64::from(position as f32 * frequency).sin_cos();
            cos.push((c * scale) as f32);
            sin.push((s * scale) as f32);
        }
        let dims = (positions.len(), frequencies.len());
        let tensor = |values| Tensor::from_vec(values, dims, device)?.to_dtype(dtype);
        Ok(Self { cos: tensor(cos)?, sin: tensor(sin)? })
    }
}
