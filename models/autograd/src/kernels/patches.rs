//! Patches as torch's `unfold` lays them out: by channel, then by tap.

use candle_core::{Result, Tensor};

use super::pieces;
use crate::map::Placed;
use crate::slices::read;

/// Calls `f` with each tap of one image that falls on its map: the place, the tap, the pixel.
fn each_tap(placed: &Placed, mut f: impl FnMut(usize, usize, usize)) {
    let (down, across) = (placed.axis(0).by_place(), placed.axis(1).by_place());
    for (oy, down) in down.iter().enumerate() {
        for (ox, across) in across.iter().enumerate() {
            for (ty, y) in down {
                for (tx, x) in across {
                    f(oy * placed.output.width + ox, ty * placed.window.kernel[1] + tx, y * placed.input.width + x);
                }
            }
        }
    }
}

/// `[places, channels * taps]` of `x` `[pixels, channels]`. `None` where `x` is not contiguous `f32` on the CPU.
pub(crate) fn unfold(x: &Tensor, placed: &Placed, parallel: bool) -> Result<Option<Tensor>> {
    let (channels, taps) = (x.dims2()?.1, placed.window.taps());
    let (pixels, places) = (placed.input.pixels() * channels, placed.output.pixels() * channels * taps);
    let patches = read([x], |[x]| {
        let mut patches = vec![0f32; placed.input.images * places];
        pieces::each(&mut patches, places, parallel, |image, out| {
            let x = &x[image * pixels..][..pixels];
            each_tap(placed, |place, tap, pixel| {
                let out = &mut out[place * channels * taps + tap..];
                for (out, x) in out.iter_mut().step_by(taps).zip(&x[pixel * channels..][..channels]) {
                    *out = *x;
                }
            });
        });
        patches
    });
    patches.map(|patches| Tensor::from_vec(patches, (placed.output.rows(), channels * taps), x.device())).transpose()
}

/// The transpose of [`unfold`].
pub(crate) fn fold(g: &Tensor, placed: &Placed, channels: usize, parallel: bool) -> Result<Option<Tensor>> {
    let taps = placed.window.taps();
    let (pixels, places) = (placed.input.pixels() * channels, placed.output.pixels() * channels * taps);
    let dx = read([g], |[g]| {
        let mut dx = vec![0f32; placed.input.images * pixels];
        pieces::each(&mut dx, pixels, parallel, |image, dx| {
            let g = &g[image * places..][..places];
            each_tap(placed, |place, tap, pixel| {
                let g = &g[place * channels * taps + tap..];
                for (dx, g) in dx[pixel * channels..][..channels].iter_mut().zip(g.iter().step_by(taps)) {
                    *dx += g;
                }
            });
        });
        dx
    });
    dx.map(|dx| Tensor::from_vec(dx, (placed.input.rows(), channels), g.device())).transpose()
}
