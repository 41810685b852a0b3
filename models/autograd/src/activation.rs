//! Which nonlinearity: what ops, models and kernels name it by.

/// A pointwise nonlinearity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// max(x, 0), with derivative 0 at 0.
    Relu,
    /// x Phi(x), with the exact normal distribution function (Hendrycks and Gimpel 2016); `gelu` in Transformers.
    Gelu,
    /// The tanh approximation of GELU; `gelu_new` and `gelu_pytorch_tanh` in Transformers.
    GeluTanh,
    /// Hyperbolic tangent.
    Tanh,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
    /// x sigmoid(x); also called swish.
    Silu,
    /// x sigmoid(1.702 x), an approximation of GELU; `quick_gelu` in Transformers.
    QuickGelu,
    /// min(max(x, 0), 6), with derivative 0 at both ends (Sandler et al. 2018, MobileNetV2).
    Relu6,
    /// min(max(x + 3, 0), 6) / 6, with derivative 0 at both ends.
    HardSigmoid,
    /// x times the hard sigmoid (Howard et al. 2019, MobileNetV3).
    HardSwish,
    /// x.
    #[default]
    Identity,
}

impl Activation {
    /// Whether the derivative is the same at x and at the activation of x, so that the result is all that a backward pass needs.
    pub(crate) fn keeps_slope(self) -> bool {
        matches!(self, Self::Relu | Self::Relu6 | Self::Identity)
    }
}
