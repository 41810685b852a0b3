//! Checks values of the run file against a JSON Schema: of the run file's own tables, and of a method's options.
//!
//! What schemars writes for Rust types is understood: `type`, `properties`, `required`, `additionalProperties`, `items`,
//! `prefixItems`, `enum`, `const`, bounds of numbers and lengths, `anyOf`, `oneOf`, `allOf`, `$ref`. Other words are left to
//! the method itself, which reads the options once more.

use serde_json::{Map, Value as Json};

use super::document::{Document, Entry, Node, Place, Value};
use super::words::list;
use crate::plugin::search::did_you_mean;

/// What is wrong at a place.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) at: Place,
    pub(super) message: String,
    pub(super) label: String,
    pub(super) help: Option<String>,
}

/// A schema, and how what it describes is called.
pub(super) struct Checker<'a> {
    /// Where the values come from.
    pub(super) document: &'a Document,
    /// The schema that references start from.
    pub(super) root: &'a Json,
    /// `strategy "lora"`, where options of a method are checked and not the run file's own keys.
    pub(super) method: Option<String>,
}

type Check = Result<(), Box<Problem>>;

impl Checker<'_> {
    /// Checks a value. `path` is its name in the run file, or among the method's options.
    pub(super) fn check(&self, node: &Node, schema: &Json, path: &str) -> Check {
        let raw = schema;
        let Some(schema) = resolve(self.root, schema) else { return Ok(()) };
        for all in list_of(schema, "allOf") {
            self.check(node, all, path)?;
        }
        let branches = branches(schema);
        if !branches.is_empty() {
            let inner = self.check_any(node, branches, path);
            inner.map_err(|problem| problem.unwrap_or_else(|| self.unexpected(node, raw, schema, path)))?;
        }
        if !admits_type(self.root, schema, &node.value) || !admits_value(schema, node) {
            return Err(self.unexpected(node, raw, schema, path));
        }
        match &node.value {
            Value::Integer(number) => self.check_bounds(node, *number as f64, schema, path),
            Value::Float(number) => self.check_bounds(node, *number, schema, path),
            Value::String(text) => {
                self.check_length(node, text.chars().count(), ["minLength", "maxLength"], "characters", schema, path)
            }
            Value::Array(items) => self.check_items(node, items, schema, path),
            Value::Table(entries) => self.check_table(node, entries, schema, path),
            Value::Boolean(_) | Value::Datetime(_) => Ok(()),
        }
    }

    /// Checks that one branch fits. The error, where it can be told, is that of the branch that was meant.
    fn check_any(&self, node: &Node, branches: &[Json], path: &str) -> Result<(), Option<Box<Problem>>> {
        let (mut inner, mut shared) = (None, None);
        // [[table]] begins where its first table does, and a list without values has no other place.
        let begins_it =
            matches!(&node.value, Value::Array(items) if items.first().is_none_or(|first| first.at == node.at));
        for branch in branches {
            let Err(problem) = self.check(node, branch, path) else { return Ok(()) };
            let resolved = resolve(self.root, branch);
            let meant = resolved.is_some_and(|b| admits_type(self.root, b, &node.value) && tag_matches(b, node));
            // A problem inside the value says more than that the value as a whole fits nothing.
            if meant
                && (matches!(node.value, Value::Table(_))
                    || problem.at != node.at
                    || begins_it
                    || is_bound(self.root, resolved))
            {
                // Of several kinds of tables one whose keys stand there was meant.
                let meant = if resolved.is_some_and(|b| shares_a_key(b, node)) { &mut shared } else { &mut inner };
                meant.get_or_insert(problem);
            }
        }
        Err(shared.or(inner).or_else(|| self.wrong_tag(node, branches, path)))
    }

    /// A table whose kind, a key that is a constant in every branch, is none that there is.
    fn wrong_tag(&self, node: &Node, branches: &[Json], path: &str) -> Option<Box<Problem>> {
        let constant =
            |branch: &Json, key: &str| resolve(self.root, branch)?.get("properties")?.get(key)?.get("const").cloned();
        let Value::Table(entries) = &node.value else { return None };
        let (entry, kinds) = entries.iter().find_map(|entry| {
            let kinds: Vec<Json> = branches.iter().filter_map(|branch| constant(branch, &entry.key)).collect();
            (kinds.len() == branches.len()).then_some((entry, kinds))
        })?;
        let schema = serde_json::json!({ "enum": kinds });
        Some(self.unexpected(&entry.node, &schema, schema.as_object()?, &format!("{path}.{}", entry.key)))
    }

    fn check_bounds(&self, node: &Node, number: f64, schema: &Map<String, Json>, path: &str) -> Check {
        let holds = |key: &str, test: fn(f64, f64) -> bool| bound(schema, key).is_none_or(|limit| test(number, limit));
        let inside = number.is_finite()
            && holds("minimum", |n, limit| n >= limit)
            && holds("maximum", |n, limit| n <= limit)
            && holds("exclusiveMinimum", |n, limit| n > limit)
            && holds("exclusiveMaximum", |n, limit| n < limit);
        if inside {
            return Ok(());
        }
        let range = range(schema).unwrap_or_else(|| "finite".into());
        let message = format!("{} must be {range}, and is {}", self.name(path), self.document.text(node.at));
        Err(Box::new(Problem { at: node.at, message, label: format!("must be {range}"), help: about(schema, path) }))
    }

    fn check_length(
        &self,
        node: &Node,
        length: usize,
        keys: [&str; 2],
        what: &str,
        schema: &Map<String, Json>,
        path: &str,
    ) -> Check {
        let [least, most] = keys.map(|key| bound(schema, key));
        if least.is_none_or(|limit| length as f64 >= limit) && most.is_none_or(|limit| length as f64 <= limit) {
            return Ok(());
        }
        if length == 0 {
            let message = format!("{} must not be empty", self.name(path));
            return Err(Box::new(Problem {
                at: node.at,
                message,
                label: "is empty".into(),
                help: about(schema, path),
            }));
        }
        let wanted = match (least, most) {
            (Some(least), Some(most)) if least == most => least.to_string(),
            (Some(least), Some(most)) => format!("{least} to {most}"),
            (Some(least), None) => format!("at least {least}"),
            (_, most) => format!("at most {}", most.unwrap_or_default()),
        };
        let message = format!("{} must have {wanted} {what}, and has {length}", self.name(path));
        Err(Box::new(Problem { at: node.at, message, label: format!("has {length}"), help: about(schema, path) }))
    }

    fn check_items(&self, node: &Node, items: &[Node], schema: &Map<String, Json>, path: &str) -> Check {
        self.check_length(node, items.len(), ["minItems", "maxItems"], "values", schema, path)?;
        let first: Vec<&Json> = list_of(schema, "prefixItems").collect();
        for (i, item) in items.iter().enumerate() {
            if let Some(wanted) = first.get(i).copied().or(schema.get("items")) {
                self.check(item, wanted, &format!("{path}[{i}]"))?;
            }
        }
        Ok(())
    }

    fn check_table(&self, node: &Node, entries: &[Entry], schema: &Map<String, Json>, path: &str) -> Check {
        let properties = schema.get("properties").and_then(Json::as_object);
        let inside = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        for entry in entries {
            match (properties.and_then(|known| known.get(&entry.key)), schema.get("additionalProperties")) {
                (Some(wanted), _) => self.check(&entry.node, wanted, &inside(&entry.key))?,
                (None, Some(Json::Bool(false))) => {
                    let known: Vec<&str> = properties.into_iter().flat_map(Map::keys).map(String::as_str).collect();
                    return Err(self.unknown(entry, &inside(&entry.key), &known));
                }
                (None, Some(wanted)) => self.check(&entry.node, wanted, &inside(&entry.key))?,
                (None, None) => {}
            }
        }
        let missing = list_of(schema, "required").filter_map(Json::as_str).find(|key| node.child(key).is_none());
        match missing {
            Some(key) => Err(self.missing(node, properties.and_then(|known| known.get(key)), &inside(key), key)),
            None => Ok(()),
        }
    }

    fn unknown(&self, entry: &Entry, path: &str, known: &[&str]) -> Box<Problem> {
        let (message, noun) = match &self.method {
            None => (format!("unknown key {path}"), "key"),
            Some(method) => (format!("{method} has no option {path}"), "option"),
        };
        let guess = did_you_mean(&entry.key, known.iter().copied()).map(|key| format!("did you mean {key}? "));
        let known = match known {
            [] => "there are none".into(),
            known => format!("the {noun}s here are {}", list(known, "and")),
        };
        let help = format!("{}{known}", guess.unwrap_or_default());
        Box::new(Problem { at: entry.key_at, message, label: format!("unknown {noun}"), help: Some(help) })
    }

    fn missing(&self, node: &Node, raw: Option<&Json>, path: &str, key: &str) -> Box<Problem> {
        let wanted = raw.and_then(|schema| resolve(self.root, schema));
        let message = match (&self.method, wanted.and_then(|schema| schema.get("type")).and_then(Json::as_str)) {
            (Some(method), _) => format!("{method} needs the option {path}"),
            (None, Some("array")) if path == key => format!("the run file has no [[{key}]]"),
            (None, Some("object")) if path == key => format!("the run file has no [{key}]"),
            (None, _) => format!("{path} is missing"),
        };
        let help = raw.and_then(|schema| description(self.root, schema)).map(|text| format!("{key}: {text}"));
        Box::new(Problem { at: node.at, message, label: format!("{key} is missing here"), help })
    }

    fn unexpected(&self, node: &Node, raw: &Json, schema: &Map<String, Json>, path: &str) -> Box<Problem> {
        let expected = expected_of(self.root, schema);
        let label = format!("must be {expected}");
        let names = choices(self.root, schema);
        let guess = match &node.value {
            Value::String(text) => {
                did_you_mean(&text.to_lowercase(), names.iter().copied()).map(|name| format!("did you mean {name:?}?"))
            }
            _ => None,
        };
        let is = match &node.value {
            Value::String(_) if !names.is_empty() => self.document.text(node.at),
            Value::Float(_) if expected == "a whole number" => self.document.text(node.at),
            Value::Boolean(value) => value.to_string(),
            value => value.type_name().to_owned(),
        };
        let message = format!("{} must be {expected}, and is {is}", self.name(path));
        let about = || description(self.root, raw).map(|text| format!("{}: {text}", last_key(path)));
        Box::new(Problem { at: node.at, message, label, help: guess.or_else(about) })
    }

    fn name(&self, path: &str) -> String {
        match &self.method {
            None => path.to_owned(),
            Some(method) => format!("{path} of {method}"),
        }
    }
}

