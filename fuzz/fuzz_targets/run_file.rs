//! A run file, and after each separator a `--set`: parsed, checked, its methods' options checked against a schema. What is right must
//! be the same after it was written and read again, as a resumed run reads it.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use fthost::run::file::{Override, RunFile};
use fthost_fuzz::{parts, show};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

/// A schema with everything that a method's options may be.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["rank"],
        "properties": {
            "rank": { "type": "integer", "format": "uint", "minimum": 1 },
            "alpha": { "type": "number" },
            "dropout": { "type": "number", "minimum": 0, "exclusiveMaximum": 1 },
            "scaling": { "oneOf": [{ "type": "string", "const": "one" }, { "type": "string", "const": "two" }] },
            "targets": { "$ref": "#/$defs/Targets" },
            "exclude": { "anyOf": [{ "$ref": "#/$defs/Targets" }, { "type": "null" }] },
            "init": { "oneOf": [
                { "type": "object", "required": ["kind", "std"],
                  "properties": { "kind": { "const": "normal" }, "std": { "type": "number", "exclusiveMinimum": 0 } } },
                { "type": "object", "required": ["kind"], "properties": { "kind": { "const": "zeros" } } },
            ] },
            "scales": { "type": "object", "additionalProperties": { "type": "number" } },
        },
        "$defs": {
            "Targets": { "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] }
        },
    })
});

fuzz_target!(|data: &[u8]| {
    let Ok(parts) = parts(data).map(std::str::from_utf8).collect::<Result<Vec<_>, _>>() else { return };
    let (text, sets) = (parts[0], &parts[1..]);
    if let Err(error) = check(text, sets) {
        show(&error);
    }
});

fn check(text: &str, sets: &[&str]) -> fthost::Result<()> {
    let path = Path::new("/jobs/run.toml");
    let overrides = sets.iter().map(|set| Override::set(set)).collect::<fthost::Result<Vec<_>>>()?;
    let file = RunFile::parse(text, path, &overrides)?;
    let written = file.to_toml();
    let again = RunFile::parse(&written, path, &[]);
    assert!(again.as_ref().is_ok_and(|again| *again == file), "{again:?}\nis what was written as\n{written}");
    file.methods().try_for_each(|(method, _)| file.check_method(method, &SCHEMA))
}
