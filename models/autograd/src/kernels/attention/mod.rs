//! Attention of packed sequences, one block of queries of a sequence and head at a time, in scratch that stays in the cache.
//!
//! Forward keeps the logarithm of each row's sum of exponentials; backward computes the probabilities again from it, which
//! costs one of seven products and saves `heads * queries * keys` floats a layer.

mod few;
mod geometry;
mod heads;
mod parts;

pub(crate) use self::geometry::{Geometry, Mask, Operands, Wanted};
pub(crate) use self::heads::backward;

/// Gives the result `[query tokens, width]` and the logarithms of the sums, `[heads, query tokens]`.
pub(crate) fn forward(geometry: &Geometry, x: Operands<'_>, mask: Option<&Mask>) -> (Vec<f32>, Vec<f32>) {
    match mask {
        None if few::suits(geometry) => few::forward(geometry, x),
        _ => heads::forward(geometry, x, mask),
    }
}
