//! A masked language modelling head: the model's own layer over its vocabulary, trained to say which token stood in a masked one's place
//! (Devlin et al. 2018, arXiv:1810.04805).
//!
//! ```text
//! loss = sum_i (-log p_i[t_i]) / n
//! ```
//!
//! where i runs over the n tokens that were chosen in the whole optimizer step. That is Transformers' `...ForMaskedLM` with labels.

use fthost_plugin_api::prelude::*;
use fthost_plugin_api::{Masking, VocabularyLayer};

/// Options of the masked language modelling head.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct MaskedLmConfig {
    /// Share of a text's tokens that are chosen; of 100 of them the mask takes the place of 80, a random token that of 10, and 10 stay.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    share: f64,
    /// Whether all tokens of a word are chosen together.
    whole_words: bool,
}

impl Default for MaskedLmConfig {
    fn default() -> Self {
        Self { share: 0.15, whole_words: false }
    }
}

struct MaskedLm {
    masking: Masking,
    layer: Option<VocabularyLayer>,
}

impl MaskedLm {
    fn layer(&self) -> Result<&VocabularyLayer> {
        self.layer.as_ref().ok_or_else(|| Error::new("the head is used before it was attached"))
    }
}

impl TaskHead for MaskedLm {
    type Config = MaskedLmConfig;
    const PROBLEM_TYPE: Option<&'static str> = Some(problem_type::MASKED_LM);

    fn new(MaskedLmConfig { share, whole_words }: MaskedLmConfig) -> Result<Self> {
        if !(share > 0.0 && share <= 1.0) {
            return Err(Error::new(format!("share is {share}; it must be above 0 and at most 1")));
        }
        Ok(Self { masking: Masking { share, whole_words }, layer: None })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        self.layer = Some(VocabularyLayer::of(task, model, false)?);
        let spec = HeadSpec::new(FeatureKind::Sequence, TargetKind::MaskedToken, PredictionKind::Tokens);
        Ok(HeadSpec { masking: Some(self.masking), ..spec })
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        self.layer()?.forward(features.tensor) // [tokens, width]
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        self.layer()?.loss(outputs, targets)
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        self.layer()?.predict(outputs) // [tokens]
    }
}

register! {
    /// The token in each masked place, by the model's own layer over its vocabulary.
    TaskHead "masked-lm" => MaskedLm
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = [
        "linear@1", "gelu@1", "gelu_tanh@1", "relu@1", "silu@1", "tanh@1", "sigmoid@1", "layer_norm@1", "reshape@1",
        "linear_cross_entropy@1", "linear_argmax@1",
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_value;

    #[test]
    fn refuses_shares_that_are_none() {
        for share in [0.0, -0.1, 1.5, f64::NAN] {
            assert!(MaskedLm::new(MaskedLmConfig { share, whole_words: false }).is_err(), "{share}");
        }
        assert!(MaskedLm::new(from_value(json!({})).unwrap()).is_ok());
    }
}
