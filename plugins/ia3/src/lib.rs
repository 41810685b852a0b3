//! IA3 (Liu et al. 2022, arXiv:2205.05638): learned vectors rescale keys, values and the inner activations of the feed-forward half.
//!
//! y = l * (W x + b), l `[out]`, at keys and values; y = W (l * x) + b, l `[in]`, at feed-forward layers, whose input are the inner
//! activations. W and b are frozen, `*` is elementwise. l starts at one, so step 0 is the base model exactly. Defaults, names and
//! shapes as PEFT's tuners/ia3: its `output.dense` names both `output.dense` and `attention.output.dense` of a BERT block.

use fthost_plugin_api::prelude::*;

/// Options of IA3.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Ia3Config {
    /// Linear layers and convolutions that get a vector: a regular expression over whole paths, or a list of paths or their ends.
    targets: Targets,
    /// Those of them whose input is multiplied, not their output. A list holds names that `targets` holds too, or their ends.
    feedforward: Targets,
    /// Layers that get none although `targets` names them.
    exclude: Option<Targets>,
}

impl Default for Ia3Config {
    fn default() -> Self {
        Self {
            targets: Targets::from(["key", "value", "output.dense"]),
            feedforward: Targets::from(["output.dense"]),
            exclude: None,
        }
    }
}

struct Ia3(Ia3Config);

impl Strategy for Ia3 {
    type Config = Ia3Config;
    const PEFT_TYPE: Option<&'static str> = Some("IA3");

    fn new(config: Ia3Config) -> Result<Self> {
        let unknown = match (&config.targets, &config.feedforward) {
            (Targets::Names(targets), Targets::Names(feedforward)) => {
                feedforward.iter().find(|name| !targets.iter().any(|path| path.ends_with(name.as_str())))
            }
            _ => None,
        };
        if let Some(name) = unknown {
            return Err(Error::new(format!(
                "feedforward names `{name}`, which targets does not: add it to targets, or take it out of feedforward"
            )));
        }
        Ok(Self(config))
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        model.freeze_all()?;
        let feedforward = match &self.0.feedforward {
            Targets::Names(names) => names.clone(),
            pattern => model.linears(pattern)?.into_iter().map(|site| site.path).collect(),
        };
        let mut vectors = Vec::new();
        for site in model.products(&self.0.targets, self.0.exclude.as_ref())? {
            let conv = site.convolution.is_some();
            let l = if is_feedforward(&site.path, &feedforward) {
                if conv {
                    return Err(Error::new(format!(
                        "feedforward names {}, a convolution, whose input meets its kernel in patches: take it out of feedforward",
                        site.path
                    )));
                }
                let l = model.param(&site, "ia3_l", [1, site.in_features], Init::Ones)?;
                model.hook_linear(&site, ScaledInput { l: l.clone() })?;
                l
            } else {
                let shape = if conv { vec![1, site.out_features, 1, 1] } else { vec![site.out_features, 1] };
                let l = model.param(&site, "ia3_l", shape, Init::Ones)?;
                model.hook_linear(&site, ScaledOutput { l: l.clone() })?;
                l
            };
            vectors.push(l);
        }
        // Decay would pull the factors to 0, where the layer is gone, and not to 1, where it is the base model's.
        model.set_decay_of(&vectors, false)
    }

    fn starts_at_base(&self) -> bool {
        true
    }

    fn options_from_peft(config: &mut PeftConfig) -> Result<Value> {
        // PEFT sets the second back at a linear layer, whose weight is [out, in] whatever it says.
        config.skip(&["init_ia3_weights", "fan_in_fan_out"]);
        let targets = config.take::<Targets>("target_modules")?;
        let mut feedforward = config.take::<Targets>("feedforward_modules")?.unwrap_or(Targets::Names(Vec::new()));
        if let (Some(Targets::Names(targets)), Targets::Names(names)) = (&targets, &mut feedforward) {
            // Of layers that get nothing it says nothing.
            names.retain(|name| targets.iter().any(|path| path.ends_with(name.as_str())));
        }
        Ok(json!({
            "targets": targets,
            "feedforward": feedforward,
            "exclude": config.take::<Targets>("exclude_modules")?,
        }))
    }

    fn adapter_config(&self) -> Result<Option<Value>> {
        Ok(Some(json!({
            "peft_type": "IA3",
            "target_modules": self.0.targets,
            "feedforward_modules": self.0.feedforward,
            "exclude_modules": self.0.exclude,
            "fan_in_fan_out": false,
            "init_ia3_weights": true,
        })))
    }
}

