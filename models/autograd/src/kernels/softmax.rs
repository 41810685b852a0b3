//! Softmax of a row, in place.

use super::math::exp;
use super::multiversion;

/// Lanes that run side by side, so that the compiler may vectorise; their number fixes the bits.
const LANES: usize = 16;

/// The greatest element of a row.
#[inline(always)]
fn greatest(row: &[f32]) -> f32 {
    let (whole, rest) = row.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for x in whole {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    }
    rest.iter().chain(&lanes).fold(f32::NEG_INFINITY, |a, x| if *x > a { *x } else { a })
}

/// The sum over a row of `f`, which may change the elements.
#[inline(always)]
fn sum(row: &mut [f32], mut f: impl FnMut(&mut f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (whole, rest) = row.as_chunks_mut::<LANES>();
    for x in whole {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane += f(x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += f(x);
    }
    lanes.iter().sum()
}

/// [`softmax`], within a loop that is compiled for the processor's vectors.
#[inline(always)]
pub(super) fn softmax_of<const FMA: bool>(row: &mut [f32]) -> f32 {
    let top = greatest(row);
    let total = sum(row, |x| {
        *x = exp::<FMA>(*x - top);
        *x
    });
    let scale = 1.0 / total;
    for x in row {
        *x *= scale;
    }
    top + total.ln()
}

multiversion! {
    /// A row becomes its softmax; gives the logarithm of the sum of its exponentials.
    pub(crate) fn softmax(row: &mut [f32]) -> f32 = softmax_of
}
