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
