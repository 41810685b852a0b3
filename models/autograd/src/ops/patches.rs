//! Patches of a feature map: what a window sees at each of its places. Made real as a tensor, the simplest form of everything that a
//! window does; the CPU's kernels gather instead.

use candle_core::{DType, Result, Tensor};

use crate::kernels::patches as fast;
use crate::map::Placed;
use crate::{Map, Tape, Value, Window};

/// `[places, taps, channels]` of `x` `[pixels, channels]`; `fill` outside.
pub(super) fn gather(x: &Tensor, placed: &Placed, fill: f64) -> Result<Tensor> {
    let channels = x.dims2()?.1;
    let outside = Tensor::full(fill as f32, (1, channels), x.device())?.to_dtype(x.dtype())?;
    let ids = Tensor::from_vec(placed.rows(), placed.output.rows() * placed.window.taps(), x.device())?;
    Tensor::cat(&[x, &outside], 0)?.index_select(&ids, 0)?.reshape((
        placed.output.rows(),
        placed.window.taps(),
        channels,
    ))
}

/// The transpose of [`gather`]: sums `[places, taps, channels]` into `[pixels, channels]`.
pub(super) fn scatter(patches: &Tensor, placed: &Placed) -> Result<Tensor> {
    let (places, taps, channels) = patches.dims3()?;
    let ids = Tensor::from_vec(placed.rows(), places * taps, patches.device())?;
    let pixels = placed.input.rows();
    // Many terms of a half float are summed in f32.
    let float = if patches.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let zeros = Tensor::zeros((pixels + 1, channels), float, patches.device())?;
    let rows = patches.reshape((places * taps, channels))?.contiguous()?.to_dtype(float)?;
    zeros.index_add(&ids, &rows, 0)?.narrow(0, 0, pixels)?.contiguous()?.to_dtype(patches.dtype())
}

impl Tape {
    /// What `window` sees at each of its places: `x` `[pixels, channels]`, gives `[places, channels * kernel height * kernel width]` and
    /// the places as a map. Columns go by channel, then down, then right, as those of a flattened convolution's weight
    /// `[out, channels, kh, kw]` and of torch's `unfold`.
    pub fn unfold(&self, x: &Value, map: Map, window: &Window) -> Result<(Value, Map)> {
        let channels = map.channels(x.dims())?;
        let placed = window.place(map)?;
        let (places, taps) = (placed.output.rows(), window.taps());
        let parallel = self.options().parallel_ops;
        let patches = match fast::unfold(x.tensor(), &placed, parallel)? {
            Some(patches) => patches,
            None => {
                let patches = gather(&x.tensor().contiguous()?, &placed, 0.0)?; // [places, taps, channels]
                patches.transpose(1, 2)?.contiguous()?.reshape((places, channels * taps))?
            }
        };
        let value = self.record(patches, &[x], move |g, vjp| {
            let dx = match fast::fold(&g, &placed, channels, parallel)? {
                Some(dx) => dx,
                None => scatter(&g.reshape((places, channels, taps))?.transpose(1, 2)?.contiguous()?, &placed)?,
            };
            vjp.give(0, dx)
        });
        Ok((value, placed.output))
    }
}
