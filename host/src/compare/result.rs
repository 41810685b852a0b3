//! What a comparison came to: `comparison.json`, and the table that a person sees.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::metric::ACCURACY;
use super::rates;
use crate::report::numbers::{bytes, count, duration, significant};
use crate::report::table::Table;
use crate::report::text::{NAME, shortened};
use crate::run::results::report::Report;

/// What Student's paired t-test over seeds is called in results.
pub(super) const PAIRED: &str = "paired_t";
/// What the corrected resampled t-test over folds is called in results.
pub(super) const CORRECTED: &str = "corrected_resampled_t";

/// A comparison. Its fields are promised to scripts: new ones may come, none goes. What is no number is null.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Its folder.
    pub folder: PathBuf,
    /// The metric that is compared.
    pub metric: String,
    /// Whether more of it is better.
    pub higher_is_better: bool,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The folds of the training examples that were tested, in cross-validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folds: Option<u32>,
    /// Test examples; of all folds together.
    pub examples: usize,
    /// How intervals are made: `bootstrap`, on folds `corrected_resampled_t`, of a head's own metric `paired_t`.
    pub intervals: &'static str,
    /// What is the same in all runs of one seed, and of one fold.
    pub paired: Paired,
    /// The candidates, as they were named.
    pub candidates: Vec<CandidateResult>,
    /// Every two candidates that have seeds in common.
    pub pairs: Vec<PairResult>,
    /// Sentences about what was left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What is the same in all runs of one seed. The test examples always are: otherwise nothing is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Paired {
    /// The order of the training examples, by its SHA-256.
    pub order: bool,
    /// The heads' parameters before the first step, by their SHA-256.
    pub head: bool,
}

/// One candidate.
#[derive(Clone, Debug, Serialize)]
pub struct CandidateResult {
    /// Its name.
    pub name: String,
    /// The task that is compared.
    pub task: String,
    /// Its runs, one a seed.
    pub runs: Vec<RunResult>,
    /// The metric's mean over the runs that have a result.
    pub mean: f64,
    /// Its standard deviation over them; null where there is one.
    pub spread: Option<f64>,
    /// Parameters that train.
    pub trainable: Option<usize>,
    /// Mean seconds of training.
    pub seconds: f64,
    /// The greatest peak memory of a run.
    pub peak_rss_bytes: u64,
    /// Its learning rate.
    pub lr: f64,
    /// Runs that predict one class for every test example.
    pub one_class: usize,
    /// In cross-validation every metric over the folds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, Estimate>,
    /// In cross-validation the predictions of all folds together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_of_fold: Option<OutOfFold>,
}

/// A metric over the folds of cross-validation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Its mean.
    pub mean: f64,
    /// Its standard deviation; null of one fold.
    pub spread: Option<f64>,
    /// The mean's 95 % interval, by the variance of the corrected resampled t-test; null of one fold.
    pub interval: Option<(f64, f64)>,
    /// The folds where it is a number.
    pub folds: usize,
}

/// Predictions for every training example by a model that was trained without it.
#[derive(Clone, Debug, Serialize)]
pub struct OutOfFold {
    /// The file with them, of all seeds.
    pub predictions: PathBuf,
    /// The seed whose predictions are reported.
    pub seed: u64,
    /// The folds that they are from.
    pub folds: usize,
    /// Names of the classes in index order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// What they come to as those of one test set.
    pub report: Report,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct RunResult {
    /// Its seed.
    pub seed: u64,
    /// The fold that it was tested on, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<u32>,
    /// Its folder.
    pub folder: PathBuf,
    /// The metric on the test examples.
    pub value: Option<f64>,
    /// Why it has no result.
    pub error: Option<String>,
}

/// Two candidates beside each other.
#[derive(Clone, Debug, Serialize)]
pub struct PairResult {
    /// The first.
    pub a: String,
    /// The second.
    pub b: String,
    /// The seeds that both have a result of.
    pub seeds: Vec<u64>,
    /// The folds that both have a result of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub folds: Vec<u32>,
    /// The metric of the first minus that of the second, the mean over these seeds and folds.
    pub difference: f64,
    /// The difference's 95 % interval.
    pub interval: (f64, f64),
    /// `mcnemar` for accuracy, `randomization` for other metrics and where an example has several tokens; on folds
    /// `corrected_resampled_t`; of a head's own metric `paired_t`, over the seeds.
    pub test: &'static str,
    /// The statistic of that last test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub t: Option<f64>,
    /// The test's p.
    pub p: f64,
    /// The same, corrected for the number of pairs by Holm's method.
    pub p_holm: f64,
    /// Whether the interval leaves zero out and the corrected p is below 0.05.
    pub resolved: bool,
    /// How many more seeds would likely resolve it; null where it is resolved, or more seeds would not.
    pub more_seeds: Option<usize>,
    /// All this in a sentence.
    pub verdict: String,
}

impl CandidateResult {
    /// Seeds of runs without a result, and the error of the first.
    pub fn failures(&self) -> Option<String> {
        let failed: Vec<&RunResult> = self.runs.iter().filter(|run| run.error.is_some()).collect();
        let error = failed.first()?.error.as_deref().unwrap_or_default();
        Some(format!("{} failed in {} of {} runs: {error}", self.name, failed.len(), self.runs.len()))
    }

