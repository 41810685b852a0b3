//! Lion (Chen et al. 2023, arXiv:2302.06675): each weight moves by the same amount, in the direction of an interpolated momentum.
//!
//! ```text
//! c     = beta1 m + (1 - beta1) g
//! theta = theta - lr (sign(c) + weight_decay theta)
//! m     = beta2 m + (1 - beta2) g
//! ```
//!
//! m starts at zero, so the first step moves by the gradient's sign. Decay is decoupled, as AdamW's. One state a parameter where AdamW has two.

use fthost_plugin_api::prelude::*;
use fthost_plugin_api::{Optimizer, StateSpec, Update, Updated, check_shares};

/// Options of Lion.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct LionConfig {
    /// How much of the momentum is in the direction of a step; a schedule of the momentum takes its place.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    beta1: f64,
    /// How much of the momentum is left after each step.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    beta2: f64,
}

impl Default for LionConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.99 }
    }
}

struct Lion(LionConfig);

impl Optimizer for Lion {
    type Config = LionConfig;

    fn new(config: LionConfig) -> Result<Self> {
        check_shares([("beta1", config.beta1), ("beta2", config.beta2)])?;
        Ok(Self(config))
    }

    fn momentum(&self) -> f64 {
        self.0.beta1
    }

    fn states(&self, _name: &str, shape: &[usize]) -> Result<Vec<StateSpec>> {
        Ok(vec![StateSpec::new("exp_avg", shape)])
    }

    fn step(&self, update: &Update<'_>) -> Result<Updated> {
        let Update { value, gradient, lr, momentum: beta1, weight_decay, .. } = update;
        let beta2 = self.0.beta2;
        let [average] = update.states.as_slice() else { return Err(Error::new("lion keeps one state a parameter")) };
        let mix = |beta: f64| average.mul_scalar(beta)?.add(&gradient.mul_scalar(1.0 - beta)?);
        let step = mix(*beta1)?.sign()?.mul_scalar(*lr)?;
        Ok(Updated { value: value.mul_scalar(1.0 - lr * weight_decay)?.sub(&step)?, states: vec![mix(beta2)?] })
    }
}

register! {
    /// Lion: steps of equal size in the direction of an interpolated momentum.
    Optimizer "lion" => Lion
}
export_plugin! { license = "MIT OR Apache-2.0", ops = ["add@1", "affine@1", "sign@1", "sub@1"], min_host_minor = 1 }

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_value;
    use fthost_plugin_api::test::Host;

    fn lion(options: Value) -> Result<Lion> {
        Lion::new(from_value(options)?)
    }

    #[test]
    fn refuses_what_cannot_be_meant() {
        for options in [json!({ "beta1": 1.0 }), json!({ "beta2": -0.1 }), json!({ "betas": [0.9, 0.99] })] {
            assert!(lion(options.clone()).is_err(), "{options}");
        }
    }

    #[test]
    fn its_momentum_is_beta1_and_it_keeps_one_state() {
        let lion = lion(json!({ "beta1": 0.95 })).unwrap();
        assert_eq!(lion.momentum(), 0.95);
        assert_eq!(lion.states("weight", &[3, 2]).unwrap(), [StateSpec::new("exp_avg", [3, 2])]);
    }

    #[test]
    fn an_update_is_the_equations() {
        let run = Host::new().optimizer::<Lion>(json!({ "beta1": 0.8, "beta2": 0.95 })).unwrap();
        run.check_formula("dense.weight", [3, 2], |of| {
            for i in 0..of.value.len() {
                let (average, gradient) = (of.states[0][i], of.gradient[i]);
                let step = (of.momentum * average + (1.0 - of.momentum) * gradient).signum();
                of.value[i] -= of.lr * (step + of.weight_decay * of.value[i]);
                of.states[0][i] = 0.95 * average + 0.05 * gradient;
            }
        })
        .unwrap();
    }

    #[test]
    fn what_holds_for_every_rule_holds_for_this_one() {
        let run = Host::new().optimizer::<Lion>(json!({})).unwrap();
        let losses = run.train(10, 1e-3).unwrap();
        assert!(losses[9] < losses[0], "{losses:?}");
        run.check().unwrap();
    }
}
