//! Calls on a scheduler.

use fthost_plugin_api::abi::tables::SchedulerVtable;
use fthost_plugin_api::{Group, Progress, Rate};

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
    /// The plugin's own, or where the rate is negative or not finite.
    pub fn rate(&self, progress: &Progress, group: &Group) -> Result<Rate> {
        self.0.call("rate", Scope::default(), |_| {
            let mut rate = Rate { lr: f64::NAN, momentum: f64::NAN };
            // SAFETY: the plugin's own function on its own instance; the structs live for the call, and `rate` may be written.
            check(unsafe { (self.0.vtable.rate)(self.0.data, progress, group, &raw mut rate) })?;
            let usable = rate.lr.is_finite() && rate.lr >= 0.0 && rate.momentum.is_finite();
            let wrong = || {
                format!("step {} would have learning rate {} and momentum {}", progress.step, rate.lr, rate.momentum)
            };
            if usable { Ok(rate) } else { Err(Failure::Answer(wrong())) }
        })
    }

    /// Tells it an evaluation's monitored value.
    pub fn on_evaluation(&mut self, progress: &Progress, value: f64) -> Result<()> {
        self.0.call("on_evaluation", Scope::default(), |_| {
            // SAFETY: the plugin's own function on its own instance; the struct lives for the call.
            check(unsafe { (self.0.vtable.on_evaluation)(self.0.data, progress, value) })
        })
    }
}

impl Stateful for SchedulerInstance {
    fn save(&self) -> Result<State> {
        self.0.save()
    }

    fn load(&mut self, state: &State) -> Result<()> {
        self.0.load(state)
    }
}
