//! What is tried: a method of a file, and how its author says it is to be tried.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::outcome::MethodName;
use crate::{Error, Result};

/// What is tried.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Subject {
    /// The plugin's file.
    pub(super) file: PathBuf,
    /// The method; none where the file as a whole is tried.
    pub(super) method: Option<MethodName>,
    /// Options of methods.
    pub(super) sets: Vec<OptionSet>,
    /// A run file that shows the method at work, where the author gives one.
    pub(super) run: Option<PathBuf>,
    /// The stage that fits, once that is known.
    pub(super) stage: Option<String>,
    /// An empty folder of the test's own.
    pub(super) folder: PathBuf,
}

/// An option that the author sets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct OptionSet {
    /// Of the method of this name; of every one that has such an option, where none is named.
    method: Option<String>,
    /// The option.
    pub(super) option: String,
    /// What it is to be.
    pub(super) value: Json,
}

impl OptionSet {
    /// Reads `rank=4` or `lora.rank=4`. The value is TOML; what is not is a string.
    ///
    /// # Errors
    /// Where there is no `=`, or no option before it.
    pub(super) fn read(assignment: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(format!("--set {assignment} sets no option"))
                .with_help("write OPTION=VALUE, or METHOD.OPTION=VALUE where the file has several methods")
        };
        let (key, value) = assignment.split_once('=').ok_or_else(wrong)?;
        let (method, option) = match key.trim().rsplit_once('.') {
            Some((method, option)) => (Some(method.to_owned()), option),
            None => (None, key.trim()),
        };
        if option.is_empty() {
            return Err(wrong());
        }
        let toml = format!("value = {value}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("value"));
        // JSON has no NaN: that is the name of something.
        let json = toml.and_then(|value| serde_json::to_value(value).ok()).filter(|value| !value.is_null());
        let value = json.unwrap_or_else(|| Json::String(value.trim().to_owned()));
        Ok(Self { method, option: option.to_owned(), value })
    }

    /// Whether it is meant for a method whose options have this schema.
    pub(super) fn is_for(&self, name: &str, schema: &Json) -> bool {
        match &self.method {
            Some(method) => method == name,
            None => schema["properties"].get(&self.option).is_some(),
        }
    }
}

impl Subject {
    /// The method.
    ///
    /// # Errors
    /// Where the file as a whole is tried.
    pub(super) fn method(&self) -> Result<&MethodName> {
        self.method.as_ref().ok_or_else(|| Error::usage("this test needs a method"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::*;

    #[test]
    fn options_are_set_for_one_method_or_for_all_that_have_them() {
        let schema = json!({ "properties": { "rank": {} } });
        let set = OptionSet::read("rank=4").unwrap();
        assert_eq!(
            (set.value.clone(), set.is_for("lora", &schema), set.is_for("x", &json!({}))),
            (json!(4), true, false)
        );
        let set = OptionSet::read("multi-step.milestones=[1, 2]").unwrap();
        assert!(set.is_for("multi-step", &json!({})) && !set.is_for("step", &schema));
        assert_eq!(set.value, json!([1, 2]));
        assert_eq!(OptionSet::read("how=late").unwrap().value, json!("late"));
        assert_eq!(OptionSet::read("how=nan").unwrap().value, json!("nan"));
        assert!(OptionSet::read("rank").unwrap_err().to_string().contains("sets no option"));
    }
}
