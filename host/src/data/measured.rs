//! Batches of about equally many tokens, and of examples of about equal lengths.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use fthost_autograd::random::Stream;

use super::permutation::Permutation;

/// Batches that are grouped together: of so many the examples are sorted by their lengths.
const TOGETHER: usize = 50;

/// How much a batch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// So many examples.
    Examples(usize),
    /// About so many tokens.
    Tokens(usize),
}

/// Batches that follow from the lengths of examples: every example once an epoch, and as many batches in each. An epoch's order is a
/// function of the seed and its number; that of the last epoch that was asked for is kept.
#[derive(Clone, Debug)]
pub struct Measured {
    shuffle: Stream,
    /// Tokens of each example.
    lengths: Arc<[u32]>,
    batches: usize,
    /// Batches in a group whose examples are sorted.
    together: Option<usize>,
    by_tokens: bool,
    last: Arc<Mutex<Option<Order>>>,
}

/// The order of an epoch.
#[derive(Clone, Debug)]
struct Order {
    epoch: u64,
    rows: Arc<[u32]>,
    /// Where each batch begins, and where the last one ends.
    bounds: Arc<[usize]>,
}

impl Measured {
    /// Of examples of these lengths. `grouped`: whether examples of a batch are to be of about equal lengths.
    pub fn new(seed: u64, lengths: Arc<[u32]>, holds: Holds, grouped: bool) -> Self {
        let (examples, tokens) = (lengths.len(), lengths.iter().map(|&length| length as usize).sum::<usize>());
        let batches = match holds {
            Holds::Examples(size) => examples.div_ceil(size.max(1)),
            Holds::Tokens(size) => tokens.div_ceil(size.max(1)).clamp(examples.min(1), examples),
        };
        Self {
            shuffle: Stream::new(seed, "shuffle"),
            lengths,
            batches,
            together: grouped.then_some(TOGETHER),
            by_tokens: matches!(holds, Holds::Tokens(_)),
            last: Arc::default(),
        }
    }

    /// Batches of an epoch.
    pub fn batches(&self) -> usize {
        self.batches
    }

    /// A batch of an epoch, as rows of the data set; `None` beyond the last.
    pub fn batch(&self, epoch: u64, number: usize) -> Option<Vec<u32>> {
        if number >= self.batches {
            return None;
        }
        let order = self.order(epoch);
        // Sorted examples make batches that grow: those come in any order.
        let place = match self.together {
            Some(_) => Permutation::new(self.shuffle.at(&[epoch, 1]), self.batches as u32).at(number as u32) as usize,
            None => number,
        };
        Some(order.rows[order.bounds[place]..order.bounds[place + 1]].to_vec())
    }

    fn order(&self, epoch: u64) -> Order {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.take().filter(|order| order.epoch == epoch);
        last.insert(known.unwrap_or_else(|| self.make_order(epoch))).clone()
    }

    fn make_order(&self, epoch: u64) -> Order {
        let examples = self.lengths.len();
        let permutation = Permutation::new(self.shuffle.at(&[epoch]), examples as u32);
        let mut rows: Vec<u32> = (0..examples as u32).map(|place| permutation.at(place)).collect();
        let length = |row: &u32| self.lengths[*row as usize] as usize;
        if let Some(together) = self.together {
            let group = (examples * together).div_ceil(self.batches.max(1)).max(1);
            rows.chunks_mut(group).for_each(|group| group.sort_by_key(|row| std::cmp::Reverse(length(row))));
        }
        let bounds = match self.by_tokens {
            true => bounds(rows.iter().map(length), self.batches),
            false => bounds(rows.iter().map(|_| 1), self.batches),
        };
        Order { epoch, rows: rows.into(), bounds: bounds.into() }
    }
}

