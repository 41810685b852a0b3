//! A regression head: one value y = w h + b for each example, from its pooled features h.
//!
//! It learns y to be the target t in units of its own, (t - center) / scale, and predicts scale y + center. With the error
//! e = y - (t - center) / scale the loss is the mean of e^2 (mse), of |e| (mae), or of Huber's (1964,
//! doi:10.1214/aoms/1177703732) e^2 / 2 where |e| <= delta and delta (|e| - delta / 2) beyond, as torch's `MSELoss`, `L1Loss` and
//! `HuberLoss`. Where the run file sets neither, center and scale are the mean and the standard deviation of the training targets: the
//! options say that they are `from` them. Where the architecture's own head has one more dense layer (RoBERTa, DistilBERT), so has this one:
//! y = w act(V h + c) + b. Matrices start N(0, 0.02) and biases at zero, so at step 0 all predictions are near center.

use fthost_plugin_api::prelude::*;
use fthost_plugin_api::{HeadLayers, HeadShape, check_shares};

/// Options of the regression head.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RegressionConfig {
    /// What is made small: "mse" (squares), "mae" (sizes), or "huber" (squares of small errors, sizes of large ones).
    loss: LossKind,
    /// Error from which on the huber loss grows linearly, in units of `scale`; 1 without it.
    #[schemars(extend("exclusiveMinimum" = 0))]
    delta: Option<f64>,
    /// What is subtracted from each target.
    #[schemars(extend("from" = "targets.mean"))]
    center: f64,
    /// What each target is divided by.
    #[schemars(extend("exclusiveMinimum" = 0, "from" = "targets.std"))]
    scale: f64,
    /// Dropout before the last layer; without it what the model's config asks for.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    dropout: Option<f64>,
    /// Standard deviation of the new matrices.
    #[schemars(range(min = 0))]
    init_std: f64,
}

impl Default for RegressionConfig {
    fn default() -> Self {
        Self { loss: LossKind::Mse, delta: None, center: 0.0, scale: 1.0, dropout: None, init_std: 0.02 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum LossKind {
    Mse,
    Mae,
    Huber,
}

struct Regression {
    config: RegressionConfig,
    layers: Option<HeadLayers>,
}

impl TaskHead for Regression {
    type Config = RegressionConfig;
    const PROBLEM_TYPE: Option<&'static str> = Some(problem_type::REGRESSION);

    fn new(config: RegressionConfig) -> Result<Self> {
        let RegressionConfig { loss, delta, center, scale, .. } = config;
        if !(scale.is_finite() && scale > 0.0) {
            return Err(Error::new(format!("scale is {scale}, and must be above 0: targets are divided by it")));
        }
        if !center.is_finite() {
            return Err(Error::new(format!("center is {center}, and must be a number")));
        }
        if delta.is_some() && loss != LossKind::Huber {
            return Err(Error::new("delta is the huber loss's: set loss = \"huber\", or leave delta out"));
        }
        if delta.is_some_and(|delta| delta <= 0.0) {
            return Err(Error::new("delta must be above 0: below it errors count by their squares"));
        }
        check_shares([("dropout", config.dropout.unwrap_or(0.0))])?;
        Ok(Self { config, layers: None })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        let shape = HeadShape {
            width: task.width,
            outputs: 1,
            hidden: task.hidden_activation.as_deref(),
            // Where a standardised value's mean goes.
            bias: true,
            init_std: self.config.init_std,
            dropout: self.config.dropout.unwrap_or(task.dropout),
        };
        self.layers = Some(shape.declare(model)?);
        Ok(HeadSpec::new(FeatureKind::Pooled, TargetKind::Value, PredictionKind::Values))
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        let layers = self.layers.as_ref().ok_or_else(|| Error::new("the head is used before it was attached"))?;
        let values = layers.forward(features.tensor)?; // [examples, 1]
        values.sum_dim(-1, false) // [examples]
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let RegressionConfig { loss, delta, center, scale, .. } = self.config;
        let error = outputs.sub(&targets.tensor.affine(1.0 / scale, -center / scale)?)?; // [examples]
        let terms = match loss {
            LossKind::Mse => error.square()?,
            LossKind::Mae => error.abs()?,
            LossKind::Huber => huber(&error, delta.unwrap_or(1.0))?,
        };
        Ok(Loss { sum: terms.sum()?, weight: error.shape()?.iter().product::<usize>() as f64 })
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        outputs.affine(self.config.scale, self.config.center) // [examples]
    }
}

/// With c = min(|e|, delta): c (|e| - c / 2), which is both of the loss's branches.
fn huber(error: &Tensor, delta: f64) -> Result<Tensor> {
    let size = error.abs()?; // [examples]
    let clipped = size.neg()?.maximum_scalar(-delta)?.neg()?; // [examples]
    clipped.mul(&size.sub(&clipped.mul_scalar(0.5)?)?)
}

register! {
    /// One value from pooled features, by squared, absolute or Huber's errors.
    TaskHead "regression" => Regression
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = ["linear@1", "dropout@1", "affine@1", "sub@1", "square@1", "abs@1", "clamp_min@1", "sum@1", "sum_dim@1"]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_value;

    #[test]
    fn refuses_what_cannot_be_meant() {
        let check = |options: Value, expected: &str| {
            let Err(error) = Regression::new(from_value(options.clone()).unwrap()) else {
                panic!("{options} is taken")
            };
            assert!(error.to_string().contains(expected), "{error}");
        };
        check(json!({ "scale": 0.0 }), "scale is 0, and must be above 0");
        check(json!({ "delta": 0.5 }), "set loss = \"huber\", or leave delta out");
        check(json!({ "loss": "huber", "delta": -1.0 }), "delta must be above 0");
        check(json!({ "dropout": 1.0 }), "below 1");
    }
}
