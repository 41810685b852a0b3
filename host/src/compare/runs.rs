//! What the runs of a comparison left in their folders.

use std::collections::BTreeMap;
use std::path::Path;

use fthost_plugin_api::{MetricSpec, PredictionKind};
use serde::Deserialize;

use super::candidates::Candidate;
use super::compared::Compared;
use crate::plugin::note;
use crate::report::metrics::{higher_is_better_or_said, matches, preferences, said_of, tokens};
use crate::run::results::predictions::{self, Row};
use crate::run::results::proof::Pairing;
use crate::run::results::result;
use crate::run::state::identity::PluginUsed;
use crate::{Error, Result};

/// A result that a run has left.
#[derive(Clone, Debug)]
pub(super) struct Left {
    pub(super) seconds: f64,
    pub(super) peak_rss_bytes: u64,
    pub(super) trainable: usize,
    pub(super) pairing: Pairing,
    pub(super) kind: PredictionKind,
    /// Whether it predicts one class for all test examples.
    pub(super) one_class: bool,
    /// The classes of the training examples.
    pub(super) labels: Vec<String>,
    /// What stands between the classes of an example, where it has any number of them.
    separator: String,
    /// The metrics that the run has; none that are no number.
    pub(super) metrics: BTreeMap<String, Option<f64>>,
    /// Those of them that are the head's own.
    pub(super) own: Vec<MetricSpec>,
    pub(super) predictions: Vec<Row>,
    /// The plugins that took part.
    pub(super) plugins: Vec<PluginUsed>,
}

/// Plugins as their files are now, each read once.
#[derive(Debug, Default)]
pub(crate) struct PluginsNow {
    /// SHA-256 by file.
    seen: BTreeMap<String, String>,
}

impl PluginsNow {
    /// Refuses the result of a run whose plugins are no longer what they were, heads and schedules among them: runs beside each other
    /// differ in what is compared and in nothing else.
    ///
    /// # Errors
    /// Where a plugin's file has changed or is gone.
    pub(crate) fn check(&mut self, folder: &Path, plugins: &[PluginUsed]) -> Result<()> {
        for then in plugins {
            let now = match self.seen.get(&then.path) {
                Some(now) => now,
                None => {
                    let now = note::check(Path::new(&then.path))?.sha256;
                    self.seen.entry(then.path.clone()).or_insert(now)
                }
            };
            if *now != then.sha256 {
                let message = format!(
                    "{} has a result of plugin {}, and {} has changed since",
                    folder.display(),
                    then.name,
                    then.path
                );
                return Err(Error::usage(message)
                    .with_help("remove that run's folder to make it again, or begin anew in another folder"));
            }
        }
        Ok(())
    }
}

/// The parts of `result.json` that are needed.
#[derive(Deserialize)]
struct Json {
    tasks: BTreeMap<String, JsonTask>,
    train: JsonTrain,
    parameters: JsonParameters,
    proof: JsonProof,
    plugins: Vec<PluginUsed>,
}

#[derive(Deserialize)]
struct JsonTask {
    /// Only predictions of classes can be confused.
    #[serde(default)]
    confusion: Vec<Vec<u64>>,
    /// Only masks have classes of pixels.
    #[serde(default)]
    pixels: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(default)]
    labels: Vec<String>,
    /// Only of any number of classes something stands between them.
    label_separator: Option<String>,
    #[serde(default)]
    own_metrics: Vec<MetricSpec>,
    /// What is no number is null.
    metrics: BTreeMap<String, Option<f64>>,
}

#[derive(Deserialize)]
struct JsonTrain {
    seconds: f64,
    peak_rss_bytes: u64,
}

#[derive(Deserialize)]
struct JsonParameters {
    trainable: usize,
}

#[derive(Deserialize)]
struct JsonProof {
    pairing: Pairing,
}

impl Left {
    /// Reads what a run of a task left in its folder.
    ///
    /// # Errors
    /// Where something is missing or does not read.
    pub(super) fn read(folder: &Path, task: &str) -> Result<Self> {
        let mut json: Json = result::read(folder)?;
        let result =
            json.tasks.remove(task).ok_or_else(|| result::unreadable(folder, &format!("it has no task {task}")))?;
        Ok(Self {
            seconds: json.train.seconds,
            peak_rss_bytes: json.train.peak_rss_bytes,
            trainable: json.parameters.trainable,
            pairing: json.proof.pairing,
            kind: match (&result.label_separator, result.confusion.is_empty()) {
                _ if !result.pixels.is_empty() => PredictionKind::Masks,
                _ if result.metrics.contains_key(tokens::PERPLEXITY) => PredictionKind::Tokens,
                _ if result.metrics.contains_key(preferences::NAMES[0]) => PredictionKind::Preferences,
                _ if result.metrics.contains_key(matches::NAMES[0]) => PredictionKind::Embeddings,
                (Some(_), _) => PredictionKind::MultiLabel,
                (None, true) => PredictionKind::Values,
                (None, false) => PredictionKind::Classes,
            },
            separator: result.label_separator.unwrap_or_default(),
            one_class: predicts_one_class(&result.confusion),
            plugins: json.plugins,
            metrics: result.metrics,
            own: result.own_metrics,
            predictions: predictions::read(&folder.join(predictions::FILE), task, &result.labels)?,
            labels: result.labels,
        })
    }
}

impl Left {
    /// The classes that a cell names, ascending, where an example has any number of them; `None` where it names another.
    pub(super) fn classes(&self, cell: &str) -> Option<Vec<u32>> {
        let place = |name| self.labels.iter().position(|label| label == name).map(|place| place as u32);
        let mut classes = match cell {
            "" => Vec::new(),
            cell => cell.split(self.separator.as_str()).map(place).collect::<Option<Vec<u32>>>()?,
        };
        classes.sort_unstable();
        Some(classes)
    }

    /// A metric of the run's, with its direction.
    pub(super) fn compared<'a>(&self, metric: &'a str) -> Compared<'a> {
        Compared { metric, higher_is_better: higher_is_better_or_said(metric, said_of(metric, &self.own)) }
    }

    /// Refuses to be compared with a run that was tested on other examples.
    ///
    /// # Errors
    /// Where it was.
    pub(super) fn tested_on_the_same(&self, first: &Self, candidate: &Candidate) -> Result<()> {
        let truth = |row: &Row| (row.example, row.target.clone());
        if self.kind == first.kind && self.predictions.iter().map(truth).eq(first.predictions.iter().map(truth)) {
            return Ok(());
        }
        Err(Error::run(format!(
            "{} was tested on other examples than the runs before it: they cannot be compared",
            candidate.name
        ))
        .with_help("give all candidates the same task and test file, and keep the file as it is while they run"))
    }
}

/// Whether one column of a confusion matrix has all test examples, and they are of several classes.
fn predicts_one_class(confusion: &[Vec<u64>]) -> bool {
    let predicted = |class: usize| confusion.iter().any(|row| row[class] > 0);
    let known = confusion.iter().filter(|row| row.iter().any(|&count| count > 0)).count();
    known > 1 && (0..confusion.len()).filter(|&class| predicted(class)).count() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_class_for_examples_of_several_is_told() {
        assert!(predicts_one_class(&[vec![0, 3], vec![0, 4]]));
        assert!(!predicts_one_class(&[vec![1, 3], vec![0, 4]]));
        assert!(!predicts_one_class(&[vec![0, 0], vec![0, 4]])); // it is right of all there are
        assert!(!predicts_one_class(&[]));
    }
}
