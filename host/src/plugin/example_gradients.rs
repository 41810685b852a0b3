//! What regularizers may ask of the run: gradients of single examples.

use fthost_autograd::{Parameter, Tensor};
use fthost_plugin_api::FisherLabels;

use crate::Result;
use crate::adapted::AdaptedModel;

/// Measures gradients of single examples for regularizers. The run implements it, because it has data and heads.
pub trait ExampleGradients {
    /// Calls `visit` with each trainable parameter, its gradient for one example (and label) alone, and the label's weight, on the
    /// calling thread. At most `limit` examples. An error of `visit` ends the walk.
    fn visit(
        &mut self,
        model: &AdaptedModel,
        labels: FisherLabels,
        limit: Option<u64>,
        visit: &mut dyn FnMut(&Parameter, &Tensor, f64) -> Result<()>,
    ) -> Result<()>;
}
