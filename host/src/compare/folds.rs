//! Cross-validation: every candidate on each fold of the training examples.
//!
//! The training data of any two folds overlap, so their results are no independent draws: what is said of means and differences over
//! them is the corrected resampled t-test's ([`statistics::resampled`]). With several seeds a fold counts by the mean over them: more
//! seeds make its result surer, and are no further draws of data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::candidates::Candidate;
use super::compared::Compared;
use super::joined;
use super::metric::Subject;
use super::record::Record;
use super::result::{CORRECTED, CandidateResult, Estimate, OutOfFold, PairResult};
use super::rounds::Round;
use super::runs::Left;
use super::sample::mean;
use super::statistics::{self, Resampled, variance};
use super::t_test::{self, Differences};
use super::verdict;
use crate::data::Fold;
use crate::run::file::{Drawn, HeldOut, RunFile, SplitKeys};
use crate::run::results::predictions;
use crate::run::state::folder::write_atomically;
use crate::{Error, Result};

/// Writes the run files of a candidate's folds.
///
/// # Errors
/// Where one cannot be written.
pub(super) fn write_run_files(comparison: &Path, candidate: &Candidate, task: &str, folds: u32) -> Result<()> {
    let file = candidate.file()?;
    for fold in Fold::all(folds) {
        let mut file = file.clone();
        file.tasks.iter_mut().filter(|table| table.name == task).for_each(|table| table.test_on(fold));
        let path = Round { seed: 0, fold: Some(fold) }.file(comparison, candidate);
        write_atomically(&path, file.to_toml().as_bytes())?;
    }
    Ok(())
}

/// Sentences about what the folds leave out, each once.
///
/// # Errors
/// Where a candidate's run file does not read.
pub(super) fn notes(record: &Record, subject: &Subject) -> Result<Vec<String>> {
    let mut notes: Vec<String> = Vec::new();
    for (candidate, task) in record.candidates.iter().zip(&subject.tasks) {
        notes.extend(unused_test(&candidate.file()?, task).filter(|note| !notes.contains(note)));
    }
    if record.lr_find {
        notes.push(
            "lr-find has seen the training examples of all folds: its rates are not chosen on unseen ones".into(),
        );
    }
    Ok(notes)
}

/// What becomes of the test examples that a run file names.
fn unused_test(file: &RunFile, task: &str) -> Option<String> {
    let table = file.tasks.iter().find(|table| table.name == task)?;
    let name = |path: &Path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let all = "the folds are of all training examples, and each is tested once";
    Some(match (table.test.as_ref()?, &table.split) {
        (HeldOut::Files(files), _) => {
            let files: Vec<String> = files.named().into_iter().map(name).collect();
            let (files, is) = (files.join(", "), if files.len() == 1 { "is" } else { "are" });
            format!(
                "{files} {is} not used: the folds are of the training examples, and the rows of the test file stay unseen"
            )
        }
        (HeldOut::Rows(rows), Some(SplitKeys { column, .. })) => format!(
            "rows whose {column} is {rows} are not used: the folds are of the training examples, and these rows stay unseen"
        ),
        (HeldOut::Rows(_), None) => return None,
        (HeldOut::Drawn(Drawn::Share(share)), _) => format!("test = {share} is not used: {all}"),
        (HeldOut::Drawn(Drawn::Fold(Fold { fold, of })), _) => {
            format!("test = {{ fold = {fold}, of = {of} }} is not used: {all}")
        }
    })
}

/// Runs of candidates on folds, `[candidates][rounds]`.
pub(super) struct Folds<'a> {
    record: &'a Record,
    rounds: Vec<Round>,
    left: &'a [Vec<Option<Left>>],
    /// Examples that are tested.
    pub(super) examples: usize,
}

impl<'a> Folds<'a> {
    /// # Errors
    /// Where runs of a fold were tested on different examples, or two folds on the same: the training file has changed between them, or
    /// candidates have different ones.
    pub(super) fn new(record: &'a Record, left: &'a [Vec<Option<Left>>]) -> Result<Self> {
        let rounds = record.rounds();
        let mut first: BTreeMap<Option<Fold>, &Left> = BTreeMap::new();
        for (candidate, runs) in record.candidates.iter().zip(left) {
            for (round, run) in rounds.iter().zip(runs) {
                let Some(run) = run else { continue };
                run.tested_on_the_same(first.entry(round.fold).or_insert(run), candidate)?;
            }
        }
        let mut seen = BTreeSet::new();
        for rows in first.values().flat_map(|run| run.predictions.chunk_by(|a, b| a.example == b.example)) {
            if rows.first().is_some_and(|row| !seen.insert(row.example)) {
                let message = "an example is in two folds: the training file has changed since the first of them ran";
                return Err(Error::run(message).with_help("begin a new comparison in another folder"));
            }
        }
        Ok(Self { record, rounds, left, examples: seen.len() })
    }

