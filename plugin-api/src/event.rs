//! What happens in a run, as plugins hear it.

use serde::{Deserialize, Serialize};

/// An event of the run. New kinds may come: match with a wildcard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
#[non_exhaustive]
pub enum Event {
    /// A task's training begins. Joint tasks begin together, sequential ones in turn.
    TaskBegin {
        /// The task's name in the run file.
        task: String,
    },
    /// A task's training is over.
    TaskEnd {
        /// The task's name in the run file.
        task: String,
    },
    /// An epoch begins.
    EpochBegin {
        /// Counted from 0.
        epoch: u64,
        /// Epochs of the run.
        epochs: u64,
    },
    /// An epoch is over.
    EpochEnd {
        /// Counted from 0.
        epoch: u64,
        /// Epochs of the run.
        epochs: u64,
    },
    /// An optimizer step begins.
    StepBegin {
        /// Counted from 0.
        step: u64,
        /// Optimizer steps of the run.
        total_steps: u64,
    },
    /// An optimizer step is over.
    StepEnd {
        /// Counted from 0.
        step: u64,
        /// Optimizer steps of the run.
        total_steps: u64,
        /// The step's mean loss.
        loss: f64,
    },
    /// An evaluation on validation examples begins, between two steps. A plugin that wants other weights evaluated and kept as the best sets
    /// them now, by [`Model::set_value`](crate::Model::set_value). What is evaluated once training is over is the model as
    /// [`TaskEnd`](Self::TaskEnd) has left it. Since 1.1
    EvaluationBegin {
        /// Optimizer steps taken so far.
        step: u64,
    },
    /// The evaluation that has begun is over, and the model that it was of is kept where it was the best. A plugin that has set weights puts
    /// those back with which training goes on. After [`Evaluation`](Self::Evaluation). Since 1.1
    EvaluationEnd {
        /// Optimizer steps taken so far.
        step: u64,
    },
    /// What an evaluation on validation examples has found.
    Evaluation {
        /// The step after which it ran.
        step: u64,
        /// The task's name in the run file.
        task: String,
        /// Metric names and values.
        metrics: std::collections::BTreeMap<String, f64>,
    },
}
