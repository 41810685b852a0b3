//! The layout of a packed batch.

use std::ops::Range;
use std::sync::Arc;

/// Where each sequence of a `[tokens, width]` tensor begins and ends. No padding stands between sequences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    offsets: Arc<[u32]>,
}

impl Layout {
    /// From the lengths of the sequences.
    pub fn from_lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut offsets = vec![0u32];
        let mut end = 0u32;
        for length in lengths {
            end += length as u32;
            offsets.push(end);
        }
        Self { offsets: offsets.into() }
    }

    /// The layout of one row per sequence.
    pub fn single_rows(sequences: usize) -> Self {
        Self::from_lengths(std::iter::repeat_n(1, sequences))
    }

    /// `sequences + 1` entries: the start of each, and the end of the last.
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.offsets[self.offsets.len() - 1] as usize
    }

    /// The rows of sequence `i`.
    pub fn range(&self, i: usize) -> Range<usize> {
        self.offsets[i] as usize..self.offsets[i + 1] as usize
    }

    /// The rows of every sequence, in order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        (0..self.sequences()).map(|i| self.range(i))
    }

    /// Every sequence longer by `rows`, put before it.
    #[must_use]
    pub fn extended(&self, rows: usize) -> Self {
        Self::from_lengths(self.ranges().map(|r| r.len() + rows))
    }

    /// The first row of every sequence, shifted by `skip`.
    pub fn first_rows(&self, skip: usize) -> Vec<u32> {
        self.offsets[..self.sequences()].iter().map(|start| start + skip as u32).collect()
    }
}
