//! Temperature and threshold of a task, fitted on its validation examples.

use fthost_plugin_api::PredictionKind;
use serde::{Deserialize, Serialize};

use super::evaluate::{Classes, Evaluation, Outcome, evaluate};
use super::labels::Labels;
use crate::Result;
use crate::report::calibration::{at_temperature, best_f1, temperature};
use crate::report::metrics::{Metrics, Probabilities};
use crate::run::file::{Threshold, TrainTable};
use crate::run::pass::{Decision, Pass};

/// Metrics that a temperature or a threshold changes, which are told before and after.
const TOLD: [&str; 7] =
    ["log_loss", "brier", "calibration_error", "accuracy", "macro_f1", "micro_f1", "subset_accuracy"];

/// How classes follow from probabilities, as it was fitted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Temperature and threshold.
    #[serde(flatten)]
    pub decision: Decision,
    /// The class whose probability the threshold is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positive: Option<String>,
    /// Validation examples, or words of them, that it was fitted on; none of a threshold that the run file names.
    pub fitted_on: usize,
    /// The metrics that it changes, without it; those with it are the task's own.
    #[serde(skip_deserializing)]
    pub without: Metrics,
}

/// Fits what the settings ask for on validation examples, for what a task predicts; `labels` are the names of the classes. Nothing where it
/// predicts values.
pub fn fit(
    settings: &TrainTable,
    validation: Option<&Pass<'_>>,
    (kind, labels): (PredictionKind, &[String]),
) -> Result<Option<Calibration>> {
    if !settings.calibrate && settings.threshold.is_none() {
        return Ok(None);
    }
    if let (PredictionKind::MultiLabel, Some(Threshold::At(threshold))) = (kind, settings.threshold) {
        let decision = Decision { threshold: Some(threshold), ..Decision::default() };
        return Ok(Some(Calibration { decision, ..Calibration::default() }));
    }
    let found = match validation.map(|pass| evaluate(pass, &|_| {})).transpose()?.map(|found| found.outcome) {
        Some(Outcome::Classes(found)) => Some(found),
        Some(Outcome::Labels(found)) => return Ok(thresholds(&found).filter(|_| settings.threshold.is_some())),
        Some(
            Outcome::Masks(_)
            | Outcome::Tokens(_)
            | Outcome::Preferences(_)
            | Outcome::Matches(_)
            | Outcome::Values { .. },
        ) => {
            return Ok(None);
        }
        None => None,
    };
    let kept = found.as_ref().and_then(|found| Some((found.probabilities.as_ref()?, found)));
    let mut fitted = Calibration::default();
    if let Some((probabilities, found)) = kept.filter(|_| settings.calibrate) {
        let (targets, _) = found.probable();
        fitted.decision.temperature = temperature(probabilities, &targets);
        fitted.fitted_on = targets.len();
    }
    let binary = labels.len() == 2 && found.as_ref().is_none_or(|found| found.counted.is_none());
    fitted.decision.threshold = match (settings.threshold.filter(|_| binary), kept) {
        (Some(Threshold::At(threshold)), _) => Some(threshold),
        (Some(Threshold::BestF1), Some((probabilities, found))) => {
            fitted.fitted_on = found.targets.len();
            Some(threshold(probabilities, found, fitted.decision.temperature))
        }
        _ => None,
    };
    fitted.positive = fitted.decision.threshold.and(labels.get(1)).cloned();
    Ok((fitted.decision != Decision::default()).then_some(fitted))
}

/// A threshold for each class, where an example has any number of them.
fn thresholds(found: &Labels) -> Option<Calibration> {
    let decision = Decision { thresholds: found.best_thresholds()?, ..Decision::default() };
    Some(Calibration { decision, fitted_on: found.targets.len(), ..Calibration::default() })
}

/// The threshold with the greatest F1, of calibrated probabilities.
fn threshold(probabilities: &Probabilities, found: &Classes, temperature: f64) -> f64 {
    let positive = |row: &[f32]| {
        let mut row = row.to_vec();
        at_temperature(&mut row, temperature);
        row[1]
    };
    let scores: Vec<f32> = probabilities.rows().map(positive).collect();
    best_f1(&scores, &found.targets.iter().map(|&target| target == 1).collect::<Vec<_>>())
}

impl Calibration {
    /// Takes the metrics that there would be without it.
    pub fn compare(&mut self, without: &Evaluation) {
        let told = TOLD.iter().filter_map(|name| Some(((*name).to_owned(), *without.metrics().get(*name)?)));
        self.without = told.collect();
    }

    /// As a person reads it, beside the metrics with it: a line for each.
    pub fn to_text(&self, task: &str, with: &Metrics) -> String {
        let mut text = String::new();
        let change = |names: &[&str]| {
            let of = |name: &&str| {
                Some(format!("{name} {:.4} before, {:.4} after", self.without.get(*name)?, with.get(*name)?))
            };
            names.iter().filter_map(of).collect::<Vec<_>>().join(", ")
        };
        let (Decision { temperature, threshold, thresholds }, examples) = (self.decision.clone(), self.fitted_on);
        if !thresholds.is_empty() {
            let change = change(&["macro_f1", "micro_f1"]);
            text +=
                &format!("{task}: a threshold for each class, fitted on {examples} validation examples: {change}\n");
        } else if let (Some(threshold), None) = (threshold, &self.positive) {
            let change = change(&["macro_f1", "micro_f1"]);
            text += &format!("{task}: each class is predicted from a probability of {threshold:.4} on: {change}\n");
        }
        if temperature != 1.0 {
            let change = change(&["calibration_error", "log_loss"]);
            text +=
                &format!("{task}: temperature {temperature:.4}, fitted on {examples} validation examples: {change}\n");
        }
        if let (Some(threshold), Some(positive)) = (threshold, &self.positive) {
            let change = change(&["macro_f1", "accuracy"]);
            text += &format!("{task}: {positive} is predicted from a probability of {threshold:.4} on: {change}\n");
        }
        text
    }
}
