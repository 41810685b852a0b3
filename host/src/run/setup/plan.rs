//! The plan: what a run will do, said before the first step.

use std::path::PathBuf;

use fthost_models::{Modality, Stream};
use serde::Serialize;

use crate::adapted::{AdaptedModel, Owner, PatternMatch};
use crate::data::{Dataset, episodes};
use crate::report::numbers::{count, duration};
use crate::report::table::Table;
use crate::report::text::{NAME, shortened};

/// What a run will do.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Hugging Face's `model_type`.
    pub model: String,
    /// What each pattern of each strategy matched.
    pub matches: Vec<PatternMatch>,
    /// Parameters that train, by who declared them.
    pub trainable: Vec<Share>,
    /// Elements of parameters that train.
    pub trainable_parameters: usize,
    /// Elements of all parameters.
    pub total_parameters: usize,
    /// Training examples of all tasks.
    pub examples: usize,
    /// Tokens (or patches) of all training examples.
    pub tokens: usize,
    /// Texts cut to the longest length.
    pub truncated: usize,
    /// By task, what an episode is made of, where a head learns by episodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub episodes: Vec<(String, episodes::Shape)>,
    /// The files that are read, with their examples.
    pub files: Vec<DataFile>,
    /// What is watched on validation examples, by which the best model is kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub watched: Vec<Watched>,
    /// Optimizer steps of one epoch.
    pub steps_per_epoch: u64,
    /// Optimizer steps of the run.
    pub steps: u64,
    /// Estimated peak memory in bytes.
    pub memory: Memory,
    /// Time and memory as a few batches took them, where they were measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
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

/// Who declared parameters that train, and how many elements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    /// The plugin, the task or `base model`.
    pub owner: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of elements.
    pub elements: usize,
}

/// Estimated memory in bytes, by what it is for.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// All parameters, and the forms of the weights that the kernels read.
    pub weights: usize,
    /// Gradients and the optimizer's moments.
    pub training: usize,
    /// What the micro-batches in flight keep for their backward pass.
    pub activations: usize,
    /// Tokenized data, as far as they are not on disk.
    pub data: usize,
}

impl Memory {
    /// The sum.
    pub fn total(&self) -> usize {
        self.weights + self.training + self.activations + self.data
    }
}

/// Time and memory of a run, as a few batches took them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Seconds of the training loop.
    pub train_seconds: f64,
    /// Seconds of the evaluations on test and validation examples.
    pub evaluation_seconds: f64,
    /// Peak resident memory in bytes.
    pub peak_rss_bytes: u64,
    /// Batches that were measured.
    pub batches: usize,
}

/// What the plan needs to know besides the model and the data.
#[derive(Clone, Debug)]
pub struct Schedule {
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
    /// The files that are read.
    pub files: Vec<DataFile>,
    /// What is watched.
    pub watched: Vec<Watched>,
    /// Moments that the optimizer keeps per parameter.
    pub moments: usize,
    /// Micro-batches in flight.
    pub threads: usize,
}

impl Plan {
    /// The plan of a run whose strategies and heads have attached.
    pub fn new(model: &AdaptedModel, data: &[&Dataset], schedule: &Schedule) -> Self {
        let sum = |of: fn(&Dataset) -> usize| data.iter().map(|data| of(data)).sum();
        let info = model.model.info();
        let mut trainable: Vec<Share> = Vec::new();
        for parameter in model.trainable() {
            let owner = match parameter.owner {
                Owner::Base => "base model".to_owned(),
                Owner::Strategy(i) => schedule.strategies.get(i).cloned().unwrap_or_default(),
                Owner::Head(i) => format!("head of {}", schedule.tasks.get(i).cloned().unwrap_or_default()),
            };
            let elements = parameter.parameter.elem_count();
            match trainable.iter_mut().find(|share| share.owner == owner) {
                Some(share) => {
                    share.tensors += 1;
                    share.elements += elements;
                }
                None => trainable.push(Share { owner, tensors: 1, elements }),
            }
        }
        let trainable_parameters = trainable.iter().map(|share| share.elements).sum();
        let total_parameters = model.parameters.iter().map(|p| p.parameter.elem_count()).sum();
        Self {
            model: info.model_type.clone(),
            matches: model.matches.clone(),
            memory: estimate(model, data, schedule, trainable_parameters, total_parameters),
            trainable,
            trainable_parameters,
            total_parameters,
            examples: sum(Dataset::len),
            tokens: sum(Dataset::total_tokens),
            truncated: sum(Dataset::truncated),
            episodes: schedule.episodes.clone(),
            files: schedule.files.clone(),
            watched: schedule.watched.clone(),
            steps_per_epoch: schedule.steps_per_epoch,
            steps: schedule.steps,
            estimate: None,
        }
    }

