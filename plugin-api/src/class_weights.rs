//! Weights of classes in a loss, an option of heads that learn classes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Weights of the classes: `"none"`, `"balanced"` (examples / (classes * examples of the class), as scikit-learn), or a list in the
/// labels' order.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ClassWeights(Weights);

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Weights {
    Rule(Rule),
    List(Vec<f64>),
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Rule {
    None,
    Balanced,
}

impl Default for ClassWeights {
    /// All classes weigh the same.
    fn default() -> Self {
        Self(Weights::Rule(Rule::None))
    }
}

impl ClassWeights {
    /// One weight for each class, or `None` where all are 1; from the training examples of each class.
    ///
    /// # Errors
    /// Where the list has another number of weights than there are classes, or one that is negative or no number, or leaves nothing to
    /// learn from: all are 0, or those of all classes that have training examples.
    pub fn resolve(&self, counts: &[u64], classes: usize) -> Result<Option<Vec<f32>>> {
        match &self.0 {
            Weights::Rule(Rule::None) => Ok(None),
            Weights::Rule(Rule::Balanced) => {
                let total = counts.iter().sum::<u64>() as f64 / classes as f64;
                // A class without examples never meets its weight.
                Ok(Some(counts.iter().map(|&count| (total / count.max(1) as f64) as f32).collect()))
            }
            Weights::List(weights) if weights.len() != classes => Err(Error::new(format!(
                "class_weights lists {} weights, and the task has {classes} classes",
                weights.len()
            ))),
            Weights::List(weights) => {
                let weights: Vec<f32> = weights.iter().map(|&weight| weight as f32).collect();
                if let Some(wrong) = weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
                    return Err(Error::new(format!(
                        "class_weights[{wrong}] is {}, and must be a number from 0 up",
                        weights[wrong]
                    )));
                }
                if weights.iter().all(|weight| *weight == 0.0) {
                    return Err(Error::new(
                        "class_weights are all 0, so nothing is learned: give one class a weight above 0",
                    ));
                }
                let mut seen = weights.iter().zip(counts).filter(|(_, count)| **count > 0).peekable();
                if seen.peek().is_some() && seen.all(|(weight, _)| *weight == 0.0) {
                    return Err(Error::new(
                        "class_weights are 0 for every class that has training examples, so nothing is learned",
                    ));
                }
                Ok(Some(weights))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use serde_json::{Value, from_value, json};

    #[test]
    fn rules_and_lists() {
        let weights = |option: Value| from_value::<ClassWeights>(option)?.resolve(&[10, 30], 2);
        assert_eq!(weights(json!("none")).unwrap(), None);
        // scikit-learn: 40 / (2 * 10), 40 / (2 * 30)
        assert_eq!(weights(json!("balanced")).unwrap(), Some(vec![2.0, 2.0 / 3.0]));
        assert_eq!(weights(json!([1.0, 5.0])).unwrap(), Some(vec![1.0, 5.0]));
        assert!(weights(json!([1.0])).unwrap_err().to_string().contains("2 classes"));
        assert!(weights(json!("balance")).is_err());
    }

    #[test]
    fn weights_that_teach_nothing_are_refused() {
        let check = |counts: &[u64], option: Value, expected: &str| {
            let error = from_value::<ClassWeights>(option).unwrap().resolve(counts, 2).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&[10, 30], json!([1.0, -0.5]), "class_weights[1] is -0.5, and must be a number from 0 up");
        check(&[10, 30], json!([1e39, 1.0]), "class_weights[0] is inf"); // beyond f32
        check(&[10, 30], json!([0.0, 0.0]), "class_weights are all 0");
        check(&[10, 0], json!([0.0, 1.0]), "every class that has training examples");
        // A class may be left out; a head that only predicts knows no counts.
        for counts in [&[10, 30][..], &[]] {
            assert!(from_value::<ClassWeights>(json!([0.0, 1.0])).unwrap().resolve(counts, 2).is_ok());
        }
    }
}
