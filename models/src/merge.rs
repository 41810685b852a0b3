//! Folding what stands beside a layer into its weight, and holding the folded layer against the one it stands for.

use std::sync::Arc;

use fthost_autograd::{DType, Result, Tape, Tensor, Value};

use crate::site::LinearHook;

/// By how much the outputs of a folded layer may differ from those of the hooked one, as a share of the greatest of them: sums of
/// thousands of products in another order, in `f32`.
const ROUNDING: f64 = 2e-5;

/// A layer with its hooks in its weight and bias.
#[derive(Debug)]
pub(crate) struct Folded {
    /// Path of its site.
    path: String,
    /// `[out, in]`
    pub(crate) weight: Value,
    /// `[out]`
    pub(crate) bias: Option<Value>,
}

impl Folded {
    /// Folds a layer's hooks in the order in which the forward pass applies them.
    ///
    /// That is y = f(W g(x)): what a hook makes of outputs, f, changes W from the left, each after those before it; what it makes of
    /// inputs, g, comes before all of these and changes W from the right, so it is folded after them, and of several the last one first.
    ///
    /// # Errors
    /// Where a hook says that it is no change of a weight; the layer is named.
    pub(crate) fn new(
        tape: &Tape,
        path: &str,
        hooks: &[Arc<dyn LinearHook>],
        weight: Value,
        bias: Option<Value>,
    ) -> Result<Self> {
        let probe = Value::constant(Tensor::ones((1, weight.dims()[1]), DType::F32, weight.tensor().device())?);
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for hook in hooks {
            if hook.input(tape, &probe)?.is_some() { inputs.push(hook) } else { outputs.push(hook) }
        }
        let mut folded = Self { path: path.to_owned(), weight, bias };
        for hook in outputs.into_iter().chain(inputs.into_iter().rev()) {
            match hook.merge(tape, &folded.weight)? {
                Some(weight) => folded.weight = weight,
                None => candle_core::bail!("what is added at {path} cannot be folded into its weight"),
            }
            if let Some(bias) = &folded.bias
                && let Some(bias) = hook.merge_bias(tape, bias)?
            {
                folded.bias = Some(bias);
            }
        }
        Ok(folded)
    }

    /// That it gives what the hooked layer gave. `x`: `[rows, in]` before any hook, `y`: `[rows, out]` after all.
    ///
    /// # Errors
    /// Where it does not; the layer is named.
    pub(crate) fn check(&self, tape: &Tape, x: &Value, y: &Value) -> Result<()> {
        let greatest = |tensor: &Tensor| tensor.abs()?.flatten_all()?.max(0)?.to_dtype(DType::F64)?.to_scalar::<f64>();
        let found = tape.linear(x, &self.weight, self.bias.as_ref())?;
        let (difference, size) = (greatest(&(found.tensor() - y.tensor())?)?, greatest(y.tensor())?);
        if difference <= ROUNDING * size {
            return Ok(());
        }
        candle_core::bail!(
            "what is added at {} cannot be folded into its weight: the outputs of the folded layer differ by up to \
             {difference:.1e} from the run's, which go up to {size:.1e}",
            self.path
        )
    }
}
