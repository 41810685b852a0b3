//! `[train]`: how training goes.

use std::fmt;

use fthost_autograd::Precision as EnginePrecision;
use fthost_plugin_api::schemars::{self, JsonSchema};
use serde::{Deserialize, Serialize};

use super::method::{Method, MethodKeys};
use super::share::Share;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::run::file) enum ThresholdKey {
    /// a probability, above 0 and below 1
    At(Share),
    /// "f1": the one with the greatest F1 of the second class on the validation examples
    Best(BestKey),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(in crate::run::file) enum BestKey {
    F1,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::run::file) struct TrainKeys {
    /// passes over the training examples: 3, or where steps are given as many as they take
    #[schemars(range(min = 1))]
    pub(in crate::run::file) epochs: Option<u64>,
    /// optimizer steps to take, or fewer where epochs are given too and end before; of each task, where they train in sequence
    #[schemars(range(min = 1))]
    pub(in crate::run::file) steps: Option<u64>,
    /// whether several tasks train jointly, each step on a batch of one of them or of each, or in sequence
    pub(in crate::run::file) tasks: TaskOrder,
    /// how often each of several joint tasks has its turn: in proportion to its size, to the root of it, each as often, or all together in every step
    pub(in crate::run::file) sampling: Sampling,
    /// examples in a batch: 16, where batch_tokens says nothing
    #[schemars(range(min = 1))]
    pub(in crate::run::file) batch_size: Option<usize>,
    /// tokens in a batch, about, in place of a number of examples: examples of any lengths then take as long and as much memory
    #[schemars(range(min = 1))]
    pub(in crate::run::file) batch_tokens: Option<usize>,
    /// whether examples of about equal lengths come together: those of 50 batches are sorted, and the batches come in any order
    pub(in crate::run::file) group_by_length: bool,
    /// batches whose gradients make one optimizer step
    #[schemars(range(min = 1))]
    pub(in crate::run::file) accumulate: usize,
    /// where a loss needs the whole batch, examples that pass through the network at once, at most: they pass twice then, for what the head
    /// reads and for their gradients, in the memory of so many and about a third more time; the numbers are the same but for rounding
    #[schemars(range(min = 1))]
    pub(in crate::run::file) micro_batch: Option<usize>,
    /// learning rate that the schedule scales
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub(in crate::run::file) lr: f64,
    /// update rule: adamw, adam or sgd, or a plugin's with its options, as { plugin = "NAME" }
    pub(in crate::run::file) optimizer: OptimizerKey,
    /// weight decay; 0.01 with adamw, else 0
    #[schemars(range(min = 0))]
    pub(in crate::run::file) weight_decay: Option<f64>,
    /// whether weight decay applies to biases and norms too
    pub(in crate::run::file) decay_biases_and_norms: bool,
    /// momentum of sgd
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub(in crate::run::file) momentum: Option<f64>,
    /// Nesterov's form of sgd's momentum
    pub(in crate::run::file) nesterov: Option<bool>,
    /// decay of the two moments of adamw and adam
    pub(in crate::run::file) betas: Option<[f64; 2]>,
    /// what adamw and adam add to the denominator
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub(in crate::run::file) eps: Option<f64>,
    /// largest global norm of a step's gradients; without it they are not clipped
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub(in crate::run::file) clip_norm: Option<f64>,
    /// largest magnitude of a gradient's elements; without it they are not clipped
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub(in crate::run::file) clip_value: Option<f64>,
    /// float type of matrix products
    pub(in crate::run::file) precision: Precision,
    /// what every random number follows from
    pub(in crate::run::file) seed: u64,
    /// whether the model's own dropout is active
    pub(in crate::run::file) dropout: bool,
    /// what batch norms that train go by: the statistics of each batch, or their running ones, which then stay as they are
    pub(in crate::run::file) batch_norm: BatchNorm,
    /// whether the test examples are also evaluated before training; by default where tasks train in sequence
    pub(in crate::run::file) evaluate_before: Option<bool>,
    /// optimizer steps between evaluations on the validation examples; without it at the end of each epoch
    #[schemars(range(min = 1))]
    pub(in crate::run::file) evaluate_steps: Option<u64>,
    /// metric on the validation examples; the model that is best by it is kept. Without it accuracy for classes, macro_f1 where one is
    /// much more frequent than the others (1.5 times an equal share), entity_f1 where words' labels spell entities, loss for values and
    /// for joint tasks. Of one of several tasks: TASK.METRIC
    #[schemars(length(min = 1))]
    pub(in crate::run::file) monitor: Option<String>,
    /// whether a temperature is fitted on the validation examples, by which probabilities mean what they say. What is saved has it in its
    /// last layer
    pub(in crate::run::file) calibrate: bool,
    /// of two classes of examples the probability of the second from which on it is predicted, where that is not the more probable one's:
    /// a number, or "f1" for the one with the greatest F1 on the validation examples; where an example has any number of classes, that
    /// of each class in place of 0.5, or with "f1" one of its own for each
    pub(in crate::run::file) threshold: Option<ThresholdKey>,
    /// evaluations without a better one, by more than min_delta, after which training stops
    #[schemars(range(min = 1))]
    pub(in crate::run::file) patience: Option<u64>,
    /// by how much the monitored metric must be better for patience to begin anew; the best model is the best seen, whatever it is
    #[schemars(range(min = 0))]
    pub(in crate::run::file) min_delta: f64,
    /// optimizer steps between checkpoints; one is also written at the end of each epoch
    #[schemars(range(min = 1))]
    pub(in crate::run::file) checkpoint_steps: Option<u64>,
    /// newest checkpoints that are kept
    #[schemars(range(min = 1))]
    pub(in crate::run::file) keep_checkpoints: usize,
    /// whether what frozen layers make of an example is computed once and kept, where it is the same each time; the numbers are the same
    pub(in crate::run::file) keep_features: bool,
    /// whether a block keeps nothing of a training pass but what it begins with, and is computed once more for its gradients: less memory,
    /// about a third more time, the same numbers
    pub(in crate::run::file) recompute: bool,
    /// CPU threads; without it one for each core
    #[schemars(range(min = 1, max = 1024))]
    pub(in crate::run::file) threads: Option<usize>,
}

impl Default for TrainKeys {
    fn default() -> Self {
        Self {
            epochs: None,
            steps: None,
            tasks: TaskOrder::Joint,
            sampling: Sampling::Proportional,
            batch_size: None,
            batch_tokens: None,
            group_by_length: false,
            accumulate: 1,
            micro_batch: None,
            lr: 5e-4,
            optimizer: OptimizerKey::Name(OptimizerName::Adamw),
            weight_decay: None,
            decay_biases_and_norms: false,
            momentum: None,
            nesterov: None,
            betas: None,
            eps: None,
            clip_norm: None,
            clip_value: None,
            precision: Precision::F32,
            seed: 0,
            dropout: true,
            batch_norm: BatchNorm::Batch,
            evaluate_before: None,
            evaluate_steps: None,
            monitor: None,
            calibrate: false,
            threshold: None,
            patience: None,
            min_delta: 0.0,
            checkpoint_steps: None,
            keep_checkpoints: 2,
            keep_features: true,
            recompute: false,
            threads: None,
        }
    }
}

/// What batch norms that train go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchNorm {
    /// The statistics of each batch, which the running ones follow.
    Batch,
    /// Their running statistics, which stay as they are.
    Running,
}

