//! Batches with what is seen of their examples: pictures are read, decoded and changed by threads, ahead of the step.

use std::sync::Arc;
use std::time::Duration;

use fthost_images::{Loader, Sample};
use fthost_models::{Modality, Stream};

use crate::Result;
use crate::adapted::AdaptedModel;
use crate::adapted::kept::Kept;
use crate::data::{Dataset, Draws, Shown};
use crate::run::file::TrainTable;
use crate::run::setup::phase::Batch;
use crate::run::setup::task::{Passes, Task};

/// Steps that are made ready ahead.
const AHEAD: usize = 2;

/// The examples that an optimizer step takes of a task.
#[derive(Clone, Debug)]
pub struct Shows {
    /// Which they are.
    pub batch: Batch,
    /// What is seen of them, pass by pass.
    pub passes: Vec<Shown>,
}

/// What a step's examples are made of.
struct Making {
    /// The training examples of each task, and how a step's are split into passes.
    tasks: Vec<(Dataset, Passes)>,
    draws: Draws,
    /// What is kept of examples: those are not looked at.
    kept: Option<Arc<Kept>>,
    /// The stream that takes pictures.
    stream: usize,
}

impl Making {
    fn new(tasks: &[Task], model: &AdaptedModel, settings: &TrainTable) -> Self {
        let tasks = tasks.iter().map(|task| (task.train.clone(), task.passes(settings))).collect();
        let takes = |stream: &Stream| matches!(stream.modality, Modality::Images { .. });
        let stream = model.model.info().streams.iter().position(takes).unwrap_or_default();
        Self { tasks, draws: Draws::new(settings.seed), kept: model.kept.clone(), stream }
    }

    /// The example at a place of a step.
    fn sample(&self, of: &Place) -> Result<Option<Sample>> {
        let data = &self.tasks[of.task].0;
        match (&self.kept, data.key(of.row)) {
            (Some(kept), Some(example)) if kept.has(example, self.stream) => Ok(None),
            _ => data.sample(of.row, &self.draws, of.step, of.place),
        }
    }

    /// A task's examples of a step, of which all have been looked at.
    fn gather(&self, step: u64, batch: Batch, mut samples: Vec<Option<Sample>>) -> Result<Shows> {
        let (data, split) = &self.tasks[batch.task];
        let (mut passes, mut first) = (Vec::new(), 0);
        for rows in split.of(data, &batch.rows)? {
            let rest = samples.split_off(samples.len().min(rows.len()));
            passes.push(data.gather(rows, samples, &self.draws, step, first)?);
            samples = rest;
            first += rows.len() as u64;
        }
        Ok(Shows { batch, passes })
    }
}

/// An example of a step to come.
struct Place {
    task: usize,
    row: u32,
    step: u64,
    /// Among the step's examples of the task.
    place: u64,
}

impl Place {
    /// Those of a step.
    fn all(step: u64, batches: &[Batch]) -> Vec<Self> {
        let of = |batch: &Batch| {
            let task = batch.task;
            let rows = (0..).zip(batch.rows.clone());
            rows.map(move |(place, row)| Self { task, row, step, place })
        };
        batches.iter().flat_map(of).collect()
    }
}

/// The steps of a run, one after the other, each with what is seen of its examples.
pub struct Ahead<B: Iterator<Item = Vec<Batch>>> {
    steps: B,
    step: u64,
    making: Arc<Making>,
    /// Where examples take work.
    loader: Option<Loader<Result<Option<Sample>>>>,
    /// How much of the waiting was told.
    told: Duration,
}

impl<B: Iterator<Item = Vec<Batch>> + Clone + Send + 'static> Ahead<B> {
    /// Makes these steps ready, the first of which is step `step`.
    pub fn new(steps: B, step: u64, (tasks, model): (&[Task], &AdaptedModel), settings: &TrainTable) -> Self {
        let making = Arc::new(Making::new(tasks, model, settings));
        let takes_work = tasks.iter().any(|task| task.train.takes_work());
        let loader = takes_work.then(|| {
            let places = (step..).zip(steps.clone()).map(|(step, batches)| Place::all(step, &batches));
            let work = Arc::clone(&making);
            Loader::new(places, move |of| work.sample(of), rayon::current_num_threads(), AHEAD)
        });
        Self { steps, step, making, loader, told: Duration::ZERO }
    }
}

impl<B: Iterator<Item = Vec<Batch>>> Ahead<B> {
    /// How long the steps since this was last asked have waited for their examples.
    pub fn waited(&mut self) -> Duration {
        let all = self.loader.as_ref().map_or(Duration::ZERO, Loader::waited);
        all - std::mem::replace(&mut self.told, all)
    }
}

impl<B: Iterator<Item = Vec<Batch>>> Iterator for Ahead<B> {
    type Item = Result<Vec<Shows>>;

    fn next(&mut self) -> Option<Self::Item> {
        let (batches, step) = (self.steps.next()?, self.step);
        self.step += 1;
        let samples = match &mut self.loader {
            Some(loader) => loader.next()?,
            None => Place::all(step, &batches).iter().map(|of| self.making.sample(of)).collect(),
        };
        let gather = |mut samples: Vec<Option<Sample>>| {
            let one = |batch: Batch| {
                let rest = samples.split_off(samples.len().min(batch.rows.len()));
                self.making.gather(step, batch, std::mem::replace(&mut samples, rest))
            };
            batches.into_iter().map(one).collect()
        };
        Some(samples.into_iter().collect::<Result<_>>().and_then(gather))
    }
}
