//! The same options in PEFT's words: `adapter_config.json`.

use std::collections::BTreeMap;

use fthost_plugin_api::prelude::*;

use crate::Ranks;
use crate::options::AdaLoraConfig;

/// The end of the names under which PEFT keeps which triplets of a layer are left.
const VALUES: &str = ".lora_E";

/// The fields that PEFT reads. `left`: which of its triplets each layer has left, by its path, where ranks are settled.
pub(crate) fn from_options(config: &AdaLoraConfig, left: Option<Ranks>, total_steps: Option<u64>) -> Value {
    // PEFT counts those that are gone too.
    let whole = |mut left: Vec<bool>| {
        left.resize(config.init_r, false);
        left
    };
    let pattern = left.map(|left| {
        left.into_iter().map(|(path, left)| (format!("{path}{VALUES}"), whole(left))).collect::<BTreeMap<_, _>>()
    });
    json!({
        "peft_type": "ADALORA",
        "init_r": config.init_r,
        "target_r": config.target_r,
        "tinit": config.tinit,
        "tfinal": config.tfinal,
        "deltaT": config.delta_t,
        "beta1": config.beta1,
        "beta2": config.beta2,
        // PEFT refuses a config without it, also where nothing is left to allocate.
        "total_step": total_steps.unwrap_or(config.tinit + config.tfinal + 1),
        "rank_pattern": pattern,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": config.targets,
        "exclude_modules": config.exclude,
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
    })
}

/// The options that compute what PEFT computes.
pub(crate) fn to_options(config: &mut PeftConfig) -> Result<Value> {
    // How the update started, how it was trained, and sizes of what other fields switch on.
    config.skip(&["init_lora_weights", "orth_reg_weight", "total_step", "megatron_core", "qalora_group_size"]);
    // PEFT sets the first back at a linear layer, and ranks are init_r's here.
    config.skip(&["fan_in_fan_out", "r", "corda_config", "eva_config", "loftq_config", "lora_ga_config"]);
    match config.take::<String>("bias")?.as_deref() {
        None | Some("none") => {}
        Some(bias) => {
            return Err(Error::new(format!(
                "adapter_config.json says bias = {bias:?}, and biases do not train here beside AdaLoRA"
            )));
        }
    }
    let targets = config.take::<Targets>("target_modules")?;
    let targets = targets.ok_or_else(|| Error::new("adapter_config.json names no target_modules"))?;
    let left = config.take::<Ranks>("rank_pattern")?.unwrap_or_default();
    let rank = |(name, left): (String, Vec<bool>)| match name.find(VALUES) {
        Some(end) => Ok((name[..end].to_owned(), left.into_iter().filter(|left| *left).count())),
        None => Err(Error::new(format!("adapter_config.json: rank_pattern names {name:?}, and no layer's lora_E"))),
    };
    let ranks = left.into_iter().map(rank).collect::<Result<BTreeMap<_, _>>>()?;
    Ok(json!({
        "init_r": config.take("init_r")?.unwrap_or(12_usize),
        "target_r": config.take("target_r")?.unwrap_or(8_usize),
        "tinit": config.take("tinit")?.unwrap_or(0_u64),
        "tfinal": config.take("tfinal")?.unwrap_or(0_u64),
        "delta_t": config.take("deltaT")?.unwrap_or(1_u64),
        "beta1": config.take("beta1")?.unwrap_or(0.85_f64),
        "beta2": config.take("beta2")?.unwrap_or(0.85_f64),
        "alpha": config.take("lora_alpha")?.unwrap_or(8.0_f64),
        "targets": targets,
        "exclude": config.take::<Targets>("exclude_modules")?,
        "dropout": config.take("lora_dropout")?.unwrap_or(0.0_f64),
        "rank_pattern": ranks,
    }))
}
