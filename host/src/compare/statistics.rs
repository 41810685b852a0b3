//! Whether a difference between two candidates is more than chance: intervals, tests, and what more seeds would tell.
//!
//! Test items and seeds are both samples, crossed: every seed's model sees every item. What two candidates share (the items, and
//! by their common seeds the order of the data and the head's start) cancels out of their difference, so everything is paired.
//!
//! - [`bootstrap`]: items and seeds are drawn again, the same ones for both candidates (the pigeonhole bootstrap: Owen 2007,
//!   "The pigeonhole bootstrap", arXiv:1106.2125 for any number of factors). Of k seeds k - 1 are drawn, which makes the variance
//!   over seeds unbiased (Rao and Wu 1988, "Resampling inference with complex survey data"). An item is a test example with all its
//!   tokens: these depend on each other, so that examples are drawn whole (Field and Welsh 2007, "Bootstrapping clustered data").
//! - [`Difference`]: its interval is the difference plus and minus Student's t times the bootstrap's standard error, with degrees of
//!   freedom by Satterthwaite (1946). Percentiles of so few seeds are too narrow: with three seeds that differ much, a 95 %
//!   percentile interval holds the truth in 75 % of cases, and this one in 94 % (`tests/reference/make_statistics.py coverage`).
//! - [`mcnemar`]: exact (McNemar 1947; Dietterich 1998, "Approximate statistical tests for comparing supervised classification
//!   learning algorithms"). [`randomization`] does for any metric what it does for accuracy (Noreen 1989), and for any number of tokens
//!   in an example, whose predictions are exchanged together (Yeh 2000, "More accurate tests for the statistical significance of
//!   result differences", over sentences).
//! - [`holm`]: Holm (1979), over all pairs.
//!
//! Folds of cross-validation are no such sample: the training data of any two overlap. [`resampled`] is for them.

use fthost_autograd::random::Stream;
use rayon::prelude::*;
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, StudentsT};

use super::sample::{Pair, Sample, mean};

/// Draws of the bootstrap, and of the randomization test.
pub(super) const DRAWS: u64 = 10_000;
/// Share of intervals that hold the truth.
const COVERAGE: f64 = 0.95;
/// The most seeds that are advised.
const MOST_SEEDS: usize = 100;

/// The difference of a pair's metric, first minus second, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Difference {
    /// Mean over the common seeds.
    pub(super) value: f64,
    /// The interval's lower and upper end.
    pub(super) interval: (f64, f64),
    /// What the difference varies by.
    pub(super) variance: Variance,
}

/// Parts of a difference's variance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Variance {
    /// Of the mean, by items: no further seed makes it smaller.
    pub(super) items: f64,
    /// Of one seed's difference, by seeds and by what only this seed does to single items. Zero where there is one seed.
    pub(super) seed: f64,
    /// Number of items.
    pub(super) count: usize,
}

impl Variance {
    /// Half the length of an interval with so many seeds.
    fn half_with(self, seeds: usize) -> f64 {
        let by_seeds = self.seed / seeds as f64;
        quantile(degrees(by_seeds, seeds, self.items, self.count)) * (self.items + by_seeds).sqrt()
    }
}

/// What would resolve a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    /// So many seeds more.
    Seeds(usize),
    /// More seeds than anybody wants to run.
    TooManySeeds,
    /// No number of seeds, but at least about so many test items.
    Items(usize),
    /// The interval leaves zero out; the test does not.
    Test,
    /// There is no difference.
    Nothing,
    /// The spread over seeds is unknown.
    Unknown,
}

/// The differences of all pairs, by one bootstrap whose draws they share.
pub(super) fn bootstrap(sample: &Sample, pairs: &[Pair]) -> Vec<Difference> {
    let draws: Vec<Vec<Draw>> = (0..DRAWS)
        .into_par_iter()
        .map_init(Vec::new, |items, draw| {
            let count = sample.items() as u64;
            let stream = Stream::new(0, "bootstrap items").at(&[draw]);
            items.clear();
            items.extend((0..count).map(|i| stream.below(i, count) as usize));
            let scores = sample.scores_of(items);
            pairs.iter().map(|pair| Draw::of(pair, &scores, draw)).collect()
        })
        .collect();
    let scores = sample.scores();
    pairs
        .iter()
        .enumerate()
        .map(|(i, pair)| difference(pair, sample.items(), &scores, draws.iter().map(|draw| &draw[i])))
        .collect()
}

