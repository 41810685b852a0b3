//! The layers that architectures are made of.

use fthost_autograd::{Activation, Parameter, Result, Tape, Value};

use crate::hooks::Pass;

/// `y = x W^T + b`, with a site.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) site: usize,
    /// `[out, in]`
    pub(crate) weight: Parameter,
    /// `[out]`
    pub(crate) bias: Option<Parameter>,
}

impl Linear {
    /// How many numbers of a row it reads, and how many it makes.
    pub(crate) fn widths(&self) -> [usize; 2] {
        let of = |axis: usize| self.weight.dims().get(axis).copied().unwrap_or_default();
        [of(1), of(0)]
    }

    /// `x`: `[rows, in]`. Returns `[rows, out]`, activated.
    pub(crate) fn forward(&self, pass: Pass<'_>, x: &Value, activation: Activation) -> Result<Value> {
        let tape = pass.tape;
        let weight = tape.parameter(&self.weight);
        let bias = self.bias.as_ref().map(|bias| tape.parameter(bias));
        let hooks = pass.linear_hooks(self.site);
        if hooks.is_empty() && activation != Activation::Identity {
            return tape.linear_activation(x, &weight, bias.as_ref(), activation);
        }

        let mut changed = x.clone();
        for hook in hooks {
            if let Some(x) = hook.input(tape, &changed)? {
                changed = x;
            }
        }
        let mut y = tape.linear(&changed, &weight, bias.as_ref())?;
        for hook in hooks {
            y = hook.forward(tape, &changed, y, &weight)?;
        }
        if let Some(folded) = pass.folded(self.site) {
            folded.check(tape, x, &y)?;
        }
        match activation {
            Activation::Identity => Ok(y),
            activation => tape.activation(&y, activation),
        }
    }
}

/// Layer norm over the last dimension.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    /// `[width]`
    pub(crate) weight: Parameter,
    /// `[width]`
    pub(crate) bias: Parameter,
    pub(crate) eps: f64,
}

impl LayerNorm {
    /// `x`: `[rows, width]`.
    pub(crate) fn forward(&self, tape: &Tape, x: &Value) -> Result<Value> {
        tape.layer_norm(x, &tape.parameter(&self.weight), Some(&tape.parameter(&self.bias)), self.eps)
    }

    /// The norm of `x + residual`.
    pub(crate) fn forward_sum(&self, tape: &Tape, x: &Value, residual: &Value) -> Result<Value> {
        let (weight, bias) = (tape.parameter(&self.weight), tape.parameter(&self.bias));
        tape.residual_layer_norm(x, residual, &weight, Some(&bias), self.eps)
    }
}
