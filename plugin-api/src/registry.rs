//! The list of the methods that are linked into this binary.
//!
//! `inventory` keeps one list per shared library or executable, in no stable order, so it is sorted here.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    Regularizer, Result, Scheduler, Strategy, TaskHead,
    abi::{note::MethodFacts, tables::Instance, vtables},
    info::{MethodInfo, MethodKind},
};

/// One registered method.
#[derive(Debug)]
pub struct MethodEntry {
    pub(crate) kind: MethodKind,
    pub(crate) name: &'static str,
    summary: &'static str,
    schema: fn() -> Value,
    pub(crate) create: fn(&str) -> Result<Instance>,
}

inventory::collect!(MethodEntry);

impl MethodEntry {
    const fn new<C: JsonSchema>(facts: MethodFacts, create: fn(&str) -> Result<Instance>) -> Self {
        Self { kind: facts.kind, name: facts.name, summary: facts.summary, schema: schema::<C>, create }
    }

    pub(crate) fn info(&self) -> MethodInfo {
        let schema = (self.schema)();
        MethodInfo {
            kind: self.kind,
            name: self.name.into(),
            summary: self.summary.into(),
            config_default: defaults(&schema),
            config_schema: schema,
        }
    }
}

/// By name, then kind.
pub(crate) fn methods() -> Vec<&'static MethodEntry> {
    let mut methods: Vec<_> = inventory::iter::<MethodEntry>.into_iter().collect();
    methods.sort_by_key(|method| (method.name, method.kind));
    methods
}

fn schema<C: JsonSchema>() -> Value {
    let settings = SchemaSettings::default().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<C>().to_value()
}

/// The defaults that stand in a schema's properties.
fn defaults(schema: &Value) -> Value {
    let properties = schema.get("properties").and_then(Value::as_object);
    let defaults = properties.into_iter().flatten();
    Value::Object(
        defaults.filter_map(|(name, of)| Some((name.clone(), of.get("default")?.clone()))).collect::<Map<_, _>>(),
    )
}

fn config<C: DeserializeOwned>(json: &str) -> Result<C> {
    serde_json::from_str(json).map_err(|error| crate::Error::new(error).context("options"))
}

/// One type per kind of method, for `register!` to name.
pub mod kinds {
    use super::*;

    macro_rules! kind {
        ($kind:ident, $make:ident) => {
            #[doc = concat!("Registers a [`", stringify!($kind), "`](crate::", stringify!($kind), ").")]
            #[derive(Debug)]
            pub struct $kind;

            impl $kind {
                /// Its kind.
                pub const KIND: MethodKind = MethodKind::$kind;

                /// The entry of a method.
                pub const fn entry<M: super::$kind>(facts: MethodFacts) -> MethodEntry {
                    MethodEntry::new::<M::Config>(facts, |json| Ok(vtables::$make(M::new(config(json)?)?)))
                }
            }
        };
    }
    kind!(Strategy, strategy);
    kind!(Scheduler, scheduler);
    kind!(Regularizer, regularizer);
    kind!(TaskHead, task_head);
}
