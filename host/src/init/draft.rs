//! A run file as it is written: keys with the reasons for their values.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::columns::{Choice, Chosen, Split};

/// A run file that was worked out from data.
#[derive(Debug, Serialize)]
pub struct Draft {
    /// What the file says at its top.
    about: Vec<String>,
    /// Its keys, in order.
    pub entries: Vec<Entry>,
    #[serde(skip)]
    section: &'static str,
}

/// A key, its value and why it has it.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// The table that it stands in: `[[task]]`.
    pub section: &'static str,
    /// Its name.
    pub key: String,
    /// Its value, as TOML.
    pub value: String,
    /// Why.
    pub reason: String,
}

impl Draft {
    pub(super) fn new(train: &Path, rows: usize, whole: bool, notes: Vec<String>) -> Self {
        let rows = format!("{}{rows} rows of {}", if whole { "" } else { "the first " }, train.display());
        let about =
            std::iter::once(format!("Written by fthost init from {rows}. Change what you know better.")).chain(notes);
        Self { about: about.collect(), entries: Vec::new(), section: "" }
    }

    pub(super) fn section(&mut self, heading: &'static str) {
        self.section = heading;
    }

    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>, reason: &str) {
        self.raw(key, toml(&value.into()), reason);
    }

    fn raw(&mut self, key: &str, value: String, reason: &str) {
        self.entries.push(Entry { section: self.section, key: key.into(), value, reason: reason.into() });
    }

    /// The head, with balanced class weights where there is a reason.
    pub(super) fn head(&mut self, plugin: &str, why: &str, balance: Option<&str>) {
        let mut keys = vec![("plugin", json!(plugin))];
        keys.extend(balance.map(|_| ("class_weights", json!("balanced"))));
        let why = [Some(why), balance].into_iter().flatten().collect::<Vec<_>>().join("; ");
        self.raw("head", inline(&keys), &why);
    }

    /// The columns, where they are not those that are read by default.
    pub(super) fn columns(&mut self, choice: &Choice, sentences: bool) {
        let named = |key: &'static str, chosen: Option<&Chosen>| {
            chosen.filter(|chosen| chosen.name != key).map(|chosen| (key, chosen.clone()))
        };
        // Of CoNLL's columns the word is the first and the label the last without a word about it.
        let own = |chosen| (!sentences).then_some(chosen);
        let all = [
            named("text", own(&choice.text)),
            named("text_pair", choice.pair.as_ref()),
            named("label", own(&choice.label)),
            // No column is an id unless it is named.
            choice.id.clone().map(|chosen| ("id", chosen)),
        ];
        let all: Vec<_> = all.into_iter().flatten().collect();
        if all.is_empty() {
            return;
        }
        // Columns by number are numbers all.
        let numbers = all.iter().any(|(_, chosen)| chosen.name.parse::<usize>().is_ok());
        let mut keys: Vec<(&str, Value)> = all.iter().map(|(key, chosen)| (*key, json!(chosen.name))).collect();
        if numbers {
            for (key, chosen) in [("text", &choice.text), ("label", &choice.label)] {
                if !keys.iter().any(|(known, _)| *known == key) {
                    keys.push((key, json!(chosen.name)));
                }
            }
        }
        let reasons: Vec<String> = all.iter().map(|(key, chosen)| format!("{key}: {}", chosen.why)).collect();
        self.raw("columns", inline(&keys), &reasons.join("; "));
    }

    pub(super) fn split(&mut self, split: &Split) {
        let parts = [("validation", &split.validation), ("test", &split.test)];
        let parts = parts.into_iter().filter_map(|(key, value)| Some((key, json!(value.as_ref()?))));
        let keys: Vec<_> =
            [("column", json!(split.column)), ("train", json!(split.train))].into_iter().chain(parts).collect();
        self.raw("split", inline(&keys), &format!("`{}` says what a row is for", split.column));
    }

    /// The run file's text.
    pub fn to_toml(&self) -> String {
        let mut out: String = self.about.iter().map(|line| format!("# {line}\n")).collect();
        let mut section = "";
        for Entry { section: own, key, value, reason } in &self.entries {
            if *own != section {
                section = own;
                out += &format!("\n{section}\n");
            }
            out += &format!("# {reason}\n{key} = {value}\n");
        }
        out
    }
}

fn inline(keys: &[(&str, Value)]) -> String {
    let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key} = {}", toml(value))).collect();
    format!("{{ {} }}", keys.join(", "))
}

/// A string, number or boolean as TOML has it.
fn toml(value: &Value) -> String {
    ::toml::Value::try_from(value).map_or_else(|_| value.to_string(), |value| value.to_string())
}