/// One draw's differences of a pair.
struct Draw {
    /// With the seeds as they are.
    by_seed: Vec<f64>,
    /// With seeds drawn too.
    drawn: f64,
}

impl Draw {
    fn of(pair: &Pair, scores: &[Vec<f64>], draw: u64) -> Self {
        let by_seed = pair.differences(scores);
        let stream = Stream::new(0, "bootstrap seeds").at(&[draw]);
        let count = by_seed.len() as u64;
        let chosen: Vec<f64> =
            (0..count.saturating_sub(1).max(1)).map(|i| by_seed[stream.below(i, count) as usize]).collect();
        Self { drawn: mean(&chosen), by_seed }
    }
}

impl Pair {
    /// The difference of each common seed.
    fn differences(&self, scores: &[Vec<f64>]) -> Vec<f64> {
        self.seeds.iter().map(|&seed| scores[self.a][seed] - scores[self.b][seed]).collect()
    }
}

fn difference<'a>(
    pair: &Pair,
    count: usize,
    scores: &[Vec<f64>],
    draws: impl Iterator<Item = &'a Draw> + Clone,
) -> Difference {
    let by_seed = pair.differences(scores);
    let value = mean(&by_seed);
    let seeds = by_seed.len();
    // A metric that a draw leaves undefined, as a correlation of equal values is, says nothing.
    let column = |of: &dyn Fn(&Draw) -> f64| draws.clone().map(of).filter(|x| x.is_finite()).collect::<Vec<_>>();
    let whole = variance(&column(&|draw| draw.drawn));
    let of_mean = variance(&column(&|draw| mean(&draw.by_seed)));
    let of_one = mean(&(0..seeds).map(|seed| variance(&column(&|draw| draw.by_seed[seed]))).collect::<Vec<_>>());

    let by_seeds = variance(&by_seed) / seeds as f64;
    let half = quantile(degrees(by_seeds, seeds, (whole - by_seeds).max(0.0), count)) * whole.sqrt();
    // Items vary by themselves (s) and with each seed (e): the mean of k seeds by s + e / k, one seed's difference by s + e.
    let items = match seeds {
        1 => of_mean,
        _ => (of_mean - (of_one - of_mean) / (seeds - 1) as f64).max(0.0),
    };
    let variance = Variance { items, seed: by_seeds * seeds as f64, count };
    Difference { value, interval: (value - half, value + half), variance }
}

/// Whether an interval leaves zero out.
pub(super) fn is_clear(interval: (f64, f64)) -> bool {
    interval.0 > 0.0 || interval.1 < 0.0
}

/// Degrees of freedom of a sum of two variances: by seeds, and by items.
fn degrees(by_seeds: f64, seeds: usize, by_items: f64, items: usize) -> f64 {
    let part = |variance: f64, count: usize| variance * variance / (count.max(2) - 1) as f64;
    let parts = part(by_seeds, seeds) + part(by_items, items);
    if parts > 0.0 { (by_seeds + by_items).powi(2) / parts } else { (items.max(2) - 1) as f64 }
}

/// Student's t beyond which, on both sides, lies what no interval has to hold.
fn quantile(degrees: f64) -> f64 {
    StudentsT::new(0.0, 1.0, degrees).map_or(f64::NAN, |t| t.inverse_cdf(0.5 + COVERAGE / 2.0))
}

impl Difference {
    /// Whether the interval leaves zero out.
    pub(super) fn is_clear(&self) -> bool {
        is_clear(self.interval)
    }

    /// What would make the interval leave zero out, if the difference stays as it is. `seeds` have been run.
    pub(super) fn outlook(&self, seeds: usize) -> Outlook {
        let (size, variance) = (self.value.abs(), self.variance);
        if size == 0.0 || !size.is_finite() {
            return Outlook::Nothing;
        }
        if self.is_clear() {
            return Outlook::Test;
        }
        let by_items = quantile((variance.count.max(2) - 1) as f64).powi(2) * variance.items;
        if by_items >= size * size {
            return Outlook::Items((variance.count as f64 * by_items / (size * size)).ceil() as usize);
        }
        if seeds < 2 {
            return Outlook::Unknown;
        }
        let enough = (seeds + 1..=seeds + MOST_SEEDS).find(|&seeds| variance.half_with(seeds) < size);
        enough.map_or(Outlook::TooManySeeds, |enough| Outlook::Seeds(enough - seeds))
    }
}

