//! `result.json` and the summary that a person sees at the end.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::evaluate::{Classes, Evaluation, Outcome};
use super::export::Exported;
use super::proof::Proof;
use crate::report::classification;
use crate::report::entities::Entities;
use crate::report::metrics::probabilities::Bin;
use crate::report::metrics::{self, Scores};
use crate::report::table::Table;
use crate::run::setup::plan::Plan;
use crate::run::state::identity::PluginUsed;
use crate::run::state::snapshot::{After, Trained};
use crate::run::state::watch::{Best, Watch};
use crate::{Error, Result};

/// The file's name.
pub const FILE: &str = "result.json";
/// The name of its page.
pub const PAGE: &str = "report.html";

/// Reads the parts of a run's result that are needed.
///
/// # Errors
/// Where it is missing or does not read.
pub fn read<T: DeserializeOwned>(run: &Path) -> Result<T> {
    let path = run.join(FILE);
    let text = std::fs::read_to_string(&path).map_err(Error::io(format!("cannot read {}", path.display())))?;
    serde_json::from_str(&text).map_err(|error| unreadable(run, &error))
}

/// The error of a result that does not hold what it should.
pub fn unreadable(run: &Path, what: &dyn Display) -> Error {
    Error::run(format!("{} does not read: {what}", run.join(FILE).display()))
}

/// What a run came to. Its fields are promised to scripts: new ones may come, none goes.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The run folder.
    pub folder: PathBuf,
    /// Results by task.
    pub tasks: BTreeMap<String, TaskResult>,
    /// What was watched on the validation examples of joint tasks; that of a task alone stands in its result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch: Option<Watch>,
    /// Where tasks trained in sequence: all tasks' metrics at the end of each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sequence: Vec<After>,
    /// Figures of the training.
    pub train: Trained,
    /// Counts of elements.
    pub parameters: Parameters,
    /// The plugins that took part.
    pub plugins: Vec<PluginUsed>,
    /// The seed.
    pub seed: u64,
    /// `cpu` or `cuda:0`.
    pub device: String,
    /// `f32`, `bf16` or `f16`.
    pub precision: String,
    /// That the run did what was asked.
    pub proof: Proof,
    /// What was saved.
    pub saved: Exported,
    /// The plan that was printed.
    pub plan: Plan,
}

/// One task's results.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TaskResult {
    /// Metrics on the test data after training; empty without test data.
    pub metrics: BTreeMap<String, f64>,
    /// Why those that are null are not defined.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub undefined: BTreeMap<String, String>,
    /// The same metrics before the first step, where `train.evaluate_before` asks for them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub before: BTreeMap<String, f64>,
    /// The metric that was watched on the validation examples, with its best value: that of the model that is saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch: Option<Watch>,
    /// Class names in index order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Training examples, or tokens, of each class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub class_counts: Vec<u64>,
    /// Test examples, or tokens, of each true class (row) by predicted class (column).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub confusion: Vec<Vec<u64>>,
    /// scikit-learn's classification report.
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
}

/// Counts of elements.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Parameters {
    /// Those that train.
    pub trainable: usize,
    /// All, the base model's and the plugins'.
    pub total: usize,
}

/// The metrics that people look at, those that say most first.
const MAIN_METRICS: [&str; 4] = ["entity_f1", "accuracy", "pearson", "loss"];
/// Those that are said besides, in one line; the others are in result.json and the page.
const MORE_METRICS: [&str; 8] =
    ["macro_f1", "roc_auc", "pr_auc", "matthews", "calibration_error", "r2", "rmse", "spearman"];
/// Lines of a report of entities that a terminal still shows.
const MOST_ENTITIES: usize = 16;

