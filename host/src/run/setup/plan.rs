//! The plan: what a run will do, said before the first step.

use serde::Serialize;

use super::from_data::FromData;
use super::memory::{self, Load, Memory};
use super::rates::{self, Rates};
use super::schedule::Schedule;
pub use super::schedule::{BalanceOf, DataFile, Watched};
use crate::Result;
use crate::adapted::{AdaptedModel, ModelParameter, Owner, PatternMatch};
use crate::data::{Dataset, Survey, episodes};
use crate::report::numbers::{count, duration};
use crate::report::table::Table;
use crate::report::text::{NAME, shortened};

/// What a run will do.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Hugging Face's `model_type`.
    pub model: String,
    /// How features of whole examples are made, and who says so; `None` where no head reads them.
    pub pooling: Option<String>,
    /// What each pattern of each strategy matched.
    pub matches: Vec<PatternMatch>,
    /// Parameters that train, by who declared them.
    pub trainable: Vec<Share>,
    /// Elements of parameters that train.
    pub trainable_parameters: usize,
    /// Elements of all parameters.
    pub total_parameters: usize,
    /// Those of them that the run file has quantised.
    #[serde(skip_serializing_if = "is_zero")]
    pub quantized_parameters: usize,
    /// Training examples of all tasks.
    pub examples: usize,
    /// Tokens (or patches) of all training examples.
    pub tokens: usize,
    /// Those of them that a language model learns; 0 for other heads.
    #[serde(skip_serializing_if = "is_zero")]
    pub learned_tokens: usize,
    /// Texts cut to the longest length.
    pub truncated: usize,
    /// Words that are cut off with that, where texts come as words.
    pub cut_words: usize,
    /// What is in the data, by task, where that was looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<Survey>,
    /// Sentences about what was recognised in the data's files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// By task, what an episode is made of, where a head learns by episodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub episodes: Vec<(String, episodes::Shape)>,
    /// How batches are computed whose loss is one of the whole batch, a sentence for each task.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub batches: Vec<String>,
    /// By task, what an epoch takes of the training examples, where classes are made equally frequent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub balance: Vec<BalanceOf>,
    /// The files that are read, with their examples.
    pub files: Vec<DataFile>,
    /// What is watched on validation examples, by which the best model is kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub watched: Vec<Watched>,
    /// Options of heads that the training examples gave.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from_data: Vec<FromData>,
    /// Learning rates over the run: by stream, where there are several, or schedules of their own; where rates change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rates: Vec<Rates>,
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
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

impl Plan {
    /// The plan of a run whose strategies and heads have attached, that trains on some data and evaluates on others.
    ///
    /// # Errors
    /// Examples that cannot be read.
    pub fn new(model: &AdaptedModel, data: &[&Dataset], evaluated: &[&Dataset], schedule: &Schedule) -> Result<Self> {
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
        let &Schedule { ref batches, optimizer_bytes, threads, .. } = schedule;
        let load = Load { batches, optimizer_bytes, threads };
        let trainable_parameters = trainable.iter().map(|share| share.elements).sum();
        let elements = |of: &dyn Fn(&ModelParameter) -> bool| -> usize {
            model.parameters.iter().filter(|p| of(p)).map(|p| p.parameter.elem_count()).sum()
        };
        Ok(Self {
            model: info.model_type.clone(),
            pooling: schedule.pooling.clone(),
            matches: model.matches.clone(),
            memory: memory::estimate(model, data, evaluated, &load)?,
            trainable,
            trainable_parameters,
            total_parameters: elements(&|_| true),
            quantized_parameters: elements(&|p| p.quantized),
            examples: sum(Dataset::len),
            tokens: sum(Dataset::total_tokens),
            learned_tokens: sum(Dataset::target_tokens),
            truncated: sum(Dataset::truncated),
            cut_words: sum(Dataset::cut_words),
            notes: Vec::new(),
            data: Vec::new(),
            episodes: schedule.episodes.clone(),
            batches: schedule.computed.clone(),
            balance: schedule.balance.clone(),
            files: schedule.files.clone(),
            watched: schedule.watched.clone(),
            from_data: schedule.from_data.clone(),
            rates: schedule.rates.clone(),
            steps_per_epoch: schedule.steps_per_epoch,
            steps: schedule.steps,
            estimate: None,
        })
    }

