//! What of a whole run file would silently do nothing.

use super::RunFile;
use super::acts::does_nothing;
use super::tables::{self, TaskOrder, TaskTable, Threshold, task_and_metric};
use crate::Result;

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
            refuse(task.form.columns == crate::data::Columns::default(), &format!("task[{i}].columns"), help)?;
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
        let validated = self.tasks.iter().any(|task| task.validation.is_some());
        let validate = "it is fitted on validation examples, and there are none: give the task validation = \"FILE\", or a share of its \
                        training examples: validation = 0.1";
        refuse(!train.calibrate || validated, "train.calibrate", validate)?;
        refuse(train.threshold != Some(Threshold::BestF1) || validated, "train.threshold", validate)?;
        self.monitors_what_is_watched()?;
        Ok(self)
    }

    /// Refuses a monitored task without validation examples, and validation examples that nothing would watch.
    fn monitors_what_is_watched(&self) -> Result<()> {
        let Some((Some(name), _)) = self.train.monitor.as_deref().map(task_and_metric) else { return Ok(()) };
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
