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
    use fthost_plugin_api::test::{Host, Numbers};

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

    /// `a b`, or `a b^T`, of matrices in rows.
    fn product(a: &[Vec<f64>], b: &[Vec<f64>], turned: bool) -> Vec<Vec<f64>> {
        let columns = if turned { b.len() } else { b[0].len() };
        let of = |row: &Vec<f64>, k: usize| {
            row.iter().enumerate().map(|(j, x)| x * if turned { b[k][j] } else { b[j][k] }).sum()
        };
        a.iter().map(|row| (0..columns).map(|k| of(row, k)).collect()).collect()
    }

    /// The iteration as it is published, of a matrix that is no taller than wide.
    fn orthogonal(matrix: &[f64], columns: usize, iterations: usize) -> Vec<f64> {
        let norm = matrix.iter().map(|x| x * x).sum::<f64>().sqrt();
        let mut x: Vec<Vec<f64>> = matrix.chunks(columns).map(|row| row.iter().map(|x| x / norm).collect()).collect();
        for _ in 0..iterations {
            let gram = product(&x, &x, true);
            let (once, twice) = (product(&gram, &x, false), product(&product(&gram, &gram, false), &x, false));
            for (i, row) in x.iter_mut().enumerate() {
                let of = |(j, x): (usize, &mut f64)| *x = 3.4445 * *x - 4.775 * once[i][j] + 2.0315 * twice[i][j];
                row.iter_mut().enumerate().for_each(of);
            }
        }
        x.concat()
    }

    #[test]
    fn a_matrixs_update_is_the_equations() {
        for nesterov in [true, false] {
            let run = Host::new().optimizer::<Muon>(json!({ "nesterov": nesterov, "scale": "original" })).unwrap();
            let formula = |of: &mut Numbers, columns: usize| {
                let mut ahead = Vec::new();
                for (momentum, gradient) in of.states[0].iter_mut().zip(&of.gradient) {
                    *momentum = of.momentum * *momentum + (1.0 - of.momentum) * gradient;
                    let looked = (1.0 - of.momentum) * gradient + of.momentum * *momentum;
                    ahead.push(if nesterov { looked } else { *momentum });
                }
                let step = orthogonal(&ahead, columns, 5);
                let decayed = |value: &f64| value * (1.0 - of.lr * of.weight_decay);
                of.value = of.value.iter().map(decayed).zip(step).map(|(value, step)| value - of.lr * step).collect();
            };
            run.check_formula("dense.weight", [2, 3], |of| formula(of, 3)).unwrap();
            // A kernel is a matrix of its outputs.
            run.check_formula("convolution.weight", [2, 2, 1, 2], |of| formula(of, 4)).unwrap();
        }
    }

    #[test]
    fn a_vectors_update_is_adamws() {
        let run = Host::new().optimizer::<Muon>(json!({ "beta1": 0.8, "beta2": 0.95, "eps": 1e-3 })).unwrap();
        let formula = |of: &mut Numbers| {
            let left = |beta: f64| 1.0 - beta.powi(of.step as i32);
            for i in 0..of.value.len() {
                let gradient = of.gradient[i];
                let first = 0.8 * of.states[0][i] + 0.2 * gradient;
                let second = 0.95 * of.states[1][i] + 0.05 * gradient * gradient;
                let step = first / left(0.8) / ((second / left(0.95)).sqrt() + 1e-3);
                of.value[i] -= of.lr * (of.weight_decay * of.value[i] + step);
                (of.states[0][i], of.states[1][i]) = (first, second);
            }
        };
        run.check_formula("dense.bias", [4], formula).unwrap();
        run.check_formula("classifier.weight", [3, 2], formula).unwrap();
    }

    #[test]
    fn what_holds_for_every_rule_holds_for_this_one() {
        let run = Host::new().optimizer::<Muon>(json!({})).unwrap();
        let losses = run.train(10, 1e-3).unwrap();
        assert!(losses[9] < losses[0], "{losses:?}");
        run.check().unwrap();
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
