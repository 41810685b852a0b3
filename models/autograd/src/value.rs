//! Values that flow through a tape.

use candle_core::{DType, Tensor};

use crate::{NodeId, Parameter};

/// A candle tensor and, if something trainable lies below it, its node on the tape.
#[derive(Clone, Debug)]
pub struct Value {
    tensor: Tensor,
    node: Option<NodeId>,
    parameter: Option<Parameter>,
}

impl Value {
    /// A value that needs no gradient.
    pub fn constant(tensor: Tensor) -> Self {
        Self { tensor, node: None, parameter: None }
    }

    pub(crate) fn recorded(tensor: Tensor, node: NodeId) -> Self {
        Self { tensor, node: Some(node), parameter: None }
    }

    pub(crate) fn of_parameter(parameter: &Parameter, node: Option<NodeId>) -> Self {
        Self { tensor: parameter.tensor().clone(), node, parameter: Some(parameter.clone()) }
    }

    /// The tensor.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// The tensor, by move: lets an op reuse its memory.
    pub fn into_tensor(self) -> Tensor {
        self.tensor
    }

    /// The same tensor, cut off from the tape.
    pub fn detach(&self) -> Self {
        Self::constant(self.tensor.clone())
    }

    /// The node that its gradient flows to.
    pub fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// The parameter that this value *is*, so that an op finds its packed forms.
    pub fn parameter(&self) -> Option<&Parameter> {
        self.parameter.as_ref()
    }

    /// Whether a gradient will be computed for it.
    pub fn requires_grad(&self) -> bool {
        self.node.is_some()
    }

    /// Its dimensions.
    pub fn dims(&self) -> &[usize] {
        self.tensor.dims()
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        self.tensor.dtype()
    }
}
