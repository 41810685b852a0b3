//! Which examples come when: shuffled batches, balanced ones or episodes, and the split of a batch into micro-batches.

use fthost_autograd::random::Stream;

use super::balanced::Balanced;
use super::episodes::Episodes;
use super::measured::Measured;
use super::permutation::Permutation;

/// The batches of a task. What an epoch holds is a function of the seed and its number alone, and each batch is computed when it is
/// asked for: a resumed run needs nothing but its place.
#[derive(Clone, Debug)]
pub enum Sampler {
    /// Shuffled batches.
    Shuffled(Shuffled),
    /// Batches of so many examples, shuffled, of epochs in which all classes are equally frequent; the smaller last one is kept.
    Balanced(Balanced, usize),
    /// Few-shot episodes, so many a batch.
    Episodes(Episodes, usize),
    /// Shuffled batches that follow from the lengths of examples.
    Measured(Measured),
}

impl Sampler {
    /// Batches of an epoch.
    pub fn batches(&self) -> usize {
        match self {
            Self::Shuffled(shuffled) => shuffled.batches(),
            Self::Balanced(balanced, size) => balanced.len().div_ceil(*size),
            Self::Episodes(episodes, together) => episodes.number().div_ceil(*together),
            Self::Measured(measured) => measured.batches(),
        }
    }

    /// A batch of an epoch, as rows of the data set; `None` beyond the last.
    pub fn batch(&self, epoch: u64, number: usize) -> Option<Vec<u32>> {
        match self {
            Self::Shuffled(shuffled) => shuffled.epoch_from(epoch, number).next(),
            Self::Balanced(balanced, size) => {
                let places = number * size..((number + 1) * size).min(balanced.len());
                (number < self.batches()).then(|| balanced.rows(epoch, places))
            }
            Self::Episodes(episodes, together) => {
                let numbers = (number * together..(number + 1) * together).map(|number| number as u64);
                (number < self.batches()).then(|| numbers.flat_map(|number| episodes.episode(epoch, number)).collect())
            }
            Self::Measured(measured) => measured.batch(epoch, number),
        }
    }
}

/// Shuffled batches: every example once an epoch.
#[derive(Clone, Copy, Debug)]
pub struct Shuffled {
    shuffle: Stream,
    examples: usize,
    batch_size: usize,
}

impl Shuffled {
    /// A sampler of `examples` examples, at most `u32::MAX`. `batch_size` is at least 1: the examples of one optimizer
    /// step.
    pub fn new(seed: u64, examples: usize, batch_size: usize) -> Self {
        Self { shuffle: Stream::new(seed, "shuffle"), examples, batch_size: batch_size.max(1) }
    }

    /// Batches of an epoch; the smaller last one is kept.
    pub fn batches(&self) -> usize {
        self.examples.div_ceil(self.batch_size)
    }

    /// The batches of epoch `epoch`, as rows of the data set.
    pub fn epoch(&self, epoch: u64) -> Epoch {
        self.epoch_from(epoch, 0)
    }

    /// As [`epoch`](Self::epoch), from batch `first` on.
    pub fn epoch_from(&self, epoch: u64, first: usize) -> Epoch {
        let order = Permutation::new(self.shuffle.at(&[epoch]), self.examples as u32);
        Epoch { sampler: *self, order, next: first.min(self.batches()) }
    }
}

/// The batches of an epoch that are still to come.
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    sampler: Shuffled,
    order: Permutation,
    next: usize,
}

impl Iterator for Epoch {
    type Item = Vec<u32>;

