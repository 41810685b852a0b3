//! What a test comes to, and the report of all.

use std::fmt::Display;

use fthost_plugin_api::MethodKind;
use serde::{Deserialize, Serialize};

use crate::report::table::Table;
use crate::{Error, Result};

/// What a test comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not.
    Failed {
        /// What was seen.
        seen: String,
        /// What should have been.
        expected: String,
    },
    /// It could not be tried, or has nothing to try.
    Skipped {
        /// Why.
        why: String,
    },
}

impl Outcome {
    pub(super) fn failed(seen: impl Display, expected: impl Display) -> Self {
        Self::Failed { seen: seen.to_string(), expected: expected.to_string() }
    }

    pub(super) fn skipped(why: impl Display) -> Self {
        Self::Skipped { why: why.to_string() }
    }

    /// Failed where something was seen that should not be.
    pub(super) fn unless(seen: &[String], expected: impl Display) -> Self {
        if seen.is_empty() { Self::Passed } else { Self::failed(seen.join("\n"), expected) }
    }

    /// An error as what was seen.
    pub(super) fn of(tried: Result<Self, Error>, expected: impl Display) -> Self {
        tried.unwrap_or_else(|error| Self::failed(error, expected))
    }
}

/// One method of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodName {
    /// What it is.
    pub kind: MethodKind,
    /// Its name in run files.
    pub name: String,
}

/// One test of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Tried {
    /// Its name.
    pub test: &'static str,
    /// What it shows where it holds.
    pub shows: &'static str,
    /// The method that it tried; none where it is about the file as a whole.
    pub method: Option<MethodName>,
    /// What it came to.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What to do, where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<&'static str>,
    /// How long it took.
    pub seconds: f64,
}

/// What all tests of a plugin came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The file.
    pub plugin: String,
    /// SHA-256 of what was tried.
    pub sha256: String,
    /// Tests that hold.
    pub passed: usize,
    /// Tests that do not.
    pub failed: usize,
    /// Tests that could not be tried, or had nothing to try.
    pub skipped: usize,
    /// All of them, in their order.
    pub tests: Vec<Tried>,
}

impl Report {
    pub(super) fn new(plugin: String, sha256: String, tests: Vec<Tried>) -> Self {
        let count = |wanted: fn(&Outcome) -> bool| tests.iter().filter(|tried| wanted(&tried.outcome)).count();
        let passed = count(|outcome| *outcome == Outcome::Passed);
        let failed = count(|outcome| matches!(outcome, Outcome::Failed { .. }));
        Self { plugin, sha256, passed, failed, skipped: tests.len() - passed - failed, tests }
    }

    /// For people: a line for each test, then what failed with what to do, then how many there are of each.
    pub fn to_text(&self) -> String {
        let mut table = Table::new();
        for tried in &self.tests {
            let (mark, more) = match &tried.outcome {
                Outcome::Passed => ("ok", tried.shows),
                Outcome::Failed { .. } => ("FAILED", tried.shows),
                Outcome::Skipped { why } => ("skipped", why.as_str()),
            };
            table.row([mark, tried.test, &of(tried.method.as_ref()), more]);
        }
        let mut text = format!("{}\n{}", self.plugin, table.to_text());
        for tried in &self.tests {
            let Outcome::Failed { seen, expected } = &tried.outcome else { continue };
            let of = of(tried.method.as_ref());
            let of = if of.is_empty() { of } else { format!(" of {of}") };
            text += &format!("\n{}{of} failed\n  seen: {}\n", tried.test, seen.replace('\n', "\n        "));
            text += &format!("  expected: {}\n", expected.replace('\n', "\n            "));
            text += &tried.help.map(|help| format!("  what to do: {help}\n")).unwrap_or_default();
        }
        text + &format!("\n{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

fn of(method: Option<&MethodName>) -> String {
    method.map(|MethodName { kind, name }| format!("{kind} {name}")).unwrap_or_default()
}
