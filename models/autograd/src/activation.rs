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
    /// x.
    #[default]
    Identity,
}