    /// What in the data is likely to be a mistake, a line each, where that was looked at: the first few, as a run says them.
    pub fn suspicions(&self) -> String {
        const FEW: usize = 3;
        let all: String = self.data.iter().map(Survey::suspicions).collect();
        let said: String = all.split_inclusive('\n').take(FEW).collect();
        match all.lines().count().saturating_sub(FEW) {
            0 => said,
            more => format!("{said}and {more} more, which fthost data says\n"),
        }
    }

    /// What it trains on: `8 examples, 64 tokens, 1 text cut`.
    pub fn data_text(&self) -> String {
        let one = |number: usize, what: &str| match number {
            0 => String::new(),
            1 => format!(", 1 {what} cut"),
            number => format!(", {} {what}s cut", count(number)),
        };
        let cut = one(self.truncated, "text") + &one(self.cut_words, "word");
        let learned = match self.learned_tokens {
            0 => String::new(),
            tokens => format!(", {} of them learned", count(tokens)),
        };
        format!("{} examples, {} tokens{learned}{cut}", count(self.examples), count(self.tokens))
    }

    /// The plan as a person reads it.
    pub fn to_text(&self) -> String {
        let mut rows = Table::new();
        let quantized = match self.quantized_parameters {
            0 => String::new(),
            some => format!(", {} of them quantised", count(some)),
        };
        rows.row(["model", &format!("{}, {} parameters{quantized}", self.model, count(self.total_parameters))]);
        if let Some(pooling) = &self.pooling {
            rows.row(["features", pooling]);
        }
        let share = 100.0 * self.trainable_parameters as f64 / self.total_parameters.max(1) as f64;
        rows.row(["trains", &format!("{} parameters ({share:.3} %)", count(self.trainable_parameters))]);
        for part in &self.trainable {
            let owner = shortened(&part.owner, NAME);
            rows.row(["", &format!("{owner}: {} in {} tensors", count(part.elements), part.tensors)]);
        }
        for found in &self.matches {
            let pattern = shortened(&found.pattern, 2 * NAME);
            let stream = found.stream.as_ref().map_or(String::new(), |stream| format!(" in {stream}"));
            rows.row(["", &format!("pattern {pattern:?} matched {} places{stream}", found.matched)]);
        }
        rows.row(["data", &self.data_text()]);
        self.notes.iter().for_each(|note| rows.row(["", note]));
        for (task, shape) in &self.episodes {
            let episodes::Shape { ways, shots, queries } = shape;
            let made =
                format!("{ways} classes of {shots} support examples and {queries} queries: {} examples", shape.size());
            rows.row(["episodes", &format!("{}: {made}; train.batch_size has no say", shortened(task, NAME))]);
        }
        self.batches.iter().for_each(|batch| rows.row(["batches", batch]));
        for found in &self.balance {
            rows.row(["balance", &found.to_text()]);
        }
        for Watched { task, metric, examples, why } in &self.watched {
            let of = if self.watched.len() > 1 { format!("{}: ", shortened(task, NAME)) } else { String::new() };
            rows.row(["watches", &format!("{of}{metric} on {} validation examples: {why}", count(*examples))]);
        }
        for found in &self.from_data {
            rows.row(["options", &found.to_text()]);
        }
        rows.row(["steps", &format!("{} ({} an epoch)", self.steps, self.steps_per_epoch)]);
        for (i, line) in rates::lines(&self.rates).iter().enumerate() {
            rows.row([if i == 0 { "rates" } else { "" }, line]);
        }
        // A plan measures time once strategies have heard that training begins; a run says its own before.
        if self.rates.len() > 1 && self.estimate.is_none() {
            rows.row(["", "times the factors that strategies set as training begins: fthost plan has them"]);
        }
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
