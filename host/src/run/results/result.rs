//! `result.json` and the summary that a person sees at the end.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use fthost_plugin_api::MetricSpec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::calibrated::Calibration;
use super::continual::Continual;
use super::evaluate::Evaluation;
use super::export::Exported;
use super::proof::Proof;
use super::report::Report;
use crate::report::metrics::Metrics;
use crate::run::setup::plan::Plan;
use crate::run::state::identity::PluginUsed;
use crate::run::state::snapshot::{After, Trained};
use crate::run::state::watch::{Best, Watch};
use crate::{Error, Result};

/// The file's name.
pub const FILE: &str = "result.json";
/// The name of its page.
pub const PAGE: &str = "report.html";

/// What a saved model was measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Examples that the run has not seen.
    Test,
    /// Those by which the best model was chosen, where there are no others.
    Validation,
}

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
    /// The same as a matrix of main metrics, with what follows from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continual: Option<Continual>,
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
    /// On the test data after training; its metrics are empty without test data.
    #[serde(flatten)]
    pub test: Report,
    /// The same on the validation data, where there is no test data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<Report>,
    /// Metrics on the test data before the first step, where `train.evaluate_before` asks for them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub before: Metrics,
    /// Temperature and threshold, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// The metric that was watched on the validation examples, with its best value: that of the model that is saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch: Option<Watch>,
    /// Which of the metrics are the head's own, and whether more of each is better.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub own_metrics: Vec<MetricSpec>,
    /// Class names in index order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Training examples, or tokens, or pixels, of each class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub class_counts: Vec<u64>,
    /// Training examples, where they have any number of classes each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub examples: Option<u64>,
    /// What stands between the classes of an example in tables, where it has any number of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_separator: Option<String>,
}

/// Counts of elements.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Parameters {
    /// Those that train.
    pub trainable: usize,
    /// All, the base model's and the plugins'.
    pub total: usize,
}

impl TaskResult {
    /// From the classes with their numbers of training examples, the metrics before training, what was watched, and the evaluation
    /// after it.
    pub fn new(
        labels: &[String],
        class_counts: Vec<u64>,
        before: Metrics,
        watch: Option<Watch>,
        after: Option<(Split, &Evaluation)>,
    ) -> Self {
        let report = |wanted: Split| after.filter(|(on, _)| *on == wanted).map(|(_, found)| Report::of(labels, found));
        Self {
            test: report(Split::Test).unwrap_or_default(),
            validation: report(Split::Validation),
            before,
            calibration: None,
            watch,
            own_metrics: Vec::new(),
            labels: labels.to_vec(),
            class_counts,
            examples: None,
            label_separator: None,
        }
    }

    /// What there is to show, and whether it is of validation examples.
    pub fn shown(&self) -> (&Report, Split) {
        self.validation.as_ref().map_or((&self.test, Split::Test), |report| (report, Split::Validation))
    }

    /// The same, to be added to.
    pub fn shown_mut(&mut self) -> &mut Report {
        self.validation.as_mut().unwrap_or(&mut self.test)
    }

    /// What a person reads on a terminal. `whole` says where all is of what that does not hold.
    pub fn to_text(&self, task: &str, whole: &str) -> String {
        let (report, on) = self.shown();
        let mut text = report.to_text(task, &self.labels, &self.before, whole);
        text += &self.calibration.as_ref().map(|found| found.to_text(task, &report.metrics)).unwrap_or_default();
        if on == Split::Validation {
            text += &format!(
                "{task}: measured on the validation examples, by which the model was chosen: expect less of new ones, or name \
                 test examples\n"
            );
        }
        text + &watch_text(self.watch.as_ref(), &format!("{task}: "))
    }
}

fn watch_text(watch: Option<&Watch>, of: &str) -> String {
    let Some(Watch { metric, best: Some(Best { step, value }), stopped_early, since, .. }) = watch else {
        return String::new();
    };
    let stopped = stopped_early.map(|stopped| {
        let times = if *since == 1 { "evaluation" } else { "evaluations" };
        format!("{of}stopped early at step {stopped}, best at step {step}: {since} {times} without a better {metric}\n")
    });
    let saved = format!("{of}the model of step {step} is saved: its validation {metric} {value:.4} was the best\n");
    stopped.unwrap_or_default() + &saved
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
        text += &self.continual.as_ref().map(Continual::to_text).unwrap_or_default();
        let Trained { seconds, waited_seconds, steps, samples, tokens, peak_rss_bytes, .. } = self.train;
        let tokens = match tokens > samples {
            true => format!(", {:.0} tokens/s", tokens as f64 / seconds),
            false => String::new(),
        };
        let waited = match waited_seconds > 0.0 {
            true => format!(", {:.1} % of it waiting for pictures", 100.0 * waited_seconds / seconds),
            false => String::new(),
        };
        text += &format!(
            "trained {steps} steps in {seconds:.1} s ({:.0} examples/s{tokens}{waited}), peak memory {} MB\n",
            samples as f64 / seconds,
            peak_rss_bytes / 1_000_000
        );
        text += &format!("{}\n", self.proof.to_text());
        text += &self.saved.to_string();
        text
    }
}
