//! What all runs of a comparison predict, and the metric of any part of it.

use std::collections::BTreeMap;

use fthost_plugin_api::PredictionKind;

use super::ACCURACY;
use super::candidates::Candidate;
use super::runs::Left;
use super::statistics::{Pair, mean};
use crate::report::metrics::{self, Score};
use crate::{Error, Result};

/// The metric of values that is compared where nothing else is asked for.
const SQUARED_ERROR: &str = "mse";

/// The metric that is compared.
#[derive(Clone, Debug)]
pub(super) enum Metric {
    /// Of classes, of which there are so many.
    Classes { name: String, classes: usize },
    /// Of values.
    Values(Score),
}

/// Names of the metrics that predictions of a kind tell. The loss is the head's own: predictions do not.
fn names(kind: PredictionKind) -> Vec<String> {
    let mut names = metrics::names(kind);
    names.retain(|name| name != "loss");
    names
}

impl Metric {
    /// Whether any predictions have a metric of this name; asked before runs are made, when their kind is not known yet.
    ///
    /// # Errors
    /// Where none have.
    pub(super) fn exists(name: &str) -> Result<()> {
        let known = [PredictionKind::Classes, PredictionKind::Values].map(names).concat();
        if known.iter().any(|known| known == name) {
            return Ok(());
        }
        Err(Error::usage(format!("there is no metric {name:?} to compare by"))
            .with_help(format!("metrics are {}", known.join(", "))))
    }

    /// The metric that the user asks for, the one that the run file monitors, or the usual one of the kind of predictions; with its
    /// name.
    fn choose(
        wanted: Option<&str>,
        monitored: Option<&str>,
        kind: PredictionKind,
        classes: usize,
    ) -> Result<(String, Self)> {
        let known = names(kind);
        let named = |name: &str| match kind {
            PredictionKind::Classes => {
                known.iter().any(|known| known == name).then(|| Self::Classes { name: name.to_owned(), classes })
            }
            PredictionKind::Values => metrics::value_score(name).map(Self::Values),
        };
        let usual = match kind {
            PredictionKind::Classes => ACCURACY,
            PredictionKind::Values => SQUARED_ERROR,
        };
        let names = match wanted {
            Some(wanted) => vec![wanted],
            None => monitored.into_iter().chain([usual]).collect(),
        };
        let found = names.iter().find_map(|name| Some(((*name).to_owned(), named(name)?)));
        found.ok_or_else(|| {
            Error::usage(format!("there is no metric {:?} of these predictions", names.join(" or ")))
                .with_help(format!("their metrics are {}", known.join(", ")))
        })
    }

    /// Its value. Classes are whole numbers.
    fn of(&self, targets: &[f64], predictions: &[f64]) -> f64 {
        match self {
            Self::Values(score) => score(targets, predictions),
            Self::Classes { name, .. } if name == ACCURACY => {
                let right = targets.iter().zip(predictions).filter(|(target, predicted)| target == predicted).count();
                right as f64 / targets.len() as f64
            }
            Self::Classes { name, classes } => {
                let whole = |values: &[f64]| values.iter().map(|&class| class as u32).collect::<Vec<_>>();
                let all = metrics::classes(&whole(targets), &whole(predictions), *classes).to_map();
                all.get(name).copied().unwrap_or(f64::NAN)
            }
        }
    }
}

/// Targets and predictions as numbers.
struct Numbers {
    kind: PredictionKind,
    /// Metrics do not depend on which class has which number: each has that of its first appearance.
    classes: BTreeMap<String, usize>,
}

impl Numbers {
    fn of(&mut self, text: &str) -> f64 {
        match self.kind {
            PredictionKind::Values => text.parse().unwrap_or(f64::NAN),
            PredictionKind::Classes => {
                let next = self.classes.len();
                *self.classes.entry(text.to_owned()).or_insert(next) as f64
            }
        }
    }
}

