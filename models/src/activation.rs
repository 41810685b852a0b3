//! Activations by the names that configs have for them.

use fthost_autograd::Activation;

/// The activation of a name of Hugging Face's.
pub fn activation(name: &str) -> Option<Activation> {
    Some(match name {
        "gelu" | "gelu_python" => Activation::Gelu,
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_python_tanh" => Activation::GeluTanh,
        "quick_gelu" => Activation::QuickGelu,
        "relu" => Activation::Relu,
        "relu6" => Activation::Relu6,
        "hardswish" => Activation::HardSwish,
        "silu" | "swish" => Activation::Silu,
        "tanh" => Activation::Tanh,
        "sigmoid" => Activation::Sigmoid,
        "linear" => Activation::Identity,
        _ => return None,
    })
}

/// The names that [`activation`] knows, for an error.
pub(crate) const ACTIVATIONS: &str = "gelu, gelu_new, quick_gelu, relu, relu6, hardswish, silu, tanh, sigmoid, linear";
