//! The schedules of a run, each with a state of its own: one for all parameters, or one for each of some streams and one for the rest.

use fthost_models::ModelInfo;
use fthost_plugin_api::{Evaluation, Group, MethodKind, Progress};

use super::methods::{plugin_of, stream_of};
use super::phase::Phase;
use crate::Result;
use crate::plugin::{Library, SchedulerInstance, State, Stateful};
use crate::run::file::RunFile;
use crate::run::state::snapshot::schedule_place;

/// All of them, in the order of the run file.
pub(crate) struct Schedules {
    all: Vec<Schedule>,
    /// The place of the one for what no other is for.
    rest: usize,
}

struct Schedule {
    /// The model's stream that it is for.
    stream: Option<usize>,
    instance: SchedulerInstance,
    /// Where its state stands in checkpoints.
    place: String,
}

impl Schedules {
    /// Those of a run file, for a model.
    ///
    /// # Errors
    /// A stream that the model does not have; where a plugin refuses its options.
    pub(crate) fn create(file: &RunFile, library: &mut Library, info: &ModelInfo) -> Result<Self> {
        let mut all = Vec::new();
        for method in &file.schedules {
            let plugin = plugin_of(library, method, MethodKind::Scheduler)?.0;
            let instance = SchedulerInstance::create(&plugin, &method.plugin, &method.config);
            all.push(Schedule {
                stream: stream_of(file, method, info)?,
                instance: instance.map_err(|error| file.at_method(method, error))?,
                place: schedule_place(method.stream.as_deref()),
            });
        }
        let rest = all.iter().position(|schedule| schedule.stream.is_none()).unwrap_or_default();
        Ok(Self { all, rest })
    }

    /// The one for parameters of a stream, or of none.
    pub(crate) fn of(&self, stream: Option<usize>) -> &SchedulerInstance {
        &self.all[self.place_of(stream)].instance
    }

    /// The place in the run file of the one for parameters of a stream, or of none.
    pub(crate) fn place_of(&self, stream: Option<usize>) -> usize {
        self.all.iter().position(|schedule| schedule.stream == stream).unwrap_or(self.rest)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Tells all of them of an evaluation.
    pub(crate) fn on_evaluation(&mut self, now: &Progress, evaluation: &Evaluation<'_>) -> Result<()> {
        self.all.iter_mut().try_for_each(|schedule| schedule.instance.on_evaluation(now, evaluation))
    }

    /// The states of all.
    pub(crate) fn save(&self) -> Result<Vec<State>> {
        self.all.iter().map(|schedule| schedule.instance.save()).collect()
    }

    /// Gives all of them the states that they [saved](Self::save).
    pub(crate) fn load(&mut self, states: &[State]) -> Result<()> {
        self.all.iter_mut().zip(states).try_for_each(|(schedule, state)| schedule.instance.load(state))
    }

    /// All of them by their places in checkpoints.
    pub(crate) fn stateful(&mut self) -> impl Iterator<Item = (String, &mut dyn Stateful)> {
        self.all.iter_mut().map(|Schedule { place, instance, .. }| (place.clone(), instance as &mut dyn Stateful))
    }

    /// Has each say at the first step of each phase what the run is too short for.
    ///
    /// # Errors
    /// At the option of the run file that a schedule names.
    pub(super) fn check(&self, file: &RunFile, phases: &[Phase], momentum: f64) -> Result<()> {
        for (method, schedule) in file.schedules.iter().zip(&self.all) {
            let stream = method.stream.as_deref().unwrap_or_default();
            let group = Group { stream, ..Group::new(file.train.lr, momentum) };
            for phase in phases {
                schedule.instance.rate(&phase.begin(), &group).map_err(|error| file.at_option(method, error))?;
            }
        }
        Ok(())
    }
}
