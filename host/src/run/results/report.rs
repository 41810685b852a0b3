//! How well a model does on some examples: metrics, report, confusion matrix, and what a terminal shows of them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::evaluate::{Classes, Evaluation, Outcome};
use super::worst::Worst;
use crate::report::entities::Entities;
use crate::report::metrics::masks::Overlap;
use crate::report::metrics::multi_label::{self, LabelScores};
use crate::report::metrics::probabilities::Bin;
use crate::report::metrics::{self, Metrics, Scores};
use crate::report::{self, classification, retrieval};

/// The metrics that people look at, those that say most first.
const MAIN: [&str; 7] =
    ["entity_f1", "accuracy", "mean_average_precision", "mean_iou", "pearson", "recall_at_5", "loss"];
/// Those that are said besides, in one line; the others are in result.json and the page.
const MORE: [&str; 16] = [
    "perplexity",
    "exact_match",
    "rouge_l",
    "pixel_accuracy",
    "mean_dice",
    "macro_f1",
    "micro_f1",
    "subset_accuracy",
    "hamming_loss",
    "roc_auc",
    "pr_auc",
    "matthews",
    "calibration_error",
    "r2",
    "rmse",
    "spearman",
];
/// True and predicted values that are kept to be drawn.
const POINTS: usize = 1000;
/// Lines of a report of entities that a terminal still shows.
const MOST_ENTITIES: usize = 16;

/// What a model comes to on test or validation examples.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Metrics by name; empty where nothing was evaluated.
    pub metrics: Metrics,
    /// Those of them that are the head's own, which people look at.
    #[serde(skip)]
    pub own: Metrics,
    /// Why those that are null are not defined.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub undefined: BTreeMap<String, String>,
    /// Examples, or tokens, or pixels, of each true class (row) by predicted class (column).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub confusion: Vec<Vec<u64>>,
    /// Of each class precision, recall, F1 and the number of examples that have it, where an example has any number of them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, Scores>,
    /// These with their averages.
    #[serde(skip)]
    pub label_scores: LabelScores,
    /// Of each class the pixels that are true, those that are predicted and those that are both, where predictions are masks.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pixels: BTreeMap<String, Overlap>,
    /// What the sides of examples are, where what belongs together is looked for: metrics that begin with `forward` are of the first's search
    /// for the second, those with `backward` of the second's for the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sides: Vec<String>,
    /// scikit-learn's classification report; of masks a table of the same kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
    /// Of each type of entity precision, recall, F1 and the number of true ones, where labels spell entities.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub entities: BTreeMap<String, Scores>,
    /// seqeval's classification report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity_report: Option<String>,
    /// Predictions by their probability, with the share of each bin that is right; bins without any are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reliability: Vec<Bin>,
    /// The examples that the model is furthest off at, the worst first: of classes those that are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub worst: Vec<Worst>,
    /// True and predicted values, of many some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<[f32; 2]>,
}

impl Report {
    /// Of an evaluation, of classes with these names.
    pub fn of(labels: &[String], evaluation: &Evaluation) -> Self {
        let (classes, values) = match &evaluation.outcome {
            Outcome::Classes(classes) => (Some(classes), Vec::new()),
            Outcome::Labels(_)
            | Outcome::Masks(_)
            | Outcome::Tokens(_)
            | Outcome::Preferences(_)
            | Outcome::Matches(_) => (None, Vec::new()),
            Outcome::Values { targets, predictions } => {
                let pairs = targets.iter().zip(predictions).map(|(&target, &found)| [target, found]);
                (None, pairs.step_by(targets.len().div_ceil(POINTS).max(1)).collect())
            }
        };
        let confusion =
            classes.map(|found| metrics::confusion_matrix(&found.targets, &found.predictions, labels.len()));
        let (pixels, of_pixels, counts) = match &evaluation.outcome {
            Outcome::Masks(found) => {
                let pixels = found.classes();
                let report = report::masks::report(&pixels, labels);
                (labels.iter().cloned().zip(pixels).collect(), Some(report), found.confusion.clone())
            }
            _ => (BTreeMap::new(), None, Vec::new()),
        };
        let sides = match &evaluation.outcome {
            Outcome::Matches(found) => found.sides.clone(),
            _ => Vec::new(),
        };
        let label_scores = match &evaluation.outcome {
            Outcome::Labels(found) => multi_label::scores(&found.targets, &found.predictions, labels.len()),
            _ => LabelScores::default(),
        };
        let of_labels = (!label_scores.classes.is_empty()).then(|| report::multi_label::report(&label_scores, labels));
        let report =
            confusion.as_deref().map(|confusion| classification::report(confusion, labels)).or(of_labels).or(of_pixels);
        let entities = classes.and_then(|found| found.entities.as_ref());
        Self {
            metrics: evaluation.metrics().clone(),
            own: evaluation.own().clone(),
            undefined: evaluation.undefined(),
            confusion: confusion.unwrap_or(counts),
            pixels,
            classes: labels.iter().cloned().zip(label_scores.classes.iter().copied()).collect(),
            label_scores,
            sides,
            report,
            entity_report: entities.map(Entities::report),
            entities: entities.map(|found| found.types.clone()).unwrap_or_default(),
            reliability: classes.map(Classes::reliability).unwrap_or_default(),
            worst: Vec::new(),
            values,
        }
    }

    /// Report, confusion matrix and metrics, beside those from before the training, as a person reads them on a terminal. `whole` says
    /// where all is of what that does not hold.
    pub fn to_text(&self, task: &str, labels: &[String], before: &Metrics, whole: &str) -> String {
        let mut text = String::new();
        if !self.pixels.is_empty() {
            let pixels: Vec<Overlap> =
                labels.iter().map(|label| self.pixels.get(label).copied().unwrap_or_default()).collect();
            text += &format!("{}\n", report::masks::terminal_text(&pixels, labels, whole));
        } else if !self.confusion.is_empty() {
            text += &format!("{}\n", classification::terminal_text(&self.confusion, labels, whole));
        }
        if !self.label_scores.classes.is_empty() {
            text += &format!("{}\n", report::multi_label::terminal_text(&self.label_scores, labels, whole));
        }
        if let Some(report) = self.entity_report.as_ref().filter(|report| report.lines().count() <= MOST_ENTITIES) {
            text += &format!("{report}\n");
        }
        let found = retrieval::terminal_text(&self.metrics, &self.sides);
        if !found.is_empty() {
            text += &format!("{found}\n");
        }
        for name in MAIN {
            let Some(after) = self.metrics.get(name) else { continue };
            text += &match before.get(name) {
                Some(before) => format!("{task}: {name} {before:.4} before, {after:.4} after\n"),
                None => format!("{task}: {name} {after:.4}\n"),
            };
        }
        let own = self.own.iter().map(|(name, value)| (name.as_str(), value));
        let more = own.chain(MORE.iter().filter_map(|name| Some((*name, self.metrics.get(*name)?))));
        let more: Vec<String> =
            more.filter(|(_, value)| value.is_finite()).map(|(name, value)| format!("{name} {value:.4}")).collect();
        if !more.is_empty() {
            text += &format!("{task}: {}\n", more.join(", "));
        }
        text
    }
}

/// The metric that says most, by name: the first of those that people look at.
pub fn main_metric(metrics: &Metrics) -> Option<(&str, f64)> {
    MAIN.iter().find_map(|name| Some((*name, *metrics.get(*name)?)))
}
