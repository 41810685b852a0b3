//! VeRA (Kopiczko et al. 2023, arXiv:2310.11454): y = W x + b + l_b * (B (l_d * (A x))).
//!
//! A `[rank, in]` and B `[out, rank]` are random, frozen, and the same for all layers; what trains are two vectors of each layer, l_d `[rank]` and
//! l_b `[out]`, `*` elementwise. A layer takes the first columns of A and the first rows of B, which are as large as the largest layer asks for.
//! l_d starts at `d_initial` and l_b at zero, so step 0 is the base model exactly. A and B start Kaiming-uniform, U(-sqrt(6 / in), sqrt(6 / in)).
//! Names, shapes and defaults as PEFT's tuners/vera.

use fthost_plugin_api::{check_shares, prelude::*};

/// Options of VeRA.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct VeraConfig {
    /// Rank of the shared matrices, and width of l_d. It costs little: 256 is PEFT's.
    #[schemars(range(min = 1), extend("search" = [64, 256, 1024]))]
    rank: usize,
    /// What l_d begins as.
    d_initial: f64,
    /// Linear layers that get vectors: a list of paths or their ends, or a regular expression over whole paths.
    targets: Targets,
    /// Layers that get none although `targets` names them.
    exclude: Option<Targets>,
    /// Dropout on the update's input.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    dropout: f64,
}

impl Default for VeraConfig {
    fn default() -> Self {
        Self { rank: 256, d_initial: 0.1, targets: Targets::from(["query", "value"]), exclude: None, dropout: 0.0 }
    }
}

struct Vera {
    config: VeraConfig,
    /// The paths of the layers that got vectors.
    layers: Vec<String>,
}

impl Strategy for Vera {
    type Config = VeraConfig;
    const PEFT_TYPE: Option<&'static str> = Some("VERA");

    fn options_from_peft(config: &mut PeftConfig) -> Result<Value> {
        // How the vectors and, where they are saved, the matrices started. PEFT sets the last back at a linear layer.
        config.skip(&["init_weights", "projection_prng_key", "fan_in_fan_out"]);
        if config.take("save_projection")? == Some(false) {
            return Err(Error::new(
                "adapter_config.json says save_projection = false, so that the folder lacks A and B, which torch's generator alone \
                 makes again: save it with save_projection = true",
            ));
        }
        match config.take::<String>("bias")?.as_deref() {
            None | Some("none") => {}
            Some(bias) => {
                return Err(Error::new(format!(
                    "adapter_config.json says bias = {bias:?}, and biases do not train here beside VeRA"
                )));
            }
        }
        let targets = config.take::<Targets>("target_modules")?;
        let targets = targets.ok_or_else(|| Error::new("adapter_config.json names no target_modules"))?;
        Ok(json!({
            "rank": config.take("r")?.unwrap_or(256_usize),
            "d_initial": config.take("d_initial")?.unwrap_or(0.1_f64),
            "targets": targets,
            "exclude": config.take::<Targets>("exclude_modules")?,
            "dropout": config.take("vera_dropout")?.unwrap_or(0.0_f64),
        }))
    }

    fn new(config: VeraConfig) -> Result<Self> {
        check_shares([("dropout", config.dropout)])?;
        if config.rank == 0 {
            return Err(Error::new("rank is 0, and must be at least 1"));
        }
        if !config.d_initial.is_finite() || config.d_initial == 0.0 {
            return Err(Error::new(format!(
                "d_initial is {}, and must be a number other than 0: with both vectors at 0 neither gets a gradient",
                config.d_initial
            )));
        }
        Ok(Self { config, layers: Vec::new() })
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        model.freeze_all()?;
        let VeraConfig { rank, d_initial, dropout, .. } = self.config;
        let sites = model.linears_except(&self.config.targets, self.config.exclude.as_ref())?;
        let largest = |side: fn(&Site) -> usize| sites.iter().map(side).max().unwrap_or_default();
        let (inputs, outputs) = (largest(|site| site.in_features), largest(|site| site.out_features));
        let mut shared = |name: &str, shape: [usize; 2]| {
            let bound = (6.0 / shape[1] as f64).sqrt();
            model.shared_param(name, shape, Init::Uniform { low: -bound, high: bound })
        };
        // By PEFT's names: the model that it wraps holds them, not a layer.
        let a = shared("base_model.vera_A", [rank, inputs])?;
        let b = shared("base_model.vera_B", [outputs, rank])?;
        model.set_trainable_of(&[a.clone(), b.clone()], false)?;
        for site in &sites {
            let lambda_b = model.param(site, "vera_lambda_b", [site.out_features], Init::Zeros)?;
            let lambda_d = model.param(site, "vera_lambda_d", [rank], Init::Constant { value: d_initial })?;
            let (inputs, a, b) = (site.in_features, a.clone(), b.clone());
            model.hook_linear(site, Scaled { a, b, lambda_b, lambda_d, inputs, dropout })?;
        }
        self.layers = sites.into_iter().map(|site| site.path).collect();
        Ok(())
    }

    fn starts_at_base(&self) -> bool {
        true
    }