/// How several tasks train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskOrder {
    /// Together: each step on a batch of one of them.
    Joint,
    /// One after the other, in the order of the run file.
    Sequence,
}

/// How often each of several joint tasks has its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// In proportion to its number of batches: an epoch passes once through every task.
    Proportional,
    /// In proportion to the root of it.
    Sqrt,
    /// Each as often.
    Uniform,
    /// Every step takes a batch of each: an epoch passes once through the largest task.
    Together,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::run::file) enum OptimizerName {
    Adamw,
    Adam,
    Sgd,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::run::file) enum OptimizerKey {
    /// one of the host's
    Name(OptimizerName),
    /// a plugin's
    Plugin(MethodKeys),
}

/// `[train]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainTable {
    /// Passes over the training examples, at least 1; `None`: as many as the steps take.
    pub epochs: Option<u64>,
    /// Most optimizer steps to take; of each task, where they train in sequence. There are epochs or steps.
    pub steps: Option<u64>,
    /// How several tasks train.
    pub tasks: TaskOrder,
    /// How often each of several joint tasks has its turn.
    pub sampling: Sampling,
    /// Examples in a batch, at least 1.
    pub batch_size: usize,
    /// About how many tokens a batch holds, where that and not the number of examples is said.
    pub batch_tokens: Option<usize>,
    /// Whether examples of about equal lengths come together.
    pub group_by_length: bool,
    /// Batches whose gradients make one optimizer step, at least 1.
    pub accumulate: usize,
    /// Where a loss needs the whole batch, examples that pass through the network at once, at most.
    pub micro_batch: Option<usize>,
    /// Learning rate that the schedule scales, above 0.
    pub lr: f64,
    /// Update rule.
    pub optimizer: Optimizer,
    /// Weight decay: decoupled with AdamW, else an L2 penalty.
    pub weight_decay: f64,
    /// Does weight decay apply to biases and norms too?
    pub decay_biases_and_norms: bool,
    /// Largest global norm of a step's gradients.
    pub clip_norm: Option<f64>,
    /// Largest magnitude of a gradient's elements.
    pub clip_value: Option<f64>,
    /// Float type of matrix products.
    pub precision: Precision,
    /// What every random number follows from.
    pub seed: u64,
    /// Is the model's own dropout active?
    pub dropout: bool,
    /// What batch norms that train go by.
    pub batch_norm: BatchNorm,
    /// Are the test examples also evaluated before training?
    pub evaluate_before: bool,
    /// Optimizer steps between evaluations on the validation examples; `None`: at the end of each epoch.
    pub evaluate_steps: Option<u64>,
    /// The metric by which the best model is kept, where the run file names one.
    pub monitor: Option<String>,
    /// Is a temperature fitted on the validation examples?
    pub calibrate: bool,
    /// Where two classes part, or a class and its absence.
    pub threshold: Option<Threshold>,
    /// Evaluations without a better one, by more than `min_delta`, after which training stops.
    pub patience: Option<u64>,
    /// By how much the monitored metric must be better for patience to begin anew.
    pub min_delta: f64,
    /// Optimizer steps between checkpoints, besides those at the ends of epochs.
    pub checkpoint_steps: Option<u64>,
    /// Newest checkpoints that are kept, at least 1.
    pub keep_checkpoints: usize,
    /// Whether what frozen layers make of examples is kept.
    pub keep_features: bool,
    /// Whether blocks are computed once more for their gradients.
    pub recompute: bool,
    /// CPU threads.
    pub threads: Option<usize>,
}