    /// What it trains on: `8 examples, 64 tokens, 1 text cut`.
    pub fn data_text(&self) -> String {
        let cut = match self.truncated {
            0 => String::new(),
            1 => ", 1 text cut".into(),
            texts => format!(", {} texts cut", count(texts)),
        };
        format!("{} examples, {} tokens{cut}", count(self.examples), count(self.tokens))
    }

    /// The plan as a person reads it.
    pub fn to_text(&self) -> String {
        let mut rows = Table::new();
        rows.row(["model", &format!("{}, {} parameters", self.model, count(self.total_parameters))]);
        let share = 100.0 * self.trainable_parameters as f64 / self.total_parameters.max(1) as f64;
        rows.row(["trains", &format!("{} parameters ({share:.3} %)", count(self.trainable_parameters))]);
        for part in &self.trainable {
            let owner = shortened(&part.owner, NAME);
            rows.row(["", &format!("{owner}: {} in {} tensors", count(part.elements), part.tensors)]);
        }
        for found in &self.matches {
            let pattern = shortened(&found.pattern, 2 * NAME);
            rows.row(["", &format!("pattern {pattern:?} matched {} places", found.matched)]);
        }
        rows.row(["data", &self.data_text()]);
        for (task, shape) in &self.episodes {
            let episodes::Shape { ways, shots, queries } = shape;
            let made =
                format!("{ways} classes of {shots} support examples and {queries} queries: {} examples", shape.size());
            rows.row(["episodes", &format!("{}: {made}; train.batch_size has no say", shortened(task, NAME))]);
        }
        for Watched { task, metric, examples, why } in &self.watched {
            let of = if self.watched.len() > 1 { format!("{}: ", shortened(task, NAME)) } else { String::new() };
            rows.row(["watches", &format!("{of}{metric} on {} validation examples: {why}", count(*examples))]);
        }
        rows.row(["steps", &format!("{} ({} an epoch)", self.steps, self.steps_per_epoch)]);
        match &self.estimate {
            None => rows.row(["memory", &format!("about {} MB", self.memory.total() / 1_000_000)]),
            Some(Estimate { train_seconds, evaluation_seconds, peak_rss_bytes, batches }) => {
                rows.row(["memory", &format!("about {} MB", peak_rss_bytes / 1_000_000)]);
                let step = 1e3 * train_seconds / self.steps.max(1) as f64;
                let (train, evaluation) = (duration(*train_seconds), duration(*evaluation_seconds));
                rows.row(["time", &format!("about {train} ({step:.0} ms a step), and {evaluation} for evaluation")]);
                rows.row(["", &format!("measured on {batches} batches; nothing was trained")]);
            }
        }
        rows.to_text()
    }
}

/// Bytes per parameter for the kernels' own copies of the weights: one form for the forward and one for the backward pass.
const PACKED_FORMS: usize = 2;
/// What a block keeps per token for its backward pass, in widths: keys, values and queries, attention's output, both norms'
/// inputs, and the feed-forward part before and after its activation, four widths each.
const KEPT_WIDTHS: usize = 16;
/// The engine itself: code, thread stacks, scratch of the kernels, tokenizer.
const BASELINE: usize = 60_000_000;

fn estimate(model: &AdaptedModel, data: &[&Dataset], schedule: &Schedule, trainable: usize, total: usize) -> Memory {
    const F32: usize = 4;
    let streams = &model.model.info().streams;
    let embeddings = streams.iter().map(|stream| match (&stream.word_embeddings, stream.modality) {
        (Some(_), Modality::Text { vocabulary, .. }) => vocabulary * stream.width,
        _ => 0,
    });
    let embeddings: usize = embeddings.sum();
    let linear = total.saturating_sub(embeddings);
    let mean_length = |data: &&Dataset| data.total_tokens().div_ceil(data.len().max(1));
    let length = data.iter().map(mean_length).max().unwrap_or_default();
    let tokens = length * schedule.batch_size;
    // Micro-batches in flight hold at most the whole batch.
    let kept = |of: &Stream| of.layers.unwrap_or(1) * (KEPT_WIDTHS * of.width + of.heads.unwrap_or(0) * length);
    let kept: usize = streams.iter().map(kept).sum();
    Memory {
        weights: F32 * (total + PACKED_FORMS * linear),
        training: F32 * trainable * (2 + schedule.moments),
        activations: F32 * tokens * kept * schedule.threads.min(4) / 4 + BASELINE,
        data: data.iter().map(|data| data.in_memory()).sum(),
    }
}
