//! A shuffled order that is computed place by place: nothing of it is kept, however many rows there are.

use fthost_autograd::random::Stream;

/// A pseudo-random permutation of `0..n`.
///
/// A number below `n` is a pair of digits, each below `side`, the root of `n` rounded up. A balanced Feistel network
/// (Luby and Rackoff 1988) permutes the pairs, with a round function read from the stream; a pair that is no number
/// below `n` goes through the network again until one is (Black and Rogaway 2002, "Ciphers with arbitrary finite
/// domains"). There are fewer than `2 side` such pairs, so this is rare.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    stream: Stream,
    n: u32,
    side: u64,
}

/// Four rounds cannot be told from a random permutation of a large domain; small ones need more.
const ROUNDS: u64 = 10;

impl Permutation {
    /// The permutation of `0..n` that this stream gives.
    pub fn new(stream: Stream, n: u32) -> Self {
        let root = u64::from(n).isqrt();
        Self { stream, n, side: if root * root < u64::from(n) { root + 1 } else { root } }
    }

    /// Where `place` goes; `place` is below `n`.
    pub fn at(&self, place: u32) -> u32 {
        let mut number = u64::from(place);
        loop {
            number = self.pass(number);
            if number < u64::from(self.n) {
                return number as u32;
            }
        }
    }

    /// Once through the network.
    fn pass(&self, number: u64) -> u64 {
        let (mut left, mut right) = (number / self.side, number % self.side);
        for round in 0..ROUNDS {
            let shift = self.stream.below(round << 32 | right, self.side);
            (left, right) = (right, (left + shift) % self.side);
        }
        left * self.side + right
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    fn permutation(seed: u64, n: u32) -> Permutation {
        Permutation::new(Stream::new(seed, "permutation"), n)
    }

    #[track_caller]
    fn check_bijection(seed: u64, n: u32) {
        let permutation = permutation(seed, n);
        let mut seen = vec![false; n as usize];
        for place in 0..n {
            let seen = &mut seen[permutation.at(place) as usize];
            assert!(!*seen, "seed {seed}, n {n}");
            *seen = true;
        }
    }

    #[test]
    fn every_number_comes_once() {
        for n in (0..=40).chain([99, 100, 101, 1000, 65_535, 65_536, 65_537, 100_000]) {
            check_bijection(3, n);
        }
    }

    #[test]
    fn the_largest_domain_is_within_reach() {
        let permutation = permutation(1, u32::MAX);
        let numbers: std::collections::BTreeSet<u32> = (0..1000).map(|place| permutation.at(place)).collect();
        assert_eq!(numbers.len(), 1000);
    }

    /// Chi squared of the numbers that `place` goes to, over many seeds: `n - 1` give or take a few times its
    /// deviation.
    #[test]
    fn places_are_uniform() {
        for n in [2u32, 3, 5, 16, 17, 100] {
            let trials = 200 * n;
            for place in [0, n / 2, n - 1] {
                let mut counts = vec![0u32; n as usize];
                (0..trials).for_each(|seed| counts[permutation(u64::from(seed), n).at(place) as usize] += 1);
                let expected = f64::from(trials) / f64::from(n);
                let chi: f64 = counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
                let (mean, deviation) = (f64::from(n - 1), (2.0 * f64::from(n - 1)).sqrt());
                assert!((chi - mean).abs() < 5.0 * deviation + 1.0, "n {n}, place {place}: {chi}");
            }
        }
    }

    /// All orders of three and of four come about equally often.
    #[test]
    fn orders_of_few_are_uniform() {
        for (n, orders) in [(3, 6), (4, 24)] {
            let trials = 400 * orders;
            let mut counts = std::collections::BTreeMap::new();
            for seed in 0..trials {
                let permutation = permutation(seed, n);
                *counts.entry((0..n).map(|place| permutation.at(place)).collect::<Vec<_>>()).or_insert(0) += 1;
            }
            assert_eq!(counts.len() as u64, orders);
            assert!(counts.values().all(|&count: &i32| (280..520).contains(&count)), "{counts:?}");
        }
    }

    /// Neighbours do not stay neighbours.
    #[test]
    fn neighbours_part() {
        let n = 10_000;
        let permutation = permutation(5, n);
        let near = (1..n).filter(|&place| permutation.at(place).abs_diff(permutation.at(place - 1)) <= 50).count();
        assert!((60..140).contains(&near), "{near} of about 100");
    }

    proptest! {
        #[test]
        fn it_is_a_bijection(seed: u64, n in 0u32..3000) {
            check_bijection(seed, n);
        }
    }
}
