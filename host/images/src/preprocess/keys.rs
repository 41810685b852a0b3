//! Reading a model's JSON files.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The object that a text is.
pub(super) fn parse(place: &str, json: &str) -> Result<Map<String, Value>> {
    let help = "copy or download the model's folder anew";
    match serde_json::from_str(json) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::settings(place, "this is no JSON object", help)),
        Err(error) => Err(Error::settings(place, format!("this is no JSON: {error}"), help)),
    }
}

/// The object in a file; `None` where there is no such file.
pub(super) fn object(path: &Path) -> Result<Option<Map<String, Value>>> {
    let place = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(json) => parse(&place, &json).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::settings(place, format!("cannot read it: {error}"), "look at the file's permissions")),
    }
}

/// Numbers of a key: one, or a list.
pub(super) fn numbers(place: &str, key: &str, value: &Value) -> Result<Vec<f64>> {
    let list = match value {
        Value::Array(items) => items.iter().map(Value::as_f64).collect(),
        other => other.as_f64().map(|number| vec![number]),
    };
    list.ok_or_else(|| wrong_value(place, key, value, "numbers"))
}

/// The name of a filter that is not known here, or of another kind.
pub(super) fn wrong_value(place: &str, key: &str, value: &Value, expected: &str) -> Error {
    Error::settings(place, format!("{key} = {value}, where {expected} should stand"), "correct the model's file")
}
