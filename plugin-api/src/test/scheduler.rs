//! What is checked of schedulers.

use super::{core::Core, value::Value};
use crate::{Error, Evaluation, Group, Progress, Rate, Result, abi::tables::SchedulerVtable};

/// A scheduler.
pub struct SchedulerRun(pub(super) Core<SchedulerVtable>);

/// Where a run of so many steps stands: ten epochs, or as many as there are steps.
fn progress(step: u64, total_steps: u64) -> Progress {
    Progress { step, total_steps, steps_per_epoch: total_steps.div_ceil(10) }
}

impl SchedulerRun {
    /// The rates of a run of so many steps in ten epochs, of a group at rate 1 with momentum 0.9.
    ///
    /// # Errors
    /// The scheduler's own; a rate that is none; one that is another when it is asked for again, in another order.
    pub fn rates(&self, total_steps: u64) -> Result<Vec<Rate>> {
        let ask = |step| self.rate(&progress(step, total_steps), &Group::new(1.0, 0.9));
        let rates = (0..total_steps).map(ask).collect::<Result<Vec<Rate>>>()?;
        for (step, first) in rates.iter().enumerate().rev() {
            let again = ask(step as u64)?;
            if again != *first {
                return Err(Error::new(format!(
                    "the rate of step {step} was {}, and is {} when it is asked for again: it must follow from its arguments and the \
                     saved state alone",
                    first.lr, again.lr
                )));
            }
        }
        Ok(rates)
    }

    /// The rate of one group at one step.
    ///
    /// # Errors
    /// The scheduler's own; a rate that is none.
    pub fn rate(&self, progress: &Progress, group: &Group<'_>) -> Result<Rate> {
        let rate = self.0.now.instance.rate(progress, group)?;
        if rate.lr.is_finite() && rate.lr >= 0.0 && rate.momentum.is_finite() {
            return Ok(rate);
        }
        let Rate { lr, momentum } = rate;
        Err(Error::new(format!("step {} would have learning rate {lr} and momentum {momentum}", progress.step)))
    }

    /// Tells it of an evaluation.
    ///
    /// # Errors
    /// The scheduler's own.
    pub fn evaluation(&mut self, progress: &Progress, evaluation: &Evaluation<'_>) -> Result<()> {
        self.0.now.instance.on_evaluation(progress, evaluation)
    }

    /// That its state, saved and loaded into another instance, is saved again as it was, and that both go on with the same rates
    /// through a run of so many steps.
    ///
    /// # Errors
    /// Where they differ.
    pub fn check_state(&self, total_steps: u64) -> Result<()> {
        self.0.check_state(&|of| {
            let rate = |step| of.instance.rate(&progress(step, total_steps), &Group::new(1.0, 0.9));
            let rates = (0..total_steps).map(rate).collect::<Result<Vec<Rate>>>()?;
            let numbers: Vec<f64> = rates.iter().flat_map(|rate| [rate.lr, rate.momentum]).collect();
            Ok(Value::floats([total_steps as usize, 2], numbers))
        })
    }

    /// [`rates`](Self::rates) and [`check_state`](Self::check_state) of a run of so many steps, and that nothing is left once it is freed.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(self, total_steps: u64) -> Result<()> {
        self.rates(total_steps)?;
        self.check_state(total_steps)?;
        self.0.finish()
    }
}