/// Predictions of every candidate with every seed on the same items.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) metric: Metric,
    /// `[items]`
    pub(super) targets: Vec<f64>,
    /// `[candidates][seeds][items]`; nothing where the run has no result.
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
            return Ok((
                String::new(),
                Self { metric: Metric::Values(|_, _| f64::NAN), targets: Vec::new(), predictions },
            ));
        };
        let same = |run: &Left| {
            let targets = |run: &Left| run.predictions.iter().map(|row| row.target.clone()).collect::<Vec<_>>();
            run.kind == first.kind && targets(run) == targets(first)
        };
        for (candidate, runs) in candidates.iter().zip(left) {
            if !runs.iter().flatten().all(same) {
                return Err(Error::run(format!(
                    "{} was tested on other examples than the runs before it: they cannot be compared",
                    candidate.name
                ))
                .with_help(
                    "give all candidates the same task and test file, and keep the file as it is while they run",
                ));
            }
        }
        let mut numbers = Numbers { kind: first.kind, classes: BTreeMap::new() };
        let targets = first.predictions.iter().map(|row| numbers.of(&row.target)).collect();
        let mut predictions = Vec::new();
        for runs in left {
            let mut of_run = |run: &Left| run.predictions.iter().map(|row| numbers.of(&row.prediction)).collect();
            predictions.push(runs.iter().map(|run| run.as_ref().map(&mut of_run)).collect());
        }
        let monitored = candidates.first().and_then(|candidate| candidate.monitor.as_deref());
        let (name, metric) = Metric::choose(metric, monitored, first.kind, numbers.classes.len())?;
        Ok((name, Self { metric, targets, predictions }))
    }

    pub(super) fn items(&self) -> usize {
        self.targets.len()
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

    /// The metric of each run on some of the items, each as often as it is named.
    pub(super) fn scores_of(&self, items: &[usize]) -> Vec<Vec<f64>> {
        let targets: Vec<f64> = items.iter().map(|&item| self.targets[item]).collect();
        let mut chosen = vec![0.0; items.len()];
        let mut score = |predictions: &[f64]| {
            chosen.iter_mut().zip(items).for_each(|(chosen, &item)| *chosen = predictions[item]);
            self.metric.of(&targets, &chosen)
        };
        self.each(&mut score)
    }

    fn each(&self, mut score: impl FnMut(&[f64]) -> f64) -> Vec<Vec<f64>> {
        let mut of_run = |run: &Option<Vec<f64>>| run.as_deref().map_or(f64::NAN, &mut score);
        self.predictions.iter().map(|runs| runs.iter().map(&mut of_run).collect()).collect()
    }

    /// Whether a run is right on an item.
    pub(super) fn is_right(&self, candidate: usize, seed: usize, item: usize) -> bool {
        self.predictions[candidate][seed].as_ref().is_some_and(|run| run[item] == self.targets[item])
    }

    /// Whether two candidates predict the same, with every common seed.
    pub(super) fn equal(&self, pair: &Pair) -> bool {
        pair.seeds.iter().all(|&seed| self.predictions[pair.a][seed] == self.predictions[pair.b][seed])
    }

    /// The pair's difference where the two have exchanged their predictions on some items.
    pub(super) fn exchanged(&self, pair: &Pair, exchanges: impl Fn(usize) -> bool) -> f64 {
        let exchanges: Vec<bool> = (0..self.items()).map(exchanges).collect();
        let mixed = |plain: &[f64], other: &[f64]| -> Vec<f64> {
            let chosen = exchanges.iter().zip(plain.iter().zip(other));
            chosen.map(|(&exchanged, (&plain, &other))| if exchanged { other } else { plain }).collect()
        };
        let differences = pair.seeds.iter().filter_map(|&seed| {
            let (a, b) = (self.predictions[pair.a][seed].as_ref()?, self.predictions[pair.b][seed].as_ref()?);
            Some(self.metric.of(&self.targets, &mixed(a, b)) - self.metric.of(&self.targets, &mixed(b, a)))
        });
        mean(&differences.collect::<Vec<_>>())
    }
}
