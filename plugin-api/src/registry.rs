//! The list of the methods that are linked into this binary.
//!
//! `inventory` keeps one list per shared library or executable, in no stable order, so it is sorted here.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    Error, Optimizer, PeftConfig, Regularizer, Result, Scheduler, Strategy, TaskHead,
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
    serves: &'static str,
    pub(crate) create: fn(&str) -> Result<Instance>,
    /// From the text of an `adapter_config.json` to options.
    pub(crate) options_from_peft: fn(&str) -> Result<Value>,
}

inventory::collect!(MethodEntry);

impl MethodEntry {
    const fn new<C: JsonSchema>(facts: MethodFacts, create: fn(&str) -> Result<Instance>) -> Self {
        let MethodFacts { kind, name, summary, serves } = facts;
        Self { kind, name, summary, schema: schema::<C>, serves, create, options_from_peft: no_peft }
    }

    const fn with_peft(mut self, options_from_peft: fn(&str) -> Result<Value>) -> Self {
        self.options_from_peft = options_from_peft;
        self
    }

    pub(crate) fn info(&self) -> MethodInfo {
        let schema = (self.schema)();
        MethodInfo {
            kind: self.kind,
            name: self.name.into(),
            summary: self.summary.into(),
            config_default: defaults(&schema),
            config_schema: schema,
            serves: self.serves.into(),
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

fn options_from_peft<S: Strategy>(text: &str) -> Result<Value> {
    let mut config: PeftConfig = serde_json::from_str(text)?;
    let options = S::options_from_peft(&mut config)?;
    config.end().map(|()| options)
}

fn no_peft(_: &str) -> Result<Value> {
    Err(Error::new("only strategies open folders of PEFT"))
}

/// What a method says it serves.
const fn served(by: Option<&'static str>) -> &'static str {
    match by {
        Some(name) => name,
        None => "",
    }
}

/// One type per kind of method, for `register!` to name.
pub mod kinds {
    use super::*;

    macro_rules! kind {
        ($kind:ident, $make:ident, serves $serves:expr $(, peft $peft:expr)?) => {
            #[doc = concat!("Registers a [`", stringify!($kind), "`](crate::", stringify!($kind), ").")]
            #[derive(Debug)]
            pub struct $kind;

            impl $kind {
                /// Its kind.
                pub const KIND: MethodKind = MethodKind::$kind;

                /// Which of Hugging Face's folders a method opens; empty for none.
                pub const fn serves<M: super::$kind>() -> &'static str {
                    served($serves)
                }

                /// The entry of a method.
                pub const fn entry<M: super::$kind>(facts: MethodFacts) -> MethodEntry {
                    MethodEntry::new::<M::Config>(facts, |json| Ok(vtables::$make(M::new(config(json)?)?)))
                        $(.with_peft($peft))?
                }
            }
        };
    }
    kind!(Strategy, strategy, serves M::PEFT_TYPE, peft options_from_peft::<M>);
    kind!(Scheduler, scheduler, serves None);
    kind!(Regularizer, regularizer, serves None);
    kind!(TaskHead, task_head, serves M::PROBLEM_TYPE);
    kind!(Optimizer, optimizer, serves None);
}
