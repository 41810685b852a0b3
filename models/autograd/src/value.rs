//! Values that flow through a tape.

use std::fmt;
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Result, Tensor};

use crate::{NodeId, Parameter};

/// A candle tensor and, if something trainable lies below it, its node on the tape.
#[derive(Clone, Debug)]
pub struct Value {
    content: Content,
    node: Option<NodeId>,
    again: Option<Again>,
}

#[derive(Clone, Debug)]
enum Content {
    Tensor(Tensor),
    /// A parameter, and its tensor once it was asked for: a parameter at rest has none of its own.
    Parameter(Parameter, OnceLock<Tensor>),
}

/// How a value's tensor is made once more, of what is kept for the backward pass anyway.
#[derive(Clone)]
struct Again(Arc<dyn Fn() -> Result<Tensor> + Send + Sync>);

impl fmt::Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Again")
    }
}

/// What an op keeps of an input for its backward pass: its tensor, or how it is made once more.
#[derive(Debug)]
pub(crate) struct Kept(std::result::Result<Tensor, Again>);

impl Kept {
    /// Whether nothing is kept of it.
    #[cfg(test)]
    pub(crate) fn is_made_again(&self) -> bool {
        self.0.is_err()
    }

    /// The tensor, contiguous.
    pub(crate) fn tensor(&self) -> Result<Tensor> {
        match &self.0 {
            Ok(tensor) => Ok(tensor.clone()),
            Err(Again(make)) => make()?.contiguous(),
        }
    }
}

impl Value {
    /// A value that needs no gradient.
    pub fn constant(tensor: Tensor) -> Self {
        Self { content: Content::Tensor(tensor), node: None, again: None }
    }

    pub(crate) fn recorded(tensor: Tensor, node: NodeId) -> Self {
        Self { content: Content::Tensor(tensor), node: Some(node), again: None }
    }

    pub(crate) fn of_parameter(parameter: &Parameter, node: Option<NodeId>) -> Self {
        Self { content: Content::Parameter(parameter.clone(), OnceLock::new()), node, again: None }
    }

    /// The same value, whose tensor is made once more by `make` where an op needs it in its backward pass. `make` gives the same bits, takes
    /// little time, and holds nothing that is not kept anyway.
    pub(crate) fn made_again_by(self, make: impl Fn() -> Result<Tensor> + Send + Sync + 'static) -> Self {
        match self.node {
            Some(_) => Self { again: Some(Again(Arc::new(make))), ..self },
            None => self,
        }
    }

    /// What is kept of it for a backward pass.
    pub(crate) fn kept(&self) -> Result<Kept> {
        Ok(Kept(match &self.again {
            Some(again) => Err(again.clone()),
            None => Ok(self.tensor().contiguous()?),
        }))
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
