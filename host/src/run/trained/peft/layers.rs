//! Which layers an `adapter_config.json` names. Every method of PEFT that adapts layers finds them by the same fields and rules,
//! those of `inject_adapter` and `check_target_module_exists` in its tuners/tuners_utils.py; so they are applied here, and a strategy is
//! given the layers' paths.

use fthost_models::{ModelInfo, Site, SiteKind};
use fthost_plugin_api::Targets;
use regex::Regex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// Names the adapted layers. It stays, as a list of whole paths.
const TARGETS: &str = "target_modules";
/// Names layers that get nothing.
const EXCLUDE: &str = "exclude_modules";
/// Numbers of the blocks whose layers a list of targets names.
const NUMBERS: &str = "layers_to_transform";
/// What holds the numbered blocks.
const BLOCKS: &str = "layers_pattern";
/// Values of single layers by patterns, or by the name of what was added to one. A name of no adapted layer says nothing.
const PATTERNS: [&str; 2] = ["rank_pattern", "alpha_pattern"];
/// Names every linear layer.
const ALL: &str = "all-linear";

/// One or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<T> {
    One(T),
    Several(Vec<T>),
}

impl<T> From<OneOrMore<T>> for Vec<T> {
    fn from(some: OneOrMore<T>) -> Self {
        match some {
            OneOrMore::One(one) => vec![one],
            OneOrMore::Several(several) => several,
        }
    }
}

/// Replaces the fields that name layers by the layers' paths. `saved`: patterns of the modules that are saved whole, which get
/// nothing; `headed`: whether the class that they belong to has a head, and so a prefix before its paths. A config without targets
/// stays as it is.
///
/// # Errors
/// A field of another type, a pattern that is no regular expression, targets that name no layer.
pub(super) fn resolve(
    config: &mut Map<String, Value>,
    saved: &[&str],
    info: &ModelInfo,
    sites: &[Site],
    headed: bool,
) -> Result<()> {
    let Some(targets) = take::<Targets>(config, TARGETS)? else { return Ok(()) };
    let of_blocks = matches!(targets, Targets::Names(_));
    let (mut numbers, mut blocks) = (Vec::<u64>::new(), Vec::<String>::new());
    // PEFT refuses them beside a regular expression; the strategy that is left with them does too.
    if of_blocks {
        numbers = take::<OneOrMore<u64>>(config, NUMBERS)?.map(Vec::from).unwrap_or_default();
        blocks = take::<OneOrMore<String>>(config, BLOCKS)?.map(Vec::from).unwrap_or_default();
    }
    let blocks = match blocks.as_slice() {
        [] => vec![regex(BLOCKS, r"^.*?\.[^.]*\.(\d+)\.")?],
        blocks => blocks
            .iter()
            .map(|name| regex(BLOCKS, &format!(r"^(?:.*?\.)??(?:{name})\.(\d+)\.")))
            .collect::<Result<_>>()?,
    };
    let in_blocks = |path: &str| {
        let number = blocks.iter().find_map(|block| block.captures(path)?.get(1)?.as_str().parse().ok());
        numbers.is_empty() || number.is_some_and(|number| numbers.contains(&number))
    };
    let targets = Names::new(TARGETS, targets)?;
    let exclude = take::<Targets>(config, EXCLUDE)?.map(|exclude| Names::new(EXCLUDE, exclude)).transpose()?;
    let saved = saved.iter().map(|name| regex("modules_to_save", &format!(r"^(?:.*\.)?(?:{name})(?:\..*)?$")));
    let saved = saved.collect::<Result<Vec<_>>>()?;

    let linear = sites.iter().filter(|site| site.kind == SiteKind::Linear);
    let prefix = |site: &Site| if headed { info.prefix(site.stream) } else { "" };
    let paths = linear.map(|site| format!("{}{}", prefix(site), site.path));
    let chosen: Vec<String> = paths
        .filter(|path| !exclude.as_ref().is_some_and(|exclude| exclude.name(path)))
        .filter(|path| !saved.iter().any(|saved| saved.is_match(path)))
        .filter(|path| targets.name(path) && (targets.names_whole(path) || in_blocks(path)))
        .collect();
    if chosen.is_empty() {
        return Err(Error::usage(format!(
            "by its target_modules and the fields that limit them, adapter_config.json adapts no linear layer of this {} model",
            info.model_type
        ))
        .with_help("say which base model the adapter belongs to: --set model.path=FOLDER"));
    }
    for field in PATTERNS {
        if let Some(Value::Object(values)) = config.get_mut(field) {
            let patterns =
                values.keys().map(|name| Ok((name.clone(), regex(field, &format!(r"^(?:.*\.)?(?:{name})$"))?)));
            for (name, pattern) in patterns.collect::<Result<Vec<_>>>()? {
                let beside = |path: &String| name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
                if !chosen.iter().any(|path| pattern.is_match(path) || beside(path)) {
                    values.remove(&name);
                }
            }
        }
    }
    config.insert(TARGETS.into(), json!(chosen));
    Ok(())
}

