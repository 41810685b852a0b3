//! Linear maps along height and width: row after row of the result, first down, then across.

use std::mem::MaybeUninit;

use candle_core::{Result, Tensor};

use super::math::mul_add;
use super::{multiversion, pieces, scratch};
use crate::Map;
use crate::sampling::Sampling;
use crate::slices::read;

type Terms = Vec<Vec<(usize, f32)>>;

/// One row of pixels of the result.
struct Row<'a> {
    /// The rows of pixels that it is a sum of.
    down: &'a [(usize, f32)],
    across: &'a Terms,
    image: &'a [f32],
    channels: usize,
}

#[inline(always)]
fn row_body<const FMA: bool>(row: &Row<'_>, sum: &mut [f32], out: &mut [MaybeUninit<f32>]) {
    let source = |y: usize| &row.image[y * sum.len()..][..sum.len()];
    match row.down {
        [] => sum.fill(0.0),
        [(y, weight), rest @ ..] => {
            let first = source(*y);
            let others: Vec<_> = rest.iter().map(|(y, weight)| (source(*y), *weight)).collect();
            sum.iter_mut().zip(first).for_each(|(sum, x)| *sum = x * weight);
            for (x, weight) in others {
                sum.iter_mut().zip(x).for_each(|(sum, x)| *sum = mul_add::<FMA>(*x, weight, *sum));
            }
        }
    }
    for (terms, out) in row.across.iter().zip(out.chunks_exact_mut(row.channels)) {
        let pixel = |x: usize| &sum[x * row.channels..][..row.channels];
        match terms.as_slice() {
            [] => out.iter_mut().for_each(|out| *out = MaybeUninit::new(0.0)),
            [(x, weight)] => {
                for (out, x) in out.iter_mut().zip(pixel(*x)) {
                    out.write(x * weight);
                }
            }
            [(x0, w0), (x1, w1), rest @ ..] => {
                for ((out, a), b) in out.iter_mut().zip(pixel(*x0)).zip(pixel(*x1)) {
                    out.write(mul_add::<FMA>(*b, *w1, a * w0));
                }
                // SAFETY: all of it was just written.
                let out = unsafe { pieces::initialized(out) };
                for (x, weight) in rest {
                    out.iter_mut().zip(pixel(*x)).for_each(|(out, x)| *out = mul_add::<FMA>(*x, *weight, *out));
                }
            }
        }
    }
}

multiversion! {
    fn write_row(row: &Row<'_>, sum: &mut [f32], out: &mut [MaybeUninit<f32>]) = row_body
}

/// The map `x` with both directions applied. `None` where it is not contiguous `f32` on the CPU.
pub(crate) fn resample(x: &Tensor, map: Map, along: &[Sampling; 2], parallel: bool) -> Result<Option<Tensor>> {
    let channels = x.dims2()?.1;
    let terms = |along: &Sampling| -> Terms {
        along.terms.iter().map(|terms| terms.iter().map(|(x, weight)| (*x, *weight as f32)).collect()).collect()
    };
    let [down, across] = along.each_ref().map(terms);
    let rows = map.images * down.len() * across.len();
    let y = read([x], |[x]| {
        // SAFETY: each row of pixels is written whole.
        unsafe {
            pieces::written(rows * channels, across.len() * channels, parallel, |i, out| {
                let image = &x[i / down.len() * map.pixels() * channels..][..map.pixels() * channels];
                let row = Row { down: &down[i % down.len()], across: &across, image, channels };
                scratch::with(map.width * channels, |sum| write_row(&row, sum, out));
            })
        }
    });
    y.map(|y| Tensor::from_vec(y, (rows, channels), x.device())).transpose()
}
