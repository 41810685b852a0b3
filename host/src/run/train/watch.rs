//! What of a phase is watched on the validation examples.

use crate::report::metrics::said_of;
use crate::run::file::TrainTable;
use crate::run::setup::phase::Phase;
use crate::run::setup::task::Task;
use crate::run::state::watch::Watch;

/// The watch of a phase, if any of its tasks has validation examples. Of several joint tasks the mean of their metrics is watched.
pub(crate) fn of_phase(phase: &Phase, tasks: &[Task], settings: &TrainTable) -> Option<Watch> {
    let watched = |i: usize| tasks[i].validation.is_some();
    let monitor = |i: usize| tasks[i].monitor.as_ref().map(|monitor| (monitor.metric.as_str(), &tasks[i].spec.metrics));
    let (metric, own) = phase.tasks().filter(|&i| watched(i)).find_map(monitor)?;
    let higher = said_of(metric, own);
    Some(Watch { higher, ..Watch::new(metric, settings.min_delta, settings.patience) })
}

/// A weighted mean.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    /// Adds a value.
    pub(crate) fn add(&mut self, value: f64, weight: f64) {
        self.sum += weight * value;
        self.weight += weight;
    }

    /// The mean; not a number where there is no value.
    pub(crate) fn value(&self) -> f64 {
        self.sum / self.weight
    }
}