impl TaskResult {
    /// From the classes with their numbers of training examples, the metrics before training, what was watched, and the evaluation on
    /// the test data.
    pub fn new(
        labels: &[String],
        class_counts: Vec<u64>,
        before: BTreeMap<String, f64>,
        watch: Option<Watch>,
        after: Option<&Evaluation>,
    ) -> Self {
        let classes = match after.map(|after| &after.outcome) {
            Some(Outcome::Classes(classes)) => Some(classes),
            Some(Outcome::Values { .. }) | None => None,
        };
        let confusion =
            classes.map(|found| metrics::confusion_matrix(&found.targets, &found.predictions, labels.len()));
        let report = confusion.as_deref().map(|confusion| classification::report(confusion, labels));
        let entities = classes.and_then(|found| found.entities.as_ref());
        Self {
            metrics: after.map(Evaluation::metrics).cloned().unwrap_or_default(),
            undefined: after.map(Evaluation::undefined).unwrap_or_default(),
            before,
            watch,
            labels: labels.to_vec(),
            class_counts,
            confusion: confusion.unwrap_or_default(),
            report,
            entity_report: entities.map(Entities::report),
            entities: entities.map(|found| found.types.clone()).unwrap_or_default(),
            reliability: classes.map(Classes::reliability).unwrap_or_default(),
        }
    }

    /// Metrics before and after, report and confusion matrix, as a person reads them on a terminal. `whole` says where all is of what
    /// that does not hold.
    pub fn to_text(&self, task: &str, whole: &str) -> String {
        let mut text = String::new();
        if !self.confusion.is_empty() {
            text += &format!("{}\n", classification::terminal_text(&self.confusion, &self.labels, whole));
        }
        if let Some(report) = self.entity_report.as_ref().filter(|report| report.lines().count() <= MOST_ENTITIES) {
            text += &format!("{report}\n");
        }
        for name in MAIN_METRICS {
            let Some(after) = self.metrics.get(name) else { continue };
            text += &match self.before.get(name) {
                Some(before) => format!("{task}: {name} {before:.4} before, {after:.4} after\n"),
                None => format!("{task}: {name} {after:.4}\n"),
            };
        }
        let more = MORE_METRICS.iter().filter_map(|name| Some((name, self.metrics.get(*name)?)));
        let more: Vec<String> =
            more.filter(|(_, value)| value.is_finite()).map(|(name, value)| format!("{name} {value:.4}")).collect();
        if !more.is_empty() {
            text += &format!("{task}: {}\n", more.join(", "));
        }
        text += &watch_text(self.watch.as_ref(), &format!("{task}: "));
        text
    }

    /// The metric that says most, by name: the first of those that people look at.
    pub fn main_metric(metrics: &BTreeMap<String, f64>) -> Option<(&str, f64)> {
        MAIN_METRICS.iter().find_map(|name| Some((*name, *metrics.get(*name)?)))
    }
}

fn watch_text(watch: Option<&Watch>, of: &str) -> String {
    match watch {
        Some(Watch { metric, best: Some(Best { step, value }), .. }) => {
            format!("{of}the model of step {step} is saved: its validation {metric} {value:.4} was the best\n")
        }
        _ => String::new(),
    }
}

/// What the tasks came to after each of them, a row for each.
fn sequence_text(sequence: &[After]) -> String {
    let mut rows = Table::new();
    for After { task, metrics } in sequence {
        let found = metrics.iter().filter_map(|(name, metrics)| {
            TaskResult::main_metric(metrics).map(|(metric, value)| format!("{name}: {metric} {value:.4}"))
        });
        rows.row([&format!("after {task}"), &found.collect::<Vec<_>>().join(", ")]);
    }
    rows.to_text()
}

impl Summary {
    /// The summary as a person reads it.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let whole = format!("{} and {FILE}", self.folder.join(PAGE).display());
        for (name, task) in &self.tasks {
            text += &task.to_text(name, &whole);
        }
        text += &watch_text(self.watch.as_ref(), "");
        if !self.sequence.is_empty() {
            text += &format!("{}\n", sequence_text(&self.sequence).trim_end());
        }
        let Trained { seconds, steps, samples, tokens, peak_rss_bytes, .. } = self.train;
        text += &format!(
            "trained {steps} steps in {seconds:.1} s ({:.0} examples/s, {:.0} tokens/s), peak memory {} MB\n",
            samples as f64 / seconds,
            tokens as f64 / seconds,
            peak_rss_bytes / 1_000_000
        );
        text += &format!("{}\n", self.proof.to_text());
        text += &self.saved.to_string();
        text
    }
}