/// Takes a field out; `None` where it is missing or null.
pub(super) fn take<T: DeserializeOwned>(config: &mut Map<String, Value>, field: &str) -> Result<Option<T>> {
    let value = config.remove(field).unwrap_or_default();
    serde_json::from_value(value).map_err(|error| Error::usage(format!("adapter_config.json: {field}: {error}")))
}

fn regex(field: &str, text: &str) -> Result<Regex> {
    Regex::new(text).map_err(|error| {
        Error::usage(format!("adapter_config.json: {field} holds a pattern that cannot be read here: {error}"))
    })
}

/// Targets or excludes.
enum Names {
    All,
    Whole(Regex),
    /// Whole paths or their ends at a dot.
    Ends(Vec<String>),
}

impl Names {
    fn new(field: &str, targets: Targets) -> Result<Self> {
        Ok(match targets {
            Targets::Pattern(text) if text.eq_ignore_ascii_case(ALL) => Self::All,
            Targets::Pattern(text) => Self::Whole(regex(field, &format!("^(?:{text})$"))?),
            Targets::Names(names) => Self::Ends(names),
        })
    }

    fn name(&self, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::Whole(regex) => regex.is_match(path),
            Self::Ends(names) => names.iter().any(|name| {
                path.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }),
        }
    }

    /// Whether an entry is the whole path: which block it stands in is no question then.
    fn names_whole(&self, path: &str) -> bool {
        !matches!(self, Self::Ends(names) if !names.iter().any(|name| name == path))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::path::Path;

    use fthost_autograd::Device;

    use super::*;

    /// The fields that are left, with the paths below `bert.encoder.layer.` for targets.
    fn resolved(fields: Value, saved: &[&str]) -> Result<Map<String, Value>> {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/tiny/bert");
        let model = fthost_models::open(&tiny, &Device::Cpu).unwrap();
        let mut config = fields.as_object().unwrap().clone();
        resolve(&mut config, saved, model.info(), model.sites(), true)?;
        Ok(config)
    }

    #[test]
    fn targets_become_whole_paths() {
        let check = |fields: Value, saved: &[&str], expected: &[&str]| {
            let config = resolved(fields.clone(), saved).unwrap();
            let expected: Vec<String> = expected.iter().map(|path| format!("bert.{path}")).collect();
            assert_eq!(config, *json!({ "target_modules": expected }).as_object().unwrap(), "{fields}, {saved:?}");
        };
        let (first, second) = ("encoder.layer.0.attention.self.query", "encoder.layer.1.attention.self.query");
        check(json!({ "target_modules": ["query", "classifier"] }), &[], &[first, second]);
        check(
            json!({ "target_modules": ["query"], "exclude_modules": null, "layers_to_transform": null }),
            &[],
            &[first, second],
        );
        check(
            json!({ "target_modules": ["query"], "exclude_modules": ["layer.0.attention.self.query"] }),
            &[],
            &[second],
        );
        check(json!({ "target_modules": ".*query", "exclude_modules": ".*layer.1.*" }), &[], &[first]);
        check(
            json!({ "target_modules": ["query"], "layers_to_transform": [1], "layers_pattern": null }),
            &[],
            &[second],
        );
        check(
            json!({ "target_modules": ["query"], "layers_to_transform": 0, "layers_pattern": "layer" }),
            &[],
            &[first],
        );
        check(
            json!({ "target_modules": ["query"], "layers_to_transform": [], "layers_pattern": [] }),
            &[],
            &[first, second],
        );
        // A whole path is meant wherever it stands.
        check(
            json!({ "target_modules": [format!("bert.{first}"), "query"], "layers_to_transform": 1 }),
            &[],
            &[first, second],
        );
        check(json!({ "target_modules": ["query", "pooler.dense"] }), &["query"], &["pooler.dense"]);
        check(json!({ "target_modules": ["query"] }), &["layer.0", "classifier"], &[second]);
        check(
            json!({ "target_modules": "bert.encoder.layer.1.*(query|key)", "exclude_modules": ["key"] }),
            &[],
            &[second],
        );
    }

    #[test]
    fn all_linear_layers_are_those_without_what_is_saved_whole() {
        let count = |saved: &[&str]| {
            resolved(json!({ "target_modules": "all-linear" }), saved).unwrap()[TARGETS].as_array().unwrap().len()
        };
        assert_eq!((count(&[]), count(&["pooler"]), count(&["encoder"])), (13, 12, 1));
    }

    #[test]
    fn patterns_of_no_adapted_layer_say_nothing() {
        let config = resolved(
            json!({ "target_modules": ["query"], "rank_pattern": { "query": 2, "key": 3 }, "alpha_pattern": { "^bert.*key": 3 } }),
            &[],
        );
        let config = config.unwrap();
        assert_eq!((&config["rank_pattern"], &config["alpha_pattern"]), (&json!({ "query": 2 }), &json!({})));
        // By names of what was added.
        let name = |layer: &str| format!("bert.encoder.layer.0.attention.self.{layer}.lora_E");
        let config = resolved(
            json!({ "target_modules": ["query"], "rank_pattern": { name("query"): [true], name("key"): [false] } }),
            &[],
        );
        assert_eq!(config.unwrap()["rank_pattern"], json!({ name("query"): [true] }));
    }

    #[test]
    fn what_names_no_layer_or_cannot_be_read_is_an_error() {
        let check = |fields: Value, expected: &str| {
            let error = resolved(fields.clone(), &["value"]).unwrap_err().to_string();
            assert!(error.contains(expected), "{fields}: {error}");
        };
        check(json!({ "target_modules": ["q_lin"] }), "adapts no linear layer of this bert model");
        check(json!({ "target_modules": ["value"] }), "adapts no linear layer of this bert model");
        check(json!({ "target_modules": ["query"], "layers_to_transform": [2] }), "adapts no linear layer");
        check(json!({ "target_modules": "(query" }), "target_modules holds a pattern that cannot be read here");
        check(json!({ "target_modules": 7 }), "adapter_config.json: target_modules");
        // As in PEFT, blocks limit a list and no pattern: who reads the fields next sees them.
        let config = resolved(json!({ "target_modules": ".*query", "layers_to_transform": [0] }), &[]).unwrap();
        assert_eq!(config["layers_to_transform"], json!([0]));
    }

    #[test]
    fn methods_without_layers_keep_their_fields() {
        let fields = json!({ "num_virtual_tokens": 3 });
        assert_eq!(Value::from(resolved(fields.clone(), &["classifier"]).unwrap()), fields);
    }
}
