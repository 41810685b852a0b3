//! Max pooling.

use candle_core::{DType, Result, Tensor};

use super::patches::{gather, scatter};
use crate::kernels::max_pool as fast;
use crate::map::Placed;
use crate::{Map, Tape, Value, Window};

impl Tape {
    /// The greatest value under each place of `window`, channel by channel: `x` `[pixels, channels]`, gives `[places, channels]` and
    /// the places as a map. The gradient goes to the first of equal maxima, row by row, as in torch.
    pub fn max_pool2d(&self, x: &Value, map: Map, window: &Window) -> Result<(Value, Map)> {
        let channels = map.channels(x.dims())?;
        let placed = window.place(map)?;
        placed.check_covers()?;
        let parallel = self.options().parallel_ops;
        let records = self.options().recording && x.requires_grad();
        let y = match fast::forward(x.tensor(), &placed, records, parallel)? {
            Some((y, rows)) => self.record(y, &[x], move |g, vjp| {
                vjp.give(0, fast::backward(&g.contiguous()?, &rows, &placed, parallel)?)
            }),
            None => {
                let (y, taps) = composite(&x.tensor().contiguous()?, &placed)?;
                self.record(y, &[x], move |g, vjp| {
                    let shares: Vec<Tensor> = (0..placed.window.taps())
                        .map(|tap| &g * taps.eq(tap as u32)?.to_dtype(g.dtype())?)
                        .collect::<Result<_>>()?;
                    vjp.give(0, scatter(&Tensor::stack(&shares, 1)?, &placed)?)
                })
            }
        };
        debug_assert_eq!(y.dims(), [placed.output.rows(), channels]);
        Ok((y, placed.output))
    }
}

/// The maxima `[places, channels]`, and the first tap of each.
fn composite(x: &Tensor, placed: &Placed) -> Result<(Tensor, Tensor)> {
    let patches = gather(x, placed, f64::NEG_INFINITY)?; // [places, taps, channels]
    let y = patches.max(1)?;
    let mut taps = y.zeros_like()?.to_dtype(DType::U32)?;
    for tap in (0..placed.window.taps()).rev() {
        let here = patches.narrow(1, tap, 1)?.squeeze(1)?.eq(&y)?;
        taps = here.where_cond(&Tensor::full(tap as u32, y.dims(), x.device())?, &taps)?;
    }
    Ok((y, taps))
}
