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
/// Values of single layers by patterns. One that names no adapted layer says nothing.
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
/// nothing. A config without targets stays as it is.
///
/// # Errors
/// A field of another type, a pattern that is no regular expression, targets that name no layer.
pub(super) fn resolve(
    config: &mut Map<String, Value>,
    saved: &[&str],
    info: &ModelInfo,
    sites: &[Site],
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
    let paths = linear.map(|site| format!("{}{}", info.prefix, site.path));
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
            let patterns = values.keys().map(|name| Ok((name.clone(), regex(field, &format!(r"^(?:.*\.)?(?:{name})$"))?)));
            for (name, pattern) in patterns.collect::<Result<Vec<_>>>()? {
                if !chosen.iter().any(|path| pattern.is_match(path)) {
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
            Self::Ends(names) => {
                names.iter().any(|name| path.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
            }
        }
    }

    /// Whether an entry is the whole path: which block it stands in is no question then.
    fn names_whole(&self, path: &str) -> bool {
        !matches!(self, Self::Ends(names) if !names.iter().any(|name| name == path))
    }
}
