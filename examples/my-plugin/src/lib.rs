//! Norm tuning: of the pretrained model only the gains and biases of its norms train (Frankle et al. 2020, arXiv:2003.00152, who
//! trained batch norms alone; here they are layer norms).
//!
//! In y = g * (x - mean) / std + b only g and b train, every other weight stays as it is. Nothing is added, so step 0 is the
//! base model exactly.

use fthost_plugin_api::{prelude::*, tracing};

/// Options of norm tuning.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct NormsConfig {
    /// The parameters that train: a regular expression over whole paths, or a list of paths or their ends.
    targets: Targets,
    /// By which factor they learn faster than `train.lr` says; they take far higher rates than full fine-tuning.
    #[schemars(range(min = 0))]
    lr_factor: f64,
}

impl Default for NormsConfig {
    fn default() -> Self {
        // LayerNorm in BERT, sa_layer_norm in DistilBERT, layernorm_before in ViT.
        Self { targets: Targets::Pattern("(?i).*layer_?norm.*".into()), lr_factor: 1.0 }
    }
}

struct Norms(NormsConfig);

impl Strategy for Norms {
    type Config = NormsConfig;

    fn new(config: NormsConfig) -> Result<Self> {
        Ok(Self(config))
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        model.freeze_all()?;
        let tensors = model.thaw(&self.0.targets)?;
        model.set_lr_factor(Some(&self.0.targets), self.0.lr_factor)?;
        tracing::info!(tensors, "these alone train");
        Ok(())
    }
}

register! {
    /// Norm tuning: of the pretrained model only its norms train.
    Strategy "norms" => Norms
}
export_plugin! { license = "MIT OR Apache-2.0" }

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_api::test::Host;

    #[test]
    fn norms_alone_train() -> Result<()> {
        let run = Host::new().strategy::<Norms>(json!({}))?;
        assert!(run.trainable().iter().all(|name| name.contains("LayerNorm")));
        run.check() // gradients by finite differences, threads, a short training, the state
    }
}
