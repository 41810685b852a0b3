//! BitFit (Ben Zaken et al. 2022, arXiv:2106.10199): of the pretrained model only the biases train.
//!
//! b <- b - lr * grad L(b), every weight stays as it is. Nothing is added, so step 0 is the base model exactly.

use fthost_plugin_api::{prelude::*, tracing};

/// Options of BitFit.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct BitFitConfig {
    /// The parameters that train: a regular expression over whole paths, or a list of paths or their ends.
    targets: Targets,
    /// By which factor biases learn faster than `train.lr` says; the paper's rates are far above those of full fine-tuning.
    #[schemars(range(min = 0))]
    lr_factor: f64,
}

impl Default for BitFitConfig {
    fn default() -> Self {
        Self { targets: Targets::from(["bias"]), lr_factor: 1.0 }
    }
}

struct BitFit(BitFitConfig);

impl Strategy for BitFit {
    type Config = BitFitConfig;

    fn new(config: BitFitConfig) -> Result<Self> {
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
    /// BitFit: of the pretrained model only the biases train.
    Strategy "bitfit" => BitFit
}
export_plugin! { license = "MIT OR Apache-2.0" }
