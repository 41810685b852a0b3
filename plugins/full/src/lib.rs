//! Full fine-tuning: every parameter of the pretrained model trains, theta <- theta - lr * grad L(theta).
//!
//! The oldest recipe (Devlin et al. 2018, arXiv:1810.04805, section 3.2) and the mark that cheaper methods are measured
//! against. Nothing is added to the model, so step 0 is the base model exactly. Layers that `freeze` names stay as they are.

use fthost_plugin_api::{prelude::*, tracing};

/// Options of full fine-tuning.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct FullConfig {
    /// Parameters that stay frozen: a regular expression over whole paths, or a list of paths or their ends.
    freeze: Option<Targets>,
}

struct Full(FullConfig);

impl Strategy for Full {
    type Config = FullConfig;

    fn new(config: FullConfig) -> Result<Self> {
        Ok(Self(config))
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        model.thaw_all()?;
        if let Some(frozen) = &self.0.freeze {
            let tensors = model.freeze(frozen)?;
            tracing::info!(tensors, "kept frozen");
        }
        Ok(())
    }

    fn starts_at_base(&self) -> bool {
        true
    }
}

register! {
    /// Full fine-tuning: every parameter of the model trains.
    Strategy "full" => Full
}
export_plugin! { license = "MIT OR Apache-2.0" }

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_value;

    #[test]
    fn freeze_takes_a_pattern_or_names_and_nothing_else() {
        let freeze = |options: Value| from_value::<FullConfig>(options).map(|config| config.freeze);
        assert_eq!(freeze(json!({})).unwrap(), None);
        assert_eq!(freeze(json!({ "freeze": "embeddings.*" })).unwrap(), Some(Targets::Pattern("embeddings.*".into())));
        assert_eq!(freeze(json!({ "freeze": ["bias"] })).unwrap(), Some(Targets::from(["bias"])));
        assert!(freeze(json!({ "frozen": ["bias"] })).is_err());
    }
}
