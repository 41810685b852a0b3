//! What all runs of a comparison predict, and the metric of any part of it.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::repeat_n;
use std::ops::Range;

use fthost_plugin_api::PredictionKind;

use super::candidates::Candidate;
use super::metric::{Metric, of_probabilities};
use super::runs::Left;
use crate::report::entities::Tags;
use crate::report::metrics::masks::Overlap;
use crate::report::metrics::{matches, preferences};
use crate::run::results::masks;
use crate::run::results::predictions::Row;
use crate::{Error, Result};

/// Two candidates by their places, and the places of the seeds that both have.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) a: usize,
    pub(super) b: usize,
    pub(super) seeds: Vec<usize>,
}

/// Predictions of every candidate with every seed on the same test examples.
///
/// An example has one row, or one for each of its tokens or entities: those depend on each other, so that examples are drawn and
/// exchanged, never rows.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) metric: Metric,
    /// Of each example its rows.
    pub(super) examples: Vec<Range<usize>>,
    /// `[rows]`
    pub(super) targets: Vec<f64>,
    /// `[candidates][seeds][rows]`, and of probabilities `[classes]` for each row; nothing where the run has no result.
    pub(super) predictions: Vec<Vec<Option<Vec<f64>>>>,
}

impl Sample {
    /// From what the runs left, `[candidates][seeds]`; with the metric's name.
    ///
    /// # Errors
    /// Where two runs were tested on different examples, or there is no such metric.
    pub(super) fn read(
        candidates: &[Candidate],
        metric: Option<&str>,
        left: &[Vec<Option<Left>>],
    ) -> Result<(String, Self)> {
        let Some(first) = left.iter().flatten().flatten().next() else {
            let predictions = left.iter().map(|runs| vec![None; runs.len()]).collect();
            let metric = Metric::Values(|_, _| f64::NAN);
            return Ok((String::new(), Self { metric, examples: Vec::new(), targets: Vec::new(), predictions }));
        };
        for (candidate, runs) in candidates.iter().zip(left) {
            runs.iter().flatten().try_for_each(|run| run.tested_on_the_same(first, candidate))?;
        }
        let mut numbers = Numbers::of_run(first);
        let (name, mut metric) = Metric::choose(metric, first)?;
        // A word that the longest length cuts off has no probabilities.
        let probable = |place: &usize| {
            left.iter().flatten().flatten().all(|run| !run.predictions[*place].probabilities.is_empty())
        };
        let all = 0..first.predictions.len();
        let kept: Vec<usize> = match metric {
            Metric::Probabilities { .. } => all.filter(probable).collect(),
            _ => all.collect(),
        };
        if let Metric::Labels { classes, .. } = metric {
            return Ok((name.clone(), Self::of_labels(candidates, (&name, metric, classes), left, first)?));
        }
        if let Metric::Masks { classes, .. } = metric {
            return Ok((name, Self::of_masks(candidates, (metric, classes), left, first)?));
        }
        let rows: Vec<&Row> = kept.iter().map(|&place| &first.predictions[place]).collect();
        let targets = rows.iter().map(|row| numbers.of(&row.target)).collect();
        let mut predictions = Vec::new();
        for (candidate, runs) in candidates.iter().zip(left) {
            let mut of_run = |run: &Left| match metric {
                Metric::Probabilities { .. } if run.labels != first.labels => {
                    Err(Error::run(format!("{} has other classes than the runs before it", candidate.name))
                        .with_help("give all candidates the same training data, or compare by another metric"))
                }
                Metric::Probabilities { .. } => {
                    Ok(kept.iter().flat_map(|&place| run.predictions[place].probabilities.iter().copied()).collect())
                }
                Metric::Preferences { .. } => {
                    let rewards = |row: &Row| preferences::Pair::read(&row.prediction).unwrap_or([f64::NAN; 2]);
                    Ok(run.predictions.iter().flat_map(rewards).collect())
                }
                Metric::Matches { .. } => {
                    let ranks = |row: &Row| matches::Ranks::read(&row.prediction);
                    let ranks = |row: &Row| ranks(row).map_or([f64::NAN; 2], |of| [of.forward, of.backward]);
                    Ok(run.predictions.iter().flat_map(ranks).collect())
                }
                _ => Ok(run.predictions.iter().map(|row| numbers.of(&row.prediction)).collect()),
            };
            predictions.push(runs.iter().map(|run| run.as_ref().map(&mut of_run).transpose()).collect::<Result<_>>()?);
        }
        if let Metric::Classes { classes, .. } = &mut metric {
            *classes = numbers.classes.len();
        }
        let sample = Self { metric, examples: examples(&rows), targets, predictions };
        Ok((name, if let Metric::Entities { .. } = sample.metric { sample.of_entities(&numbers)? } else { sample }))
    }

