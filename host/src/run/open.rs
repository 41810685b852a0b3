//! A run that has ended, opened again, or a folder that PEFT saved: its model evaluates, predicts, and is merged into a plain folder.

mod peft;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fthost_autograd::Precision;
use fthost_plugin_api::HeadSpec;
use serde::Deserialize;

use super::evaluate::{Evaluation, evaluate};
use super::file::{ModelInit, Override, RunFile};
use super::folder::RunFolder;
use super::result::{PluginUsed, TaskResult};
use super::snapshot::{self, Header};
use super::step::Pass;
use super::{DeviceChoice, checkpoint, export, setup};
use crate::adapted::AdaptedModel;
use crate::data::{self, Dataset, Part, Tokenizer};
use crate::plugin::{HeadInstance, StrategyInstance};
use crate::report::progress::EvaluationProgress;
use crate::{Error, Result};

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
    file: RunFile,
    model: AdaptedModel,
    /// Kept because their hooks stand in the model.
    _strategies: Vec<StrategyInstance>,
    head: HeadInstance,
    spec: HeadSpec,
    labels: Vec<String>,
    /// Whether data may name classes by their numbers instead.
    numbered: bool,
    precision: Precision,
    tokenizer: Option<Tokenizer>,
}

impl TrainedModel {
    /// Opens a run folder, or one that PEFT saved. `plugins` are used instead of those that the run used, where any is named;
    /// `overrides` change its run file, and paths in them start from the working directory.
    ///
    /// # Errors
    /// Where the folder is none of a run that has ended and none of PEFT's, or something that it needs is gone.
    pub fn open(folder: &Path, plugins: &[String], overrides: &[Override], device: DeviceChoice) -> Result<Self> {
        if folder.join(peft::CONFIG).is_file() {
            return peft::open(folder, plugins, overrides, device);
        }
        let mut file = RunFile::reopen(&RunFolder::run_file(folder)?, overrides)?;
        let left: Left = read_json(&folder.join("result.json"), folder)?;
        let recorded: Vec<String> =
            left.plugins.into_iter().map(|plugin| plugin.path).filter(|path| Path::new(path).is_file()).collect();
        let plugins = if plugins.is_empty() { recorded.as_slice() } else { plugins };
        let whole = folder.join(export::MODEL);
        if whole.is_dir() {
            file.model.path = whole;
            file.model.init = ModelInit::Pretrained;
        }
        let (file, mut library) = setup::open_methods(file, plugins)?;
        let mut model = setup::load_model(&file, device.open()?)?;
        let mut strategies = setup::attach_strategies(&file, &mut library, &mut model)?;
        let task = &file.tasks[0];
        let LeftTask { labels, class_counts } =
            left.tasks.into_iter().find(|(name, _)| *name == task.name).map_or_else(
                || Err(Error::usage(format!("{} has no result of the task {}", folder.display(), task.name))),
                |(_, task)| Ok(task),
            )?;
        let (mut head, spec) = setup::attach_head(&file, 0, &mut library, &mut model, labels.clone(), class_counts)?;

        let path = folder.join(snapshot::FINAL);
        let found = checkpoint::open::<Header>(&path)?;
        snapshot::restore_parameters(&model, &found.tensors)?;
        for (i, strategy) in strategies.iter_mut().enumerate() {
            found.header.restore_plugin(&snapshot::strategy_place(i), strategy, &found.tensors)?;
        }
        found.header.restore_plugin(&snapshot::head_place(&task.name), &mut head, &found.tensors)?;
        let tokenizer = setup::tokenizer(&file, task, &model)?;
        let precision = file.train.precision.into();
        Ok(Self { file, model, _strategies: strategies, head, spec, labels, numbered: false, precision, tokenizer })
    }

    /// The run file that it was trained by.
    pub fn file(&self) -> &RunFile {
        &self.file
    }

    /// Evaluates on a file of labelled examples. Gives the task's name and its result.
    ///
    /// # Errors
    /// Where the file cannot be read, or has a label that training never saw.
    pub fn evaluate(&self, path: &Path, shown: bool) -> Result<(String, TaskResult)> {
        let task = &self.file.tasks[0];
        let source = data::Source {
            path,
            part: Part::Test,
            columns: &task.columns,
            labels: Some(&self.labels),
            modality: self.model.model.info().modality,
            device: &self.model.device,
        };
        let mut data = data::load(&source, self.tokenizer.as_ref())?;
        if self.numbered {
            data.set_named_or_numbered_targets(self.spec.targets)?;
        } else {
            data.set_targets(self.spec.targets)?;
        }
        let progress = EvaluationProgress::new(shown, "evaluating", data.len());
        let evaluation: Evaluation = evaluate(&self.pass(&data), &|examples| progress.advance(examples))?;
        Ok((task.name.clone(), TaskResult::new(data.labels(), Vec::new(), BTreeMap::new(), None, Some(&evaluation))))
    }

    fn pass<'a>(&'a self, data: &'a Dataset) -> Pass<'a> {
        Pass { model: &self.model, head: &self.head, spec: &self.spec, data, precision: self.precision }
    }

    /// Folds what the strategies added into the weights, and writes a plain Hugging Face folder, which must not exist.
    ///
    /// # Errors
    /// Where a method cannot be folded into weights, or the folder exists.
    pub fn merge(mut self, folder: &Path) -> Result<PathBuf> {
        if folder.exists() {
            return Err(Error::usage(format!("{} exists already", folder.display()))
                .with_help("name a folder that does not exist: nothing is overwritten"));
        }
        self.model.model.merge_hooks().map_err(|error| {
            Error::usage(format!("this run cannot be merged: {}", crate::error::plain(&error)))
                .with_help("its adapter works as it is: fthost eval and fthost predict read the run folder")
        })?;
        export::write_model(&self.model, &self.labels, folder)?;
        if let Some(tokenizer) = &self.tokenizer {
            super::copy_beside(tokenizer.path(), folder)?;
        }
        Ok(folder.to_owned())
    }
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path, folder: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::usage(format!("{} holds no run that has ended: {}: {error}", folder.display(), path.display()))
            .with_help(format!("let it end: fthost --resume --out {}", folder.display()))
    })?;
    serde_json::from_str(&text).map_err(|error| Error::usage(format!("{} does not read: {error}", path.display())))
}