    /// What to say where it predicts one class alone.
    pub fn one_class_text(&self) -> Option<String> {
        (self.one_class > 0).then(|| rates::one_class_text(&self.name, self.one_class, self.done(), self.lr))
    }

    /// Runs that have a result.
    pub fn done(&self) -> usize {
        self.runs.iter().filter(|run| run.error.is_none()).count()
    }
}

impl OutOfFold {
    /// What they are, in a line.
    pub(super) fn headline(&self) -> String {
        format!(
            "predictions of the {} folds together, each by the model that had not seen it (seed {})",
            self.folds, self.seed
        )
    }
}

impl Comparison {
    /// The candidates' table, row by row, its header first; `name` writes a candidate's.
    pub(super) fn candidate_rows(&self, name: fn(&str) -> String) -> Vec<[String; 7]> {
        let mut rows =
            vec![["candidate", "runs", &self.metric, "spread", "trainable", "training", "memory"].map(str::to_owned)];
        for candidate in &self.candidates {
            let done = candidate.done();
            let known = |text: String| if done > 0 { text } else { "-".to_owned() };
            rows.push([
                name(&candidate.name),
                format!("{done} of {}", candidate.runs.len()),
                known(four(candidate.mean)),
                candidate.spread.map_or_else(|| "-".to_owned(), four),
                candidate.trainable.map_or_else(|| "-".to_owned(), count),
                known(duration(candidate.seconds)),
                known(bytes(candidate.peak_rss_bytes)),
            ]);
        }
        rows
    }

    /// The pairs' table, row by row, its header first; `name` writes a candidate's.
    pub(super) fn pair_rows(&self, name: fn(&str) -> String) -> Vec<[String; 5]> {
        let test = self.pairs.first().map_or("p", |pair| match pair.test {
            "mcnemar" => "McNemar p",
            CORRECTED => "corrected t p",
            PAIRED => "paired t p",
            _ => "randomization p",
        });
        let unit = if self.metric == ACCURACY { "difference in points" } else { "difference" };
        let mut rows = vec![["pair", unit, "95 % interval", test, "Holm p"].map(str::to_owned)];
        for pair in &self.pairs {
            let amount = |value| amount(&self.metric, value);
            rows.push([
                format!("{} - {}", name(&pair.a), name(&pair.b)),
                amount(pair.difference),
                format!("{} to {}", amount(pair.interval.0), amount(pair.interval.1)),
                significant(pair.p),
                significant(pair.p_holm),
            ]);
        }
        rows
    }

    /// The metrics of a candidate over folds, row by row, the header first and the metric that is compared before the others.
    pub(super) fn metric_rows(&self, candidate: &CandidateResult) -> Vec<[String; 4]> {
        let mut rows = vec![["metric", "mean over folds", "95 % interval", "spread"].map(str::to_owned)];
        let (first, others): (Vec<_>, Vec<_>) = candidate.metrics.iter().partition(|(name, _)| **name == self.metric);
        for (name, Estimate { mean, spread, interval, .. }) in first.into_iter().chain(others) {
            let between = |(low, high): (f64, f64)| format!("{} to {}", four(low), four(high));
            let known = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            let defined = mean.is_finite().then(|| four(*mean));
            rows.push([name.clone(), known(defined), known(interval.map(between)), known(spread.map(four))]);
        }
        rows
    }

    /// `accuracy on 355 test examples, seeds 0, 1, 2`, or `accuracy over 5 folds of 48 examples, seed 0`
    pub(super) fn headline(&self) -> String {
        let seeds: Vec<String> = self.seeds.iter().map(u64::to_string).collect();
        let word = if seeds.len() == 1 { "seed" } else { "seeds" };
        let on = match self.folds {
            Some(folds) => format!("over {folds} folds of {} examples", count(self.examples)),
            None => format!("on {} test examples", count(self.examples)),
        };
        format!("{} {on}, {word} {}", self.metric, seeds.join(", "))
    }

    /// What the pairs share, as a sentence.
    pub(super) fn paired_text(&self) -> String {
        let same = match self.folds {
            Some(_) => "the runs of a fold had the same test examples",
            None => "the runs of a seed had the same test examples",
        };
        match self.paired {
            Paired { order: true, head: true } => format!("{same}, data order and initial head"),
            Paired { order: true, head: false } => format!("{same} and data order; their heads start differently"),
            Paired { order: false, head: true } => format!("{same} and initial head; their data order differs"),
            Paired { order: false, head: false } => format!("{same}; their data order and initial heads differ"),
        }
    }

