//! What first run files for texts and for pictures have in common.

use std::path::{Path, PathBuf};

use fthost_plugin_api::{MethodInfo, MethodKind};
use serde_json::{Map, Value};

use super::draft::Draft;
use crate::plugin::Library;
use crate::run::file::options_of;
use crate::{Error, Result, hub};

/// The model that was asked for, else a usual one, and why.
pub(super) fn told_model(model: Option<&str>, usual: &str, why: &'static str) -> Result<(String, &'static str)> {
    Ok(match model {
        Some(model) if hub::Name::of_path(Path::new(model)).is_some() => (model.to_owned(), "as --model says"),
        Some(model) => (absolute(Path::new(model))?, "as --model says"),
        None => (usual.to_owned(), why),
    })
}

/// By which a plugin declares that a first run may well begin with a method of its own, and with which options of it:
/// `#[schemars(extend("first_run" = { "warmup": 0.06 }))]` on these.
pub(super) const FIRST_RUN: &str = "first_run";
/// The same for a first run with pictures.
pub(super) const FIRST_PICTURE_RUN: &str = "first_picture_run";

/// Adds the method of a kind that a first run may well begin with.
pub(super) fn method(
    draft: &mut Draft,
    library: &mut Library,
    kind: MethodKind,
    section: &'static str,
    key: &str,
) -> Result<()> {
    let Some((method, options)) = recommended(library, kind, key)? else { return Ok(()) };
    draft.section(section);
    draft.set("plugin", method.name.as_str(), &method.summary);
    for (key, value) in options {
        let about = options_of(&method).into_iter().find(|option| option.name == key);
        draft.set(&key, value, &about.map(|about| about.description).unwrap_or_default());
    }
    Ok(())
}

/// The method of a kind whose plugin declares so, and the options for it.
fn recommended(library: &mut Library, kind: MethodKind, key: &str) -> Result<Option<(MethodInfo, Map<String, Value>)>> {
    for name in library.known_names(kind) {
        let (_, method) = library.find(kind, &name)?;
        if let Some(Value::Object(options)) = method.config_schema.get(key).cloned() {
            return Ok(Some((method, options)));
        }
    }
    Ok(None)
}

pub(super) fn has_option(method: &MethodInfo, name: &str) -> bool {
    method.config_schema.get("properties").is_some_and(|properties| properties.get(name).is_some())
}

/// Files or folders beside the training examples, or shares of these.
pub(super) fn held_out_beside(draft: &mut Draft, train: &Path) -> Result<()> {
    let name = train.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let beside = |words: &[&str]| {
        let others = words.iter().map(|word| train.with_file_name(name.replacen("train", word, 1)));
        others.into_iter().find(|other| name.contains("train") && other.exists())
    };
    match beside(&["test", "tst"]) {
        Some(test) => draft.set("test", absolute(&test)?.as_str(), "it lies beside the training file"),
        None => draft.set("test", 0.2, "there is no test file: a share of the rows, which training does not see"),
    }
    match beside(&["validation", "valid", "val", "dev"]) {
        Some(validation) => {
            draft.set("validation", absolute(&validation)?.as_str(), "it lies beside the training file")
        }
        None => draft.set("validation", 0.1, "a share, to keep the best model by"),
    }
    Ok(())
}

pub(super) fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem: String = name
        .split('.')
        .next()
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_alphanumeric() || c == '-' { c } else { '-' })
        .collect();
    if stem.is_empty() { "task".into() } else { stem }
}

/// A path as it stands in a run file: as it was named, where it is below the working directory, since the run file will lie there.
pub(super) fn absolute(path: &Path) -> Result<String> {
    let path: PathBuf = match path.is_relative() {
        true => path.to_owned(),
        false => std::env::current_dir()
            .ok()
            .and_then(|here| Some(path.strip_prefix(here).ok()?.to_owned()))
            .unwrap_or_else(|| path.to_owned()),
    };
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::usage(format!("{} is no UTF-8, and a run file is", path.display())))
}
