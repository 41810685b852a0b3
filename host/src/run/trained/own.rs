//! A folder in fthost's own form, an adapter or a whole model with heads that no other tool computes, opened as a run that has ended.

use std::path::Path;

use fthost_autograd::Tensor;
use fthost_models::{Weights, head_weights};

use super::head::read;
use super::model::TrainedModel;
use super::run_folder::{Attached, attach};
use crate::adapted::Owner;
use crate::run::file::{ModelInit, Override, RunFile};
use crate::run::machine::DeviceChoice;
use crate::run::results::export::ADAPTER;
use crate::run::results::own_form::{self, FILE, FORM, OwnForm};
use crate::run::state::snapshot::{head_place, strategy_place};
use crate::{Error, Result};

/// Whether a folder is one.
pub(super) fn is_one(folder: &Path) -> bool {
    folder.join(FILE).is_file()
}

/// Opens it.
///
/// # Errors
/// Where its files do not go together, or something that it needs is gone.
pub(super) fn open(
    folder: &Path,
    plugins: &[String],
    overrides: &[Override],
    device: DeviceChoice,
) -> Result<TrainedModel> {
    let path = folder.join(FILE);
    let mut form: OwnForm = read(&path)?;
    if form.form != FORM {
        let message = format!("{} has form {}, and this fthost reads {FORM}", path.display(), form.form);
        return Err(Error::usage(message).with_help("open it with the fthost that wrote it, or a later one"));
    }
    let mut file = RunFile::reopen_text(&form.run_file, &path, overrides)?;
    if form.whole {
        file.model.set_folder(std::path::absolute(folder).unwrap_or(folder.into()));
        file.model.init = ModelInit::Pretrained;
        // What they added or trained is in the weights.
        file.strategies.clear();
    }
    let tasks = std::mem::take(&mut form.tasks);
    let recorded = std::mem::take(&mut form.plugins);
    let Attached { file, model, mut strategies, mut tasks, plugins } =
        attach(file, folder, (plugins, &recorded), tasks, device)?;

    let weights = if form.whole { head_weights(folder)? } else { adapter(folder)? };
    let names = if form.whole { Vec::new() } else { own_form::names(&model) };
    for (i, p) in model.parameters.iter().enumerate() {
        let (name, head) = (p.parameter.name(), matches!(p.owner, Owner::Head(_)));
        let name = names.get(i).map_or(name, String::as_str);
        // Of a whole model the rest has been read; an adapter leaves out what never trained.
        let due = head || !form.whole && (p.owner != Owner::Base || weights.contains(name));
        if due {
            p.parameter.set(&weights.tensor_of_shape(name, p.parameter.dims(), &model.device)?)?;
        }
    }
    let tensor = |name: &str| -> Result<Tensor> { Ok(weights.tensor(name, &model.device)?) };
    if !form.whole {
        for (i, strategy) in strategies.iter_mut().enumerate() {
            form.restore(&strategy_place(i), strategy, weights.names(), tensor)?;
        }
    }
    for (task, _) in tasks.iter_mut().zip(&file.tasks).filter(|(_, table)| table.head_of.is_none()) {
        form.restore(&head_place(&task.name), &mut task.head, weights.names(), tensor)?;
    }
    Ok(TrainedModel::new(&file, model, strategies, tasks, &plugins))
}

/// The tensors of an adapter.
fn adapter(folder: &Path) -> Result<Weights> {
    let path = folder.join(ADAPTER);
    let bytes = std::fs::read(&path).map_err(|error| {
        Error::usage(format!("cannot read {}: {error}", path.display()))
            .with_help(format!("it belongs beside {FILE}: save the adapter again"))
    })?;
    Ok(Weights::from_bytes(&path.display().to_string(), bytes)?)
}
