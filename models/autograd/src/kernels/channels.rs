//! Rows of channels: their moments, one straight line and activation for each channel, and the sums of its gradient. Each function
//! gives `None` where a tensor is not contiguous `f32` on the CPU.

use std::mem::MaybeUninit;

use candle_core::{Result, Tensor};

use super::math::mul_add;
use super::{elementwise, multiversion, pieces, scratch};
use crate::Activation;
use crate::slices::read;

/// Rows that are summed in `f32` before they join an `f64` sum; they stay in the cache meanwhile.
const ROWS: usize = 32;
/// Rows that one task takes. Fixed, so that sums do not depend on the number of threads.
const TASK_ROWS: usize = 16 * ROWS;

#[inline(always)]
fn moments_body<const FMA: bool>(x: &[f32], mean: &mut [f32], squares: &mut [f32]) {
    let channels = mean.len();
    mean.fill(0.0);
    squares.fill(0.0);
    for row in x.chunks_exact(channels) {
        mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    let scale = channels as f32 / x.len() as f32;
    mean.iter_mut().for_each(|sum| *sum *= scale);
    for row in x.chunks_exact(channels) {
        for ((sum, mean), x) in squares.iter_mut().zip(mean.iter()).zip(row) {
            let x = x - mean;
            *sum = mul_add::<FMA>(x, x, *sum);
        }
    }
}

multiversion! {
    /// The mean of each channel over a few rows, and the sum of the squares around it.
    fn moments_of(x: &[f32], mean: &mut [f32], squares: &mut [f32]) = moments_body
}

/// Mean and sum of squares around it of so many rows, for each channel.
struct Moments {
    rows: f64,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    fn none(channels: usize) -> Self {
        Self { rows: 0.0, mean: vec![0.0; channels], squares: vec![0.0; channels] }
    }

    /// Those of both together (Chan, Golub and LeVeque 1979).
    fn join(&mut self, rows: f64, mean: impl Iterator<Item = f64>, squares: impl Iterator<Item = f64>) {
        let all = self.rows + rows;
        let (share, weight) = (rows / all, self.rows * rows / all);
        let mine = self.mean.iter_mut().zip(&mut self.squares);
        for ((my_mean, my_squares), (mean, squares)) in mine.zip(mean.zip(squares)) {
            let difference = mean - *my_mean;
            *my_mean += difference * share;
            *my_squares += squares + difference * difference * weight;
        }
        self.rows = all;
    }
}

/// The mean and the biased variance of each channel over the rows of `x` `[rows, channels]`.
pub(crate) fn moments(x: &Tensor, parallel: bool) -> Result<Option<(Tensor, Tensor)>> {
    let (rows, channels) = x.dims2()?;
    let found = read([x], |[x]| {
        let parts = pieces::collect(rows.div_ceil(TASK_ROWS), parallel, |task| {
            let mut sum = Moments::none(channels);
            let end = rows.min((task + 1) * TASK_ROWS);
            scratch::with(2 * channels, |room| {
                let (mean, squares) = room.split_at_mut(channels);
                for x in x[task * TASK_ROWS * channels..end * channels].chunks(ROWS * channels) {
                    moments_of(x, mean, squares);
                    let wide = |x: &f32| f64::from(*x);
                    sum.join((x.len() / channels) as f64, mean.iter().map(wide), squares.iter().map(wide));
                }
            });
            sum
        });
        let mut all = Moments::none(channels);
        for part in parts {
            all.join(part.rows, part.mean.into_iter(), part.squares.into_iter());
        }
        let variance: Vec<f32> = all.squares.iter().map(|squares| (squares / all.rows) as f32).collect();
        (all.mean.iter().map(|mean| *mean as f32).collect::<Vec<_>>(), variance)
    });
    let tensor = |data: Vec<f32>| Tensor::from_vec(data, channels, x.device());
    found.map(|(mean, variance)| Ok((tensor(mean)?, tensor(variance)?))).transpose()
}

/// `activation((x - center) scale + shift)`, `x` `[rows, channels]`.
pub(crate) struct Line<'a> {
    pub(crate) x: &'a Tensor,
    pub(crate) center: &'a Tensor,
    pub(crate) scale: &'a Tensor,
    pub(crate) shift: &'a Tensor,
    pub(crate) activation: Activation,
    pub(crate) parallel: bool,
}

/// A line's numbers, `[channels]` each.
#[derive(Clone, Copy)]
struct Numbers<'a> {
    center: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
}

#[inline(always)]
fn line_body<const FMA: bool>(x: &[f32], line: Numbers<'_>, out: &mut [MaybeUninit<f32>]) {
    let channels = line.center.len();
    for (x, out) in x.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
        let line = line.center.iter().zip(line.scale).zip(line.shift);
        for ((out, x), ((center, scale), shift)) in out.iter_mut().zip(x).zip(line) {
            out.write(mul_add::<FMA>(x - center, *scale, *shift));
        }
    }
}

