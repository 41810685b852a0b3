//! Gradients of single examples, which regularizers may ask for.

use crate::{Param, Tensor};

/// Whose labels the squared gradients of a Fisher matrix are taken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FisherLabels {
    /// One label drawn from the model's own predictive distribution.
    Sampled,
    /// The data's labels.
    Empirical,
    /// The expectation over all labels under the model's distribution.
    Exact,
}

/// The gradient of one example's -log p(label) with respect to one trainable parameter, p being what the head predicts; of its loss, where
/// the head gives values.
#[derive(Debug)]
pub struct ExampleGradient<'a> {
    /// The parameter.
    pub param: &'a Param,
    /// Its gradient for this example alone, the parameter's shape.
    pub gradient: Tensor,
    /// The weight of this example's label: 1, or the label's probability under [`FisherLabels::Exact`].
    pub weight: f64,
}
