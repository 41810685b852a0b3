//! Where the architectures differ: a few flags, and what Transformers assumes where a config.json says nothing.

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// Hugging Face's `model_type`.
    pub(crate) model_type: &'static str,
    /// What Transformers' classes are called: `Llama` in `LlamaModel`.
    pub(crate) family: &'static str,
    /// The same in the class that says the next token: `Llama` in `LlamaForCausalLM`.
    pub(crate) causal: &'static str,
    /// Whether there is a class of them that answers for each token.
    pub(crate) tokens: bool,
    /// Biases of queries, keys and values.
    pub(crate) qkv_bias: Bias,
    /// Bias of what attention gives out.
    pub(crate) output_bias: Bias,
    /// Biases of the feed-forward half.
    pub(crate) inner_bias: Bias,
    /// Whether each head's queries and keys are normed before they turn.
    pub(crate) head_norms: bool,
    /// Whether a norm also stands after attention and after the feed-forward half, before the sums.
    pub(crate) norms_after: bool,
    /// What is added to the weights of norms, which lie about 0 then.
    pub(crate) norm_offset: f64,
    /// Whether word embeddings are multiplied by the root of their width.
    pub(crate) scaled_embeddings: bool,
    /// Key of the activation.
    pub(crate) activation_key: &'static str,
    /// The activation where the file has none.
    pub(crate) activation: &'static str,
    /// Width of a head where the file says nothing; the width of the model over its heads where there is none here.
    pub(crate) head_dim: Option<usize>,
    /// What lets layers have windows.
    pub(crate) windows: Windows,
    /// Base of the angles where the file says nothing.
    pub(crate) rope_theta: f64,
    /// Whether word embeddings are the layer over the vocabulary too, where the file says nothing.
    pub(crate) tied: bool,
}

/// Whether a layer has a bias.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bias {
    Never,
    Always,
    /// Where this key of config.json says so.
    Asked(&'static str),
}

/// Which layers see the nearest tokens alone, where `layer_types` does not say.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Windows {
    /// None.
    Never,
    /// All, `sliding_window` tokens, or so many where the key is missing; none where it is null.
    All(usize),
    /// Those from `max_window_layers` on where `use_sliding_window` says so.
    Upper,
    /// All but each one of `sliding_window_pattern`; those have a base of angles of their own.
    Pattern,
}

const LLAMA: Architecture = Architecture {
    model_type: "llama",
    family: "Llama",
    causal: "Llama",
    tokens: true,
    qkv_bias: Bias::Asked("attention_bias"),
    output_bias: Bias::Asked("attention_bias"),
    inner_bias: Bias::Asked("mlp_bias"),
    head_norms: false,
    norms_after: false,
    norm_offset: 0.0,
    scaled_embeddings: false,
    activation_key: "hidden_act",
    activation: "silu",
    head_dim: None,
    windows: Windows::Never,
    rope_theta: 10_000.0,
    tied: false,
};

const MISTRAL: Architecture = Architecture {
    model_type: "mistral",
    family: "Mistral",
    causal: "Mistral",
    qkv_bias: Bias::Never,
    output_bias: Bias::Never,
    inner_bias: Bias::Never,
    windows: Windows::All(4096),
    ..LLAMA
};

const QWEN2: Architecture = Architecture {
    model_type: "qwen2",
    family: "Qwen2",
    causal: "Qwen2",
    qkv_bias: Bias::Always,
    output_bias: Bias::Never,
    inner_bias: Bias::Never,
    windows: Windows::Upper,
    ..LLAMA
};

const QWEN3: Architecture = Architecture {
    model_type: "qwen3",
    family: "Qwen3",
    causal: "Qwen3",
    inner_bias: Bias::Never,
    head_norms: true,
    head_dim: Some(128),
    windows: Windows::Upper,
    ..LLAMA
};

const GEMMA3: Architecture = Architecture {
    model_type: "gemma3_text",
    family: "Gemma3Text",
    causal: "Gemma3",
    tokens: false,
    inner_bias: Bias::Never,
    head_norms: true,
    norms_after: true,
    norm_offset: 1.0,
    scaled_embeddings: true,
    activation_key: "hidden_activation",
    activation: "gelu_pytorch_tanh",
    head_dim: Some(256),
    windows: Windows::Pattern,
    rope_theta: 1_000_000.0,
    tied: true,
    ..LLAMA
};

const ALL: [&Architecture; 5] = [&LLAMA, &MISTRAL, &QWEN2, &QWEN3, &GEMMA3];

impl Architecture {
    /// The row of a `model_type`.
    pub(crate) fn find(model_type: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|architecture| architecture.model_type == model_type)
    }

    /// Every `model_type`.
    pub(crate) fn model_types() -> Vec<&'static str> {
        ALL.map(|architecture| architecture.model_type).into()
    }
}
