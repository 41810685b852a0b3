//! What plugins may ask of the run: gradients of single examples.

use fthost_autograd::{Parameter, Tensor};
use fthost_plugin_api::FisherLabels;

use crate::Result;
use crate::adapted::AdaptedModel;

/// Which examples are walked over.
#[derive(Clone, Copy, Debug)]
pub struct Examples {
    /// What their gradients are taken with.
    pub labels: FisherLabels,
    /// How many at most.
    pub limit: Option<u64>,
    /// What their order and the labels that are drawn follow from, beside the run's seed.
    pub seed: Option<u64>,
}

/// Measures gradients of single examples for plugins. The run implements it, because it has data and heads.
pub trait ExampleGradients {
    /// Calls `visit` with each trainable parameter, its gradient for one example (and label) alone, and the label's weight, on the
    /// calling thread. An error of `visit` ends the walk.
    fn visit(
        &mut self,
        model: &AdaptedModel,
        examples: Examples,
        visit: &mut dyn FnMut(&Parameter, &Tensor, f64) -> Result<()>,
    ) -> Result<()>;
}