    fn next(&mut self) -> Option<Vec<u32>> {
        let Shuffled { examples, batch_size, .. } = self.sampler;
        let first = self.next * batch_size;
        if first >= examples {
            return None;
        }
        self.next += 1;
        let end = first.saturating_add(batch_size).min(examples);
        Some((first..end).map(|place| self.order.at(place as u32)).collect())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.sampler.batches() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Epoch {}

/// Tokens that a micro-batch should have: enough rows for a matrix product to run at its full speed, few enough for the
/// activations of a block to stay in a core's cache.
const MICRO_BATCH_TOKENS: usize = 256;

/// Splits a batch into micro-batches of about equal numbers of tokens, from the lengths of its examples, none with more than `most`.
///
/// Gives the places of each micro-batch's examples in the batch, ascending. There are about `tokens / 256`
/// micro-batches, an even number where the batch has enough examples, so that two cores end together. The split depends
/// on the lengths alone, never on the number of threads: the order of summing, and with it every bit of the gradient,
/// stays the same.
pub fn split_micro_batches(lengths: &[usize], most: usize) -> Vec<Vec<usize>> {
    let (tokens, most) = (lengths.iter().sum::<usize>(), most.max(1));
    let wanted = tokens.div_ceil(MICRO_BATCH_TOKENS).max(lengths.len().div_ceil(most)).max(1).next_multiple_of(2);
    let mut parts: Vec<(usize, Vec<usize>)> = vec![(0, Vec::new()); wanted.min(lengths.len())];

    let mut longest_first: Vec<usize> = (0..lengths.len()).collect();
    longest_first.sort_by_key(|&place| (std::cmp::Reverse(lengths[place]), place));
    for place in longest_first {
        // The first of the lightest.
        let with_room = parts.iter_mut().filter(|(_, places)| places.len() < most);
        if let Some((load, places)) = with_room.min_by_key(|(load, _)| *load) {
            *load += lengths[place].max(1);
            places.push(place);
        }
    }
    let sorted = |(_, mut places): (usize, Vec<usize>)| {
        places.sort_unstable();
        places
    };
    parts.into_iter().map(sorted).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn epochs_differ_and_repeat_themselves() {
        let epoch = |seed, epoch| Shuffled::new(seed, 100, 7).epoch(epoch).flatten().collect::<Vec<_>>();
        assert_eq!(epoch(1, 0), epoch(1, 0));
        assert_ne!(epoch(1, 0), epoch(1, 1));
        assert_ne!(epoch(1, 0), epoch(2, 0));
    }

    /// Of four billion examples: no batch before it is computed, and nothing is kept.
    #[test]
    fn any_batch_comes_at_once() {
        let sampler = Shuffled::new(1, u32::MAX as usize, 16);
        let mut epoch = sampler.epoch_from(0, sampler.batches() - 1);
        assert_eq!((epoch.len(), epoch.next().map(|rows| rows.len()), epoch.next()), (1, Some(15), None));
        assert_eq!(sampler.epoch_from(0, usize::MAX).len(), 0);
    }

    #[test]
    fn batches_are_split_evenly() {
        let check =
            |lengths: &[usize], expected: &[&[usize]]| assert_eq!(split_micro_batches(lengths, usize::MAX), expected);
        check(&[], &[]);
        check(&[9], &[&[0]]);
        check(&[9, 9], &[&[0], &[1]]);
        check(&[1, 5, 2, 4], &[&[0, 1], &[2, 3]]);
        check(&[200, 200, 200], &[&[0], &[1], &[2]]);
        check(&[200, 100, 200, 100, 200, 100, 200, 100, 10], &[&[0, 8], &[2], &[4], &[6], &[1, 5], &[3, 7]]);
        check(&[0, 0], &[&[0], &[1]]);
    }

    proptest! {
        #[test]
        fn an_epoch_holds_every_example_once(
            seed: u64, epoch in 0u64..9, examples in 0usize..300, size in 1usize..50, from in 0usize..40,
        ) {
            let sampler = Shuffled::new(seed, examples, size);
            let batches: Vec<_> = sampler.epoch(epoch).collect();
            prop_assert_eq!(batches.len(), sampler.batches());
            let from = from.min(batches.len());
            prop_assert_eq!(sampler.epoch_from(epoch, from).len(), batches.len() - from);
            prop_assert_eq!(sampler.epoch_from(epoch, from).collect::<Vec<_>>(), &batches[from..]);
            prop_assert!(batches.iter().rev().skip(1).all(|batch| batch.len() == size));
            let mut all: Vec<u32> = batches.into_iter().flatten().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..examples as u32).collect::<Vec<_>>());
        }

        #[test]
        fn a_split_holds_every_place_once_and_is_balanced(lengths in proptest::collection::vec(1usize..600, 1..80)) {
            let parts = split_micro_batches(&lengths, usize::MAX);
            let mut all: Vec<usize> = parts.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            prop_assert!(parts.iter().all(|part| !part.is_empty() && part.is_sorted()));
            prop_assert!(parts.len().is_multiple_of(2) || parts.len() == lengths.len());
            // When an example came to the heaviest part, that part was the lightest: at most the mean.
            let load = |part: &Vec<usize>| part.iter().map(|&place| lengths[place]).sum::<usize>();
            let heaviest = parts.iter().map(load).max().unwrap();
            let mean = lengths.iter().sum::<usize>() as f64 / parts.len() as f64;
            let longest = *lengths.iter().max().unwrap() as f64;
            prop_assert!(heaviest as f64 <= mean + longest);
        }

        #[test]
        fn no_part_has_more_than_the_most(
            lengths in proptest::collection::vec(1usize..600, 1..80), most in 1usize..90,
        ) {
            let parts = split_micro_batches(&lengths, most);
            let mut all: Vec<usize> = parts.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            prop_assert!(parts.iter().all(|part| !part.is_empty() && part.len() <= most));
            // Where none would have more anyway, it is the same split.
            let without = split_micro_batches(&lengths, usize::MAX);
            prop_assert!(without.iter().any(|part| part.len() > most) || parts == without);
        }

        #[test]
        fn a_split_does_not_depend_on_the_number_of_threads(lengths in proptest::collection::vec(1usize..600, 1..40)) {
            let on = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| split_micro_batches(&lengths, usize::MAX))
            };
            prop_assert_eq!(on(1), on(3));
        }
    }
}
