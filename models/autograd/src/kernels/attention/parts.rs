//! What every way to attend takes: scratch, probabilities, and memory that heads write to side by side.

use super::super::gemm::scratch_len;
use super::super::softmax::softmax_of;
use super::super::{multiversion, scratch};
use super::geometry::{Block, VECTOR};
use crate::Precision;

/// Memory that heads write to side by side: each its own columns or rows.
pub(super) struct Disjoint {
    data: *mut f32,
    len: usize,
}

// SAFETY: who writes what is settled where it is used: no two heads touch the same element.
unsafe impl Sync for Disjoint {}

impl Disjoint {
    pub(super) fn new(data: &mut [f32]) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len() }
    }

    /// Copies the rows of `from`, `width` each, to places `row` apart from `at` on.
    pub(super) fn put(&self, at: usize, row: usize, from: &[f32], width: usize, add: bool) {
        for (i, from) in from.chunks_exact(width).enumerate() {
            let start = at + i * row;
            assert!(start + width <= self.len);
            // SAFETY: within the memory, and only this head's task touches these columns.
            let into = unsafe { std::slice::from_raw_parts_mut(self.data.add(start), width) };
            if add {
                into.iter_mut().zip(from).for_each(|(into, x)| *into += x);
            } else {
                into.copy_from_slice(from);
            }
        }
    }
}

#[inline(always)]
fn softmax_body<const FMA: bool>(scores: &mut [f32], block: &Block, log_sums: &mut [f32]) {
    for (i, (scores, log_sum)) in scores.chunks_exact_mut(block.row()).zip(log_sums).enumerate() {
        let seen = block.seen(i);
        scores[..seen.start].fill(0.0);
        scores[seen.end..].fill(0.0);
        *log_sum = softmax_of::<FMA>(&mut scores[seen]);
    }
}

multiversion! {
    /// Scores to probabilities, 0 where a query does not see a key.
    pub(super) fn softmax(scores: &mut [f32], block: &Block, log_sums: &mut [f32]) = softmax_body
}

/// Floats of scratch for a packed `k` by `n`.
pub(super) fn packed(k: usize, n: usize) -> usize {
    scratch_len(k, n, Precision::F32)
}

/// Runs `f` with several parts of scratch, each aligned to a vector.
pub(super) fn with_parts<const N: usize>(sizes: [usize; N], f: impl FnOnce([&mut [f32]; N])) {
    let padded = sizes.map(|size| size.next_multiple_of(VECTOR));
    scratch::with(padded.iter().sum(), |all| {
        let mut rest = all;
        f(std::array::from_fn(|i| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(padded[i]);
            rest = tail;
            &mut part[..sizes[i]]
        }));
    });
}
