//! Gradients of single examples, which regularizers may ask for.

use crate::{Param, Tensor};

/// Whose labels the gradients of examples are taken with, as those of a Fisher matrix are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FisherLabels {
    /// One label drawn from the model's own predictive distribution.
    Sampled,
    /// The data's labels.
    Empirical,
    /// The expectation over all labels under the model's distribution.
    Exact,
    /// No label: the gradient is that of the squared length of the head's outputs, whose magnitudes memory aware synapses average
    /// (Aljundi et al. 2018, arXiv:1711.09601). Since 1.1
    #[serde(rename = "squared_output_norm")]
    SquaredOutputNorm,
}

/// The gradient of one example's -log p(label) with respect to one trainable parameter, p being what the head predicts; of its loss, where
/// the head gives values; of what [`FisherLabels::SquaredOutputNorm`] says.
#[derive(Debug)]
pub struct ExampleGradient<'a> {
    /// The parameter.
    pub param: &'a Param,
    /// Its gradient for this example alone, the parameter's shape.
    pub gradient: Tensor,
    /// The weight of this example's label: 1, or the label's probability under [`FisherLabels::Exact`].
    pub weight: f64,
}
