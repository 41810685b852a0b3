//! A run that has ended, opened again, or a folder that PEFT or Transformers saved: its model evaluates, predicts, and is merged into a
//! plain folder.

mod few_shot;
mod head;
mod peft;
mod whole;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use fthost_autograd::Precision;
use fthost_plugin_api::{HeadSpec, TargetKind};
use serde::Deserialize;

use super::evaluate::{Evaluation, evaluate, predict, predict_words};
use super::export::Exported;
use super::file::{ModelInit, Override, RunFile};
use super::folder::RunFolder;
use super::plain::Trained;
use super::predict::{Format, WordWriter, Writer};
use super::result::{self, PluginUsed, TaskResult};
use super::snapshot::{self, Header};
use super::step::Pass;
use super::{DeviceChoice, checkpoint, export, inputs, setup};
use crate::adapted::AdaptedModel;
use crate::data::{self, Columns, Dataset, Part, Tokenizer};
use crate::plugin::{HeadInstance, StrategyInstance};
use crate::report::progress::EvaluationProgress;
use crate::{Error, Result};

pub use few_shot::FewShot;

/// The part of `result.json` that is needed.
#[derive(Deserialize)]
struct Left {
    plugins: Vec<PluginUsed>,
    tasks: BTreeMap<String, LeftTask>,
}

#[derive(Deserialize)]
struct LeftTask {
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default)]
    class_counts: Vec<u64>,
}

/// The model of a run that has ended, as it was saved.
pub struct TrainedModel {
    model: AdaptedModel,
    /// Kept because their hooks stand in the model.
    _strategies: Vec<StrategyInstance>,
    tasks: Vec<TrainedTask>,
    precision: Precision,
    /// The folder that the model was loaded from; none for the embedded one.
    base: Option<PathBuf>,
}

/// A task of a run that has ended.
struct TrainedTask {
    name: String,
    columns: Columns,
    head: HeadInstance,
    spec: HeadSpec,
    labels: Vec<String>,
    /// Whether data may name classes by their numbers instead.
    numbered: bool,
    tokenizer: Option<Tokenizer>,
}

impl TrainedModel {
    /// Opens a run folder, or one that PEFT or Transformers saved. `plugins` are used instead of those that the run used, where any is named;
    /// `overrides` change its run file, and paths in them start from the working directory.
    ///
    /// # Errors
    /// Where the folder is none of these, the run has not ended, or something that it needs is gone.
    pub fn open(folder: &Path, plugins: &[String], overrides: &[Override], device: DeviceChoice) -> Result<Self> {
        if folder.join(peft::CONFIG).is_file() {
            return peft::open(folder, plugins, overrides, device);
        }
        if folder.join(whole::CONFIG).is_file() && RunFolder::run_file(folder).is_err() {
            return whole::open(folder, plugins, overrides, device);
        }
        let mut file = RunFile::reopen(&RunFolder::run_file(folder)?, overrides)?;
        let mut left: Left = read_json(&folder.join(result::FILE), folder)?;
        let recorded = left.plugins.iter().map(|plugin| plugin.path.clone());
        let recorded: Vec<String> = recorded.filter(|path| Path::new(path).is_file()).collect();
        let plugins = if plugins.is_empty() { recorded.as_slice() } else { plugins };
        let whole = folder.join(export::MODEL);
        if whole.is_dir() {
            file.model.path = whole;
            file.model.init = ModelInit::Pretrained;
        }
        let (file, mut library) = setup::open_methods(file, plugins)?;
        let mut model = setup::load_model(&file, device.open()?)?;
        let mut strategies = setup::attach_strategies(&file, &mut library, &mut model)?;
        let mut tasks = Vec::new();
        for (i, task) in file.tasks.iter().enumerate() {
            let LeftTask { labels, class_counts } = left
                .tasks
                .remove(&task.name)
                .ok_or_else(|| Error::usage(format!("{} has no result of the task {}", folder.display(), task.name)))?;
            let (head, spec) = setup::attach_head(&file, i, &mut library, &mut model, labels.clone(), class_counts)?;
            let tokenizer = setup::tokenizer(&file, task, &model)?;
            tasks.push(TrainedTask {
                name: task.name.clone(),
                columns: task.columns.clone(),
                head,
                spec,
                labels,
                numbered: false,
                tokenizer,
            });
        }

        let path = folder.join(snapshot::FINAL);
        let found = checkpoint::open::<Header>(&path).map_err(|error| error.with_help(written_again(folder)))?;
        snapshot::restore_parameters(&model, &found.tensors)?;
        for (i, strategy) in strategies.iter_mut().enumerate() {
            found.header.restore_plugin(&snapshot::strategy_place(i), strategy, &found.tensors)?;
        }
        for task in &mut tasks {
            found.header.restore_plugin(&snapshot::head_place(&task.name), &mut task.head, &found.tensors)?;
        }
        let (precision, base) = (file.train.precision.into(), base_of(&file));
        Ok(Self { model, _strategies: strategies, tasks, precision, base })
    }

