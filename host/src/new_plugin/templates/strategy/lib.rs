//! Scaling and shifting features (SSF, Lian et al. 2022, arXiv:2210.08823): the outputs of chosen
//! linear layers are scaled and shifted.
//!
//! y = s * (W x + b) + t, with s and t `[out]`, and `*` elementwise. Of the model nothing else
//! trains. s begins as ones and t as zeros, so step 0 is the base model exactly. Merged, W becomes
//! diag(s) W and b becomes s * b + t.

use fthost_plugin_api::prelude::*;

#[cfg(test)]
mod tests;

/// Options of the method. The doc comments are their help, the defaults stand in `Default`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Linear layers that are scaled: a regular expression over whole paths, or a list of paths or
    /// their ends.
    targets: Targets,
    /// Whether they are shifted too. A layer without a bias is not: merged, it has no place for a
    /// shift.
    shift: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            targets: Targets::from(["query", "value", "output.dense"]),
            shift: true,
        }
    }
}

struct ScaleAndShift(Config);

impl Strategy for ScaleAndShift {
    type Config = Config;

    fn new(config: Config) -> Result<Self> {
        // Refuse here what the types of the options cannot say.
        if config.targets == Targets::Names(Vec::new()) {
            return Err(Error::new(
                "targets is an empty list, so nothing would train: name the ends of some layers' paths",
            ));
        }
        Ok(Self(config))
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        model.freeze_all()?;
        let known: Vec<String> = model
            .parameters()?
            .into_iter()
            .map(|parameter| parameter.path)
            .collect();
        let mut vectors = Vec::new();
        // An error where the targets name nothing.
        for site in model.linears(&self.0.targets)? {
            let has_bias = known.contains(&format!("{}.bias", site.path));
            let scale = model.param(&site, "ssf_scale", [site.out_features], Init::Ones)?;
            let shift = match self.0.shift && has_bias {
                true => Some(model.param(&site, "ssf_shift", [site.out_features], Init::Zeros)?),
                false => None,
            };
            vectors.extend([Some(scale.clone()), shift.clone()].into_iter().flatten());
            model.hook_linear(&site, Scaled { scale, shift })?;
        }
        // Decay would pull the scales to 0, where the layer is gone, and not to 1, where it is the
        // base model's.
        model.set_decay_of(&vectors, false)
    }

    fn starts_at_base(&self) -> bool {
        true
    }
}

/// y = s * (W x + b) + t
struct Scaled {
    scale: Param,         // [out]
    shift: Option<Param>, // [out]
}

impl Scaled {
    fn shifted(&self, scaled: Tensor) -> Result<Tensor> {
        match &self.shift {
            Some(shift) => scaled.add(shift),
            None => Ok(scaled),
        }
    }
}

impl LinearHook for Scaled {
    fn forward(&self, _x: &Tensor, y: Tensor, _weight: &Tensor) -> Result<Tensor> {
        self.shifted(y.mul(&self.scale)?) // [tokens, out]
    }

    fn merge(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        let rows = self.scale.tensor().reshape([self.scale.shape()[0], 1])?; // [out, 1]
        weight.mul(&rows).map(Some) // [out, in]
    }

    fn merge_bias(&self, bias: &Tensor) -> Result<Option<Tensor>> {
        self.shifted(bias.mul(&self.scale)?).map(Some) // [out]
    }
}

register! {
    /// Scales and shifts the outputs of linear layers.
    Strategy "my-method" => ScaleAndShift
}
export_plugin! { license = "MIT OR Apache-2.0", ops = ["add@1", "mul@1", "reshape@1"] }
