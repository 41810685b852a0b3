//! Options drawn from a method's schema: those that it needs, such as it takes, and such as it must not take.

use fthost_plugin_api::MethodInfo;
use serde_json::{Map, Value as Json, json};

/// So many values are drawn for one option.
const EACH: usize = 6;
/// Greater numbers may be right, and take all the memory there is.
const LARGEST: f64 = 64.0;

/// Values for the options that have no default.
pub(super) fn needed(info: &MethodInfo) -> Map<String, Json> {
    let schema = &info.config_schema;
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str);
    let lacks = |option: &&str| info.config_default.get(*option).is_none_or(Json::is_null);
    let value = |option: &str| {
        let of = &schema["properties"][option];
        values(schema, of).into_iter().next().unwrap_or(Json::Null)
    };
    required.filter(lacks).map(|option| (option.to_owned(), value(option))).collect()
}

/// Options that the schema takes, in each of which one is another than by default.
pub(super) fn right(info: &MethodInfo) -> Vec<(String, Json)> {
    each(info, |schema, of| values(schema, of).into_iter().take(EACH).collect())
}

/// Options that no method should take: of another type, out of range, unknown.
pub(super) fn wrong(info: &MethodInfo) -> Vec<(String, Json)> {
    let mut all = each(info, wrong_values);
    all.push(("no-such-option".to_owned(), json!(1)));
    all
}

fn each(info: &MethodInfo, draw: impl Fn(&Json, &Json) -> Vec<Json>) -> Vec<(String, Json)> {
    let schema = &info.config_schema;
    let options = schema["properties"].as_object().into_iter().flatten();
    options
        .flat_map(|(option, of)| draw(schema, of).into_iter().map(move |value| (option.clone(), value)))
        .filter(|(option, value)| info.config_default.get(option) != Some(value))
        .collect()
}

/// What a reference leads to.
fn resolved<'a>(root: &'a Json, schema: &'a Json) -> &'a Json {
    let to = schema["$ref"].as_str().and_then(|at| root.pointer(at.strip_prefix('#')?));
    to.unwrap_or(schema)
}

fn is(schema: &Json, wanted: &str) -> bool {
    match &schema["type"] {
        Json::String(one) => one == wanted,
        Json::Array(several) => several.iter().any(|one| one == wanted),
        _ => false,
    }
}

fn branches(schema: &Json) -> impl Iterator<Item = &Json> {
    ["anyOf", "oneOf"].into_iter().filter_map(|word| schema[word].as_array()).flatten()
}

/// Values that a schema takes.
fn values(root: &Json, schema: &Json) -> Vec<Json> {
    let schema = resolved(root, schema);
    let mut found: Vec<Json> = Vec::new();
    let mut add = |value: Json| {
        if !found.contains(&value) {
            found.push(value);
        }
    };
    schema["search"].as_array().into_iter().flatten().cloned().for_each(&mut add);
    schema["examples"].as_array().into_iter().flatten().cloned().for_each(&mut add);
    schema["enum"].as_array().into_iter().flatten().cloned().for_each(&mut add);
    schema.get("const").cloned().into_iter().for_each(&mut add);
    branches(schema).flat_map(|branch| values(root, branch)).for_each(&mut add);
    if is(schema, "boolean") {
        [json!(false), json!(true)].into_iter().for_each(&mut add);
    }
    if is(schema, "integer") {
        integers(schema).into_iter().for_each(&mut add);
    }
    if is(schema, "number") {
        floats(schema).into_iter().for_each(&mut add);
    }
    if is(schema, "array") {
        array(root, schema).into_iter().for_each(&mut add);
    }
    if is(schema, "object") && schema["properties"].is_object() {
        object(root, schema).into_iter().for_each(&mut add);
    }
    found.retain(|value| !value.is_null());
    found
}

fn bound(schema: &Json, word: &str) -> Option<f64> {
    schema[word].as_f64()
}

fn integers(schema: &Json) -> Vec<Json> {
    let least = bound(schema, "minimum").or(bound(schema, "exclusiveMinimum").map(|above| above + 1.0)).unwrap_or(0.0);
    let most = bound(schema, "maximum").or(bound(schema, "exclusiveMaximum").map(|below| below - 1.0));
    let most = most.unwrap_or(LARGEST).min(LARGEST.max(least));
    [least, least + 1.0, most].into_iter().filter(|n| (least..=most).contains(n)).map(|n| json!(n as i64)).collect()
}

