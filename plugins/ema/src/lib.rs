//! An exponential moving average of the weights (Polyak and Juditsky 1992, doi:10.1137/0330046; Tarvainen and Valpola 2017, arXiv:1703.01780):
//! what is evaluated, and kept once training ends, is an average of all that was trained so far, the last steps most.
//!
//! ```text
//! average_1 = theta_1,   average_t = d average_(t-1) + (1 - d) theta_t,   d = decay, or min(decay, (1 + t) / (10 + t)) with warm-up
//! ```
//!
//! after each step, t counting the averages that were taken before. As torch's `AveragedModel` with `get_ema_multi_avg_fn`. It adds nothing to the
//! model and chooses nothing that trains: that is the strategies' beside it, and step 0 is as they left it.

use fthost_plugin_api::{WeightAverage, check_shares, prelude::*};

/// Options of the moving average.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct EmaConfig {
    /// How much of the average is left after each step: 0.99 averages over about 100 steps, 0.999 over about 1000.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    decay: f64,
    /// Whether the decay grows from 0.18 on, as (1 + t) / (10 + t) after t steps, so that a short run's average is not of its beginning.
    warmup: bool,
}

impl Default for EmaConfig {
    fn default() -> Self {
        Self { decay: 0.999, warmup: true }
    }
}

struct Ema {
    config: EmaConfig,
    average: WeightAverage,
}

impl Ema {
    /// How much is left of the average where so many were taken.
    fn decay(&self, taken: u64) -> f64 {
        let EmaConfig { decay, warmup } = self.config;
        let taken = taken as f64;
        if warmup { decay.min((1.0 + taken) / (10.0 + taken)) } else { decay }
    }
}

impl Strategy for Ema {
    type Config = EmaConfig;

    fn new(config: EmaConfig) -> Result<Self> {
        check_shares([("decay", config.decay)])?;
        Ok(Self { config, average: WeightAverage::default() })
    }

    fn attach(&mut self, _model: &mut Model) -> Result<()> {
        Ok(())
    }

    fn starts_at_base(&self) -> bool {
        true // it adds nothing
    }

    fn on_event(&mut self, event: &Event, model: &mut Model) -> Result<()> {
        if let Event::StepEnd { .. } = event {
            return self.average.take(1.0 - self.decay(self.average.taken()));
        }
        self.average.hear(event, model)
    }

    fn save(&self) -> Result<SavedState> {
        Ok(self.average.save())
    }

    fn load(&mut self, state: SavedState) -> Result<()> {
        self.average.load(state)
    }
}

register! {
    /// EMA: evaluates and keeps a moving average of the weights.
    Strategy "ema" => Ema
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

    fn ema(options: Value) -> Result<Ema> {
        Ema::new(from_value(options)?)
    }

    #[test]
    fn the_decay_warms_up_to_what_was_asked_for() {
        let ema = |warmup: bool| ema(json!({ "decay": 0.9, "warmup": warmup })).unwrap();
        assert_eq!([0, 1, 8].map(|taken| ema(true).decay(taken)), [0.1, 2.0 / 11.0, 0.5]);
        assert_eq!([80, 100, 10_000].map(|taken| ema(true).decay(taken)), [0.9; 3]);
        assert_eq!([0, 1, 10_000].map(|taken| ema(false).decay(taken)), [0.9; 3]);
    }

    #[test]
    fn what_holds_for_every_strategy_holds_for_this_one() {
        Host::new().strategy::<Ema>(json!({})).unwrap().check().unwrap();
    }

    #[test]
    fn evaluated_is_the_average_and_training_goes_on_as_it_was() {
        const NAME: &str = "pooler.dense.bias";
        let mut run = Host::new().strategy::<Ema>(json!({ "decay": 0.75, "warmup": false })).unwrap();
        let (total_steps, mut average) = (4, 0.0);
        for step in 0..total_steps {
            run.event(&Event::StepBegin { step, total_steps }).unwrap();
            let now = (step * step) as f64;
            run.set_value(NAME, &[now; 6]).unwrap();
            run.event(&Event::StepEnd { step, total_steps, loss: 1.0 }).unwrap();
            average = if step == 0 { now } else { 0.75 * average + 0.25 * now };

            run.event(&Event::EvaluationBegin { step: step + 1 }).unwrap();
            assert_eq!(run.value(NAME).unwrap(), [average; 6]);
            run.event(&Event::EvaluationEnd { step: step + 1 }).unwrap();
            assert_eq!(run.value(NAME).unwrap(), [now; 6]);
            let told = run.scalars();
            let distance = 6.0f64.sqrt() * (now - average).abs();
            assert!(told.len() == 1 && told[0].0 == step + 1 && told[0].1 == "distance", "{told:?}");
            assert!((told[0].2 - distance).abs() < 1e-6, "{told:?}, and not {distance}");
            run.check_state().unwrap();
        }
        run.event(&Event::TaskEnd { task: "t".into() }).unwrap();
        assert_eq!(run.value(NAME).unwrap(), [average; 6]);
        run.finish().unwrap();
    }

    #[test]
    fn refuses_what_cannot_be_meant() {
        for options in [json!({ "decay": 1.0 }), json!({ "decay": -0.5 }), json!({ "decays": 0.9 })] {
            assert!(ema(options.clone()).is_err(), "{options}");
        }
    }
}
