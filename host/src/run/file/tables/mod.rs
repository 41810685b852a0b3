//! The tables of a run file and their defaults.
//!
//! `Keys` is what may stand in the file: its JSON Schema checks a file, its doc comments are the help in errors. The public
//! types are what a run reads, with nothing left open.

mod method;
mod model;
mod run;
mod share;
mod task;
mod train;

use fthost_plugin_api::schemars::{self, JsonSchema};
use serde::Deserialize;

pub use method::{Method, RegularizerTable};
pub(super) use method::{RegularizerKeys, ScheduleKey, StrategyKeys};
pub(super) use model::{DEMO, ModelKeys};
pub use model::{ModelInit, ModelTable, PoolingKey, StreamTable};
pub(super) use run::RunKeys;
pub use run::RunTable;
pub(super) use share::Share;
pub(super) use task::{ClassKey, DrawnKey, FilesKey, HeadKeys, PartKey, SharedHead, TaskKeys, TestKey, max_tokens};
pub use task::{Drawn, HeldOut, SplitKeys, TaskTable};
pub use train::{BatchNorm, Optimizer, Precision, Sampling, TaskOrder, Threshold, TrainTable, task_and_metric};
pub(super) use train::{BestKey, OptimizerKey, OptimizerName, ThresholdKey, TrainKeys};

/// Everything that a run file may hold.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    /// the pretrained model, as in
    /// [model]
    /// path = "all-MiniLM-L6-v2"
    pub(super) model: ModelKeys,
    /// what is learned, as in
    /// [[task]]
    /// head = { plugin = "classification" }
    /// train = "train.tsv"
    #[schemars(length(min = 1))]
    pub(super) task: Vec<TaskKeys>,
    /// what trains, and what is added to the model; each is a [[strategy]]
    #[serde(default)]
    pub(super) strategy: Vec<StrategyKeys>,
    /// what is added to the loss; each is a [[regularizer]]
    #[serde(default)]
    pub(super) regularizer: Vec<RegularizerKeys>,
    /// the learning rate of each step; several are [[schedule]], each for a stream of the model and one for the rest
    pub(super) schedule: Option<ScheduleKey>,
    /// how training goes; one [train]
    #[serde(default)]
    pub(super) train: TrainKeys,
    /// the run's name and folder; one [run]
    #[serde(default)]
    pub(super) run: RunKeys,
}
