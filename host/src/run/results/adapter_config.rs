//! The layers that an `adapter_config.json` names, in PEFT's words.
//!
//! Strategies answer in those of their options, which are PEFT's but for stars and streams: `text:*query`. PEFT knows neither, and where two
//! models were joined it sees one of them. Then the layers that got something are listed, by their whole paths.

use fthost_models::{Model, ModelInfo};
use fthost_plugin_api::Targets;
use serde_json::{Map, Value, json};

use super::keys::Keys;

/// Names the adapted layers.
const TARGETS: &str = "target_modules";
/// Names layers that get nothing.
const EXCLUDE: &str = "exclude_modules";
/// Ends of the paths of those of them that are adapted at their inputs.
const INPUTS: &str = "feedforward_modules";
/// Values of single layers by regular expressions.
const PATTERNS: [&str; 2] = ["rank_pattern", "alpha_pattern"];

/// Names layers as PEFT finds them in the model that the keys are for.
pub(super) fn name_layers(config: &mut Value, keys: &Keys<'_>, model: &dyn Model) {
    let Value::Object(config) = config else { return };
    let info = model.info();
    let said = |field: &str| serde_json::from_value::<Targets>(config.get(field).cloned().unwrap_or_default()).ok();
    let named: Vec<Targets> = [TARGETS, EXCLUDE].into_iter().filter_map(said).collect();
    if said(TARGETS).is_some() && (info.streams.len() > 1 || !named.iter().all(|targets| is_pefts(info, targets))) {
        let layers: Vec<String> = keys.layers().collect();
        if let Some(Targets::Names(ends)) = said(INPUTS) {
            let at_input = |path: &&String| ends.iter().any(|end| path.ends_with(end.as_str()));
            config.insert(INPUTS.into(), layers.iter().filter(at_input).cloned().collect());
        }
        config.insert(TARGETS.into(), json!(layers));
        config.insert(EXCLUDE.into(), Value::Null);
    }
    for (field, table) in config.iter_mut() {
        let Value::Object(table) = table else { continue };
        let by_pattern = PATTERNS.contains(&field.as_str());
        let said = std::mem::take(table).into_iter();
        let named = said.filter_map(|(name, value)| {
            let name = if by_pattern { in_stream(info, keys, name)? } else { name };
            // What stands beside a layer has that layer's path before its name.
            Some((keys.beside(model.sites(), &name), value))
        });
        *table = named.collect::<Map<_, _>>();
    }
}

/// Whether PEFT reads targets as they are meant.
fn is_pefts(info: &ModelInfo, targets: &Targets) -> bool {
    let of_stream = |text: &String| text.split_once(':').is_some_and(|(stream, _)| info.stream(stream).is_some());
    match targets {
        Targets::Pattern(text) => !of_stream(text),
        Targets::Names(names) => !names.iter().any(|name| of_stream(name) || name.contains('*')),
    }
}

/// A pattern without the stream that it begins with; `None` where that is not the one that the keys are for.
fn in_stream(info: &ModelInfo, keys: &Keys<'_>, pattern: String) -> Option<String> {
    let Some((stream, within)) = pattern.split_once(':') else { return Some(pattern) };
    let Some(place) = info.stream(stream) else { return Some(pattern) };
    match keys.part() {
        Some(part) => (part == place).then(|| within.to_owned()),
        None => Some(format!("{}{within}", regex::escape(&info.streams[place].root))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::path::{Path, PathBuf};

    use fthost_autograd::Device;
    use fthost_models::Loader;

    use super::*;
    use crate::adapted::{AdaptedModel, ModelParameter, Owner};

    const QUERY: &str = "encoder.layer.0.attention.self.query";
    const OUTPUT: &str = "encoder.layer.1.output.dense";

    fn tiny(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/tiny").join(name)
    }

    /// A model that got something at these paths.
    fn adapted(model: Box<dyn Model>, paths: &[(usize, String)]) -> AdaptedModel {
        let mut model = AdaptedModel::new(model, Device::Cpu, 0);
        for (stream, path) in paths {
            let (of_base, stream) = (model.parameters[0].clone(), Some(*stream));
            let parameter = of_base.parameter.renamed(format!("{path}.lora_A.weight"));
            model.parameters.push(ModelParameter { parameter, owner: Owner::Strategy(0), stream, ..of_base });
        }
        model
    }

    fn named(mut config: Value, keys: &Keys<'_>, model: &AdaptedModel) -> Value {
        name_layers(&mut config, keys, model.model.as_ref());
        config
    }

    #[test]
    fn of_two_streams_layers_are_listed_as_each_model_has_them() {
        let (text, image) = (tiny("bert"), tiny("vit"));
        let joined = Loader::new(&Device::Cpu).join(&[("text", &text), ("image", &image)]).unwrap();
        let vision = "encoder.layer.1.attention.attention.value";
        let model = adapted(joined, &[(0, format!("text.{QUERY}")), (1, format!("image.{vision}"))]);
        let config = json!({
            "target_modules": ["text:*query", "image:*value"], "exclude_modules": ["image:*layer.0.*"],
            "rank_pattern": { "text:.*query": 2, "image:.*value": 3, ".*key": 4 }, "alpha_pattern": { (format!("text.{QUERY}")): 5.0 },
        });
        let of_text = json!({
            "target_modules": [QUERY], "exclude_modules": null, "rank_pattern": { ".*query": 2, ".*key": 4 }, "alpha_pattern": { QUERY: 5.0 },
        });
        assert_eq!(named(config.clone(), &Keys::of_part(&model, 0), &model), of_text);
        let of_image = named(config.clone(), &Keys::of_part(&model, 1), &model);
        assert_eq!(of_image["target_modules"], json!([vision]));
        assert_eq!(of_image["rank_pattern"], json!({ ".*value": 3, ".*key": 4 }));
        // In one model of both, a pattern is behind what the stream's paths begin with.
        let whole = named(config, &Keys::of(&model, true), &model);
        assert_eq!(whole["target_modules"], json!([format!("text.{QUERY}"), format!("image.{vision}")]));
        assert_eq!(whole["rank_pattern"], json!({ r"text\..*query": 2, r"image\..*value": 3, ".*key": 4 }));
    }

    #[test]
    fn of_one_stream_words_of_pefts_stay() {
        let bert = fthost_models::open(&tiny("bert"), &Device::Cpu).unwrap();
        let model = adapted(bert, &[(0, QUERY.to_owned()), (0, OUTPUT.to_owned())]);
        let keys = Keys::of(&model, true);
        for targets in [json!(["query", "output.dense"]), json!("(?:.*)query|.*output.dense"), json!("all-linear")] {
            let config = json!({ "target_modules": targets, "exclude_modules": ["key"] });
            assert_eq!(named(config.clone(), &keys, &model), config);
        }
        let config = json!({ "target_modules": ["*query", "output.dense"], "feedforward_modules": ["output.dense"] });
        let listed = [QUERY, OUTPUT].map(|path| format!("bert.{path}"));
        let expected = json!({ "target_modules": listed, "feedforward_modules": listed[1..], "exclude_modules": null });
        assert_eq!(named(config, &keys, &model), expected);
        // Of methods without layers nothing is said of them.
        let prompt = json!({ "peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3 });
        assert_eq!(named(prompt.clone(), &keys, &model), prompt);
    }
}
