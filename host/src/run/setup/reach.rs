//! What a run of this length never comes to is refused before the first step: an evaluation, a checkpoint, a stop.

use super::phase::Phase;
use super::schedules::Schedules;
use super::task::Task;
use crate::Result;
use crate::run::file::RunFile;

/// Refuses keys of `[train]` and options of the schedule that cannot act in these phases.
///
/// # Errors
/// At the first of them.
pub(super) fn check(
    file: &RunFile,
    tasks: &[Task],
    phases: &[Phase],
    (schedules, momentum): (&Schedules, f64),
) -> Result<()> {
    let reach = Reach { file, tasks, phases };
    reach.accumulates()?;
    reach.evaluates()?;
    reach.may_stop()?;
    reach.writes_checkpoints()?;
    schedules.check(file, phases, momentum)
}

struct Reach<'a> {
    file: &'a RunFile,
    tasks: &'a [Task],
    phases: &'a [Phase],
}

impl<'a> Reach<'a> {
    /// Phases with a task that is watched.
    fn watched(&self) -> impl Iterator<Item = &'a Phase> {
        let watched = |phase: &&Phase| phase.tasks().any(|task| self.tasks[task].validation.is_some());
        self.phases.iter().filter(watched)
    }

    /// What has so many steps: the run, or in sequence a task.
    fn named(&self, phase: &Phase) -> String {
        let first = phase.tasks().next().map_or("", |task| self.tasks[task].name.as_str());
        if self.phases.len() > 1 { format!("the task {first}") } else { "the run".into() }
    }

    /// A step may learn from fewer batches where an epoch ends, but not each.
    fn accumulates(&self) -> Result<()> {
        let settings = &self.file.train;
        let most = self.tasks.iter().map(|task| task.sampler(settings, 1).batches()).max().unwrap_or_default();
        if settings.accumulate <= most.max(1) {
            return Ok(());
        }
        let message = format!("train.accumulate is {}, and an epoch has {most} batches", settings.accumulate);
        let help = format!("no step can learn from more than those: give {most} at most, or smaller batches");
        Err(self.file.error_at("train.accumulate", message, "more than there are", Some(help)))
    }

    fn evaluates(&self) -> Result<()> {
        let Some(every) = self.file.train.evaluate_steps else { return Ok(()) };
        match self.watched().find(|phase| phase.evaluations(Some(every)) == 0) {
            None => Ok(()),
            Some(phase) => {
                let steps = phase.steps();
                let message = format!("train.evaluate_steps is {every}, and {} takes {steps} steps", self.named(phase));
                let help = format!(
                    "it would never be evaluated: give {steps} at most, or leave it out and each epoch ends with an evaluation"
                );
                Err(self.file.error_at("train.evaluate_steps", message, "never comes", Some(help)))
            }
        }
    }

    /// The first evaluation is the best so far, and after the last there is nothing to stop.
    fn may_stop(&self) -> Result<()> {
        let settings = &self.file.train;
        let Some(patience) = settings.patience else { return Ok(()) };
        let before = self.watched().map(|phase| phase.evaluations_before_the_end(settings.evaluate_steps)).max();
        let before = before.unwrap_or_default();
        if patience < before {
            return Ok(());
        }
        let evaluations = if before == 1 { "evaluation comes" } else { "evaluations come" };
        let message = format!("train.patience is {patience}, and {before} {evaluations} before the last step");
        let lower = match before.saturating_sub(1) {
            0 => String::new(),
            most => format!("give {most} at most, or "),
        };
        let help = format!(
            "the first counts as the best, so that training could never stop early: {lower}evaluate more often by \
             train.evaluate_steps, or leave patience out"
        );
        Err(self.file.error_at("train.patience", message, "cannot be reached", Some(help)))
    }

    fn writes_checkpoints(&self) -> Result<()> {
        let longest = self.phases.iter().map(Phase::steps).max().unwrap_or_default();
        match self.file.train.checkpoint_steps {
            Some(every) if every > longest => {
                let of = if self.phases.len() > 1 { "no task takes more than" } else { "the run takes" };
                let message = format!("train.checkpoint_steps is {every}, and {of} {longest} steps");
                let help = "lower it, or leave it out: a checkpoint is written at the end of each epoch";
                Err(self.file.error_at("train.checkpoint_steps", message, "never comes", Some(help.into())))
            }
            _ => Ok(()),
        }
    }
}
