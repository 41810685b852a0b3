//! Metrics of heads' own: what a plugin alone can compute, and so no part of the test examples is drawn anew or exchanged.
//!
//! Two candidates are compared seed by seed: each seed's difference is one draw of Student's paired t-test.

use super::candidates::Candidate;
use super::compared::Compared;
use super::record::Record;
use super::result::{PAIRED, PairResult};
use super::runs::Left;
use super::t_test::{self, Differences};
use super::verdict;
use crate::Result;

/// Runs of candidates, `[candidates][seeds]`, and the metric that they are compared by.
pub(super) struct Own<'a> {
    record: &'a Record,
    left: &'a [Vec<Option<Left>>],
    compared: Compared<'a>,
}

impl<'a> Own<'a> {
    /// # Errors
    /// Where two runs were tested on different examples.
    pub(super) fn new(record: &'a Record, left: &'a [Vec<Option<Left>>], compared: Compared<'a>) -> Result<Self> {
        let mut runs = record
            .candidates
            .iter()
            .zip(left)
            .flat_map(|(candidate, runs): (&Candidate, _)| runs.iter().flatten().map(move |run| (candidate, run)));
        if let Some((_, first)) = runs.next() {
            runs.try_for_each(|(candidate, run)| run.tested_on_the_same(first, candidate))?;
        }
        Ok(Self { record, left, compared })
    }

    /// The metric of a run.
    pub(super) fn value(&self, candidate: usize, seed: usize) -> Option<f64> {
        self.left[candidate][seed].as_ref()?.metrics.get(self.compared.metric).copied().flatten()
    }

    /// Every two candidates that have seeds in common.
    pub(super) fn pairs(&self) -> Vec<PairResult> {
        let mut found = Vec::new();
        for a in 0..self.left.len() {
            for b in a + 1..self.left.len() {
                let both = |seed: usize| Some((seed as u64, self.value(a, seed)? - self.value(b, seed)?));
                let (seeds, values): (Vec<u64>, Vec<f64>) = (0..self.left[a].len()).filter_map(both).unzip();
                if !values.is_empty() {
                    found.push(Differences { a, b, seeds, folds: Vec::new(), values });
                }
            }
        }
        let mut results = t_test::results(self.record, found, PAIRED, 0.0);
        results.iter_mut().for_each(|pair| pair.verdict = verdict::words_of_seeds(self.compared, pair));
        results
    }
}
