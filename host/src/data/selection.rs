//! Which rows of a store a data set has: all, or those of a set that takes a bit for each row of the store.

use std::sync::Arc;

/// The rows of a store that belong to a data set, in their order.
#[derive(Clone, Debug)]
pub(super) enum Selection {
    /// All of so many.
    All(u32),
    /// Those of a set.
    Some(Arc<RowSet>),
}

impl Selection {
    /// Number of rows.
    pub(super) fn len(&self) -> u32 {
        match self {
            Self::All(rows) => *rows,
            Self::Some(set) => set.len,
        }
    }

    /// The data set's row `place`, as a row of the store.
    pub(super) fn row(&self, place: u32) -> u32 {
        match self {
            Self::All(_) => place,
            Self::Some(set) => set.row(place),
        }
    }

    /// Whether the data set has a row of the store.
    pub(super) fn contains(&self, row: u32) -> bool {
        match self {
            Self::All(rows) => row < *rows,
            Self::Some(set) => set.words[row as usize / 64] >> (row % 64) & 1 == 1,
        }
    }

    /// Bytes in memory.
    pub(super) fn in_memory(&self) -> usize {
        match self {
            Self::All(_) => 0,
            Self::Some(set) => size_of_val(&set.words[..]) + size_of_val(&set.before[..]),
        }
    }
}

/// Words whose rows are counted together.
const BLOCK: usize = 8;

/// A set of rows.
#[derive(Debug)]
pub(super) struct RowSet {
    /// A bit for each row of the store.
    words: Vec<u64>,
    /// How many rows of the set come before each block.
    before: Vec<u32>,
    len: u32,
}

impl RowSet {
    /// The set of the rows whose bits are set: row `i` has bit `i % 64` of word `i / 64`.
    pub(super) fn new(words: Vec<u64>) -> Self {
        let (mut before, mut len) = (Vec::with_capacity(words.len().div_ceil(BLOCK)), 0);
        for block in words.chunks(BLOCK) {
            before.push(len);
            len += block.iter().map(|word| word.count_ones()).sum::<u32>();
        }
        Self { words, before, len }
    }

    /// Row `place` of the set, counted from 0; `place` is below its length.
    fn row(&self, place: u32) -> u32 {
        let block = self.before.partition_point(|&before| before <= place) - 1;
        let mut left = place - self.before[block];
        let mut word = block * BLOCK;
        while left >= self.words[word].count_ones() {
            left -= self.words[word].count_ones();
            word += 1;
        }
        let bits = (0..left).fold(self.words[word], |bits, _| bits & (bits - 1)); // each step clears the lowest
        word as u32 * 64 + bits.trailing_zeros()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_are_found_by_their_place(chosen in proptest::collection::vec(any::<bool>(), 1..1500), sparse: bool) {
            let chosen: Vec<bool> = chosen.iter().enumerate().map(|(i, &c)| c && !(sparse && i % 97 != 5)).collect();
            let mut words = vec![0; chosen.len().div_ceil(64)];
            chosen.iter().enumerate().for_each(|(i, &c)| words[i / 64] |= u64::from(c) << (i % 64));
            let selection = Selection::Some(Arc::new(RowSet::new(words)));
            let expected: Vec<u32> = (0..chosen.len() as u32).filter(|&row| chosen[row as usize]).collect();
            let rows: Vec<u32> = (0..selection.len()).map(|place| selection.row(place)).collect();
            prop_assert_eq!(rows, expected);
            prop_assert!((0..chosen.len()).all(|row| selection.contains(row as u32) == chosen[row]));
        }
    }
}
