//! Learning without forgetting (Li and Hoiem 2016, arXiv:1606.09282): while a task is learned, the heads of the tasks before it go on
//! to say of its examples what they said before it began.
//!
//! ```text
//! penalty = lambda / rows sum_i T^2 KL(softmax(r_i / T) || softmax(o_i / T))
//! ```
//!
//! with o the outputs of an earlier task's head on this task's examples, and r the same outputs as they were when the task began,
//! recorded once without dropout. T^2 keeps the gradient's size at any temperature (Hinton et al. 2015, arXiv:1503.02531). A head of
//! one value is held by the squared error instead. At the first step o is r but for dropout, so the penalty begins near zero.
//! None of the earlier tasks' examples is needed.

use fthost_plugin_api::prelude::*;

/// Options of learning without forgetting.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct DistillConfig {
    /// Weight of the penalty beside the task's own loss.
    #[schemars(extend("exclusiveMinimum" = 0))]
    lambda: f64,
    /// Temperature T of the softmax: above 1 small probabilities count more.
    #[schemars(extend("exclusiveMinimum" = 0))]
    temperature: f64,
}

impl Default for DistillConfig {
    fn default() -> Self {
        Self { lambda: 1.0, temperature: 2.0 }
    }
}

struct Distill(DistillConfig);

impl Regularizer for Distill {
    type Config = DistillConfig;

    fn new(config: DistillConfig) -> Result<Self> {
        for (option, value) in [("lambda", config.lambda), ("temperature", config.temperature)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::new(format!("{option} is {value}, and must be above 0")));
            }
        }
        Ok(Self(config))
    }

    fn needs_reference(&self) -> bool {
        true
    }

    fn output_penalty(&self, outputs: &Tensor, reference: &Tensor) -> Result<Option<Tensor>> {
        let DistillConfig { lambda, temperature } = self.0;
        let shape = outputs.shape()?; // [rows, classes], or of values [rows] or [rows, 1]
        if shape.len() == 1 || shape[1] == 1 {
            return outputs.squared_error(reference)?.mul_scalar(lambda).map(Some);
        }
        let soft = |logits: &Tensor| logits.mul_scalar(1.0 / temperature);
        // KL(reference || outputs) summed over the rows, a scalar.
        let divergence = soft(reference)?.kl_divergence(&soft(outputs)?)?;
        divergence.mul_scalar(lambda * temperature * temperature).map(Some)
    }
}

register! {
    /// Distillation: what earlier tasks' heads say of a new task's examples is held (learning without forgetting).
    Regularizer "distill" => Distill
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = ["affine@1", "log_softmax@1", "exp@1", "sub@1", "mul@1", "sum@1", "square@1"]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn refuses_what_cannot_be_meant() {
        for (lambda, temperature) in [(0.0, 2.0), (1.0, 0.0), (-1.0, 2.0), (1.0, f64::NAN)] {
            assert!(Distill::new(DistillConfig { lambda, temperature }).is_err(), "{lambda}, {temperature}");
        }
    }
}