/// Cuts examples of these lengths into so many parts of about equally many tokens, none of them empty. There are as many examples.
fn bounds(lengths: impl ExactSizeIterator<Item = usize> + Clone, parts: usize) -> Vec<usize> {
    let (examples, tokens) = (lengths.len(), lengths.clone().sum::<usize>());
    let mut bounds = vec![0];
    let mut sum = 0;
    for (i, length) in lengths.enumerate() {
        sum += length;
        let (made, end) = (bounds.len(), i + 1);
        // An example is in the part in which its middle lies; and each part that is still to come needs one.
        let full = (2 * sum - length) * parts >= 2 * tokens * made;
        let begins = full && i > bounds[made - 1];
        if made < parts && begins {
            bounds.push(i);
        } else if made < parts && examples - end == parts - made {
            bounds.push(end);
        }
    }
    bounds.push(examples);
    bounds
}

/// Places of examples of these lengths, in at most so many passes of about equally many tokens.
pub fn passes(lengths: &[usize], parts: usize) -> Vec<Range<usize>> {
    let bounds = bounds(lengths.iter().copied(), parts.min(lengths.len()).max(1));
    bounds.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    fn measured(lengths: &[u32], holds: Holds, grouped: bool) -> Measured {
        Measured::new(3, lengths.into(), holds, grouped)
    }

    #[test]
    fn passes_have_about_equally_many_tokens() {
        let check = |lengths: &[usize], parts, expected: &[Range<usize>]| assert_eq!(passes(lengths, parts), expected);
        check(&[5, 5, 5, 5], 2, &[0..2, 2..4]);
        check(&[100, 1, 1, 1], 3, &[0..1, 1..2, 2..4]);
        check(&[1, 1, 1, 100], 2, &[0..3, 3..4]);
        assert_eq!(passes(&[7], 4).len(), 1);
        check(&[0, 0, 0], 3, &[0..1, 1..2, 2..3]);
    }

    #[test]
    fn grouped_examples_are_of_about_equal_lengths() {
        let lengths: Vec<u32> = (0..4000).map(|i| 1 + i * 7919 % 97).collect();
        let spread = |grouped| {
            let sampler = measured(&lengths, Holds::Examples(8), grouped);
            let of = |batch: Vec<u32>| {
                let lengths = || batch.iter().map(|&row| lengths[row as usize]);
                lengths().max().unwrap() - lengths().min().unwrap()
            };
            (0..sampler.batches()).map(|number| of(sampler.batch(0, number).unwrap())).sum::<u32>() / 500
        };
        assert!(spread(false) > 60 && spread(true) < 4, "{} {}", spread(false), spread(true));
        // Batches of an epoch come in no order of their lengths.
        let sampler = measured(&lengths, Holds::Examples(8), true);
        let first: Vec<u32> = (0..20).map(|number| lengths[sampler.batch(0, number).unwrap()[0] as usize]).collect();
        assert!(!first.is_sorted() && !first.iter().rev().is_sorted());
    }

    proptest! {
        #[test]
        fn an_epoch_holds_every_example_once(
            lengths in proptest::collection::vec(0u32..60, 1..300), size in 1usize..400, tokens: bool, grouped: bool,
        ) {
            let holds = if tokens { Holds::Tokens(size) } else { Holds::Examples(size) };
            let sampler = measured(&lengths, holds, grouped);
            for epoch in [0, 1, 0] {
                let batches: Vec<Vec<u32>> =
                    (0..sampler.batches()).map(|number| sampler.batch(epoch, number).unwrap()).collect();
                prop_assert!(sampler.batch(epoch, batches.len()).is_none());
                prop_assert!(batches.iter().all(|batch| !batch.is_empty()));
                if tokens && lengths.len() > batches.len() {
                    let longest = *lengths.iter().max().unwrap() as usize;
                    let of = |batch: &Vec<u32>| batch.iter().map(|&row| lengths[row as usize] as usize).sum::<usize>();
                    prop_assert!(batches.iter().all(|batch| of(batch) <= size + 2 * longest));
                }
                let mut all: Vec<u32> = batches.concat();
                all.sort_unstable();
                prop_assert_eq!(all, (0..lengths.len() as u32).collect::<Vec<_>>());
            }
        }
    }
}
