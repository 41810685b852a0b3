//! Keys that would silently do nothing are refused: those that need what the file does not have.
//!
//! What a run's length says of them is known once its data are read (`run::setup::reach`).

use super::document::{Document, Place};
use super::tables::{OptimizerName, TaskOrder, TaskTable, TrainKeys, Validation};
use super::{RunFile, tables};
use crate::data::may_have_header;
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
    let Some(header) = task.header else { return Ok(()) };
    let validation = match &task.validation {
        Some(Validation::File(path)) => Some(path),
        Some(Validation::Share(_)) | None => None,
    };
    let path = format!("task[{index}].header");
    let refuse = |message: String, label: &str, help: &str| {
        Err(document.error(document.place(&path), message, label, Some(help.into())))
    };
    if ![Some(&task.train), task.test.as_ref(), validation].into_iter().flatten().any(|file| may_have_header(file)) {
        return refuse(
            format!("{path} does nothing here"),
            "does nothing",
            "leave it out: no file of the task is .tsv or .csv",
        );
    }
    if !header && !task.columns.are_numbers() {
        let help = "leave header out, or name the columns by number, from 1: columns = { text = \"1\", label = \"2\" }";
        return refuse(
            format!("{path} says that the files have no names of columns, and columns names some"),
            "no header",
            help,
        );
    }
    Ok(())
}

/// Refuses options that the optimizer does not have.
pub(super) fn of_the_optimizer(document: &Document, optimizer: OptimizerName) -> Result<()> {
    let (name, others): (&str, &[&str]) = match optimizer {
        OptimizerName::Adamw => ("adamw", &["momentum", "nesterov"]),
        OptimizerName::Adam => ("adam", &["momentum", "nesterov"]),
        OptimizerName::Sgd => ("sgd", &["betas", "eps"]),
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

fn does_nothing(document: &Document, at: Place, path: &str, help: &str) -> Error {
    document.error(at, format!("{path} does nothing here"), "does nothing", Some(help.to_owned()))
}

impl RunFile {
    /// The file itself, where every key that is not at its default can act. A run folder's own copy is not asked: its run was made.
    ///
    /// # Errors
    /// At the first key that would do nothing.
    pub(super) fn where_all_acts(self) -> Result<Self> {
        let train = &self.train;
        let refuse = |acts: bool, path: &str, help: &str| match acts {
            true => Ok(()),
            false => Err(does_nothing(&self.document, self.document.place(path), path, help)),
        };
        refuse(
            !(self.model.is_demo() && self.model.random()),
            "model.init",
            "leave it out: the embedded model is the one that comes with fthost",
        )?;
        for (i, task) in self.tasks.iter().enumerate().filter(|_| self.model.is_demo()) {
            let help = "leave it out: the embedded model reads images";
            refuse(task.columns == crate::data::Columns::default(), &format!("task[{i}].columns"), help)?;
            refuse(task.max_tokens == tables::max_tokens(), &format!("task[{i}].max_tokens"), help)?;
        }
        refuse(
            !train.evaluate_before || self.tasks.iter().any(|task| task.test.is_some()),
            "train.evaluate_before",
            "no task has test examples: give one test = \"FILE\", or leave it out",
        )?;
        refuse(
            !train.decay_biases_and_norms || train.weight_decay > 0.0,
            "train.decay_biases_and_norms",
            "there is no weight decay: set train.weight_decay, or leave it out",
        )?;
        refuse(
            train.min_delta == 0.0 || train.patience.is_some(),
            "train.min_delta",
            "it decides when patience ends, and nothing else: set train.patience, or leave it out",
        )?;
        self.monitors_what_is_watched()?;
        Ok(self)
    }

    /// Refuses a monitored task without validation examples, and validation examples that nothing would watch.
    fn monitors_what_is_watched(&self) -> Result<()> {
        let Some((name, _)) = self.train.monitor.as_deref().and_then(|monitor| monitor.split_once('.')) else {
            return Ok(());
        };
        let watched = |task: &TaskTable| task.validation.is_some();
        let error =
            |message: String, help: String| Err(self.error_at("train.monitor", message, "never watched", Some(help)));
        match self.tasks.iter().find(|task| task.name == name) {
            // That there is no such task is said where its metrics are known.
            None => Ok(()),
            Some(task) if !watched(task) => error(
                format!("train.monitor is of the task {name}, which has no validation examples"),
                format!("give {name} validation = \"FILE\", or a share of its training examples: validation = 0.1"),
            ),
            Some(_) if self.train.tasks == TaskOrder::Joint => Ok(()),
            Some(_) => match self.tasks.iter().find(|task| task.name != name && watched(task)) {
                None => Ok(()),
                Some(other) => error(
                    format!(
                        "train.monitor is of the task {name}, and the validation examples of {} would do nothing",
                        other.name
                    ),
                    "name the metric alone, for each task in its turn, or leave those validation examples out".into(),
                ),
            },
        }
    }
}
