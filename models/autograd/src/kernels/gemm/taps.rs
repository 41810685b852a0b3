//! A weight's dimensions, and the taps of one of a convolution.

use crate::kernels::scratch;

/// The dimensions of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) out: usize,
    /// Inputs of an output: of a convolution's weight the channels times the taps.
    pub(crate) width: usize,
    /// 1 for a matrix.
    pub(crate) taps: usize,
}

impl Shape {
    /// Of a matrix, or of a convolution's weight.
    pub(crate) fn of(dims: &[usize]) -> Option<Self> {
        match *dims {
            [out, width] => Some(Self { out, width, taps: 1 }),
            [out, channels, kh, kw] => Some(Self { out, width: channels * kh * kw, taps: kh * kw }),
            _ => None,
        }
    }
}

/// Calls `f` with rows whose elements, channel by channel in `rows`, go tap by tap.
pub(crate) fn by_tap<R>(rows: &[f32], width: usize, taps: usize, f: impl FnOnce(&[f32]) -> R) -> R {
    if taps <= 1 {
        return f(rows);
    }
    scratch::with(rows.len(), |ordered| {
        let channels = width / taps;
        for (row, ordered) in rows.chunks_exact(width.max(1)).zip(ordered.chunks_exact_mut(width.max(1))) {
            for (channel, row) in row.chunks_exact(taps).enumerate() {
                ordered[channel..].iter_mut().step_by(channels).zip(row).for_each(|(out, x)| *out = *x);
            }
        }
        f(ordered)
    })
}

/// Some of the taps of a convolution's weight, in any direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taps {
    /// The weight's tap that comes first, down and across.
    pub(crate) first: [usize; 2],
    /// To the next one.
    pub(crate) step: [isize; 2],
    pub(crate) count: [usize; 2],
    /// Taps of the weight from one row of them to the next.
    pub(crate) kernel_width: usize,
}

impl Taps {
    /// The weight's number of a tap.
    pub(crate) fn of_weight(&self, tap: usize) -> usize {
        let along = |i: usize, n: usize| self.first[i].wrapping_add_signed(self.step[i] * n as isize);
        along(0, tap / self.count[1]) * self.kernel_width + along(1, tap % self.count[1])
    }

    pub(crate) fn len(&self) -> usize {
        self.count[0] * self.count[1]
    }
}