    /// For each fold the mean over its seeds of something that rounds may have.
    fn by_fold(&self, of_round: impl Fn(usize) -> Option<f64>) -> Vec<(u32, f64)> {
        let mut found: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for (place, round) in self.rounds.iter().enumerate() {
            if let (Some(fold), Some(value)) = (round.fold, of_round(place).filter(|value| value.is_finite())) {
                found.entry(fold.fold).or_default().push(value);
            }
        }
        found.into_iter().map(|(fold, values)| (fold, mean(&values))).collect()
    }

    /// A metric of a run.
    pub(super) fn value(&self, candidate: usize, place: usize, metric: &str) -> Option<f64> {
        self.left[candidate][place].as_ref()?.metrics.get(metric).copied().flatten()
    }

    /// Test by training examples: of K folds that is 1 / (K - 1). What validation takes of the training examples counts among them.
    fn ratio(&self) -> f64 {
        1.0 / f64::from(self.record.folds.unwrap_or(2).max(2) - 1)
    }

    fn estimate(&self, candidate: usize, metric: &str) -> Estimate {
        let values: Vec<f64> =
            self.by_fold(|place| self.value(candidate, place, metric)).into_iter().map(|(_, value)| value).collect();
        let several = values.len() > 1;
        let Resampled { value, interval, .. } = statistics::resampled(&values, self.ratio());
        Estimate {
            mean: value,
            spread: several.then(|| variance(&values).sqrt()),
            interval: several.then_some(interval),
            folds: values.len(),
        }
    }

    /// Adds to what a candidate came to what its folds say together, and leaves its out-of-fold predictions in its folder.
    ///
    /// # Errors
    /// Where predictions do not read, or cannot be written.
    pub(super) fn complete(
        &self,
        candidate: usize,
        metric: &str,
        comparison: &Path,
        result: &mut CandidateResult,
    ) -> Result<()> {
        let names: BTreeSet<&String> =
            self.left[candidate].iter().flatten().flat_map(|left| left.metrics.keys()).collect();
        result.metrics = names.into_iter().map(|name| (name.clone(), self.estimate(candidate, name))).collect();
        let lead = self.estimate(candidate, metric);
        (result.mean, result.spread) = (lead.mean, lead.spread);
        let done =
            self.rounds.iter().zip(&self.left[candidate]).filter_map(|(round, run)| Some((*round, run.as_ref()?)));
        let done: Vec<(Round, &Left)> = done.collect();
        let Some((Round { seed, .. }, first)) = done.first() else { return Ok(()) };
        let of = &self.record.candidates[candidate];
        let path = comparison.join(&of.name).join(predictions::FILE);
        let runs: Vec<(Round, PathBuf)> =
            done.iter().map(|(round, _)| (*round, round.folder(comparison, of))).collect();
        joined::write(&path, &result.task, &runs)?;
        let of_seed: Vec<&Left> = done.iter().filter(|(round, _)| round.seed == *seed).map(|(_, left)| *left).collect();
        let report = joined::report(&of_seed);
        result.out_of_fold = report.map(|report| OutOfFold {
            predictions: path,
            seed: *seed,
            folds: of_seed.len(),
            labels: first.labels.clone(),
            report,
        });
        Ok(())
    }

    /// Every two candidates that have folds in common.
    pub(super) fn pairs(&self, compared: Compared<'_>) -> Vec<PairResult> {
        let metric = compared.metric;
        let (mut found, mut equal) = (Vec::new(), Vec::new());
        for a in 0..self.left.len() {
            for b in a + 1..self.left.len() {
                let both = |place: &usize| self.left[a][*place].is_some() && self.left[b][*place].is_some();
                let places: Vec<usize> = (0..self.rounds.len()).filter(both).collect();
                if places.is_empty() {
                    continue;
                }
                let of_round = |place: usize| {
                    let both = places.contains(&place);
                    both.then(|| Some(self.value(a, place, metric)? - self.value(b, place, metric)?))?
                };
                let (folds, values) = self.by_fold(of_round).into_iter().unzip();
                let seeds: BTreeSet<u64> = places.iter().map(|&place| self.rounds[place].seed).collect();
                found.push(Differences { a, b, seeds: seeds.into_iter().collect(), folds, values });
                equal.push(self.equal(a, b, &places));
            }
        }
        let mut results = t_test::results(self.record, found, CORRECTED, self.ratio());
        for (pair, equal) in results.iter_mut().zip(equal) {
            pair.verdict = verdict::words_of_folds(compared, pair, equal);
        }
        results
    }

    /// Whether two candidates predict the same in all rounds that both have.
    fn equal(&self, a: usize, b: usize, places: &[usize]) -> bool {
        let predicted = |candidate: usize, place: usize| {
            let rows = self.left[candidate][place].iter().flat_map(|left| &left.predictions);
            rows.map(|row| &row.prediction)
        };
        places.iter().all(|&place| predicted(a, place).eq(predicted(b, place)))
    }
}
