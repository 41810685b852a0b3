//! A folder that a run has left, opened again.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::model::{TrainedModel, TrainedTask};
use crate::adapted::AdaptedModel;
use crate::plugin::StrategyInstance;
use crate::run::file::{ModelInit, Override, RunFile};
use crate::run::machine::DeviceChoice;
use crate::run::results::calibrated::Calibration;
use crate::run::results::{export, result};
use crate::run::setup::{methods, model as base};
use crate::run::state::checkpoint;
use crate::run::state::folder::RunFolder;
use crate::run::state::identity::PluginUsed;
use crate::run::state::snapshot::{self, Header};
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
    #[serde(default)]
    examples: u64,
    calibration: Option<Calibration>,
}

/// Opens it.
///
/// # Errors
/// Where it is none of a run that has ended, or something that it needs is gone.
pub(super) fn open(
    folder: &Path,
    plugins: &[String],
    overrides: &[Override],
    device: DeviceChoice,
) -> Result<TrainedModel> {
    let (file, model, mut strategies, mut tasks) = attached(folder, plugins, overrides, device, true)?;
    let path = folder.join(snapshot::FINAL);
    let found = checkpoint::open::<Header>(&path).map_err(|error| error.with_help(written_again(folder)))?;
    snapshot::restore_parameters(&model, &found.tensors)?;
    for (i, strategy) in strategies.iter_mut().enumerate() {
        found.header.restore_plugin(&snapshot::strategy_place(i), strategy, &found.tensors)?;
    }
    for (task, _) in tasks.iter_mut().zip(&file.tasks).filter(|(_, table)| table.head_of.is_none()) {
        found.header.restore_plugin(&snapshot::head_place(&task.name), &mut task.head, &found.tensors)?;
    }
    let mut trained = TrainedModel::new(&file, model, strategies, tasks);
    let (folder, plugins, overrides) = (folder.to_owned(), plugins.to_owned(), overrides.to_owned());
    trained.before_training = Some(Box::new(move || {
        let (file, model, strategies, tasks) = attached(&folder, &plugins, &overrides, device, false)?;
        Ok(TrainedModel::new(&file, model, strategies, tasks))
    }));
    Ok(trained)
}

/// A run file with its model, its strategies and its tasks.
type Attached = (RunFile, AdaptedModel, Vec<StrategyInstance>, Vec<TrainedTask>);

/// What a run began with, nothing of its training restored. `saved`: with the whole model that it has saved, where it has.
fn attached(
    folder: &Path,
    plugins: &[String],
    overrides: &[Override],
    device: DeviceChoice,
    saved: bool,
) -> Result<Attached> {
    let mut file = RunFile::reopen(&RunFolder::run_file(folder)?, overrides)?;
    let mut left: Left = read_json(&folder.join(result::FILE), folder)?;
    let recorded = left.plugins.iter().map(|plugin| plugin.path.clone());
    let recorded: Vec<String> = recorded.filter(|path| Path::new(path).is_file()).collect();
    let whole = folder.join(export::MODEL);
    if saved && whole.is_dir() {
        (file.model.path, file.model.named) = (whole, None);
        file.model.init = ModelInit::Pretrained;
    }
    let (mut file, mut library) = match plugins {
        [] => methods::reopen_methods(file, &recorded)?,
        _ => methods::open_methods(file, plugins)?,
    };
    base::fetch(&mut file)?;
    let mut model = base::load_model(&file, device.open()?)?;
    let strategies = methods::attach_strategies(&file, &mut library, &mut model)?;
    let mut tasks: Vec<TrainedTask> = Vec::new();
    for (i, task) in file.tasks.iter().enumerate() {
        let LeftTask { labels, class_counts, examples, calibration } = left
            .tasks
            .remove(&task.name)
            .ok_or_else(|| Error::usage(format!("{} has no result of the task {}", folder.display(), task.name)))?;
        let counts = (class_counts, examples);
        let (head, spec) = match task.head_of.map(|owner: usize| -> &TrainedTask { &tasks[owner] }) {
            Some(owner) => (owner.head.clone(), owner.spec.clone()),
            None => methods::attach_head(&file, i, &mut library, &mut model, labels.clone(), counts)?,
        };
        let tokenizer = base::tokenizer(&file, task, &model)?;
        let transform = base::transform(&file, task, &model)?;
        tasks.push(TrainedTask {
            name: task.name.clone(),
            form: task.form.of_whole_files(),
            head,
            spec,
            labels,
            numbered: false,
            tokenizer,
            transform,
            train: Some(task.train.clone()),
            decision: calibration.map(|found| found.decision).unwrap_or_default(),
        });
    }
    Ok((file, model, strategies, tasks))
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