fn floats(schema: &Json) -> Vec<Json> {
    const NEAR: f64 = 1e-3;
    let (least, above) = (bound(schema, "minimum"), bound(schema, "exclusiveMinimum"));
    let (most, below) = (bound(schema, "maximum"), bound(schema, "exclusiveMaximum"));
    let low = least.or(above.map(|above| above + NEAR)).unwrap_or(0.0);
    let high = most.or(below.map(|below| below - NEAR)).unwrap_or(low + 1.0);
    [low, f64::midpoint(low, high), high].into_iter().map(|n| json!(n)).collect()
}

fn array(root: &Json, schema: &Json) -> Vec<Json> {
    let least = schema["minItems"].as_u64().unwrap_or(0).max(1) as usize;
    if let Some(first) = schema["prefixItems"].as_array() {
        let items: Option<Vec<Json>> = first.iter().map(|of| values(root, of).into_iter().next()).collect();
        return items.map(Json::Array).into_iter().collect();
    }
    let items = values(root, &schema["items"]);
    // Nothing, as a number, is seldom of use in a list.
    let item = items.iter().find(|item| item.as_f64() != Some(0.0)).or(items.first());
    item.map(|item| Json::Array(vec![item.clone(); least])).into_iter().collect()
}

/// A table with what it needs alone.
fn object(root: &Json, schema: &Json) -> Option<Json> {
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str);
    let field = |key: &str| Some((key.to_owned(), values(root, &schema["properties"][key]).into_iter().next()?));
    let fields: Option<Map<String, Json>> = required.map(field).collect();
    fields.filter(|fields| !fields.is_empty()).map(Json::Object)
}

fn wrong_values(root: &Json, schema: &Json) -> Vec<Json> {
    let of = resolved(root, schema);
    let several = branches(of).next().is_some();
    let number = is(of, "integer") || is(of, "number");
    let mut wrong = vec![if number || is(of, "boolean") { json!("wrong") } else { json!([[7]]) }];
    if number && !several {
        wrong.extend(bound(of, "minimum").map(|least| json!(least as i64 - 1)));
        wrong.extend(bound(of, "maximum").map(|most| json!(most as i64 + 1)));
        wrong.extend(
            bound(of, "exclusiveMinimum")
                .map(|above| if is(of, "integer") { json!(above as i64) } else { json!(above) }),
        );
        wrong.extend(
            bound(of, "exclusiveMaximum")
                .map(|below| if is(of, "integer") { json!(below as i64) } else { json!(below) }),
        );
    }
    wrong
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use fthost_plugin_api::MethodKind;

    use super::*;

    fn info(schema: Json, default: Json) -> MethodInfo {
        MethodInfo {
            kind: MethodKind::Strategy,
            name: "m".into(),
            summary: String::new(),
            config_schema: schema,
            config_default: default,
            serves: String::new(),
        }
    }

    #[test]
    fn values_lie_within_the_schema_and_wrong_ones_outside() {
        let schema = json!({
            "required": ["at"],
            "$defs": { "Place": { "enum": ["new", "attach"] } },
            "properties": {
                "at": { "$ref": "#/$defs/Place" },
                "rank": { "type": "integer", "minimum": 1, "search": [4, 8] },
                "dropout": { "type": "number", "minimum": 0, "exclusiveMaximum": 1 },
                "on": { "type": "boolean" },
                "kind": { "anyOf": [{ "const": "a" }, { "type": "object", "required": ["n"], "properties": { "n": { "type": "integer" } } }] },
            }
        });
        let info = info(schema, json!({ "rank": 8, "dropout": 0.0, "on": false, "kind": "a" }));
        assert_eq!(needed(&info), *json!({ "at": "new" }).as_object().unwrap());
        let of = |all: &[(String, Json)], wanted: &str| -> Vec<Json> {
            all.iter().filter(|(option, _)| option == wanted).map(|(_, value)| value.clone()).collect()
        };
        let right = right(&info);
        assert_eq!(of(&right, "rank"), [json!(4), json!(1), json!(2), json!(64)]);
        assert_eq!(of(&right, "dropout"), [json!(0.4995), json!(0.999)]);
        assert_eq!(of(&right, "on"), [json!(true)]);
        assert_eq!(of(&right, "kind"), [json!({ "n": 0 })]);
        let wrong = wrong(&info);
        assert_eq!(of(&wrong, "rank"), [json!("wrong"), json!(0)]);
        assert_eq!(of(&wrong, "dropout"), [json!("wrong"), json!(-1), json!(1.0)]);
        assert_eq!(of(&wrong, "at"), [json!([[7]])]);
        assert_eq!(of(&wrong, "no-such-option"), [json!(1)]);
    }
}
