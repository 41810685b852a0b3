//! A causal language modelling head: the model's own layer over its vocabulary, trained to say the next token.
//!
//! ```text
//! loss = sum_i (-log p_i[t_i]) / n
//! ```
//!
//! where i runs over the n tokens that count in the whole optimizer step: those of a text, or of the answers alone where rows have prompts,
//! each with the token after it as its target. That is Transformers' `...ForCausalLM` with labels. Logits are made of the tokens that count
//! alone, some at a time, so a large vocabulary takes no memory beside its weight.

use fthost_plugin_api::VocabularyLayer;
use fthost_plugin_api::prelude::*;

/// Options of the causal language modelling head.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct CausalLmConfig {}

struct CausalLm {
    layer: Option<VocabularyLayer>,
}

impl CausalLm {
    fn layer(&self) -> Result<&VocabularyLayer> {
        self.layer.as_ref().ok_or_else(|| Error::new("the head is used before it was attached"))
    }
}

impl TaskHead for CausalLm {
    type Config = CausalLmConfig;
    const PROBLEM_TYPE: Option<&'static str> = Some(problem_type::CAUSAL_LM);

    fn new(CausalLmConfig {}: CausalLmConfig) -> Result<Self> {
        Ok(Self { layer: None })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        self.layer = Some(VocabularyLayer::of(task, model, true)?);
        Ok(HeadSpec::new(FeatureKind::Sequence, TargetKind::NextToken, PredictionKind::Tokens))
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
    /// The next token, by the model's own layer over its vocabulary.
    TaskHead "causal-lm" => CausalLm
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = ["reshape@1", "linear_cross_entropy@1", "linear_argmax@1"]
}
