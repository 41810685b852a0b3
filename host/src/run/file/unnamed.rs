//! Strategies of the document that the command line's plugins will name.

use super::document::{Document, Node, Value};

/// Takes out the strategies that only have options, set by the command line: its plugins will name them.
pub(super) fn take_unnamed(document: &mut Document) -> Vec<Node> {
    let Some(items) = strategies(document) else { return Vec::new() };
    let (named, unnamed) =
        std::mem::take(items).into_iter().partition(|node| !node.at.is_argument() || node.child("plugin").is_some());
    *items = named;
    unnamed
}

/// The strategies of a document, where it has any.
pub(super) fn strategies(document: &mut Document) -> Option<&mut Vec<Node>> {
    let Value::Table(entries) = &mut document.root.value else { return None };
    let entry = entries.iter_mut().find(|entry| entry.key == "strategy")?;
    match &mut entry.node.value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}
