//! Calls on a scheduler.

use fthost_plugin_api::abi::calls;
use fthost_plugin_api::abi::growth::Grows;
use fthost_plugin_api::abi::tables::{SchedulerVtable, Str};
use fthost_plugin_api::{Evaluation, Group, Progress, Rate, field};

use super::{Instance, State, Stateful};
use crate::Result;
use crate::plugin::Plugin;
use crate::plugin::bridge::session::{Failure, Scope, check};

/// A scheduler made from options.
#[derive(Debug)]
pub struct SchedulerInstance(Instance<SchedulerVtable>);

impl SchedulerInstance {
    /// Makes an instance of the plugin's scheduler `name`.
    ///
    /// # Errors
    /// Where the plugin has none of that name, or refuses the options.
    pub fn create(plugin: &Plugin, name: &str, config: &serde_json::Value) -> Result<Self> {
        Instance::create(plugin, name, config).map(Self)
    }

    /// Rate and momentum of one group at one step.
    ///
    /// # Errors
    /// The plugin's own, or where the rate is negative or not finite, or the momentum lies outside of [0, 1).
    pub fn rate(&self, progress: &Progress, group: &Group<'_>) -> Result<Rate> {
        self.0.call("rate", Scope::default(), |_| {
            let function = self.0.need(field!(SchedulerVtable, rate))?;
            let (now, of) = (wire_progress(progress), wire_group(group));
            // What a schedule need not know is set; a rate that it does not write is none.
            let mut rate = calls::Rate { lr: f64::NAN, momentum: group.momentum, ..calls::Rate::EMPTY };
            // SAFETY: the plugin's own function on its own instance; the structs live for the call, and `rate` may be written.
            check(unsafe { function(self.0.data, &raw const now, &raw const of, &raw mut rate) })?;
            let rate = Rate { lr: rate.lr, momentum: rate.momentum };
            let wrong = |text: &str| {
                let Rate { lr, momentum } = rate;
                let of = format!("step {} would have learning rate {lr} and momentum {momentum}", progress.step);
                Err(Failure::Answer(format!("{of}: {text}")))
            };
            if !(rate.lr.is_finite() && rate.lr >= 0.0) {
                return wrong("a learning rate is a number from 0 up");
            }
            // With 1 or more what is remembered of gradients grows without end.
            if !(0.0..1.0).contains(&rate.momentum) {
                return wrong("a momentum lies in [0, 1)");
            }
            Ok(rate)
        })
    }

    /// Tells it of an evaluation, where it listens.
    pub fn on_evaluation(&mut self, progress: &Progress, evaluation: &Evaluation<'_>) -> Result<()> {
        let Some(hear) = self.0.vtable.get(field!(SchedulerVtable, on_evaluation)) else { return Ok(()) };
        self.0.call("on_evaluation", Scope::default(), |_| {
            let now = wire_progress(progress);
            let evaluation = calls::Evaluation {
                value: evaluation.value,
                metric: Str::new(evaluation.metric),
                higher_is_better: u32::from(evaluation.higher_is_better),
                task: Str::new(evaluation.task),
                ..calls::Evaluation::EMPTY
            };
            // SAFETY: the plugin's own function on its own instance; the structs live for the call.
            check(unsafe { hear(self.0.data, &raw const now, &raw const evaluation) })
        })
    }
}

fn wire_progress(progress: &Progress) -> calls::Progress {
    let &Progress { step, total_steps, steps_per_epoch } = progress;
    calls::Progress { step, total_steps, steps_per_epoch, ..calls::Progress::EMPTY }
}

/// Valid as long as the group's names.
fn wire_group(group: &Group<'_>) -> calls::Group {
    let &Group { name, number, stream, lr, momentum } = group;
    let (name, number, stream) = (Str::new(name), number as u32, Str::new(stream));
    calls::Group { number, name, stream, lr, momentum, ..calls::Group::EMPTY }
}

impl Stateful for SchedulerInstance {
    fn save(&self) -> Result<State> {
        self.0.save()
    }

    fn load(&mut self, state: &State) -> Result<()> {
        self.0.load(state)
    }
}
