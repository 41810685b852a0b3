//! Max pooling, a row of places at a time.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::{multiversion, pieces};
use crate::map::Placed;
use crate::slices::read;

/// One row of places.
struct Row<'a> {
    /// The pixels' rows under it.
    down: &'a [(usize, usize)],
    across: &'a [Vec<(usize, usize)>],
    image: &'a [f32],
    width: usize,
    channels: usize,
}

#[inline(always)]
fn row_body<const FMA: bool>(row: &Row<'_>, out: &mut [f32], winners: &mut [u32]) {
    let channels = row.channels;
    out.fill(f32::NEG_INFINITY);
    for (i, (out, across)) in out.chunks_exact_mut(channels).zip(row.across).enumerate() {
        let winners = if winners.is_empty() { &mut [] } else { &mut winners[i * channels..][..channels] };
        for (_, y) in row.down {
            for (_, x) in across {
                let at = y * row.width + x;
                let pixel = &row.image[at * channels..][..channels];
                if winners.is_empty() {
                    for (out, x) in out.iter_mut().zip(pixel) {
                        *out = if *x > *out || x.is_nan() { *x } else { *out };
                    }
                } else {
                    for ((out, winner), x) in out.iter_mut().zip(winners.iter_mut()).zip(pixel) {
                        let wins = *x > *out || x.is_nan();
                        *out = if wins { *x } else { *out };
                        *winner = if wins { at as u32 } else { *winner };
                    }
                }
            }
        }
    }
}

multiversion! {
    fn write_row(row: &Row<'_>, out: &mut [f32], winners: &mut [u32]) = row_body
}

/// The maxima `[places, channels]` and, if `records`, the pixel of the image that each came from. `None` where `x` is not contiguous
/// `f32` on the CPU.
pub(crate) fn forward(
    x: &Tensor,
    placed: &Placed,
    records: bool,
    parallel: bool,
) -> Result<Option<(Tensor, Vec<u32>)>> {
    let channels = x.dims2()?.1;
    let (input, output) = (placed.input, placed.output);
    let (down, across) = (placed.axis(0).by_place(), placed.axis(1).by_place());
    let line = output.width * channels;
    let result = read([x], |[x]| {
        let mut winners = vec![0u32; if records { output.rows() * channels } else { 0 }];
        let one = |i: usize, out: &mut [f32], winners: &mut [u32]| {
            let image = &x[i / output.height * input.pixels() * channels..][..input.pixels() * channels];
            let down = &down[i % output.height];
            // The first pixel, should none be greater than -inf.
            for (winners, across) in winners.chunks_mut(channels.max(1)).zip(&across) {
                winners.fill((down[0].1 * input.width + across[0].1) as u32);
            }
            write_row(&Row { down, across: &across, image, width: input.width, channels }, out, winners);
        };
        let mut y = vec![0f32; output.rows() * channels];
        if records {
            let line = line.max(1);
            if parallel {
                let lines = y.par_chunks_mut(line).zip(winners.par_chunks_mut(line)).enumerate();
                lines.for_each(|(i, (out, winners))| one(i, out, winners));
            } else {
                let lines = y.chunks_mut(line).zip(winners.chunks_mut(line)).enumerate();
                lines.for_each(|(i, (out, winners))| one(i, out, winners));
            }
        } else {
            pieces::each(&mut y, line, parallel, |i, out| one(i, out, &mut []));
        }
        (y, winners)
    });
    result.map(|(y, winners)| Ok((Tensor::from_vec(y, (output.rows(), channels), x.device())?, winners))).transpose()
}

/// Adds each gradient to that of the pixel that won.
pub(crate) fn backward(g: &Tensor, winners: &[u32], placed: &Placed, parallel: bool) -> Result<Tensor> {
    let channels = g.dims2()?.1;
    let (input, output) = (placed.input, placed.output);
    let dx = read([g], |[g]| {
        let mut dx = vec![0f32; input.rows() * channels];
        let places = output.pixels() * channels;
        pieces::each(&mut dx, input.pixels() * channels, parallel, |image, dx| {
            let (g, winners) = (&g[image * places..][..places], &winners[image * places..][..places]);
            for (g, winners) in g.chunks_exact(channels).zip(winners.chunks_exact(channels)) {
                for (channel, (g, winner)) in g.iter().zip(winners).enumerate() {
                    dx[*winner as usize * channels + channel] += g;
                }
            }
        });
        dx
    });
    match dx {
        Some(dx) => Tensor::from_vec(dx, (input.rows(), channels), g.device()),
        None => bail!("a gradient {:?} of another kind than its value", g.dims()),
    }
}