    /// The comparison as a person reads it.
    pub fn to_text(&self) -> String {
        let short = |name: &str| shortened(name, NAME).into_owned();
        let mut text = format!("{}\n\n", self.headline());
        let mut table = Table::new().numbers_from(1);
        self.candidate_rows(short).iter().for_each(|row| table.cells(row.iter().map(String::as_str)));
        text += &table.to_text();
        if !self.pairs.is_empty() {
            let mut table = Table::new().numbers_from(1);
            self.pair_rows(short).iter().for_each(|row| table.cells(row.iter().map(String::as_str)));
            text += &format!("\n{}\n", table.to_text());
        }
        if let ([candidate], Some(_)) = (&self.candidates[..], self.folds) {
            let mut table = Table::new().numbers_from(1);
            self.metric_rows(candidate).iter().for_each(|row| table.cells(row.iter().map(String::as_str)));
            text += &format!("\n{}\n", table.to_text());
            if let Some(found) = &candidate.out_of_fold {
                let whole = self.folder.join("comparison.json").display().to_string();
                text += &format!("{}:\n", found.headline());
                text += &found.report.to_text(&candidate.task, &found.labels, &BTreeMap::new(), &whole);
            }
        }
        self.pairs.iter().for_each(|pair| text += &format!("{}\n", pair.verdict));
        self.candidates
            .iter()
            .filter_map(CandidateResult::one_class_text)
            .for_each(|said| text += &format!("{said}\n"));
        self.candidates.iter().filter_map(CandidateResult::failures).for_each(|failed| text += &format!("{failed}\n"));
        if self.candidates.len() > 1 {
            text += &format!("{}\n", self.paired_text());
        }
        self.notes.iter().for_each(|note| text += &format!("{note}\n"));
        if self.folds.is_some() {
            text += "intervals and p are those of the corrected resampled t-test over folds (Nadeau and Bengio 2003)\n";
            let files = self.candidates.iter().filter_map(|candidate| candidate.out_of_fold.as_ref());
            let files: Vec<String> = files.map(|found| found.predictions.display().to_string()).collect();
            text += &format!("out-of-fold predictions are in {}\n", files.join(", "));
        }
        text += &format!("tables, curves and all numbers are in {}", self.folder.join("comparison.html").display());
        text
    }

    /// How the numbers are made.
    pub(super) fn method(&self) -> &'static str {
        match self.intervals {
            _ if self.folds.is_some() => Self::METHOD_OF_FOLDS,
            PAIRED => Self::METHOD_OF_SEEDS,
            _ => Self::METHOD,
        }
    }

    const METHOD_OF_SEEDS: &'static str = "Spread is the standard deviation over seeds. Intervals and p are those of Student's paired \
        t-test over the differences of each seed: the metric is a head's own, which its plugin alone computes, so test examples are not \
        drawn anew. A pair is resolved where its interval leaves zero out and its p, corrected over all pairs by Holm's method, is below \
        0.05.";

    const METHOD_OF_FOLDS: &'static str = "Spread is the standard deviation over folds. Intervals and p are those of the corrected \
        resampled t-test (Nadeau and Bengio 2003): over J of K folds t is the mean divided by the root of (1/J + 1/(K-1)) times the \
        variance over folds, with J - 1 degrees of freedom; 1/(K-1) is test by training examples, and stands there because the training \
        data of folds overlap. With several seeds a fold counts by the mean over them. A pair is resolved where its interval leaves zero \
        out and its p, corrected over all pairs by Holm's method, is below 0.05.";

    const METHOD: &'static str = "Spread is the standard deviation over seeds. Intervals are Student's t around a \
        bootstrap over test examples and seeds, the same draws for both of a pair. The test counts, for each test example, which of \
        the two was right with more seeds (McNemar, exact), or exchanges their predictions at random where the metric is not \
        accuracy. All tokens of an example are drawn, or exchanged, together. A pair is resolved where its interval leaves zero out and its p, corrected over all pairs by Holm's method, is \
        below 0.05.";
}

/// Four decimals, as the report of a run has them, where they say enough.
fn four(value: f64) -> String {
    if (0.001..1e4).contains(&value.abs()) || value == 0.0 { format!("{value:.4}") } else { significant(value) }
}

/// How a metric's difference reads: accuracy in points of percent, other metrics as they are.
pub(super) fn amount(metric: &str, value: f64) -> String {
    if metric == ACCURACY { format!("{:.2}", 100.0 * value) } else { significant(value) }
}

/// A corrected p below this is not chance.
pub(super) const SIGNIFICANT: f64 = 0.05;
const _: () = assert!(SIGNIFICANT == 0.05, "the texts above say so");
