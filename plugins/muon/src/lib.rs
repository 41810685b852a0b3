//! Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): the momentum of a matrix, made orthogonal, is its step.
//!
//! ```text
//! m     = momentum m + (1 - momentum) g,   c = (1 - momentum) g + momentum m  with Nesterov, else m
//! theta = (1 - lr weight_decay) theta - lr s NS(c)
//! NS(X) : X / |X|, then so many times X = a X + (b X X^T + c (X X^T)^2) X  with (a, b, c) = (3.4445, -4.7750, 2.0315)
//! ```
//!
//! NS brings the singular values near 1. s is 0.2 sqrt(max(rows, columns)), by which a step is about as large as AdamW's (Liu et al. 2025,
//! arXiv:2502.16982), or the first publication's sqrt(max(1, rows / columns)). A kernel is a matrix of its outputs. Vectors, and what `adamw` names,
//! are updated by AdamW. As torch's `optim.Muon`, in `f32` where that multiplies in `bf16`.

use fthost_plugin_api::prelude::*;
use fthost_plugin_api::{Optimizer, StateSpec, Update, Updated, check_shares};

mod rules;

/// Options of Muon.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct MuonConfig {
    /// How much of a matrix's momentum is left after each step; a schedule of the momentum takes its place.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    momentum: f64,
    /// Whether a step looks ahead as Nesterov's does.
    nesterov: bool,
    /// Newton-Schulz iterations.
    #[schemars(range(min = 1, max = 20))]
    iterations: usize,
    /// How large a matrix's step is: "adamw", about as AdamW's, or "original".
    scale: Scale,
    /// Matrices that AdamW updates too: those whose names contain one of these.
    adamw: Vec<String>,
    /// Decay of AdamW's first moment.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    beta1: f64,
    /// Decay of AdamW's second moment.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    beta2: f64,
    /// What AdamW adds to the root of the second moment.
    #[schemars(extend("exclusiveMinimum" = 0))]
    eps: f64,
}

impl Default for MuonConfig {
    fn default() -> Self {
        Self {
            momentum: 0.95,
            nesterov: true,
            iterations: 5,
            scale: Scale::Adamw,
            adamw: ["embed", "classifier", "out_proj", "lm_head", "decoder"].map(String::from).into(),
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Scale {
    Adamw,
    Original,
}

struct Muon(MuonConfig);

impl Muon {
    /// Whether a parameter is updated as a matrix.
    fn orthogonal(&self, name: &str, shape: &[usize]) -> bool {
        shape.len() > 1 && !self.0.adamw.iter().any(|part| name.contains(part.as_str()))
    }

    fn scale(&self, rows: usize, columns: usize) -> f64 {
        match self.0.scale {
            Scale::Adamw => 0.2 * (rows.max(columns) as f64).sqrt(),
            Scale::Original => (rows as f64 / columns as f64).max(1.0).sqrt(),
        }
    }
}

impl Optimizer for Muon {
    type Config = MuonConfig;

    fn new(config: MuonConfig) -> Result<Self> {
        check_shares([("momentum", config.momentum), ("beta1", config.beta1), ("beta2", config.beta2)])?;
        if !(config.eps.is_finite() && config.eps > 0.0) {
            return Err(Error::new(format!("eps is {}, and must be above 0", config.eps)));
        }
        if config.iterations == 0 {
            return Err(Error::new("iterations is 0, and must be at least 1"));
        }
        if config.adamw.iter().any(String::is_empty) {
            return Err(Error::new("adamw holds an empty name, which every parameter's contains: take it out"));
        }
        Ok(Self(config))
    }

    fn momentum(&self) -> f64 {
        self.0.momentum
    }

    fn states(&self, name: &str, shape: &[usize]) -> Result<Vec<StateSpec>> {
        let names: &[&str] = if self.orthogonal(name, shape) { &["momentum"] } else { &["exp_avg", "exp_avg_sq"] };
        Ok(names.iter().map(|name| StateSpec::new(name, shape)).collect())
    }

    fn step(&self, update: &Update<'_>) -> Result<Updated> {
        let decayed = update.value.mul_scalar(1.0 - update.lr * update.weight_decay)?;
        match update.states.as_slice() {
            [momentum] => {
                let shape = update.gradient.shape()?;
                let (rows, columns) = (shape[0], shape[1..].iter().product::<usize>());
                let (step, momentum) = rules::ahead(&update.gradient, momentum, update.momentum, self.0.nesterov)?;
                let step = rules::orthogonal(&step.reshape([rows, columns])?, self.0.iterations)?.reshape(shape)?;
                let step = step.mul_scalar(update.lr * self.scale(rows, columns))?;
                Ok(Updated { value: decayed.sub(&step)?, states: vec![momentum] })
            }
            [first, second] => {
                let MuonConfig { beta1, beta2, eps, .. } = self.0;
                let (step, states) = rules::adam(&update.gradient, [first, second], [beta1, beta2], eps, update.step)?;
                Ok(Updated { value: decayed.sub(&step.mul_scalar(update.lr)?)?, states: states.into() })
            }
            _ => Err(Error::new("muon keeps one state of a matrix, and two of what AdamW updates")),
        }
    }
}

register! {
    /// Muon: steps of matrices are made orthogonal; AdamW for the rest.
    Optimizer "muon" => Muon
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = ["add@1", "affine@1", "clamp_min@1", "div@1", "matmul@1", "reshape@1", "sqrt@1", "square@1", "sub@1", "sum@1", "transpose@1"],
    min_host_minor = 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_value;

    fn muon(options: Value) -> Result<Muon> {
        Muon::new(from_value(options)?)
    }

    #[test]
    fn matrices_but_those_of_ends_have_one_state() {
        let muon = muon(json!({})).unwrap();
        let kept = |name: &str, shape: &[usize]| muon.states(name, shape).unwrap().len();
        assert_eq!(kept("encoder.layer.0.output.dense.weight", &[4, 8]), 1);
        assert_eq!(kept("stem.convolution.weight", &[8, 3, 3, 3]), 1);
        assert_eq!(kept("encoder.layer.0.output.dense.bias", &[4]), 2);
        assert_eq!(kept("embeddings.word_embeddings.weight", &[90, 8]), 2);
        assert_eq!(kept("classifier.weight", &[2, 8]), 2);
    }

    #[test]
    fn steps_are_scaled_as_said() {
        let scale = |how: &str, rows, columns| muon(json!({ "scale": how })).unwrap().scale(rows, columns);
        assert_eq!((scale("adamw", 16, 100), scale("adamw", 100, 16)), (2.0, 2.0));
        assert_eq!((scale("original", 16, 100), scale("original", 64, 16)), (1.0, 2.0));
    }

    #[test]
    fn refuses_what_cannot_be_meant() {
        for options in [
            json!({ "momentum": 1.0 }),
            json!({ "beta2": 1.0 }),
            json!({ "eps": 0.0 }),
            json!({ "iterations": 0 }),
            json!({ "adamw": [""] }),
            json!({ "scale": "large" }),
        ] {
            assert!(muon(options.clone()).is_err(), "{options}");
        }
    }
}