    /// Evaluates on a file of labelled examples of a task; its name may be left out where there is one. Gives the task's name and
    /// its result.
    ///
    /// # Errors
    /// Where there is no such task, or the file cannot be read, or has a label that training never saw.
    pub fn evaluate(&self, task: Option<&str>, path: &Path, shown: bool) -> Result<(String, TaskResult)> {
        let task = self.task(task)?;
        let mut data = data::load(&self.source(task, path), task.tokenizer.as_ref())?;
        if task.numbered {
            data.set_named_or_numbered_targets(task.spec.targets)?;
        } else {
            data.set_targets(task.spec.targets)?;
        }
        let progress = EvaluationProgress::new(shown, "evaluating", data.len());
        let evaluation: Evaluation = evaluate(&self.pass(task, &data), &|examples| progress.advance(examples))?;
        Ok((task.name.clone(), TaskResult::new(data.labels(), Vec::new(), BTreeMap::new(), None, Some(&evaluation))))
    }

    /// Writes what the model predicts for each example of a file, labelled or not, while it reads it.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate), and where `out` takes no more: what stands before is written.
    pub fn predict(&self, task: Option<&str>, path: &Path, format: Format, out: &mut dyn Write) -> Result<()> {
        let task = self.task(task)?;
        let source = self.source(task, path);
        let blocks = data::unlabelled(&source, task.tokenizer.as_ref())?;
        if task.spec.targets == TargetKind::TokenClass {
            return self.predict_words(task, blocks, WordWriter::new(out, format, &task.labels)?);
        }
        let mut writer = Writer::new(out, format, task.spec.predictions, &task.labels)?;
        let mut number = 0;
        for block in blocks {
            let block = block?;
            block.check_kind(task.spec.targets)?;
            for (row, prediction) in (0..).zip(predict(&self.pass(task, &block))?) {
                number += 1;
                writer.write(block.place(row)?.1.unwrap_or(number), &prediction)?;
            }
        }
        writer.finish()
    }

    /// Writes the classes of the words of each example.
    fn predict_words(
        &self,
        task: &TrainedTask,
        blocks: impl Iterator<Item = Result<Dataset>>,
        mut writer: WordWriter<'_>,
    ) -> Result<()> {
        for block in blocks {
            let block = block?;
            block.check_kind(task.spec.targets)?;
            for (row, classes) in (0..).zip(predict_words(&self.pass(task, &block))?) {
                writer.write(block.place(row)?.1, &classes)?;
            }
        }
        writer.finish()
    }

    fn task(&self, name: Option<&str>) -> Result<&TrainedTask> {
        self.place(name).map(|place| &self.tasks[place])
    }

    /// The place of a task; its name may be left out where there is one.
    fn place(&self, name: Option<&str>) -> Result<usize> {
        let found = match (name, self.tasks.len()) {
            (None, 1) => Some(0),
            (Some(name), _) => self.tasks.iter().position(|task| task.name == name),
            (None, _) => None,
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = self.tasks.iter().map(|task| task.name.as_str()).collect();
            let message = match name {
                Some(name) => format!("the run has no task {name:?}"),
                None => format!("the run has {} tasks", names.len()),
            };
            Error::usage(message).with_help(format!("say which by --task: {}", names.join(", ")))
        })
    }

    /// A file for a task.
    fn source<'a>(&'a self, task: &'a TrainedTask, path: &'a Path) -> data::Source<'a> {
        data::Source {
            path,
            part: Part::Test,
            columns: &task.columns,
            labels: Some(&task.labels),
            modality: self.model.model.info().modality,
            device: &self.model.device,
        }
    }

    fn pass<'a>(&'a self, task: &'a TrainedTask, data: &'a Dataset) -> Pass<'a> {
        Pass { model: &self.model, head: &task.head, spec: &task.spec, data, precision: self.precision }
    }

    /// Folds what the strategies added into the weights, and writes a plain Hugging Face folder, which must not exist.
    ///
    /// # Errors
    /// Where a method cannot be folded into weights, or the folder exists.
    pub fn merge(mut self, folder: &Path) -> Result<Exported> {
        if folder.exists() {
            return Err(Error::usage(format!("{} exists already", folder.display()))
                .with_help("name a folder that does not exist: nothing is overwritten"));
        }
        self.model.model.merge_hooks().map_err(|error| {
            Error::usage(format!("this run cannot be merged: {}", crate::error::plain(&error)))
                .with_help("its adapter works as it is: fthost eval and fthost predict read the run folder")
        })?;
        self.write_merged(folder).map_err(|error| {
            // Half a folder looks like a whole one, and would be in the way. Why it is half says more than that it stays.
            let _ = std::fs::remove_dir_all(folder);
            let folder = folder.display();
            error.with_help(format!("nothing is left of {folder}; name a folder on a disk with more space"))
        })
    }

    fn write_merged(&self, folder: &Path) -> Result<Exported> {
        let heads =
            self.tasks.iter().map(|TrainedTask { name, labels, head, spec, .. }| Trained { name, labels, head, spec });
        let saved = export::write_model(&self.model, &heads.collect::<Vec<_>>(), folder)?;
        if let Some(base) = &self.base {
            inputs::copy(base, folder, self.model.model.info())?;
        }
        Ok(saved)
    }
}

/// The folder of the model that a run file names.
fn base_of(file: &RunFile) -> Option<PathBuf> {
    (!file.model.is_demo()).then(|| file.model.path.clone())
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path, folder: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::usage(format!("{} holds no run that has ended: {}: {error}", folder.display(), path.display()))
            .with_help(format!("let it end: fthost --resume --out {}", folder.display()))
    })?;
    serde_json::from_str(&text).map_err(|error| {
        Error::usage(format!("{} does not read: {error}", path.display())).with_help(written_again(folder))
    })
}

/// What helps where a run's result is damaged.
fn written_again(folder: &Path) -> String {
    format!("its last checkpoint gives the same again: fthost --resume --out {}", folder.display())
}
