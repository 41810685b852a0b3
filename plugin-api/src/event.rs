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
    /// An evaluation is over.
    Evaluation {
        /// The step after which it ran.
        step: u64,
        /// The task's name in the run file.
        task: String,
        /// Metric names and values.
        metrics: std::collections::BTreeMap<String, f64>,
    },
}
