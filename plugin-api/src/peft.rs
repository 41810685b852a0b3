//! What PEFT wrote into an `adapter_config.json`, on its way to a strategy's own options.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// The fields of an `adapter_config.json` that say what the method computes. The host has taken out those that say where the
/// adapter belongs: `peft_type`, the base model, the task, the modules that are saved whole. `target_modules` are the paths of the
/// adapted layers: the host has found them by what it and the fields that limit it said, since those are the same for every method.
///
/// A strategy takes the fields that it knows; one that is left and says something is refused by name, so that nothing is
/// computed otherwise than PEFT computes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PeftConfig(Map<String, Value>);

impl PeftConfig {
    /// Takes a field out; `None` where it is missing or null.
    ///
    /// # Errors
    /// Where it is of another type; the message names it.
    pub fn take<T: DeserializeOwned>(&mut self, field: &str) -> Result<Option<T>> {
        let value = self.0.remove(field).unwrap_or_default();
        serde_json::from_value(value)
            .map_err(|error| Error::new(error).context(format!("adapter_config.json: {field}")))
    }

    /// Takes out fields that do not change what a saved adapter computes, such as how it was initialised.
    pub fn skip(&mut self, fields: &[&str]) {
        for field in fields {
            self.0.remove(*field);
        }
    }

    /// That nothing is left which says something: more than null, false, an empty text or list, or a table of such.
    pub(crate) fn end(self) -> Result<()> {
        fn silent(value: &Value) -> bool {
            match value {
                Value::Null | Value::Bool(false) => true,
                Value::String(text) => text.is_empty(),
                Value::Array(items) => items.is_empty(),
                Value::Object(entries) => entries.values().all(silent),
                _ => false,
            }
        }
        match self.0.iter().find(|(_, value)| !silent(value)) {
            None => Ok(()),
            Some((field, value)) => Err(Error::new(format!(
                "adapter_config.json says {field} = {value}, which is not supported here: what PEFT computes with it would be \
                 computed otherwise"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use serde_json::json;

    fn config(fields: Value) -> PeftConfig {
        serde_json::from_value(fields).unwrap()
    }

    #[test]
    fn what_says_nothing_is_no_option() {
        config(json!({ "a": null, "b": false, "c": [], "d": {}, "e": "", "f": { "g": false, "h": null } }))
            .end()
            .unwrap();
        for value in [json!(true), json!(0), json!("x"), json!([0]), json!({ "x": 1 })] {
            let error = config(json!({ "layers": value })).end().unwrap_err().to_string();
            assert!(error.contains(&format!("says layers = {value}")), "{error}");
        }
    }

    #[test]
    fn fields_are_taken_by_name_and_type() {
        let mut config = config(json!({ "r": 8, "alpha": null, "init": "pissa" }));
        assert_eq!(config.take::<usize>("r").unwrap(), Some(8));
        assert_eq!(config.take::<usize>("r").unwrap(), None);
        assert_eq!(config.take::<f64>("alpha").unwrap(), None);
        let error = config.clone().take::<bool>("init").unwrap_err().to_string();
        assert!(error.contains("adapter_config.json: init"), "{error}");
        config.skip(&["init"]);
        config.end().unwrap();
    }
}
