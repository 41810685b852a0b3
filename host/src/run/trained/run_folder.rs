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
use crate::run::results::own_form::OwnTask;
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

impl From<LeftTask> for OwnTask {
    fn from(LeftTask { labels, class_counts, examples, calibration }: LeftTask) -> Self {
        let decision = calibration.map(|found| found.decision).unwrap_or_default();
        Self { labels, class_counts, examples, decision }
    }
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
    let Attached { file, model, mut strategies, mut tasks, plugins: used } =
        attached(folder, plugins, overrides, device, true)?;
    let path = folder.join(snapshot::FINAL);
    let found = checkpoint::open::<Header>(&path).map_err(|error| error.with_help(written_again(folder)))?;
    snapshot::restore_parameters(&model, &found.tensors)?;
    for (i, strategy) in strategies.iter_mut().enumerate() {
        found.header.restore_plugin(&snapshot::strategy_place(i), strategy, &found.tensors)?;
    }
    for (task, _) in tasks.iter_mut().zip(&file.tasks).filter(|(_, table)| table.head_of.is_none()) {
        found.header.restore_plugin(&snapshot::head_place(&task.name), &mut task.head, &found.tensors)?;
    }
    let mut trained = TrainedModel::new(&file, model, strategies, tasks, &used);
    let (folder, plugins, overrides) = (folder.to_owned(), plugins.to_owned(), overrides.to_owned());
    trained.before_training = Some(Box::new(move || {
        let Attached { file, model, strategies, tasks, plugins } =
            attached(&folder, &plugins, &overrides, device, false)?;
        Ok(TrainedModel::new(&file, model, strategies, tasks, &plugins))
    }));
    Ok(trained)
}

/// A run file with its model, its strategies, its tasks and the files of its plugins.
pub(super) struct Attached {
    pub(super) file: RunFile,
    pub(super) model: AdaptedModel,
    pub(super) strategies: Vec<StrategyInstance>,
    pub(super) tasks: Vec<TrainedTask>,
    pub(super) plugins: Vec<String>,
}

/// What a run began with, nothing of its training restored. `saved`: with the whole model that it has saved, where it has.
fn attached(
    folder: &Path,
    plugins: &[String],
    overrides: &[Override],
    device: DeviceChoice,
    saved: bool,
) -> Result<Attached> {
    let mut file = RunFile::reopen(&RunFolder::run_file(folder)?, overrides)?;
    let left: Left = read_json(&folder.join(result::FILE), folder)?;
    let recorded: Vec<String> = left.plugins.into_iter().map(|plugin| plugin.path).collect();
    let whole = folder.join(export::MODEL);
    if saved && whole.is_dir() {
        file.model.set_folder(whole);
        file.model.init = ModelInit::Pretrained;
    }
    let tasks = left.tasks.into_iter().map(|(name, task)| (name, task.into())).collect();
    attach(file, folder, (plugins, &recorded), tasks, device)
}

/// Attaches what a run file names to its model. `plugins`: those that the command line names, and those that it was trained with, of which
/// the ones that are still there are taken where it names none.
///
/// # Errors
/// Where something that it needs is gone, or a task of the file is none of these.
pub(super) fn attach(
    file: RunFile,
    folder: &Path,
    (plugins, recorded): (&[String], &[String]),
    mut left: BTreeMap<String, OwnTask>,
    device: DeviceChoice,
) -> Result<Attached> {
    let recorded: Vec<String> = recorded.iter().filter(|path| Path::new(path).is_file()).cloned().collect();
    let (mut file, mut library) = match plugins {
        [] => methods::reopen_methods(file, &recorded)?,
        _ => methods::open_methods(file, plugins)?,
    };
    base::fetch(&mut file)?;
    let mut model = base::load_model(&file, device.open()?)?;
    let strategies = methods::attach_strategies(&file, &mut library, &mut model)?;
    let mut tasks: Vec<TrainedTask> = Vec::new();
    for (i, task) in file.tasks.iter().enumerate() {
        let OwnTask { labels, class_counts, examples, decision } = left
            .remove(&task.name)
            .ok_or_else(|| Error::usage(format!("{} has no result of the task {}", folder.display(), task.name)))?;
        let counts = (class_counts, examples);
        let (head, spec) = match task.head_of.map(|owner: usize| -> &TrainedTask { &tasks[owner] }) {
            Some(owner) => (owner.head.clone(), owner.spec.clone()),
            None => methods::attach_head(&file, i, &mut library, &mut model, labels.clone(), counts.clone())?,
        };
        let tokenizer = base::tokenizer(&file, task, &model)?;
        let transform = base::transform(&file, task, &model)?;
        let info = model.model.info();
        tasks.push(TrainedTask {
            modalities: base::modalities(info, &base::of_task(&file, task, info)?),
            name: task.name.clone(),
            form: task.form.of_whole_files(),
            head,
            spec,
            labels,
            counts,
            numbered: false,
            tokenizer,
            transform,
            train: Some(task.train.clone()),
            decision,
        });
    }
    Ok(Attached { file, model, strategies, tasks, plugins: library.files() })
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
