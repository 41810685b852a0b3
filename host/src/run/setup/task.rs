//! A task of a run: its head and its examples.

use std::path::Path;

use fthost_plugin_api::{HeadSpec, PredictionKind, TargetKind};

use super::{methods, model as base};
use crate::Result;
use crate::adapted::AdaptedModel;
use crate::data::{self, Dataset, Episodes, Part, Sampler, Shuffled, Tokenizer};
use crate::plugin::{HeadInstance, Library};
use crate::report::entities::{self, Tags};
use crate::report::metrics;
use crate::run::file::{RunFile, TaskTable, TrainTable, Validation};
use crate::run::pass::episode_shape;

/// A task with its data and its head.
pub struct Task {
    /// Its name in the run file.
    pub name: String,
    /// Its head.
    pub head: HeadInstance,
    /// What the head declared.
    pub spec: HeadSpec,
    /// The training examples.
    pub train: Dataset,
    /// What it draws from them, where its head learns by episodes.
    pub episodes: Option<Episodes>,
    /// The examples that are watched.
    pub validation: Option<Dataset>,
    /// The examples that the result is measured on.
    pub test: Option<Dataset>,
    /// The metric on the validation examples that counts for the best model; `None` where another task's does.
    pub monitor: Option<String>,
    /// What its loss is multiplied with.
    pub weight: f64,
}

/// A task's examples, before a head says what their labels mean.
pub(in crate::run) struct TaskData {
    pub(in crate::run) train: Dataset,
    validation: Option<Dataset>,
    test: Option<Dataset>,
}

impl TaskData {
    /// Reads them by the model's tokenizer, cut to what fits beside the prompts of the strategies that have attached.
    pub(in crate::run) fn load(
        file: &RunFile,
        table: &TaskTable,
        model: &AdaptedModel,
        tokenizer: Option<&mut Tokenizer>,
    ) -> Result<Self> {
        let tokenizer = match tokenizer {
            Some(tokenizer) => {
                base::fit(tokenizer, file, table, model)?;
                Some(&*tokenizer)
            }
            None => None,
        };
        let load = |path: &Path, part: Part, labels: Option<&[String]>| {
            data::load(&source(table, model, path, part, labels), tokenizer)
        };
        let train = load(&table.train, Part::Train, None)?;
        let held_out = |path: &Path| load(path, Part::Test, Some(train.labels()));
        let validation = match &table.validation {
            Some(Validation::File(path)) => Some(held_out(path)?),
            Some(Validation::Share(_)) | None => None,
        };
        let test = table.test.as_deref().map(held_out).transpose()?;
        Ok(Self { train, validation, test })
    }
}

fn source<'a>(
    table: &'a TaskTable,
    model: &'a AdaptedModel,
    path: &'a Path,
    part: Part,
    labels: Option<&'a [String]>,
) -> data::Source<'a> {
    let (columns, header) = (&table.columns, table.header);
    data::Source {
        path,
        part,
        columns,
        header,
        labels,
        modality: model.model.info().plain().modality,
        device: &model.device,
    }
}

impl Task {
    /// Attaches the task's head and tells the examples what their labels mean.
    pub(in crate::run) fn set_up(
        file: &RunFile,
        index: usize,
        data: TaskData,
        library: &mut Library,
        model: &mut AdaptedModel,
    ) -> Result<Self> {
        let TaskData { mut train, mut validation, mut test } = data;
        let table = &file.tasks[index];
        let share = match table.validation {
            Some(Validation::Share(share)) => Some(share),
            Some(Validation::File(_)) | None => None,
        };
        let split = |train: &Dataset| Some(train.clone().split(share?, file.train.seed));
        // A head weighs classes by what it trains on. Before it attaches nobody knows whether labels are classes.
        let by_class = split(&train);
        let trained_on = by_class.as_ref().and_then(|split| split.as_ref().ok()).map_or(&train, |(rest, _)| rest);
        let (labels, counts) = (train.labels().to_vec(), trained_on.class_counts());
        let (head, spec) = methods::attach_head(file, index, library, model, labels, counts)?;
        for data in std::iter::once(&mut train).chain(&mut validation).chain(&mut test) {
            data.set_targets(spec.targets)?;
        }
        let split = if spec.targets == TargetKind::Value { split(&train) } else { by_class };
        if let Some((rest, held_out)) = split.transpose()? {
            (train, validation) = (rest, Some(held_out));
        }
        let monitor = monitored(file, &table.name, &spec, train.labels())?;
        let episodes = episode_shape(&spec).map(|shape| Episodes::new(file.train.seed, &train, shape)).transpose();
        let episodes = episodes.map_err(|error| file.at_method(&table.head, error))?;
        let (name, weight) = (table.name.clone(), table.weight);
        Ok(Self { name, head, spec, train, episodes, validation, test, monitor, weight })
    }

    /// Its batches: the examples of `together` passes, forward and backward, each.
    pub(in crate::run) fn sampler(&self, settings: &TrainTable, together: usize) -> Sampler {
        match &self.episodes {
            Some(episodes) => Sampler::Episodes(episodes.clone(), together),
            None => {
                let examples = self.pass_size(settings) * together;
                Sampler::Shuffled(Shuffled::new(settings.seed, self.train.len(), examples))
            }
        }
    }

    /// Examples of one pass, forward and backward: a batch, or an episode.
    pub(in crate::run) fn pass_size(&self, settings: &TrainTable) -> usize {
        self.episodes.as_ref().map_or(settings.batch_size, |episodes| episodes.shape.size())
    }
}

/// The metric of a task that is watched, if it is one of those that count.
fn monitored(file: &RunFile, task: &str, spec: &HeadSpec, labels: &[String]) -> Result<Option<String>> {
    let Some(wanted) = &file.train.monitor else {
        let metric = match spec.predictions {
            // What joint tasks have in common is a loss.
            PredictionKind::Classes if !file.joint() => "accuracy",
            PredictionKind::Classes | PredictionKind::Values => "loss",
        };
        return Ok(Some(metric.into()));
    };
    let (of_task, metric) = match wanted.split_once('.') {
        Some((name, metric)) => (Some(name), metric),
        None => (None, wanted.as_str()),
    };
    let mut known = metrics::names(spec.predictions, labels.len());
    if spec.targets == TargetKind::TokenClass && Tags::of(labels).is_some() {
        known.extend(entities::NAMES.map(str::to_owned));
    }
    let help = match of_task {
        Some(name) if name != task && file.tasks.iter().any(|table| table.name == name) => return Ok(None),
        Some(name) if name != task => {
            let names: Vec<&str> = file.tasks.iter().map(|table| table.name.as_str()).collect();
            format!("there is no task {name:?}; the tasks are {}", names.join(", "))
        }
        _ if known.iter().any(|name| name == metric) => return Ok(Some(metric.to_owned())),
        _ => format!("the metrics of the task {task} are {}", known.join(", ")),
    };
    Err(file.error_at("train.monitor", format!("there is no metric {wanted:?}"), "unknown metric", Some(help)))
}