/// The keys of a table that a schema describes, with their schemas.
pub(super) fn properties(root: &Json) -> impl Iterator<Item = (&String, &Json)> {
    resolve(root, root).and_then(|schema| schema.get("properties")).and_then(Json::as_object).into_iter().flatten()
}

/// What a schema wants, in words: `a whole number`, `"a" or "b"`, `a list of numbers`; with the range of numbers.
pub(super) fn expected(root: &Json, schema: &Json) -> String {
    let Some(schema) = resolve(root, schema) else { return "anything".into() };
    let words = expected_of(root, schema);
    match range(schema) {
        Some(range) => format!("{words}, {range}"),
        None => words,
    }
}

/// A schema's description: that of the property goes before that of its type.
pub(super) fn description(root: &Json, schema: &Json) -> Option<String> {
    let own = |schema: &Map<String, Json>| schema.get("description").and_then(Json::as_str).map(str::to_owned);
    schema.as_object().and_then(own).or_else(|| resolve(root, schema).and_then(own))
}

/// Follows references. `None` for `true` and `false`, which say nothing about the value.
pub(super) fn resolve<'a>(root: &'a Json, schema: &'a Json) -> Option<&'a Map<String, Json>> {
    let mut schema = schema;
    // Each reference leads to a definition; as many hops as there could be definitions end a circle.
    for _ in 0..64 {
        match schema.get("$ref").and_then(Json::as_str) {
            Some(reference) => schema = root.pointer(reference.trim_start_matches('#'))?,
            None => break,
        }
    }
    schema.as_object()
}

