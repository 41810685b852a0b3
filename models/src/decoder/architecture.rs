//! Where the architectures differ: a few flags, and what Transformers assumes where a config.json says nothing.

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// Hugging Face's `model_type`.
    pub(crate) model_type: &'static str,
    /// What Transformers' classes are called: `Llama` in `LlamaModel`.
    pub(crate) family: &'static str,
    /// The class that says the next token.
    pub(crate) causal: &'static str,
    /// What modules are called.
    pub(crate) names: &'static Names,
    /// Whether norms take the mean away and add a bias; else they divide by the root mean square alone.
    pub(crate) layer_norms: bool,
    /// Whether the matrices of linear layers lie the other way round in files, `[in, out]`.
    pub(crate) transposed: bool,
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
    /// What norms add to the mean square where the file says nothing.
    pub(crate) eps: f64,
    /// Dropout of the embeddings, of attention's weights and before each sum, where the file says nothing.
    pub(crate) dropout: Option<f64>,
}

/// What modules are called in Hugging Face's files.
#[derive(Debug)]
pub(crate) struct Names {
    /// What stands before the paths in the files of a model with a head.
    pub(crate) prefix: &'static str,
    /// Word embeddings.
    pub(crate) words: &'static str,
    /// Embeddings of positions, which are learned then; queries and keys turn where there are none.
    pub(crate) positions: Option<&'static str>,
    /// The blocks.
    pub(crate) blocks: &'static str,
    /// The norm above them.
    pub(crate) norm: &'static str,
    /// Norms before the halves of a block.
    pub(crate) norms: [&'static str; 2],
    /// Attention.
    pub(crate) attention: &'static str,
    /// Queries, keys and values, one below the other, where one layer makes all.
    pub(crate) together: Option<&'static str>,
    /// What attention gives out.
    pub(crate) dense: &'static str,
    /// What the feed-forward half is multiplied by before it narrows, where anything.
    pub(crate) gate: Option<&'static str>,
    /// Where the feed-forward half widens, and where it narrows.
    pub(crate) inner: [&'static str; 2],
}

const LLAMA_NAMES: Names = Names {
    prefix: "model.",
    words: "embed_tokens",
    positions: None,
    blocks: "layers",
    norm: "norm",
    norms: ["input_layernorm", "post_attention_layernorm"],
    attention: "self_attn",
    together: None,
    dense: "o_proj",
    gate: Some("mlp.gate_proj"),
    inner: ["mlp.up_proj", "mlp.down_proj"],
};

const GPT2_NAMES: Names = Names {
    prefix: "transformer.",
    words: "wte",
    positions: Some("wpe"),
    blocks: "h",
    norm: "ln_f",
    norms: ["ln_1", "ln_2"],
    attention: "attn",
    together: Some("c_attn"),
    dense: "c_proj",
    gate: None,
    inner: ["mlp.c_fc", "mlp.c_proj"],
};

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
    causal: "LlamaForCausalLM",
    names: &LLAMA_NAMES,
    layer_norms: false,
    transposed: false,
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
    eps: 1e-6,
    dropout: None,
};

const MISTRAL: Architecture = Architecture {
    model_type: "mistral",
    family: "Mistral",
    causal: "MistralForCausalLM",
    qkv_bias: Bias::Never,
    output_bias: Bias::Never,
    inner_bias: Bias::Never,
    windows: Windows::All(4096),
    ..LLAMA
};

const QWEN2: Architecture = Architecture {
    model_type: "qwen2",
    family: "Qwen2",
    causal: "Qwen2ForCausalLM",
    qkv_bias: Bias::Always,
    output_bias: Bias::Never,
    inner_bias: Bias::Never,
    windows: Windows::Upper,
    ..LLAMA
};

const QWEN3: Architecture = Architecture {
    model_type: "qwen3",
    family: "Qwen3",
    causal: "Qwen3ForCausalLM",
    inner_bias: Bias::Never,
    head_norms: true,
    head_dim: Some(128),
    windows: Windows::Upper,
    ..LLAMA
};

const GEMMA3: Architecture = Architecture {
    model_type: "gemma3_text",
    family: "Gemma3Text",
    causal: "Gemma3ForCausalLM",
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

const GPT2: Architecture = Architecture {
    model_type: "gpt2",
    family: "GPT2",
    causal: "GPT2LMHeadModel",
    names: &GPT2_NAMES,
    layer_norms: true,
    transposed: true,
    qkv_bias: Bias::Always,
    output_bias: Bias::Always,
    inner_bias: Bias::Always,
    activation_key: "activation_function",
    activation: "gelu_new",
    tied: true,
    eps: 1e-5,
    dropout: Some(0.1),
    ..LLAMA
};

const ALL: [&Architecture; 6] = [&LLAMA, &MISTRAL, &QWEN2, &QWEN3, &GEMMA3, &GPT2];

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
