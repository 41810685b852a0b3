//! The schedules of a run file: one for all that trains, or one for each of some streams.

use serde_json::{Map, Value as Json};

use super::document::{Document, Node, Value};
use super::tables::{Method, ScheduleKey};
use crate::Result;

/// Puts schedules in the form in which a run file is written again: one that names no stream is `[schedule]`, all others are
/// `[[schedule]]`. So whatever a file has, one run is written in one way.
pub(super) fn in_one_form(document: &mut Document) {
    let Some(node) = document.find_mut("schedule") else { return };
    let names_a_stream = |node: &Node| node.child("stream").is_some();
    let other = match &node.value {
        Value::Table(_) if names_a_stream(node) => Node { value: Value::Array(vec![node.clone()]), at: node.at },
        Value::Array(items) => match items.as_slice() {
            [only] if !names_a_stream(only) => only.clone(),
            _ => return,
        },
        _ => return,
    };
    *node = other;
}

/// The schedules with one for all that no other is for, which is constant where the file has none.
///
/// # Errors
/// At the second schedule of a stream, or of none.
pub(super) fn resolved(document: &Document, key: Option<ScheduleKey>) -> Result<Vec<Method>> {
    let constant = |path: String| {
        let config = Json::Object(Map::new());
        Method { plugin: "constant".into(), file: None, config, stream: None, path }
    };
    let all = match key {
        None => return Ok(vec![constant("schedule".into())]),
        Some(ScheduleKey::One(keys)) => return Ok(vec![keys.method.at("schedule".into())]),
        Some(ScheduleKey::Many(all)) => all,
    };
    let mut schedules: Vec<Method> = Vec::with_capacity(all.len() + 1);
    for (i, keys) in all.into_iter().enumerate() {
        let schedule = Method { stream: keys.stream, ..keys.method.at(format!("schedule[{i}]")) };
        if schedules.iter().any(|above| above.stream == schedule.stream) {
            let (path, message, help) = match &schedule.stream {
                Some(stream) => (
                    format!("{}.stream", schedule.path),
                    format!("two schedules are for the stream {stream:?}"),
                    "a parameter has one rate: take one of them out, or name another stream",
                ),
                None => (
                    schedule.path.clone(),
                    "two schedules name no stream, and each would be for all that no other is for".to_owned(),
                    "say which stream it is for: stream = \"image\"",
                ),
            };
            return Err(document.error(document.place(&path), message, "one is above", Some(help.into())));
        }
        schedules.push(schedule);
    }
    if schedules.iter().all(|schedule| schedule.stream.is_some()) {
        schedules.push(constant(format!("schedule[{}]", schedules.len())));
    }
    Ok(schedules)
}
