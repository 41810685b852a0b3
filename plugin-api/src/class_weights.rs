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
    /// Where the list has another number of weights than there are classes.
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
            Weights::List(weights) => Ok(Some(weights.iter().map(|&weight| weight as f32).collect())),
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
}
