//! Models from folders, from bytes or with new weights, by the family that knows their kind.

use std::path::Path;

use candle_core::Device;
use serde_json::Value as Json;

use crate::family::{CONFIG_FILE, Family, Source, Values};
use crate::{LoadError, Model, transformer};

/// Every family; a folder of this crate each, with a table of the architectures that it builds.
const FAMILIES: [Family; 1] = [transformer::FAMILY];

/// Loads a folder: config.json, and model.safetensors or its shards.
///
/// # Errors
/// Where a file is missing or damaged, the architecture is not known, or weights and config do not fit.
pub fn open(folder: &Path, device: &Device) -> Result<Box<dyn Model>, LoadError> {
    let file = folder.join(CONFIG_FILE);
    let text = std::fs::read_to_string(&file).map_err(|source| LoadError::Read { file: file.clone(), source })?;
    build(&file, &text, Values::Folder(folder), device)
}

/// From the text of config.json and the bytes of model.safetensors.
///
/// # Errors
/// As [`open`].
pub fn from_parts(config: &str, weights: &[u8], device: &Device) -> Result<Box<dyn Model>, LoadError> {
    build(Path::new(CONFIG_FILE), config, Values::Bytes(weights), device)
}

/// New weights for the text of a config.json, as the architecture's authors start them.
///
/// # Errors
/// Where the architecture is not known, or its config is wrong.
pub fn random(config: &str, seed: u64, device: &Device) -> Result<Box<dyn Model>, LoadError> {
    build(Path::new(CONFIG_FILE), config, Values::New { seed }, device)
}

fn build(file: &Path, text: &str, values: Values<'_>, device: &Device) -> Result<Box<dyn Model>, LoadError> {
    let config: Json = serde_json::from_str(text).map_err(|source| LoadError::Config { file: file.into(), source })?;
    let model_type = config.get("model_type").and_then(Json::as_str);
    let family = model_type.and_then(|name| FAMILIES.iter().find(|family| (family.model_types)().contains(&name)));
    let Some(family) = family else {
        let supported: Vec<&str> = FAMILIES.iter().flat_map(|family| (family.model_types)()).collect();
        return Err(LoadError::UnknownArchitecture {
            file: file.into(),
            model_type: model_type.map(str::to_owned),
            supported: supported.join(", "),
        });
    };
    (family.build)(&Source { file, text, config, values, device })
}
