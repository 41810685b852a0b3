//! Two candidates by a t-test over differences of their runs: Student's paired one over seeds, the corrected resampled one over folds.

use super::record::Record;
use super::result::PairResult;
use super::statistics::{self, Resampled};
use super::verdict;

/// Two candidates, and how much more of the metric the first has.
pub(super) struct Differences {
    /// The first's place in the record.
    pub(super) a: usize,
    /// The second's.
    pub(super) b: usize,
    /// The seeds that both have a result of.
    pub(super) seeds: Vec<u64>,
    /// The folds that both have a result of; none where each seed is a draw.
    pub(super) folds: Vec<u32>,
    /// Of each seed, or of each fold.
    pub(super) values: Vec<f64>,
}

/// What the test comes to for each of these pairs, its p corrected over all of them. `ratio` is test by training examples where these
/// overlap, else 0. The verdicts are still to be said.
pub(super) fn results(record: &Record, pairs: Vec<Differences>, test: &'static str, ratio: f64) -> Vec<PairResult> {
    let tests: Vec<Resampled> = pairs.iter().map(|pair| statistics::resampled(&pair.values, ratio)).collect();
    let p_holm = statistics::holm(&tests.iter().map(|test| test.p).collect::<Vec<_>>());
    let result = |((pair, found), p_holm): ((Differences, &Resampled), f64)| PairResult {
        a: record.candidates[pair.a].name.clone(),
        b: record.candidates[pair.b].name.clone(),
        seeds: pair.seeds,
        folds: pair.folds,
        difference: found.value,
        interval: found.interval,
        test,
        t: Some(found.t),
        p: found.p,
        p_holm,
        resolved: verdict::resolved(found.interval, p_holm),
        more_seeds: None,
        verdict: String::new(),
    };
    pairs.into_iter().zip(&tests).zip(p_holm).map(result).collect()
}
