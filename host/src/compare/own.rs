//! Metrics of heads' own: what a plugin alone can compute, and so no part of the test examples is drawn anew or exchanged.
//!
//! Two candidates are compared seed by seed: each seed's difference is one draw of Student's paired t-test.

use super::candidates::Candidate;
use super::compared::Compared;
use super::record::Record;
use super::result::{PAIRED, PairResult};
use super::runs::Left;
use super::statistics::{self, Resampled};
use super::verdict;
use crate::Result;

/// Runs of candidates, `[candidates][seeds]`, and the metric that they are compared by.
pub(super) struct Own<'a> {
    record: &'a Record,
    left: &'a [Vec<Option<Left>>],
    compared: Compared<'a>,
}

/// The places of two candidates, and by seed how much more the first has.
type Found = (usize, usize, Vec<(usize, f64)>);

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
        let mut found: Vec<Found> = Vec::new();
        for a in 0..self.left.len() {
            for b in a + 1..self.left.len() {
                let both = |seed: usize| Some((seed, self.value(a, seed)? - self.value(b, seed)?));
                let differences: Vec<(usize, f64)> = (0..self.left[a].len()).filter_map(both).collect();
                if !differences.is_empty() {
                    found.push((a, b, differences));
                }
            }
        }
        let values = |differences: &[(usize, f64)]| differences.iter().map(|(_, value)| *value).collect::<Vec<_>>();
        let tests: Vec<Resampled> =
            found.iter().map(|(_, _, differences)| statistics::resampled(&values(differences), 0.0)).collect();
        let p_holm = statistics::holm(&tests.iter().map(|test| test.p).collect::<Vec<_>>());
        let pair = |(i, (a, b, differences)): (usize, &Found)| {
            let test = &tests[i];
            let mut result = PairResult {
                a: self.record.candidates[*a].name.clone(),
                b: self.record.candidates[*b].name.clone(),
                seeds: differences.iter().map(|(seed, _)| *seed as u64).collect(),
                folds: Vec::new(),
                difference: test.value,
                interval: test.interval,
                test: PAIRED,
                t: Some(test.t),
                p: test.p,
                p_holm: p_holm[i],
                resolved: verdict::resolved(test.interval, p_holm[i]),
                more_seeds: None,
                verdict: String::new(),
            };
            result.verdict = verdict::words_of_seeds(self.compared, &result);
            result
        };
        found.iter().enumerate().map(pair).collect()
    }
}
