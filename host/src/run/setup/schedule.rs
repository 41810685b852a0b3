//! What a run is made of, as far as its plan and its memory hang on it.

use super::from_data::FromData;
use crate::data::episodes;

/// What the plan needs to know besides the model and the data.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// How features of whole examples are made, and who says so.
    pub pooling: String,
    /// Names of the strategies, in order.
    pub strategies: Vec<String>,
    /// Names of the tasks, in order.
    pub tasks: Vec<String>,
    /// Optimizer steps of one epoch.
    pub steps_per_epoch: u64,
    /// Optimizer steps of the run.
    pub steps: u64,
    /// Examples of a batch, or of an episode.
    pub batch_size: usize,
    /// By task, what an episode is made of.
    pub episodes: Vec<(String, episodes::Shape)>,
    /// Options of heads that the training examples gave.
    pub from_data: Vec<FromData>,
    /// Moments that the optimizer keeps per parameter.
    pub moments: usize,
    /// Threads that take micro-batches.
    pub threads: usize,
    /// Whether batches are split into micro-batches.
    pub splits: bool,
}
