//! The same options in PEFT's words: `adapter_config.json`.

use std::collections::BTreeMap;

use fthost_plugin_api::prelude::*;

use crate::options::{Bias, LoraConfig, Scaling, Size, Start};

/// The fields that PEFT reads. `layers`: what each layer got, by path.
pub(crate) fn from_options(config: &LoraConfig, layers: &[(String, Size)]) -> Value {
    // PEFT knows two scalings; the raw one is its alpha / rank with other alphas.
    let raw = |Size { rank, alpha }: Size| alpha * rank as f64;
    let whole = Size { rank: config.rank, alpha: config.alpha };
    let (alpha, alpha_pattern) = match config.scaling {
        Scaling::Raw => {
            let others = layers.iter().filter(|(_, size)| raw(*size) != raw(whole));
            (raw(whole), others.map(|(path, size)| (path.clone(), raw(*size))).collect::<BTreeMap<_, _>>())
        }
        Scaling::AlphaOverR | Scaling::Rslora => (config.alpha, config.alpha_pattern.clone()),
    };
    // An update that began as a part of the weight is saved beyond that part, at twice the rank and the same scale.
    let times = if config.init == Start::Lora { 1 } else { 2 };
    let twice = if config.scaling == Scaling::Rslora { f64::from(times).sqrt() } else { f64::from(times) };
    let ranks: BTreeMap<_, _> =
        config.rank_pattern.iter().map(|(pattern, rank)| (pattern, rank * times as usize)).collect();
    let alphas: BTreeMap<_, _> = alpha_pattern.into_iter().map(|(pattern, alpha)| (pattern, alpha * twice)).collect();
    json!({
        "peft_type": "LORA",
        "r": config.rank * times as usize,
        "lora_alpha": alpha * twice,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "use_rslora": config.scaling == Scaling::Rslora,
        "use_dora": config.use_dora,
        "lora_dropout": config.dropout,
        "target_modules": config.targets,
        "exclude_modules": config.exclude,
        "bias": config.bias,
        "fan_in_fan_out": false,
        "init_lora_weights": true,
    })
}

/// The options that compute what PEFT computes.
pub(crate) fn to_options(config: &mut PeftConfig) -> Result<Value> {
    check_init(config.take("init_lora_weights")?)?;
    // How the update started.
    config.skip(&["corda_config", "eva_config", "loftq_config", "lora_ga_config"]);
    // Sizes of what other fields switch on; those fields are refused where they do.
    config.skip(&["megatron_core", "qalora_group_size"]);
    // PEFT sets it back at a linear layer, whose weight is [out, in] whatever it says.
    config.skip(&["fan_in_fan_out"]);
    let rslora = config.take("use_rslora")? == Some(true);
    let targets = config.take::<Targets>("target_modules")?;
    let targets = targets.ok_or_else(|| Error::new("adapter_config.json names no target_modules"))?;
    Ok(json!({
        "rank": config.take("r")?.unwrap_or(8_usize),
        "alpha": config.take("lora_alpha")?.unwrap_or(8.0_f64),
        "scaling": if rslora { Scaling::Rslora } else { Scaling::AlphaOverR },
        "targets": targets,
        "exclude": config.take::<Targets>("exclude_modules")?,
        "rank_pattern": config.take::<BTreeMap<String, usize>>("rank_pattern")?.unwrap_or_default(),
        "alpha_pattern": config.take::<BTreeMap<String, f64>>("alpha_pattern")?.unwrap_or_default(),
        "dropout": config.take("lora_dropout")?.unwrap_or(0.0_f64),
        "bias": config.take("bias")?.unwrap_or(Bias::None),
        "use_dora": config.take("use_dora")? == Some(true),
    }))
}

/// Some ways to start take the update's first value out of the base weights, which the saved adapter then does not fit.
fn check_init(init: Option<Value>) -> Result<()> {
    match init {
        None | Some(Value::Bool(_)) => Ok(()),
        Some(Value::String(name)) if ["gaussian", "eva", "orthogonal", "mica"].contains(&name.as_str()) => Ok(()),
        Some(other) => Err(Error::new(format!(
            "adapter_config.json says init_lora_weights = {other}, which changes the base weights: save it with PEFT's \
             path_initial_model_for_weight_conversion"
        ))),
    }
}
