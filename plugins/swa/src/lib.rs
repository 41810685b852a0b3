//! Stochastic weight averaging (Izmailov et al. 2018, arXiv:1803.05407): from a share of the run on the weights are averaged, each as much as the others.
//!
//! ```text
//! average_n = average_(n-1) + (theta - average_(n-1)) / n
//! ```
//!
//! at the end of each epoch, or every so many steps, n counting them. What is evaluated, and kept once training ends, is the average. As torch's
//! `AveragedModel`. It adds nothing to the model and chooses nothing that trains: that is the strategies' beside it, and step 0 is as they left
//! it.

use fthost_plugin_api::{WeightAverage, check_shares, prelude::*};

/// Options of the averages.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct SwaConfig {
    /// The share of the run, or of a task in sequence, after which averaging begins.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    start: f64,
    /// Steps from one average to the next; without it one is taken at the end of each epoch.
    #[schemars(range(min = 1))]
    steps: Option<u64>,
}

impl Default for SwaConfig {
    fn default() -> Self {
        Self { start: 0.75, steps: None }
    }
}

struct Swa {
    config: SwaConfig,
    average: WeightAverage,
    /// Whether the last step came to the share from which on there are averages.
    began: bool,
}

impl Swa {
    /// Whether weights are taken after this step of these.
    fn takes(&self, step: u64, total: u64) -> bool {
        self.comes_to(step, total) && self.config.steps.is_some_and(|every| (step + 1) % every == 0)
    }

    fn comes_to(&self, step: u64, total: u64) -> bool {
        (step + 1) as f64 >= self.config.start * total as f64
    }

    /// That a run of so many steps, or a task's, comes to an average.
    fn reaches(&self, total: u64) -> Result<()> {
        let Some(every) = self.config.steps else { return Ok(()) };
        let last = total - total % every;
        if last > 0 && self.takes(last - 1, total) {
            return Ok(());
        }
        let start = self.config.start;
        Err(Error::new(format!(
            "no average would ever be taken: after {start} of {total} steps comes no multiple of steps = {every}: lower steps or start"
        )))
    }

    fn take(&mut self) -> Result<()> {
        self.average.take(1.0 / (self.average.taken() + 1) as f64)
    }
}

impl Strategy for Swa {
    type Config = SwaConfig;

    fn new(config: SwaConfig) -> Result<Self> {
        check_shares([("start", config.start)])?;
        if config.steps == Some(0) {
            return Err(Error::new("steps is 0, and must be at least 1: leave it out for one average an epoch"));
        }
        Ok(Self { config, average: WeightAverage::default(), began: false })
    }

    fn attach(&mut self, _model: &mut Model) -> Result<()> {
        Ok(())
    }

    fn starts_at_base(&self) -> bool {
        true // it adds nothing
    }

    fn on_event(&mut self, event: &Event, model: &mut Model) -> Result<()> {
        match event {
            Event::StepEnd { step, total_steps, .. } => {
                self.began = self.comes_to(*step, *total_steps);
                if self.takes(*step, *total_steps) {
                    self.take()?;
                }
                Ok(())
            }
            Event::StepBegin { step, total_steps } => {
                if *step == 0 {
                    self.reaches(*total_steps)?;
                }
                self.average.hear(event, model)
            }
            // Comes right after an epoch's last step.
            Event::EpochEnd { .. } if self.config.steps.is_none() && self.began => self.take(),
            _ => self.average.hear(event, model),
        }
    }

    fn save(&self) -> Result<SavedState> {
        Ok(self.average.save())
    }

    fn load(&mut self, state: SavedState) -> Result<()> {
        self.average.load(state)
    }
}

register! {
    /// SWA: evaluates and keeps an equal average of the weights of the run's last part.
    Strategy "swa" => Swa
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = ["add@1", "affine@1", "keep@1", "squared_distance@1", "sub@1"],
    min_host_minor = 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_value;
    use fthost_plugin_api::test::Host;

    fn swa(options: Value) -> Result<Swa> {
        Swa::new(from_value(options)?)
    }

    #[test]
    fn weights_are_taken_from_a_share_on() {
        let taken = |options: Value| {
            let swa = swa(options).unwrap();
            (0..12).filter(|&step| swa.takes(step, 12)).collect::<Vec<u64>>()
        };
        assert_eq!(taken(json!({ "start": 0.5, "steps": 2 })), [5, 7, 9, 11]);
        assert_eq!(taken(json!({ "start": 0.0, "steps": 5 })), [4, 9]);
        assert_eq!(taken(json!({ "steps": 1 })), [8, 9, 10, 11]);
        assert!(taken(json!({})).is_empty(), "at the ends of epochs");
        assert_eq!((0..12).position(|step| swa(json!({})).unwrap().comes_to(step, 12)), Some(8));
    }

    #[test]
    fn what_holds_for_every_strategy_holds_for_this_one() {
        for options in [json!({}), json!({ "start": 0.5, "steps": 1 })] {
            Host::new().strategy::<Swa>(options).unwrap().check().unwrap();
        }
    }

    #[test]
    fn evaluated_is_the_mean_of_what_was_taken() {
        const NAME: &str = "pooler.dense.bias";
        let mut run = Host::new().strategy::<Swa>(json!({ "start": 0.4, "steps": 2 })).unwrap();
        let (total_steps, mut taken) = (8, Vec::new());
        for step in 0..total_steps {
            run.event(&Event::StepBegin { step, total_steps }).unwrap();
            let now = (step * step) as f64;
            run.set_value(NAME, &[now; 6]).unwrap();
            run.event(&Event::StepEnd { step, total_steps, loss: 1.0 }).unwrap();
            if [3, 5, 7].contains(&step) {
                taken.push(now);
            }
            let mean = taken.iter().sum::<f64>() / taken.len() as f64;
            let evaluated = if taken.is_empty() { now } else { mean };
            run.event(&Event::EvaluationBegin { step: step + 1 }).unwrap();
            assert!(run.value(NAME).unwrap().iter().all(|x| (x - evaluated).abs() < 1e-9), "step {step}");
            run.event(&Event::EvaluationEnd { step: step + 1 }).unwrap();
            assert_eq!(run.value(NAME).unwrap(), [now; 6]);
            run.check_state().unwrap();
        }
        run.event(&Event::TaskEnd { task: "t".into() }).unwrap();
        assert!(run.value(NAME).unwrap().iter().all(|x| (x - 83.0 / 3.0).abs() < 1e-9));
        run.finish().unwrap();
    }

    #[test]
    fn a_run_that_comes_to_no_average_is_refused() {
        let reaches = |options: Value, total| swa(options).unwrap().reaches(total);
        for (steps, total) in [(5, 5), (5, 7), (100, 100)] {
            reaches(json!({ "start": 0.5, "steps": steps }), total).unwrap();
        }
        reaches(json!({}), 1).unwrap();
        for (start, steps, total) in [(0.5, 8, 7), (0.9, 5, 7)] {
            let error = reaches(json!({ "start": start, "steps": steps }), total).unwrap_err().to_string();
            assert!(
                error.contains("no average would ever be taken") && error.contains(&format!("steps = {steps}")),
                "{error}"
            );
        }
    }

    #[test]
    fn refuses_what_cannot_be_meant() {
        for options in [json!({ "start": 1.0 }), json!({ "start": -0.5 }), json!({ "steps": 0 })] {
            assert!(swa(options.clone()).is_err(), "{options}");
        }
    }
}
