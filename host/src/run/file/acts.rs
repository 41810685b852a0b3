//! Keys that would silently do nothing are refused: those that need what the file does not have.
//!
//! What a run's length says of them is known once its data are read (`run::setup::reach`).

use super::document::{Document, Place};
use super::tables::{HeldOut, OptimizerKey, OptimizerName, TaskOrder, TaskTable, TrainKeys};
use crate::data::{Files, may_have_header};
use crate::{Error, Result};

/// Refuses options about validation where there is nothing to validate on.
pub(super) fn watched_by_something(document: &Document, tasks: &[TaskTable]) -> Result<()> {
    if tasks.iter().any(|task| task.validation.is_some()) {
        return Ok(());
    }
    for key in ["evaluate_steps", "monitor", "patience", "min_delta"] {
        let path = format!("train.{key}");
        if let Some(node) = document.find(&path) {
            let help = "give the task validation = \"FILE\", or a share of its training examples: validation = 0.1";
            let message = format!("{path} needs validation examples, and there are none");
            return Err(document.error(node.at, message, "nothing to watch", Some(help.into())));
        }
    }
    Ok(())
}

/// Refuses options about several tasks where there is one, or where they do not train jointly.
pub(super) fn mixed_by_something(document: &Document, tasks: &[TaskTable], train: &TrainKeys) -> Result<()> {
    let refuse = |path: &str, why: &str| match document.find(path) {
        None => Ok(()),
        Some(node) => Err(does_nothing(document, node.at, path, &format!("leave it out; {why}"))),
    };
    if tasks.len() == 1 {
        refuse("train.tasks", "there is one task")?;
    }
    if tasks.len() == 1 || train.tasks == TaskOrder::Sequence {
        let why = "it is for several tasks that train jointly";
        refuse("train.sampling", why)?;
        return (0..tasks.len()).try_for_each(|i| refuse(&format!("task[{i}].weight"), why));
    }
    Ok(())
}

/// Refuses to be told of a header where no file can have one, or of none where columns are named.
pub(super) fn header_of_something(document: &Document, index: usize, task: &TaskTable) -> Result<()> {
    let Some(header) = task.form.header else { return Ok(()) };
    let path = format!("task[{index}].header");
    let refuse = |message: String, label: &str, help: &str| {
        Err(document.error(document.place(&path), message, label, Some(help.into())))
    };
    let held_out = [&task.test, &task.validation].into_iter().flatten().filter_map(HeldOut::files);
    let mut files = std::iter::once(&task.train).chain(held_out).flat_map(Files::named);
    if !files.any(|file| may_have_header(file, task.form.format)) {
        return refuse(
            format!("{path} does nothing here"),
            "does nothing",
            "leave it out: no file of the task is .tsv or .csv",
        );
    }
    if !header && !task.form.columns.are_numbers() {
        let help = "leave header out, or name the columns by number, from 1: columns = { text = \"1\", label = \"2\" }";
        return refuse(
            format!("{path} says that the files have no names of columns, and columns names some"),
            "no header",
            help,
        );
    }
    Ok(())
}

/// Refuses samples of validation rows where there are none.
pub(super) fn samples_of_something(document: &Document, index: usize, task: &TaskTable) -> Result<()> {
    if task.samples.is_none() || task.validation.is_some() {
        return Ok(());
    }
    let path = format!("task[{index}].samples");
    let message = format!("{path} needs validation examples, and the task has none");
    let help = "give the task validation = \"FILE\", or a share of its training examples: validation = 0.1";
    Err(document.error(document.place(&path), message, "nothing to continue", Some(help.into())))
}

/// Refuses options that the optimizer does not have.
pub(super) fn of_the_optimizer(document: &Document, optimizer: &OptimizerKey) -> Result<()> {
    let (name, others): (&str, &[&str]) = match optimizer {
        OptimizerKey::Name(OptimizerName::Adamw) => ("adamw", &["momentum", "nesterov"]),
        OptimizerKey::Name(OptimizerName::Adam) => ("adam", &["momentum", "nesterov"]),
        OptimizerKey::Name(OptimizerName::Sgd) => ("sgd", &["betas", "eps"]),
        // Its options stand in its own table.
        OptimizerKey::Plugin(keys) => (&keys.plugin, &["momentum", "nesterov", "betas", "eps"]),
    };
    for key in others {
        let path = format!("train.{key}");
        if let Some(node) = document.find(&path) {
            let message = format!("{path} does nothing with the optimizer {name}");
            let help = format!("leave {key} out, or choose train.optimizer");
            return Err(document.error(node.at, message, "no option of this optimizer", Some(help)));
        }
    }
    Ok(())
}

/// The error of a key that would do nothing.
pub(super) fn does_nothing(document: &Document, at: Place, path: &str, help: &str) -> Error {
    document.error(at, format!("{path} does nothing here"), "does nothing", Some(help.to_owned()))
}