    fn adapter_config(&self) -> Result<Option<Value>> {
        let VeraConfig { rank, d_initial, targets, exclude, dropout } = &self.config;
        // PEFT's has no field for what is left out.
        let targets = if exclude.is_some() { &Targets::Names(self.layers.clone()) } else { targets };
        Ok(Some(json!({
            "peft_type": "VERA",
            "r": rank,
            "d_initial": d_initial,
            "vera_dropout": dropout,
            "target_modules": targets,
            "projection_prng_key": 0,
            "save_projection": true,
            "bias": "none",
            "fan_in_fan_out": false,
            "init_weights": true,
        })))
    }
}

/// y + l_b * (B (l_d * (A x)))
struct Scaled {
    a: Param,        // [rank, in or more]
    b: Param,        // [out or more, rank]
    lambda_b: Param, // [out]
    lambda_d: Param, // [rank]
    inputs: usize,
    dropout: f64,
}

impl Scaled {
    /// The parts of A and B that the layer takes: `[rank, in]` and `[out, rank]`.
    fn parts(&self) -> Result<(Tensor, Tensor)> {
        let outputs = self.lambda_b.shape()[0];
        let part = |of: &Param, dim: usize, side: usize| match of.shape()[dim] == side {
            true => Ok(of.tensor()),
            false => of.tensor().narrow(dim as isize, 0, side),
        };
        Ok((part(&self.a, 1, self.inputs)?, part(&self.b, 0, outputs)?))
    }
}

impl LinearHook for Scaled {
    fn forward(&self, x: &Tensor, y: Tensor, _weight: &Tensor) -> Result<Tensor> {
        let (a, b) = self.parts()?;
        let x = if self.dropout > 0.0 { &x.dropout(self.dropout)? } else { x };
        let inner = x.linear(&a, None)?.mul(&self.lambda_d)?; // [tokens, rank]
        y.add(&inner.linear(&b, None)?.mul(&self.lambda_b)?) // [tokens, out]
    }

    fn merge(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        let (a, b) = self.parts()?;
        let [rank, outputs] = [&self.lambda_d, &self.lambda_b].map(|vector| vector.shape()[0]);
        let a = a.mul(&self.lambda_d.tensor().reshape([rank, 1])?)?; // [rank, in]
        let b = b.mul(&self.lambda_b.tensor().reshape([outputs, 1])?)?; // [out, rank]
        weight.add(&b.matmul(&a)?).map(Some) // [out, in]
    }
}

register! {
    /// VeRA: trains two vectors of each chosen layer beside random matrices that all share.
    Strategy "vera" => Vera
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = ["add@1", "affine@1", "dropout@1", "linear@1", "matmul@1", "mul@1", "narrow@1", "reshape@1"],
    min_host_minor = 1,
    about = "VeRA (Kopiczko et al. 2023, arXiv:2310.11454) as PEFT computes it"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_value;
    use fthost_plugin_api::test::Host;

    fn vera(options: Value) -> Result<Vera> {
        Vera::new(from_value(options)?)
    }

    #[test]
    fn what_holds_for_every_strategy_holds_for_this_one() {
        for options in [json!({ "rank": 3 }), json!({ "rank": 2, "targets": "all-linear", "dropout": 0.2 })] {
            let run = Host::new().strategy::<Vera>(options.clone()).unwrap();
            run.check().unwrap_or_else(|error| panic!("{options}: {error}"));
        }
    }

    #[test]
    fn refuses_what_cannot_train() {
        for options in [json!({ "rank": 0 }), json!({ "d_initial": 0.0 }), json!({ "dropout": 1.0 }), json!({ "r": 8 })]
        {
            assert!(vera(options.clone()).is_err(), "{options}");
        }
    }

    #[test]
    fn pefts_config_becomes_the_options_that_it_came_from() {
        let back = |vera: &Vera| {
            let config = vera.adapter_config().unwrap().expect("PEFT knows VeRA");
            Vera::options_from_peft(&mut from_value(config).unwrap()).unwrap()
        };
        let mut written = json!({ "rank": 8, "d_initial": 0.25, "targets": ["key"], "exclude": null, "dropout": 0.1 });
        assert_eq!(back(&vera(written.clone()).unwrap()), written);
        // What is left out is not named: PEFT's config has no field for it.
        let mut excluding =
            vera(json!({ "rank": 8, "d_initial": 0.25, "targets": ["key"], "exclude": ["0.key"], "dropout": 0.1 }))
                .unwrap();
        excluding.layers = vec!["layer.1.key".into()];
        written["targets"] = json!(["layer.1.key"]);
        assert_eq!(back(&excluding), written);
    }

    #[test]
    fn what_the_folder_does_not_say_is_refused() {
        let check = |field: &str, value: Value, expected: &str| {
            let mut config = json!({ "target_modules": ["query"] });
            config[field] = value;
            let error = Vera::options_from_peft(&mut from_value(config).unwrap()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("save_projection", json!(false), "save it with save_projection = true");
        check("bias", json!("all"), "bias = \"all\"");
        check("target_modules", json!(null), "names no target_modules");
    }
}
