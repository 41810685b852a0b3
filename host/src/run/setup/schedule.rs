//! What a run is made of, as far as its plan and its memory hang on it.

use std::path::PathBuf;

use serde::Serialize;

use super::from_data::FromData;
use super::memory::BatchOf;
use super::rates::Rates;
use crate::data::episodes;
use crate::report::numbers::count;
use crate::report::text::{NAME, shortened};

/// What the plan needs to know besides the model and the data.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// How features of whole examples are made, and who says so.
    pub pooling: Option<String>,
    /// Names of the strategies, in order.
    pub strategies: Vec<String>,
    /// Rates over the run, where they are shown.
    pub rates: Vec<Rates>,
    /// Names of the tasks, in order.
    pub tasks: Vec<String>,
    /// Optimizer steps of one epoch.
    pub steps_per_epoch: u64,
    /// Optimizer steps of the run.
    pub steps: u64,
    /// The batches of each task.
    pub batches: Vec<BatchOf>,
    /// How those of a loss over a whole batch are computed, a sentence each.
    pub computed: Vec<String>,
    /// By task, what an episode is made of.
    pub episodes: Vec<(String, episodes::Shape)>,
    /// What epochs take of training examples, where classes are made equally frequent.
    pub balance: Vec<BalanceOf>,
    /// Options of heads that the training examples gave.
    pub from_data: Vec<FromData>,
    /// The files that are read.
    pub files: Vec<DataFile>,
    /// What is watched.
    pub watched: Vec<Watched>,
    /// Bytes that the optimizer keeps from step to step.
    pub optimizer_bytes: usize,
    /// Threads that take micro-batches.
    pub threads: usize,
}

/// What an epoch takes of a task's training examples, where classes are made equally frequent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BalanceOf {
    /// The task.
    pub task: String,
    /// Classes.
    pub classes: usize,
    /// Examples of each in an epoch.
    pub each: usize,
    /// Examples of an epoch.
    pub examples: usize,
}

impl BalanceOf {
    /// As a person reads it.
    pub fn to_text(&self) -> String {
        let (task, each, examples) = (shortened(&self.task, NAME), count(self.each), count(self.examples));
        format!("{task}: each of {} classes {each} times an epoch: {examples} examples", self.classes)
    }
}

/// A file of examples, or the part of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DataFile {
    /// The task.
    pub task: String,
    /// What they are for: `train`, `validation` or `test`.
    pub part: &'static str,
    /// The file.
    pub path: PathBuf,
    /// How many they are.
    pub examples: usize,
}

/// What of a task is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Watched {
    /// The task.
    pub task: String,
    /// The metric.
    pub metric: String,
    /// Validation examples.
    pub examples: usize,
    /// Why this metric: half a sentence.
    pub why: String,
}
