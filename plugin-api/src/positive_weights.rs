//! Weights of what is there, of each class, in a loss over classes that are independent of each other.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, TaskInfo};

/// Weights of the examples that have a class, beside those that have it not: `"none"`, `"balanced"` (examples without the class / examples
/// with it, as torch's `pos_weight` is usually set), a list in the labels' order, or a table by the classes' names, where others weigh 1.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PositiveWeights(Weights);

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Weights {
    Rule(Rule),
    List(Vec<f64>),
    Table(BTreeMap<String, f64>),
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Rule {
    None,
    Balanced,
}

impl Default for PositiveWeights {
    /// All weigh the same.
    fn default() -> Self {
        Self(Weights::Rule(Rule::None))
    }
}

impl PositiveWeights {
    /// One weight for each class, or `None` where all are 1; from the number of training examples that have it.
    ///
    /// # Errors
    /// Where a list has another number of weights than there are classes, a table names a class that there is not, or a weight is no number
    /// from 0 up.
    pub fn resolve(&self, task: &TaskInfo) -> Result<Option<Vec<f32>>> {
        let labels = &task.labels;
        let weights: Vec<f64> = match &self.0 {
            Weights::Rule(Rule::None) => return Ok(None),
            Weights::Rule(Rule::Balanced) => {
                // A class that no example has, or that nobody counted, never meets its weight.
                let of = |&count: &u64| {
                    if count == 0 { 1.0 } else { task.examples.saturating_sub(count) as f64 / count as f64 }
                };
                task.class_counts.iter().map(of).collect()
            }
            Weights::List(weights) if weights.len() != labels.len() => {
                let (weights, classes) = (weights.len(), labels.len());
                return Err(Error::new(format!(
                    "positive_weights lists {weights} weights, and the task has {classes} classes"
                )));
            }
            Weights::List(weights) => weights.clone(),
            Weights::Table(table) => {
                if let Some(unknown) = table.keys().find(|name| !labels.contains(name)) {
                    return Err(Error::new(format!(
                        "positive_weights names the class `{unknown}`, and the task has {}",
                        labels.join(", ")
                    )));
                }
                labels.iter().map(|label| table.get(label).copied().unwrap_or(1.0)).collect()
            }
        };
        let weights: Vec<f32> = weights.into_iter().map(|weight| weight as f32).collect();
        match weights.iter().zip(labels).find(|(weight, _)| !(weight.is_finite() && **weight >= 0.0)) {
            Some((weight, label)) => Err(Error::new(format!(
                "positive_weights has {weight} for the class `{label}`, and it must be a number from 0 up"
            ))),
            None => Ok(Some(weights)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use serde_json::{Value, from_value, json};

    fn resolve(option: Value) -> Result<Option<Vec<f32>>> {
        let task = TaskInfo {
            name: "t".into(),
            labels: ["a", "b", "c"].map(String::from).into(),
            class_counts: vec![10, 30, 0],
            examples: 40,
            width: 4,
            streams: Vec::new(),
            hidden_activation: None,
            bias: true,
            dropout: 0.0,
            image: None,
            vocabulary: None,
            comparison: None,
            sequences: 1,
        };
        from_value::<PositiveWeights>(option)?.resolve(&task)
    }

    #[test]
    fn rules_lists_and_tables() {
        assert_eq!(resolve(json!("none")).unwrap(), None);
        assert_eq!(resolve(json!("balanced")).unwrap(), Some(vec![3.0, 1.0 / 3.0, 1.0]));
        assert_eq!(resolve(json!([1.0, 5.0, 0.0])).unwrap(), Some(vec![1.0, 5.0, 0.0]));
        assert_eq!(resolve(json!({ "b": 2.5 })).unwrap(), Some(vec![1.0, 2.5, 1.0]));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let check = |option: Value, expected: &str| {
            let error = resolve(option).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(json!([1.0]), "lists 1 weights, and the task has 3 classes");
        check(json!({ "d": 1.0 }), "names the class `d`, and the task has a, b, c");
        check(json!([1.0, -1.0, 1.0]), "has -1 for the class `b`");
        check(json!({ "a": 1e39 }), "has inf for the class `a`"); // beyond f32
        check(json!("balance"), "");
    }
}
