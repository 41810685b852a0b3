//! Lines of `metrics.jsonl` and of `--json`: what a machine reads of a run.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::run::generation::FinishReason;

/// Why a step was left out in which no example counts in the loss.
pub const NO_WEIGHT: &str = "no weight";

/// Who hears the lines, as they are logged.
pub struct Listener(Box<dyn FnMut(&Line<'_>) + Send>);

impl Listener {
    /// Calls a function with each line, on the run's thread: the run goes on when it comes back.
    pub fn new(hear: impl FnMut(&Line<'_>) + Send + 'static) -> Self {
        Self(Box::new(hear))
    }

    pub(super) fn hear(&mut self, line: &Line<'_>) {
        (self.0)(line);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

/// One line.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Line<'a> {
    /// An optimizer step is over.
    Step {
        /// Counted from 1.
        step: u64,
        /// The task that the batch is of, where there are several and the step is one task's.
        #[serde(skip_serializing_if = "Option::is_none")]
        task: Option<&'a str>,
        /// Mean loss of each task, where the step is of all together.
        #[serde(skip_serializing_if = "Option::is_none")]
        losses: Option<BTreeMap<&'a str, f64>>,
        /// Counted from 1, in the phase.
        epoch: u64,
        /// Mean loss of the batch, penalties left out; with `losses` their sum, each multiplied by its task's weight.
        loss: f64,
        /// Regularizers' penalties.
        #[serde(skip_serializing_if = "Option::is_none")]
        penalty: Option<f64>,
        /// The same of each by its name, where there are several.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        penalties: BTreeMap<String, f64>,
        /// Learning rate of a group with factor 1.
        lr: f64,
        /// Where there are several streams, the rate of the fastest parameter of each that was updated, and of the `heads`.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        rates: BTreeMap<String, f64>,
        /// Global norm of the gradients before clipping.
        gradient_norm: f64,
        /// Examples of the batch.
        samples: usize,
        /// Tokens of the batch.
        tokens: usize,
        /// Seconds since the first step began.
        seconds: f64,
        /// Why the step changed no parameter, where it did not: `overflow` of the gradients in `f16`, or [`NO_WEIGHT`], where no example
        /// counts in the loss, which is 0 then.
        #[serde(skip_serializing_if = "Option::is_none")]
        left_out: Option<&'static str>,
    },
    /// An evaluation is over.
    Evaluation {
        /// Steps taken so far.
        step: u64,
        /// The task.
        task: &'a str,
        /// `before` or `after` training, `validation`, or `after TASK` where tasks train in sequence.
        when: &'a str,
        /// Names and values.
        metrics: &'a BTreeMap<String, f64>,
    },
    /// A number that a plugin tells of a step.
    Scalar {
        /// Steps taken so far.
        step: u64,
        /// `METHOD/NAME`.
        name: &'a str,
        /// The number.
        value: f64,
    },
    /// What a language model says to a validation example, at an evaluation.
    Sample {
        /// Steps taken so far.
        step: u64,
        /// The task.
        task: &'a str,
        /// The number of the example in its file, from 1.
        row: u64,
        /// What the model goes on from, special tokens by their names.
        prompt: &'a str,
        /// How it goes on, without special tokens.
        text: &'a str,
        /// Why the text ended.
        finish_reason: FinishReason,
    },
}
