//! What heads of preferences give for their examples before training: computed before step 1, by the model as it is then, and kept in the run
//! folder for a run that is resumed, so that it has the same to the bit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fthost_autograd::{Precision, Tensor};
use fthost_plugin_api::TargetKind;

use crate::adapted::AdaptedModel;
use crate::data::Dataset;
use crate::report::progress::EvaluationProgress;
use crate::run::pass::Pass;
use crate::run::results::evaluate;
use crate::run::setup::task::Task;
use crate::run::state::checkpoint::{self, CHECKPOINTS};
use crate::{Error, Result};

/// The outputs of a task's head by the part of its data, `[examples, ...]` each.
type Outputs = BTreeMap<String, Tensor>;

/// Computes them for all tasks that ask for them, and keeps them in the run folder.
///
/// # Errors
/// Where they cannot be computed or written.
pub fn record(run: &Path, model: &AdaptedModel, tasks: &mut [Task], precision: Precision, shown: bool) -> Result<()> {
    for task in asking(tasks) {
        let outputs = outputs(model, task, precision, shown)?;
        checkpoint::write(&file(run, &task.name), &(), &outputs)?;
        give(task, &outputs)?;
    }
    Ok(())
}

/// Computes them for what is not kept.
///
/// # Errors
/// Where they cannot be computed.
pub fn compute(model: &AdaptedModel, tasks: &mut [Task], precision: Precision, shown: bool) -> Result<()> {
    for task in asking(tasks) {
        let outputs = outputs(model, task, precision, shown)?;
        give(task, &outputs)?;
    }
    Ok(())
}

/// Reads those of a run that is resumed.
///
/// # Errors
/// Where they are missing or damaged.
pub fn read(run: &Path, tasks: &mut [Task]) -> Result<()> {
    for task in asking(tasks) {
        let found = checkpoint::open::<()>(&file(run, &task.name));
        let found = found
            .map_err(|error| error.with_help("put it back, or run it again from the start into another folder"))?;
        give(task, &found.tensors)?;
    }
    Ok(())
}

/// Takes zeros for them, where time and memory are measured and nothing is learned.
///
/// # Errors
/// As the device's.
pub fn leave_out(tasks: &mut [Task]) -> Result<()> {
    for task in asking(tasks) {
        for data in parts_mut(task).into_values() {
            let zeros = Tensor::zeros((data.len(), 2), fthost_autograd::DType::F32, &fthost_autograd::Device::Cpu)?;
            data.set_reference(&zeros)?;
        }
    }
    Ok(())
}

/// Whether a task's head asks for them.
pub fn asks(task: &Task) -> bool {
    task.spec.reference && task.spec.targets == TargetKind::Preference
}

fn asking(tasks: &mut [Task]) -> impl Iterator<Item = &mut Task> {
    tasks.iter_mut().filter(|task| asks(task))
}

fn parts_mut(task: &mut Task) -> BTreeMap<&'static str, &mut Dataset> {
    let held_out = [("validation", task.validation.as_mut()), ("test", task.test.as_mut())];
    let held_out = held_out.into_iter().filter_map(|(part, data)| Some((part, data?)));
    std::iter::once(("train", &mut task.train)).chain(held_out).collect()
}

fn outputs(model: &AdaptedModel, task: &Task, precision: Precision, shown: bool) -> Result<Outputs> {
    let held_out = [("validation", task.validation.as_ref()), ("test", task.test.as_ref())];
    let mut found = Outputs::new();
    for (part, data) in std::iter::once(("train", Some(&task.train))).chain(held_out) {
        let Some(data) = data else { continue };
        let Task { head, spec, decision, .. } = task;
        let pass = Pass { model, head, spec, data, precision, decision: decision.clone() };
        let rows: Vec<u32> = (0..data.len() as u32).collect();
        let progress =
            EvaluationProgress::new(shown, &format!("the model before training, on {part} pairs"), data.len());
        let outputs = evaluate::outputs_with(&pass, &rows, &|examples| progress.advance(examples))?;
        found.insert(part.to_owned(), outputs.to_device(&fthost_autograd::Device::Cpu)?);
    }
    Ok(found)
}

fn give(task: &mut Task, outputs: &Outputs) -> Result<()> {
    let name = task.name.clone();
    for (part, data) in parts_mut(task) {
        let missing =
            || Error::run(format!("what the model says before training of the {part} pairs of {name} is missing"));
        data.set_reference(outputs.get(part).ok_or_else(missing)?)?;
    }
    Ok(())
}

fn file(run: &Path, task: &str) -> PathBuf {
    run.join(CHECKPOINTS).join(format!("before-{task}.safetensors"))
}