fn list_of<'a>(schema: &'a Map<String, Json>, key: &str) -> impl Iterator<Item = &'a Json> {
    schema.get(key).and_then(Json::as_array).into_iter().flatten()
}

fn branches(schema: &Map<String, Json>) -> &[Json] {
    ["anyOf", "oneOf"].iter().find_map(|key| schema.get(*key)?.as_array()).map_or(&[], Vec::as_slice)
}

fn types(schema: &Map<String, Json>) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(name)) => vec![name],
        Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

fn admits_type(root: &Json, schema: &Map<String, Json>, value: &Value) -> bool {
    let types = types(schema);
    if types.is_empty() {
        let branches = branches(schema);
        let any = |branch| resolve(root, branch).is_none_or(|branch| admits_type(root, branch, value));
        return branches.is_empty() || branches.iter().any(any);
    }
    types.iter().any(|name| match value {
        Value::String(_) | Value::Datetime(_) => *name == "string",
        Value::Integer(_) => *name == "integer" || *name == "number",
        Value::Float(_) => *name == "number",
        Value::Boolean(_) => *name == "boolean",
        Value::Array(_) => *name == "array",
        Value::Table(_) => *name == "object",
    })
}

fn admits_value(schema: &Map<String, Json>, node: &Node) -> bool {
    let value = node.to_json();
    // 1 and 1.0 are the same number.
    let same = |known: &Json| *known == value || (known.is_number() && known.as_f64() == value.as_f64());
    schema.get("const").is_none_or(same) && schema.get("enum").is_none_or(|_| list_of(schema, "enum").any(same))
}

