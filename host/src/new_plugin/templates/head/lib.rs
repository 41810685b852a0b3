//! A classifier by angles (Gidaris and Komodakis 2018, arXiv:1804.09458): a class is a direction,
//! and how long features are does not count.
//!
//! logits[c] = (h / |h|) (w_c / |w_c|) / T, with pooled features h, a vector w_c for each class and
//! the temperature T, trained by cross entropy. The vectors begin as N(0, 0.2): their directions
//! alone count, and the shorter they are, the further a step turns them.

use fthost_plugin_api::prelude::*;
use fthost_plugin_api::{CrossEntropy, check_shares};

#[cfg(test)]
mod tests;

/// Added to squared lengths, so that features of zeros have none.
const EPS: f64 = 1e-12;

/// Options of the head. The doc comments are their help, the defaults stand in `Default`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// T: logits lie between -1 / T and 1 / T, so the lower it is the surer the head can be.
    #[schemars(extend("exclusiveMinimum" = 0, "search" = [0.05, 0.1, 0.2]))]
    temperature: f64,
    /// Share of each target that is spread over all classes.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    label_smoothing: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            temperature: 0.1,
            label_smoothing: 0.0,
        }
    }
}

struct Angles {
    config: Config,
    /// The classes' vectors, `[classes, width]`, once the head is attached.
    weight: Option<Param>,
}

/// Rows of length 1, `[rows, width]`.
fn directions(rows: &Tensor) -> Result<Tensor> {
    let lengths = rows.square()?.sum_dim(-1, true)?.add_scalar(EPS)?.sqrt()?; // [rows, 1]
    rows.div(&lengths)
}

impl TaskHead for Angles {
    type Config = Config;

    fn new(config: Config) -> Result<Self> {
        if !(config.temperature.is_finite() && config.temperature > 0.0) {
            return Err(Error::new(format!(
                "temperature is {}, and must be above 0, such as 0.1",
                config.temperature
            )));
        }
        check_shares([("label_smoothing", config.label_smoothing)])?;
        Ok(Self {
            config,
            weight: None,
        })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        let shape = [task.classes()?, task.width];
        self.weight = Some(model.head_param(
            "weight",
            shape,
            Init::Normal {
                mean: 0.0,
                std: 0.2,
            },
        )?);
        Ok(HeadSpec::new(
            FeatureKind::Pooled,
            TargetKind::Class,
            PredictionKind::Classes,
        ))
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        let weight = self
            .weight
            .as_ref()
            .ok_or_else(|| Error::new("the head is used before it was attached"))?;
        let classes = directions(&weight.tensor())?; // [classes, width]
        let angles = directions(features.tensor)?.linear(&classes, None)?; // [examples, classes]
        angles.mul_scalar(1.0 / self.config.temperature)
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        // A sum and a weight: so batches may be split, and their gradients added.
        CrossEntropy {
            weights: None,
            label_smoothing: self.config.label_smoothing,
        }
        .loss(outputs, targets)
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        outputs.softmax() // [examples, classes]
    }
}

register! {
    /// Classes by the angles between features and a vector for each class.
    TaskHead "my-method" => Angles
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = ["square@1", "sum_dim@1", "affine@1", "sqrt@1", "div@1", "linear@1", "cross_entropy@1", "softmax@1"]
}