/// As PEFT: an entry matches the end of a path, here also within a name. One that begins with the architecture's prefix is longer.
fn is_feedforward(path: &str, entries: &[String]) -> bool {
    let prefixed = |entry: &str| entry.strip_suffix(path).is_some_and(|prefix| prefix.ends_with('.'));
    entries.iter().any(|entry| path.ends_with(entry.as_str()) || prefixed(entry))
}

/// y = l * (W x + b)
struct ScaledOutput {
    l: Param, // [out, 1], of a convolution [1, out, 1, 1]
}

impl ScaledOutput {
    fn outputs(&self) -> usize {
        self.l.shape().iter().product()
    }
}

impl LinearHook for ScaledOutput {
    fn forward(&self, _x: &Tensor, y: Tensor, _weight: &Tensor) -> Result<Tensor> {
        y.mul(&self.l.tensor().reshape([self.outputs()])?) // [tokens, out]
    }

    fn merge(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        weight.mul(&self.l.tensor().reshape([self.outputs(), 1])?).map(Some) // [out, in]
    }

    fn merge_bias(&self, bias: &Tensor) -> Result<Option<Tensor>> {
        bias.mul(&self.l.tensor().reshape([self.outputs()])?).map(Some) // [out]
    }
}

/// y = W (l * x) + b
struct ScaledInput {
    l: Param, // [1, in]
}

impl LinearHook for ScaledInput {
    fn input(&self, x: &Tensor) -> Result<Option<Tensor>> {
        x.mul(&self.l).map(Some) // [tokens, in]
    }

    fn forward(&self, _x: &Tensor, y: Tensor, _weight: &Tensor) -> Result<Tensor> {
        Ok(y) // [tokens, out]
    }

    fn merge(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        weight.mul(&self.l).map(Some) // [out, in]
    }
}

register! {
    /// IA3: rescales keys, values and feed-forward activations by learned vectors.
    Strategy "ia3" => Ia3
}
export_plugin! { license = "MIT OR Apache-2.0", ops = ["mul@1", "reshape@1"] }

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn ia3(options: Value) -> Result<Ia3> {
        Ia3::new(fthost_plugin_api::serde_json::from_value(options)?)
    }

    #[test]
    fn feedforward_entries_match_as_in_peft() {
        let check = |path: &str, entries: &[&str], expected: bool| {
            let entries: Vec<String> = entries.iter().map(ToString::to_string).collect();
            assert_eq!(is_feedforward(path, &entries), expected, "{path} by {entries:?}");
        };
        let (key, inner) = ("encoder.layer.0.attention.self.key", "encoder.layer.0.output.dense");
        check(inner, &["output.dense"], true);
        check("encoder.layer.0.attention.output.dense", &["output.dense"], true);
        check("encoder.layer.0.intermediate.dense", &["output.dense"], false);
        check(key, &["output.dense"], false);
        check(key, &[], false);
        check(key, &["ey"], true);
        check(inner, &["bert.encoder.layer.0.output.dense"], true);
        check(inner, &["encoder.layer.1.output.dense"], false);
    }

    #[test]
    fn feedforward_is_part_of_targets() {
        assert!(ia3(json!({})).is_ok());
        assert!(ia3(json!({ "targets": ["key"], "feedforward": [] })).is_ok());
        assert!(ia3(json!({ "targets": "encoder.*", "feedforward": ["output.dense"] })).is_ok());
        assert!(ia3(json!({ "targets": ["encoder.layer.0.output.dense"], "feedforward": ["output.dense"] })).is_ok());
        let error = ia3(json!({ "targets": ["key"] })).err().unwrap().to_string();
        assert!(error.contains("`output.dense`") && error.contains("add it to targets"), "{error}");
    }

    #[test]
    fn peft_reads_what_was_trained() {
        let options = json!({ "targets": ["key", "intermediate.dense"], "feedforward": ["intermediate.dense"] });
        let config = ia3(options).unwrap().adapter_config().unwrap().expect("PEFT knows IA3");
        assert_eq!(config["peft_type"], "IA3");
        assert_eq!(config["target_modules"], json!(["key", "intermediate.dense"]));
        assert_eq!(config["feedforward_modules"], json!(["intermediate.dense"]));

        let mut config = fthost_plugin_api::serde_json::from_value(config).unwrap();
        let options = Ia3::options_from_peft(&mut config).unwrap();
        assert_eq!(options["targets"], json!(["key", "intermediate.dense"]));
        assert_eq!(options["feedforward"], json!(["intermediate.dense"]));
    }
}