/// Do the constants that tell the branches of an enum apart stand in the table?
fn tag_matches(schema: &Map<String, Json>, node: &Node) -> bool {
    let properties = schema.get("properties").and_then(Json::as_object);
    properties.into_iter().flatten().all(|(key, property)| match (property.get("const"), node.child(key)) {
        (Some(constant), Some(value)) => *constant == value.to_json(),
        (Some(_), None) => false,
        (None, _) => true,
    })
}

/// Does a key that the schema knows stand in the table?
fn shares_a_key(schema: &Map<String, Json>, node: &Node) -> bool {
    let properties = schema.get("properties").and_then(Json::as_object);
    properties.into_iter().flatten().any(|(key, _)| node.child(key).is_some())
}

/// Whether a schema, or one that it chooses from, bounds numbers.
fn is_bound(root: &Json, schema: Option<&Map<String, Json>>) -> bool {
    let inner = |schema| branches(schema).iter().any(|branch| is_bound(root, resolve(root, branch)));
    schema.is_some_and(|schema| range(schema).is_some() || inner(schema))
}

fn bound(schema: &Map<String, Json>, key: &str) -> Option<f64> {
    schema.get(key).and_then(Json::as_f64)
}

fn range(schema: &Map<String, Json>) -> Option<String> {
    if let (Some(least), Some(most)) = (bound(schema, "minimum"), bound(schema, "maximum")) {
        return Some(format!("from {least} to {most}"));
    }
    let words =
        [("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"), ("exclusiveMaximum", "below")];
    let parts: Vec<String> =
        words.iter().filter_map(|(key, word)| Some(format!("{word} {}", bound(schema, key)?))).collect();
    (!parts.is_empty()).then(|| parts.join(" and "))
}

fn about(schema: &Map<String, Json>, path: &str) -> Option<String> {
    schema.get("description").and_then(Json::as_str).map(|text| format!("{}: {text}", last_key(path)))
}

fn last_key(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// The strings that a schema allows, where it lists them.
fn choices<'a>(root: &'a Json, schema: &'a Map<String, Json>) -> Vec<&'a str> {
    let inner =
        branches(schema).iter().filter_map(|branch| resolve(root, branch)).flat_map(|branch| choices(root, branch));
    let own = list_of(schema, "enum").chain(schema.get("const")).filter_map(Json::as_str);
    own.chain(inner).collect()
}

fn expected_of(root: &Json, schema: &Map<String, Json>) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut add = |word: String| {
        if !words.contains(&word) {
            words.push(word);
        }
    };
    let constants: Vec<&Json> =
        list_of(schema, "enum").chain(schema.get("const")).filter(|value| !value.is_null()).collect();
    constants.iter().for_each(|constant| add(constant.to_string()));
    for branch in branches(schema).iter().filter_map(|branch| resolve(root, branch)) {
        if types(branch) != ["null"] {
            add(expected_of(root, branch));
        }
    }
    if constants.is_empty() && branches(schema).is_empty() {
        for name in types(schema) {
            match name {
                "null" => {}
                "string" => add("a string".into()),
                "integer" => add("a whole number".into()),
                "number" => add("a number".into()),
                "boolean" => add("true or false".into()),
                "array" => add(match schema.get("items").and_then(|items| resolve(root, items)) {
                    Some(items) => format!("a list of {}", plural(&expected_of(root, items))),
                    None => "a list".into(),
                }),
                _ => add("a table".into()),
            }
        }
    }
    list(&words, "or")
}

fn plural(words: &str) -> String {
    match words.strip_prefix("a ") {
        Some(noun) if !noun.contains(" of ") && !noun.contains(" or ") => format!("{noun}s"),
        _ => format!("values, each {words}"),
    }
}