impl TrainTable {
    /// Examples that one optimizer step learns from.
    pub fn examples_per_step(&self) -> usize {
        self.batch_size * self.accumulate
    }
}

/// What METRIC or TASK.METRIC names, as `train.monitor` and `--metric` say it: the task, where there is one, and the metric.
pub fn task_and_metric(said: &str) -> (Option<&str>, &str) {
    said.split_once('.').map_or((None, said), |(task, metric)| (Some(task), metric))
}

/// The probability of the second of two classes from which on it is predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// This one, above 0 and below 1.
    At(f64),
    /// The one with the greatest F1 on the validation examples.
    BestF1,
}

/// An update rule with torch's defaults.
#[derive(Clone, Debug, PartialEq)]
pub enum Optimizer {
    /// Adam with decoupled weight decay.
    AdamW {
        /// Decay of the two moments.
        betas: [f64; 2],
        /// Added to the denominator.
        eps: f64,
    },
    /// Adam.
    Adam {
        /// Decay of the two moments.
        betas: [f64; 2],
        /// Added to the denominator.
        eps: f64,
    },
    /// Stochastic gradient descent.
    Sgd {
        /// Momentum; 0 is none.
        momentum: f64,
        /// Nesterov's form of it.
        nesterov: bool,
    },
    /// A plugin's.
    Plugin(Method),
}

/// The float type of matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32 bits.
    F32,
    /// bfloat16.
    Bf16,
    /// Half.
    F16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

impl From<Precision> for EnginePrecision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
            Precision::F16 => Self::F16,
        }
    }
}