    /// Where an example has any number of classes: a row for each of them, 1 where the example has it, or its probability.
    fn of_labels(
        candidates: &[Candidate],
        (name, metric, classes): (&str, Metric, usize),
        left: &[Vec<Option<Left>>],
        first: &Left,
    ) -> Result<Self> {
        let rows = |run: &Left, of: fn(&Row) -> &String| -> Result<Vec<f64>> {
            let mut all = Vec::with_capacity(run.predictions.len() * classes);
            for row in &run.predictions {
                let unknown = || Error::run(format!("{:?} names a class that training has not", of(row)));
                let there = run.classes(of(row)).ok_or_else(unknown)?;
                all.extend((0..classes as u32).map(|class| f64::from(there.binary_search(&class).is_ok())));
            }
            Ok(all)
        };
        let targets = rows(first, |row| &row.target)?;
        let mut predictions = Vec::new();
        for (candidate, runs) in candidates.iter().zip(left) {
            let of_run = |run: &Left| match run.labels == first.labels {
                false => Err(Error::run(format!("{} has other classes than the runs before it", candidate.name))
                    .with_help("give all candidates the same training data")),
                true if of_probabilities(name) => {
                    Ok(run.predictions.iter().flat_map(|row| row.probabilities.iter().copied()).collect())
                }
                true => rows(run, |row| &row.prediction),
            };
            predictions.push(runs.iter().map(|run| run.as_ref().map(of_run).transpose()).collect::<Result<_>>()?);
        }
        let examples = (0..first.predictions.len()).map(|i| i * classes..(i + 1) * classes).collect();
        Ok(Self { metric, examples, targets, predictions })
    }

    /// Where each pixel has a class: a row for each class, with its true pixels, and two numbers of what is predicted.
    fn of_masks(
        candidates: &[Candidate],
        (metric, classes): (Metric, usize),
        left: &[Vec<Option<Left>>],
        first: &Left,
    ) -> Result<Self> {
        let overlaps = |run: &Left, name: &str| -> Result<Vec<Overlap>> {
            let mut all = Vec::with_capacity(run.predictions.len() * classes);
            for row in &run.predictions {
                let found = masks::read(&row.target, &row.prediction).filter(|found| found.len() == classes);
                let help = "give all candidates the same training data";
                let wrong = || Error::run(format!("{name} has other classes than the runs before it")).with_help(help);
                all.extend(found.ok_or_else(wrong)?);
            }
            Ok(all)
        };
        let targets = overlaps(first, "the first run")?.iter().map(|of| of.target as f64).collect();
        let mut predictions = Vec::new();
        for (candidate, runs) in candidates.iter().zip(left) {
            let of_run = |run: &Left| {
                let all = overlaps(run, &candidate.name)?;
                Ok(all.iter().flat_map(|of| [of.right as f64, of.predicted as f64]).collect())
            };
            predictions.push(runs.iter().map(|run| run.as_ref().map(of_run).transpose()).collect::<Result<_>>()?);
        }
        let examples = (0..first.predictions.len()).map(|i| i * classes..(i + 1) * classes).collect();
        Ok(Self { metric, examples, targets, predictions })
    }

    /// The same with a row for each entity that the truth or any run has, in the place of one for each token.
    fn of_entities(self, numbers: &Numbers) -> Result<Self> {
        let tags =
            Tags::of(&numbers.names()).ok_or_else(|| Error::run("the labels of the predictions spell no entities"))?;
        let classes = |rows: &[f64]| rows.iter().map(|&class| class as u32).collect::<Vec<_>>();
        let truth = classes(&self.targets);
        let runs: Vec<Vec<Option<Vec<u32>>>> =
            self.predictions.iter().map(|runs| runs.iter().map(|run| run.as_deref().map(classes)).collect()).collect();
        let (mut examples, mut targets) = (Vec::new(), Vec::new());
        let mut predictions: Vec<Vec<Option<Vec<f64>>>> = self
            .predictions
            .iter()
            .map(|runs| runs.iter().map(|run| run.as_ref().map(|_| Vec::new())).collect())
            .collect();
        for tokens in self.examples {
            let there = tags.entities(&truth[tokens.clone()]);
            let of_run = |run: &Option<Vec<u32>>| run.as_ref().map(|run| tags.entities(&run[tokens.clone()]));
            let found: Vec<Vec<_>> = runs.iter().map(|runs| runs.iter().map(of_run).collect()).collect();
            let all: BTreeSet<_> = found.iter().flatten().flatten().flatten().chain(&there).collect();
            examples.push(targets.len()..targets.len() + all.len());
            targets.extend(all.iter().map(|entity| f64::from(there.contains(entity))));
            for (rows, found) in predictions.iter_mut().flatten().zip(found.iter().flatten()) {
                if let (Some(rows), Some(found)) = (rows, found) {
                    rows.extend(all.iter().map(|entity| f64::from(found.contains(entity))));
                }
            }
        }
        Ok(Self { metric: self.metric, examples, targets, predictions })
    }

    /// How many examples there are.
    pub(super) fn items(&self) -> usize {
        self.examples.len()
    }

    /// Whether every example has one row.
    pub(super) fn has_one_row_each(&self) -> bool {
        self.examples.iter().all(|rows| rows.len() == 1)
    }