multiversion! {
    fn write_line(x: &[f32], line: Numbers<'_>, out: &mut [MaybeUninit<f32>]) = line_body
}

#[inline(always)]
fn sums_body<const FMA: bool>(g: &[f32], x: &[f32], center: &[f32], sum: &mut [f32], projection: &mut [f32]) {
    let channels = center.len();
    sum.fill(0.0);
    projection.fill(0.0);
    for (g, x) in g.chunks_exact(channels).zip(x.chunks_exact(channels)) {
        let sums = sum.iter_mut().zip(projection.iter_mut());
        for (((sum, projection), (g, x)), center) in sums.zip(g.iter().zip(x)).zip(center) {
            *sum += g;
            *projection = mul_add::<FMA>(*g, x - center, *projection);
        }
    }
}

multiversion! {
    fn sums_of(g: &[f32], x: &[f32], center: &[f32], sum: &mut [f32], projection: &mut [f32]) = sums_body
}

#[inline(always)]
fn slope_body<const FMA: bool>(
    g: &[f32],
    x: &[f32],
    line: Numbers<'_>,
    of_batch: Option<(&[f32], &[f32])>,
    out: &mut [MaybeUninit<f32>],
) {
    let channels = line.center.len();
    for ((g, x), out) in g.chunks_exact(channels).zip(x.chunks_exact(channels)).zip(out.chunks_exact_mut(channels)) {
        match of_batch {
            None => {
                for ((out, g), scale) in out.iter_mut().zip(g).zip(line.scale) {
                    out.write(g * scale);
                }
            }
            Some((tilt, level)) => {
                let line = line.center.iter().zip(line.scale).zip(tilt.iter().zip(level));
                for ((out, (g, x)), ((center, scale), (tilt, level))) in out.iter_mut().zip(g.iter().zip(x)).zip(line) {
                    out.write(mul_add::<FMA>(*g, *scale, mul_add::<FMA>(x - center, *tilt, *level)));
                }
            }
        }
    }
}

multiversion! {
    fn write_slope(
        g: &[f32], x: &[f32], line: Numbers<'_>, of_batch: Option<(&[f32], &[f32])>, out: &mut [MaybeUninit<f32>],
    ) = slope_body
}

impl Line<'_> {
    fn channels(&self) -> usize {
        self.center.elem_count()
    }

    /// Calls `f` with `g` before the activation, for the same rows of `x`.
    fn chain<R>(&self, g: &[f32], x: &[f32], line: Numbers<'_>, f: impl FnOnce(&[f32]) -> R) -> R {
        if self.activation == Activation::Identity {
            return f(g);
        }
        scratch::with(2 * g.len(), |room| {
            let (before, chained) = room.split_at_mut(g.len());
            chained.copy_from_slice(g);
            // SAFETY: floats are always as good as maybe ones.
            let maybe = unsafe { std::slice::from_raw_parts_mut(before.as_mut_ptr().cast(), before.len()) };
            write_line(x, line, maybe);
            elementwise::activate_backward(self.activation, before, chained);
            f(chained)
        })
    }

    /// The value, `[rows, channels]`.
    pub(crate) fn forward(&self) -> Result<Option<Tensor>> {
        let piece = ROWS * self.channels();
        let y = read([self.x, self.center, self.scale, self.shift], |[x, center, scale, shift]| {
            let line = Numbers { center, scale, shift };
            // SAFETY: `write_line` writes each element.
            unsafe {
                pieces::written(x.len(), piece, self.parallel, |i, out| {
                    write_line(&x[i * piece..][..out.len()], line, out);
                    elementwise::activate(self.activation, pieces::initialized(out));
                })
            }
        });
        y.map(|y| Tensor::from_vec(y, self.x.dims(), self.x.device())).transpose()
    }

    /// The sums over the rows of `g` before the activation, and of its product with `x - center`.
    pub(crate) fn sums(&self, g: &Tensor) -> Result<Option<(Tensor, Tensor)>> {
        let channels = self.channels();
        let tensors = [g, self.x, self.center, self.scale, self.shift];
        let found = read(tensors, |[g, x, center, scale, shift]| {
            let line = Numbers { center, scale, shift };
            let task = TASK_ROWS * channels;
            let parts = pieces::collect(x.len().div_ceil(task), self.parallel, |i| {
                let mut sums = vec![0f64; 2 * channels];
                let rows = i * task..x.len().min((i + 1) * task);
                scratch::with(2 * channels, |room| {
                    let pieces = g[rows.clone()].chunks(ROWS * channels).zip(x[rows].chunks(ROWS * channels));
                    for (g, x) in pieces {
                        let (sum, projection) = room.split_at_mut(channels);
                        self.chain(g, x, line, |g| sums_of(g, x, center, sum, projection));
                        sums.iter_mut().zip(room.iter()).for_each(|(sum, x)| *sum += f64::from(*x));
                    }
                });
                sums
            });
            let mut all = vec![0f64; 2 * channels];
            for part in parts {
                all.iter_mut().zip(part).for_each(|(all, part)| *all += part);
            }
            all.into_iter().map(|x| x as f32).collect::<Vec<_>>()
        });
        let Some(mut sum) = found else { return Ok(None) };
        let projection = sum.split_off(channels);
        let tensor = |data: Vec<f32>| Tensor::from_vec(data, channels, g.device());
        Ok(Some((tensor(sum)?, tensor(projection)?)))
    }

    /// `g` before the activation times `scale`, plus `(x - center) tilt + level` of `of_batch`.
    pub(crate) fn input_gradient(&self, g: &Tensor, of_batch: Option<(&Tensor, &Tensor)>) -> Result<Option<Tensor>> {
        let piece = ROWS * self.channels();
        let (tilt, level) = of_batch.unwrap_or((self.center, self.center));
        let tensors = [g, self.x, self.center, self.scale, self.shift, tilt, level];
        let dx = read(tensors, |[g, x, center, scale, shift, tilt, level]| {
            let line = Numbers { center, scale, shift };
            let of_batch = of_batch.map(|_| (tilt, level));
            // SAFETY: `write_slope` writes each element.
            unsafe {
                pieces::written(g.len(), piece, self.parallel, |i, out| {
                    let rows = i * piece..i * piece + out.len();
                    let (g, x) = (&g[rows.clone()], &x[rows]);
                    self.chain(g, x, line, |g| write_slope(g, x, line, of_batch, out));
                })
            }
        });
        dx.map(|dx| Tensor::from_vec(dx, g.dims(), g.device())).transpose()
    }
}
