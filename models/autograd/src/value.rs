//! Values that flow through a tape.

use std::sync::OnceLock;

use candle_core::{DType, Result, Tensor};

use crate::{NodeId, Parameter};

/// A candle tensor and, if something trainable lies below it, its node on the tape.
#[derive(Clone, Debug)]
pub struct Value {
    content: Content,
    node: Option<NodeId>,
}

#[derive(Clone, Debug)]
enum Content {
    Tensor(Tensor),
    /// A parameter, and its tensor once it was asked for: a parameter at rest has none of its own.
    Parameter(Parameter, OnceLock<Tensor>),
}

impl Value {
    /// A value that needs no gradient.
    pub fn constant(tensor: Tensor) -> Self {
        Self { content: Content::Tensor(tensor), node: None }
    }

    pub(crate) fn recorded(tensor: Tensor, node: NodeId) -> Self {
        Self { content: Content::Tensor(tensor), node: Some(node) }
    }

    pub(crate) fn of_parameter(parameter: &Parameter, node: Option<NodeId>) -> Self {
        Self { content: Content::Parameter(parameter.clone(), OnceLock::new()), node }
    }

    /// The tensor. That of a parameter at rest is made the first time and goes with this value.
    pub fn tensor(&self) -> &Tensor {
        match &self.content {
            Content::Tensor(tensor) => tensor,
            Content::Parameter(parameter, tensor) => tensor.get_or_init(|| parameter.tensor()),
        }
    }

    /// The tensor, by move: lets an op reuse its memory.
    pub fn into_tensor(self) -> Tensor {
        match self.content {
            Content::Tensor(tensor) => tensor,
            Content::Parameter(parameter, tensor) => tensor.into_inner().unwrap_or_else(|| parameter.tensor()),
        }
    }

    /// The same tensor, cut off from the tape.
    pub fn detach(&self) -> Self {
        Self::constant(self.tensor().clone())
    }

    /// The node that its gradient flows to.
    pub fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// The parameter that this value *is*, so that an op finds its packed form, or single rows of it.
    pub fn parameter(&self) -> Option<&Parameter> {
        match &self.content {
            Content::Tensor(_) => None,
            Content::Parameter(parameter, _) => Some(parameter),
        }
    }

    /// Whether a gradient will be computed for it.
    pub fn requires_grad(&self) -> bool {
        self.node.is_some()
    }

    /// Its dimensions.
    pub fn dims(&self) -> &[usize] {
        match &self.content {
            Content::Tensor(tensor) => tensor.dims(),
            Content::Parameter(parameter, _) => parameter.dims(),
        }
    }

    /// The dimensions of a matrix; an error where it is none.
    pub fn dims2(&self) -> Result<(usize, usize)> {
        match *self.dims() {
            [rows, columns] => Ok((rows, columns)),
            ref other => candle_core::bail!("a matrix is due, got {other:?}"),
        }
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        match &self.content {
            Content::Tensor(tensor) => tensor.dtype(),
            Content::Parameter(parameter, _) => parameter.dtype(),
        }
    }
}