/// McNemar's exact test, two-sided. An item counts for the candidate that is right on it with more of the common seeds, and not at
/// all where both are right as often; with one seed that is McNemar's own count.
pub(super) fn mcnemar(sample: &Sample, pair: &Pair) -> f64 {
    let (mut first, mut second) = (0u64, 0u64);
    for item in 0..sample.items() {
        let right =
            |candidate: usize| pair.seeds.iter().filter(|&&seed| sample.is_right(candidate, seed, item)).count();
        match right(pair.a).cmp(&right(pair.b)) {
            std::cmp::Ordering::Greater => first += 1,
            std::cmp::Ordering::Less => second += 1,
            std::cmp::Ordering::Equal => {}
        }
    }
    sign_test(first, second)
}

/// Probability that `first` and `second` of fair throws, or anything as uneven, come by chance.
fn sign_test(first: u64, second: u64) -> f64 {
    let fair = Binomial::new(0.5, first + second);
    fair.map_or(1.0, |fair| (2.0 * fair.cdf(first.min(second))).min(1.0))
}

/// The approximate randomization test: were the two the same, exchanging their predictions on any item, with all seeds, would change
/// nothing. Gives how often, over random exchanges, the difference is at least as great as it is.
pub(super) fn randomization(sample: &Sample, pair: &Pair) -> f64 {
    let found = sample.exchanged(pair, |_| false).abs();
    if found.is_nan() {
        return 1.0;
    }
    let as_great = (0..DRAWS)
        .into_par_iter()
        .filter(|&draw| {
            let stream = Stream::new(0, "randomization").at(&[draw]);
            // Sums in another order differ in their last bits.
            sample.exchanged(pair, |item| stream.below(item as u64, 2) == 1).abs() >= found * (1.0 - 1e-12)
        })
        .count();
    (as_great + 1) as f64 / (DRAWS + 1) as f64
}

/// The mean of something over folds, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Resampled {
    /// The mean.
    pub(super) value: f64,
    /// The interval's lower and upper end; not numbers with one fold.
    pub(super) interval: (f64, f64),
    /// The mean over its standard error.
    pub(super) t: f64,
    /// The probability of a mean at least as far from zero, were the true one zero; 1 where nothing tells.
    pub(super) p: f64,
}

/// The corrected resampled t-test, two-sided (Nadeau and Bengio 2003, "Inference for the generalization error", doi:10.1023/A:1024068626366):
/// of J values, one for each fold, the mean's variance is (1 / J + `ratio`) times theirs, and t has J - 1 degrees of freedom. `ratio` is
/// test by training examples: what folds share makes their results alike, so that 1 / J alone finds differences that are none.
pub(super) fn resampled(values: &[f64], ratio: f64) -> Resampled {
    let (count, value) = (values.len(), mean(values));
    if count < 2 {
        return Resampled { value, interval: (f64::NAN, f64::NAN), t: f64::NAN, p: 1.0 };
    }
    let error = ((1.0 / count as f64 + ratio) * variance(values)).sqrt();
    let degrees = (count - 1) as f64;
    let half = quantile(degrees) * error;
    // Folds that are equal to the last bit have no error: then any difference is beyond it, and none is not.
    let t = if value == 0.0 { 0.0 } else { value / error };
    let p = StudentsT::new(0.0, 1.0, degrees).map_or(f64::NAN, |of| 2.0 * of.sf(t.abs()));
    Resampled { value, interval: (value - half, value + half), t, p: p.min(1.0) }
}

/// Holm's correction: each p times the number of hypotheses that it competes with, never below a smaller one's, at most 1.
pub(super) fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let (mut corrected, mut least) = (vec![0.0; p.len()], 0.0f64);
    for (rank, &i) in order.iter().enumerate() {
        least = least.max((p.len() - rank) as f64 * p[i]).min(1.0);
        corrected[i] = least;
    }
    corrected
}

/// Sample variance; zero of one value.
pub(super) fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len().max(2) - 1) as f64
}

#[cfg(test)]
#[path = "statistics_tests.rs"]
mod tests;
