//! What may stand in a run file, for people who write one and for their editors.

use fthost_plugin_api::schemars::schema_for;
use fthost_plugin_api::{MethodInfo, MethodKind};
use serde_json::{Map, Value as Json, json};

use super::RunFile;
use super::schema::{description, expected, properties, resolve};
use super::tables::Keys;

/// A key of the run file, or an option of a method.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct OptionHelp {
    /// Its key.
    pub name: String,
    /// What it takes: `a whole number, at least 1`.
    pub takes: String,
    /// Its default, where it has one.
    pub default: Option<Json>,
    /// What it does.
    pub description: String,
    /// What of the training examples it is where the run file sets no value, as its plugin declares it:
    /// `#[schemars(extend("from" = "targets.mean"))]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Values that a search tries, as its plugin declares them: `#[schemars(extend("search" = [4, 8, 16]))]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<Json>,
}

/// The options of a method, in the order of its schema.
pub fn options_of(method: &MethodInfo) -> Vec<OptionHelp> {
    let schema = &method.config_schema;
    properties(schema).map(|(name, option)| help(schema, name, option, method.config_default.get(name))).collect()
}

fn help(root: &Json, name: &str, key: &Json, default: Option<&Json>) -> OptionHelp {
    OptionHelp {
        name: name.to_owned(),
        takes: expected(root, key),
        default: default.filter(|value| !value.is_null()).cloned(),
        description: description(root, key).unwrap_or_default().replace('\n', " "),
        from: key.get("from").and_then(Json::as_str).map(str::to_owned),
        search: key.get("search").and_then(Json::as_array).cloned().unwrap_or_default(),
    }
}

/// A table of the run file.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Section {
    /// As it stands in the file: `[model]`, `[[task]]`.
    pub heading: String,
    /// What it is for.
    pub description: String,
    /// Its keys; those of a table within it by their path, `columns.text`.
    pub keys: Vec<OptionHelp>,
}

/// The tables in the order in which people write them.
const ORDER: [&str; 7] = ["model", "task", "strategy", "regularizer", "schedule", "train", "run"];

/// Every table of a run file with every key.
pub fn sections() -> Vec<Section> {
    let root = schema_for!(Keys).to_value();
    let section = |(name, table): (&String, &Json)| {
        let list = resolve(&root, table).and_then(|table| table.get("items"));
        let mut keys = Vec::new();
        collect(&root, "", list.unwrap_or(table), &mut keys);
        Section {
            heading: if list.is_some() { format!("[[{name}]]") } else { format!("[{name}]") },
            description: description(&root, table).unwrap_or_default(),
            keys,
        }
    };
    let mut tables: Vec<_> = properties(&root).collect();
    tables.sort_by_key(|(name, _)| ORDER.iter().position(|known| known == name).unwrap_or(ORDER.len()));
    tables.into_iter().map(section).collect()
}

/// The keys of a table, and of the tables within it whose keys are known.
fn collect(root: &Json, path: &str, table: &Json, keys: &mut Vec<OptionHelp>) {
    for (name, key) in with_keys(root, table).into_iter().flatten() {
        let name = format!("{path}{name}");
        let closed = resolve(root, key).is_some_and(|key| key.get("additionalProperties") == Some(&Json::Bool(false)));
        let default = key.get("default").filter(|default| !default.is_object());
        keys.push(help(root, &name, key, default));
        if closed {
            collect(root, &format!("{name}."), key, keys);
        }
    }
}

/// The keys of a table, or of the first table that it may be.
fn with_keys<'a>(root: &'a Json, table: &'a Json) -> Option<&'a Map<String, Json>> {
    let schema = resolve(root, table)?;
    let own = schema.get("properties").and_then(Json::as_object);
    own.or_else(|| schema.get("anyOf")?.as_array()?.iter().find_map(|branch| with_keys(root, branch)))
}

/// The JSON Schema of run files; with the options of `methods` where a table names one of them.
pub fn schema<'a>(methods: impl IntoIterator<Item = &'a MethodInfo>) -> Json {
    let mut root = schema_for!(Keys).to_value();
    root["title"] = json!("fthost run file");
    for method in methods {
        let within = match method.kind {
            MethodKind::Strategy => "/properties/strategy/items",
            MethodKind::Regularizer => "/properties/regularizer/items",
            // Of [schedule] and of [[schedule]].
            MethodKind::Scheduler => "/$defs/ScheduleKeys",
            MethodKind::TaskHead => "/$defs/TaskKeys/properties/head",
            MethodKind::Optimizer => "/properties/train/properties/optimizer",
        };
        let mut options = method.config_schema.clone();
        let definitions = options.as_object_mut().and_then(|options| options.remove("$defs"));
        // Each method's definitions keep to themselves: two plugins may call different things alike.
        let prefix = format!("{}.{}.", method.kind, method.name);
        refer(&mut options, &prefix);
        for (name, mut definition) in definitions.and_then(|found| found.as_object().cloned()).unwrap_or_default() {
            refer(&mut definition, &prefix);
            root["$defs"][format!("{prefix}{name}")] = definition;
        }
        let mut known = options["properties"].as_object().cloned().unwrap_or_default();
        for &key in RunFile::own_keys(method.kind) {
            known.insert(key.into(), json!(true));
        }
        let chosen = json!({ "properties": { "plugin": { "const": method.name } }, "required": ["plugin"] });
        let then = json!({ "properties": known, "additionalProperties": false });
        if let Some(Json::Object(table)) = root.pointer_mut(within) {
            rule(table, json!({ "if": chosen, "then": then }));
        }
    }
    root
}

/// Adds a rule to a schema.
fn rule(table: &mut Map<String, Json>, rule: Json) {
    if let Json::Array(rules) = table.entry("allOf").or_insert_with(|| json!([])) {
        rules.push(rule);
    }
}

/// Puts a prefix before the names of the definitions that a schema refers to.
fn refer(schema: &mut Json, prefix: &str) {
    match schema {
        Json::Object(entries) => {
            for (key, value) in entries {
                match value.as_str().and_then(|text| text.strip_prefix("#/$defs/")) {
                    Some(name) if key == "$ref" => *value = json!(format!("#/$defs/{prefix}{name}")),
                    _ => refer(value, prefix),
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| refer(item, prefix)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn every_key_says_what_it_is() {
        let sections = sections();
        let headings: Vec<&str> = sections.iter().map(|section| section.heading.as_str()).collect();
        assert_eq!(
            headings,
            ["[model]", "[[task]]", "[[strategy]]", "[[regularizer]]", "[schedule]", "[train]", "[run]"]
        );
        for section in &sections {
            assert!(!section.description.is_empty(), "{}", section.heading);
            for key in &section.keys {
                assert!(!key.description.is_empty() && !key.takes.is_empty(), "{} {}", section.heading, key.name);
            }
        }
        let schedule: Vec<&str> = sections[4].keys.iter().map(|key| key.name.as_str()).collect();
        assert_eq!(schedule, ["plugin", "stream"]);
        let key = |name: &str| sections.iter().flat_map(|section| &section.keys).find(|key| key.name == name).unwrap();
        assert_eq!(
            (&*key("max_tokens").takes, &key("max_tokens").default),
            ("a whole number, at least 1", &Some(json!(128)))
        );
        assert_eq!(key("optimizer").default, Some(json!("adamw")));
        assert_eq!(key("pooling").default, Some(json!("auto")));
        assert_eq!(key("columns.text").takes, "a string");
    }
}
