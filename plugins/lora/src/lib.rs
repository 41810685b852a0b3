//! LoRA (Hu et al. 2021, arXiv:2106.09685): y = W x + b + s B A x.
//!
//! W `[out, in]` is frozen; A `[rank, in]` and B `[out, rank]` train. A starts Kaiming-uniform with a = sqrt 5, that is
//! U(-1/sqrt in, 1/sqrt in), and B at zero, so step 0 is the base model exactly. The scale s is alpha / rank, alpha /
//! sqrt rank (rsLoRA, Kalajdzievski 2023, arXiv:2312.03732) or alpha itself. As PEFT's tuners/lora/layer.py.

use fthost_plugin_api::prelude::*;

/// Options of LoRA.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct LoraConfig {
    /// Rank of the update: rows of A, columns of B.
    #[schemars(range(min = 1))]
    rank: usize,
    /// Weight of the update; `scaling` says how it becomes the scale.
    alpha: f64,
    /// How alpha becomes the scale.
    scaling: Scaling,
    /// Linear layers that get an update.
    targets: Targets,
    /// Layers that get none although `targets` names them.
    exclude: Option<Targets>,
    /// Dropout on the update's input.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    dropout: f64,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            scaling: Scaling::AlphaOverR,
            targets: Targets::from(["query", "value"]),
            exclude: None,
            dropout: 0.0,
        }
    }
}

/// How alpha and rank make the scale.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Scaling {
    /// alpha / rank
    AlphaOverR,
    /// alpha / sqrt rank: ranks of any size learn at the same pace
    Rslora,
    /// alpha
    Raw,
}

impl LoraConfig {
    fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        match self.scaling {
            Scaling::AlphaOverR => self.alpha / rank,
            Scaling::Rslora => self.alpha / rank.sqrt(),
            Scaling::Raw => self.alpha,
        }
    }
}

struct Lora(LoraConfig);

impl Strategy for Lora {
    type Config = LoraConfig;

    fn new(config: LoraConfig) -> Result<Self> {
        if config.rank == 0 {
            return Err(Error::new("rank is 0, so nothing would train: give at least 1"));
        }
        if !(0.0..1.0).contains(&config.dropout) {
            return Err(Error::new(format!("dropout is {}, and must be at least 0 and below 1", config.dropout)));
        }
        Ok(Self(config))
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        let LoraConfig { rank, dropout, .. } = self.0;
        model.freeze_all()?;
        for site in model.linears_except(&self.0.targets, self.0.exclude.as_ref())? {
            let init = Init::kaiming_uniform(site.in_features);
            let a = model.param(&site, "lora_A.weight", [rank, site.in_features], init)?;
            let b = model.param(&site, "lora_B.weight", [site.out_features, rank], Init::Zeros)?;
            model.hook_linear(&site, LowRank { a, b, scale: self.0.scale(), dropout })?;
        }
        Ok(())
    }

    fn starts_at_base(&self) -> bool {
        true
    }

    fn adapter_config(&self) -> Result<Option<Value>> {
        let config = &self.0;
        // PEFT knows two scalings; the raw one is its alpha / rank with another alpha.
        let alpha = if config.scaling == Scaling::Raw { config.alpha * config.rank as f64 } else { config.alpha };
        Ok(Some(json!({
            "peft_type": "LORA",
            "r": config.rank,
            "lora_alpha": alpha,
            "use_rslora": config.scaling == Scaling::Rslora,
            "lora_dropout": config.dropout,
            "target_modules": config.targets,
            "exclude_modules": config.exclude,
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
        })))
    }
}

struct LowRank {
    a: Param, // [rank, in]
    b: Param, // [out, rank]
    scale: f64,
    dropout: f64,
}

impl LinearHook for LowRank {
    fn forward(&self, x: &Tensor, y: Tensor, _weight: &Tensor) -> Result<Tensor> {
        if self.dropout == 0.0 {
            return y.add_low_rank(x, &self.a, &self.b, self.scale); // [tokens, out]
        }
        y.add_low_rank(&x.dropout(self.dropout)?, &self.a, &self.b, self.scale) // [tokens, out]
    }

    fn merge(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        let update = self.b.tensor().matmul(&self.a)?.mul_scalar(self.scale)?; // [out, in]
        weight.add(&update).map(Some)
    }
}

register! {
    /// LoRA: trains a low-rank update beside each chosen linear layer.
    Strategy "lora" => Lora
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = ["low_rank@1", "dropout@1", "matmul@1", "affine@1", "add@1"]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn lora(options: Value) -> Result<Lora> {
        Lora::new(fthost_plugin_api::serde_json::from_value(options)?)
    }

    #[test]
    fn scale() {
        for (scaling, expected) in [("alpha_over_r", 2.0), ("rslora", 16.0 / 8.0_f64.sqrt()), ("raw", 16.0)] {
            assert_eq!(lora(json!({ "scaling": scaling })).unwrap().0.scale(), expected, "{scaling}");
        }
    }

    #[test]
    fn refuses_what_cannot_train() {
        for options in [json!({ "rank": 0 }), json!({ "dropout": 1.0 }), json!({ "rnak": 4 })] {
            assert!(lora(options.clone()).is_err(), "{options}");
        }
    }

    #[test]
    fn peft_reads_the_same_scale() {
        for scaling in ["alpha_over_r", "rslora", "raw"] {
            let lora = lora(json!({ "scaling": scaling, "rank": 4, "targets": "encoder.*query" })).unwrap();
            let config = lora.adapter_config().unwrap().expect("PEFT knows LoRA");
            let rank = config["r"].as_f64().unwrap();
            let divisor = if config["use_rslora"] == json!(true) { rank.sqrt() } else { rank };
            assert_eq!(config["lora_alpha"].as_f64().unwrap() / divisor, lora.0.scale(), "{scaling}");
            assert_eq!(config["target_modules"], json!("encoder.*query"));
        }
    }
}