    /// The pairs of candidates that have seeds in common.
    pub(super) fn pairs(&self) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for (a, first) in self.predictions.iter().enumerate() {
            for (b, second) in self.predictions.iter().enumerate().skip(a + 1) {
                let both = |&seed: &usize| first[seed].is_some() && second[seed].is_some();
                let seeds: Vec<usize> = (0..first.len()).filter(both).collect();
                if !seeds.is_empty() {
                    pairs.push(Pair { a, b, seeds });
                }
            }
        }
        pairs
    }

    /// The metric of each run, `[candidates][seeds]`; not a number where the run has no result.
    pub(super) fn scores(&self) -> Vec<Vec<f64>> {
        self.each(|predictions| self.metric.of(&self.targets, predictions))
    }

    /// The metric of each run on some of the examples, each as often as it is named.
    pub(super) fn scores_of(&self, items: &[usize]) -> Vec<Vec<f64>> {
        let rows: Vec<usize> = items.iter().flat_map(|&item| self.examples[item].clone()).collect();
        let targets: Vec<f64> = rows.iter().map(|&row| self.targets[row]).collect();
        let width = self.metric.width();
        let mut chosen = vec![0.0; rows.len() * width];
        let mut score = |predictions: &[f64]| {
            let copy = |(chosen, &row): (&mut [f64], &usize)| {
                chosen.copy_from_slice(&predictions[row * width..][..width]);
            };
            chosen.chunks_exact_mut(width).zip(&rows).for_each(copy);
            self.metric.of(&targets, &chosen)
        };
        self.each(&mut score)
    }

    fn each(&self, mut score: impl FnMut(&[f64]) -> f64) -> Vec<Vec<f64>> {
        let mut of_run = |run: &Option<Vec<f64>>| run.as_deref().map_or(f64::NAN, &mut score);
        self.predictions.iter().map(|runs| runs.iter().map(&mut of_run).collect()).collect()
    }

    /// Whether a run is right on an example of one row.
    pub(super) fn is_right(&self, candidate: usize, seed: usize, item: usize) -> bool {
        let row = self.examples[item].start;
        self.predictions[candidate][seed].as_ref().is_some_and(|run| run[row] == self.targets[row])
    }

    /// Whether two candidates predict the same, with every common seed.
    pub(super) fn equal(&self, pair: &Pair) -> bool {
        pair.seeds.iter().all(|&seed| self.predictions[pair.a][seed] == self.predictions[pair.b][seed])
    }

    /// The pair's difference where the two have exchanged their predictions on some examples.
    pub(super) fn exchanged(&self, pair: &Pair, exchanges: impl Fn(usize) -> bool) -> f64 {
        let mut exchanged = vec![false; self.targets.len()];
        for (item, rows) in self.examples.iter().enumerate() {
            exchanged[rows.clone()].fill(exchanges(item));
        }
        let mixed = |plain: &[f64], other: &[f64]| -> Vec<f64> {
            let each = exchanged.iter().flat_map(|exchanged| repeat_n(exchanged, self.metric.width()));
            let chosen = each.zip(plain.iter().zip(other));
            chosen.map(|(&exchanged, (&plain, &other))| if exchanged { other } else { plain }).collect()
        };
        let differences = pair.seeds.iter().filter_map(|&seed| {
            let (a, b) = (self.predictions[pair.a][seed].as_ref()?, self.predictions[pair.b][seed].as_ref()?);
            Some(self.metric.of(&self.targets, &mixed(a, b)) - self.metric.of(&self.targets, &mixed(b, a)))
        });
        mean(&differences.collect::<Vec<_>>())
    }
}

/// Of each example its rows, which follow each other.
fn examples(rows: &[&Row]) -> Vec<Range<usize>> {
    let mut end = 0;
    let of_one = rows.chunk_by(|a, b| a.example == b.example).map(|rows| {
        end += rows.len();
        end - rows.len()..end
    });
    of_one.collect()
}

/// Targets and predictions as numbers.
struct Numbers {
    kind: PredictionKind,
    /// Those of the first run's training, then others as they appear: the metrics do not depend on which class has which number.
    classes: BTreeMap<String, usize>,
}

impl Numbers {
    fn of_run(run: &Left) -> Self {
        Self { kind: run.kind, classes: run.labels.iter().cloned().zip(0..).collect() }
    }

    fn of(&mut self, text: &str) -> f64 {
        match self.kind {
            PredictionKind::Values
            | PredictionKind::Tokens
            | PredictionKind::Preferences
            | PredictionKind::Embeddings => text.parse().unwrap_or(f64::NAN),
            // Those of any number of classes are read by `of_labels`, those of masks by `of_masks`.
            PredictionKind::Classes | PredictionKind::MultiLabel | PredictionKind::Masks => {
                let next = self.classes.len();
                *self.classes.entry(text.to_owned()).or_insert(next) as f64
            }
        }
    }

    /// The classes' names by their numbers.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<(&usize, &String)> = self.classes.iter().map(|(name, number)| (number, name)).collect();
        names.sort_unstable();
        names.into_iter().map(|(_, name)| name.clone()).collect()
    }
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
