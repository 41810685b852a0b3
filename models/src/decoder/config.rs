//! config.json as Hugging Face writes it, brought to one form.

use fthost_autograd::Activation;
use serde::Deserialize;
use serde_json::Value as Json;

use super::architecture::{Architecture, Bias, Windows};
use super::rope::Rope;
use crate::LoadError;
use crate::family::{LARGEST, Source};

/// What a decoder is built from, whatever the architecture calls it.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) architecture: &'static Architecture,
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Width inside the feed-forward half.
    pub(crate) inner: usize,
    pub(crate) vocabulary: usize,
    /// The longest sequence.
    pub(crate) positions: usize,
    pub(crate) activation: Activation,
    pub(crate) eps: f64,
    pub(crate) attention_dropout: f64,
    /// Of the embeddings, and of what joins the residual.
    pub(crate) embedding_dropout: Option<f64>,
    pub(crate) residual_dropout: Option<f64>,
    /// Before a head's last layer, where the file asks for it.
    pub(crate) head_dropout: f64,
    /// What scores are multiplied by.
    pub(crate) scale: f64,
    pub(crate) qkv_bias: bool,
    pub(crate) output_bias: bool,
    pub(crate) inner_bias: bool,
    /// Whether word embeddings are the layer over the vocabulary too.
    pub(crate) tied: bool,
    /// Standard deviation of new weights.
    pub(crate) init_std: f64,
    /// The kinds of positions that layers have; none where they are learned.
    pub(crate) ropes: Vec<Rope>,
    /// The layers, from the bottom up.
    pub(crate) layers: Vec<LayerConfig>,
}

/// What may differ from layer to layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LayerConfig {
    /// How many tokens a token sees, itself counted; all before it where there is none.
    pub(crate) window: Option<usize>,
    /// Its kind of positions, by their place in `ropes`.
    pub(crate) rope: usize,
}

#[derive(Deserialize)]
struct File {
    #[serde(alias = "n_embd")]
    hidden_size: usize,
    #[serde(alias = "n_layer")]
    num_hidden_layers: usize,
    #[serde(alias = "n_head")]
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    #[serde(alias = "n_inner")]
    intermediate_size: Option<usize>,
    vocab_size: usize,
    #[serde(alias = "n_positions")]
    max_position_embeddings: usize,
    #[serde(alias = "layer_norm_epsilon")]
    rms_norm_eps: Option<f64>,
    #[serde(alias = "attn_pdrop")]
    attention_dropout: Option<f64>,
    embd_pdrop: Option<f64>,
    resid_pdrop: Option<f64>,
    #[serde(default)]
    classifier_dropout: Option<f64>,
    #[serde(default = "init_std")]
    initializer_range: f64,
    rope_theta: Option<f64>,
    rope_local_base_freq: Option<f64>,
    rope_scaling: Option<Json>,
    rope_parameters: Option<Json>,
    layer_types: Option<Vec<String>>,
    #[serde(default)]
    use_sliding_window: bool,
    max_window_layers: Option<usize>,
    #[serde(alias = "_sliding_window_pattern")]
    sliding_window_pattern: Option<usize>,
    query_pre_attn_scalar: Option<f64>,
    tie_word_embeddings: Option<bool>,
}

// Transformers' defaults, which files may leave out.
fn init_std() -> f64 {
    0.02
}

const SLIDING: &str = "sliding_attention";
const FULL: &str = "full_attention";

impl Config {
    /// From a config.json that names one of the table's rows.
    pub(crate) fn parse(source: &Source<'_>) -> Result<Self, LoadError> {
        let config = &source.config;
        let model_type = source.model_type().unwrap_or_default();
        let Some(architecture) = Architecture::find(model_type) else {
            return Err(source.setting("model_type", model_type, "is no decoder that is known"));
        };
        let read: File = source.read()?;
        let flag = |key: &str| config.get(key).and_then(Json::as_bool).unwrap_or_default();
        let bias = |bias: Bias| match bias {
            Bias::Never => false,
            Bias::Always => true,
            Bias::Asked(key) => flag(key),
        };
        for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if let Some(value) = config.get(key).filter(|value| !value.is_null()) {
                return Err(source.setting(key, value, "bounds scores, which is not computed here"));
            }
        }
        if flag("use_bidirectional_attention") {
            let why = "lets tokens see those after them, which is not computed here";
            return Err(source.setting("use_bidirectional_attention", true, why));
        }
        if flag("scale_attn_by_inverse_layer_idx") {
            let why = "divides scores by the number of their layer, which is not computed here";
            return Err(source.setting("scale_attn_by_inverse_layer_idx", true, why));
        }
        let Some(inner) = read.intermediate_size.or(architecture.layer_norms.then_some(4 * read.hidden_size)) else {
            return Err(source.setting("intermediate_size", "missing", "must be there"));
        };
        let heads = read.num_attention_heads;
        let kv_heads = read.num_key_value_heads.unwrap_or(heads);
        check_sizes(source, &read, kv_heads, inner)?;
        let head_dim = read.head_dim.or(architecture.head_dim).unwrap_or(read.hidden_size / heads);
        let learned = architecture.names.positions.is_some();
        if head_dim == 0 || !(learned || head_dim.is_multiple_of(2)) || head_dim > LARGEST {
            return Err(source.setting(
                "head_dim",
                head_dim,
                "must be even and above 0: its halves turn with each other",
            ));
        }
        if !heads.is_multiple_of(kv_heads) {
            let why = format!("must divide the number of heads, which is {heads}");
            return Err(source.setting("num_key_value_heads", kv_heads, why));
        }
        let name = config.get(architecture.activation_key).and_then(Json::as_str).unwrap_or(architecture.activation);
        let activation = source.activation(architecture.activation_key, name)?;
        let windows = windows(source, architecture, config, &read)?;
        let (mut ropes, layers) = with_ropes(source, architecture, &read, &windows)?;
        if learned {
            ropes.clear();
        }
        Ok(Self {
            architecture,
            width: read.hidden_size,
            heads,
            kv_heads,
            head_dim,
            inner,
            vocabulary: read.vocab_size,
            positions: read.max_position_embeddings,
            activation,
            eps: read.rms_norm_eps.unwrap_or(architecture.eps),
            attention_dropout: read.attention_dropout.or(architecture.dropout).unwrap_or_default(),
            embedding_dropout: architecture.dropout.map(|usual| read.embd_pdrop.unwrap_or(usual)),
            residual_dropout: architecture.dropout.map(|usual| read.resid_pdrop.unwrap_or(usual)),
            head_dropout: read.classifier_dropout.unwrap_or_default(),
            scale: 1.0 / read.query_pre_attn_scalar.unwrap_or(head_dim as f64).sqrt(),
            qkv_bias: bias(architecture.qkv_bias),
            output_bias: bias(architecture.output_bias),
            inner_bias: bias(architecture.inner_bias),
            tied: read.tie_word_embeddings.unwrap_or(architecture.tied),
            init_std: read.initializer_range,
            ropes,
            layers,
        })
    }
}

fn check_sizes(source: &Source<'_>, read: &File, kv_heads: usize, inner: usize) -> Result<(), LoadError> {
    let sizes = [
        ("hidden_size", read.hidden_size),
        ("num_hidden_layers", read.num_hidden_layers),
        ("num_attention_heads", read.num_attention_heads),
        ("num_key_value_heads", kv_heads),
        ("intermediate_size", inner),
        ("vocab_size", read.vocab_size),
        ("max_position_embeddings", read.max_position_embeddings),
    ];
    source.check_sizes(&sizes)
}

/// The window of each layer.
fn windows(
    source: &Source<'_>,
    architecture: &Architecture,
    config: &Json,
    read: &File,
) -> Result<Vec<Option<usize>>, LoadError> {
    let said = config.get("sliding_window");
    let width = match (said, architecture.windows) {
        (None, Windows::All(width)) => Some(width),
        (None, Windows::Upper | Windows::Pattern) => Some(4096),
        (None, Windows::Never) => None,
        (Some(Json::Null), _) => None,
        (Some(value), _) => match value.as_u64() {
            Some(width) if width > 0 => Some(width as usize),
            _ => return Err(source.setting("sliding_window", value, "must be a number of tokens above 0, or null")),
        },
    };
    let slides = |layer: usize| match architecture.windows {
        Windows::Never => false,
        Windows::All(_) => true,
        Windows::Upper => read.use_sliding_window && layer >= read.max_window_layers.unwrap_or(28),
        Windows::Pattern => !(layer + 1).is_multiple_of(read.sliding_window_pattern.unwrap_or(6).max(1)),
    };
    let layers = read.num_hidden_layers;
    let Some(types) = read.layer_types.as_ref().filter(|_| !matches!(architecture.windows, Windows::Never)) else {
        return Ok((0..layers).map(|layer| width.filter(|_| slides(layer))).collect());
    };
    if types.len() != layers {
        let why = format!("has {} layers, and num_hidden_layers is {layers}", types.len());
        return Err(source.setting("layer_types", types.join(", "), why));
    }
    let window = |kind: &String| match kind.as_str() {
        FULL => Ok(None),
        // Qwen's files name windows that use_sliding_window then takes away.
        SLIDING if matches!(architecture.windows, Windows::Upper) && !read.use_sliding_window => Ok(None),
        SLIDING if width.is_some() => Ok(width),
        SLIDING => Err(source.setting("layer_types", kind, "needs sliding_window")),
        _ => Err(source.setting("layer_types", kind, format!("is not known; known are {FULL} and {SLIDING}"))),
    };
    types.iter().map(window).collect()
}

/// The kinds of positions, and which of them each layer has.
fn with_ropes(
    source: &Source<'_>,
    architecture: &Architecture,
    read: &File,
    windows: &[Option<usize>],
) -> Result<(Vec<Rope>, Vec<LayerConfig>), LoadError> {
    let theta = read.rope_theta.unwrap_or(architecture.rope_theta);
    let (key, said) = match (&read.rope_parameters, &read.rope_scaling) {
        (Some(said), _) => ("rope_parameters", said.clone()),
        (None, Some(said)) => ("rope_scaling", said.clone()),
        (None, None) => ("rope_scaling", Json::Null),
    };
    let own = matches!(architecture.windows, Windows::Pattern);
    let ropes = if own && said.get(FULL).is_some() {
        let of = |kind: &str, theta: f64| Rope::parse(source.file, key, said.get(kind).unwrap_or(&Json::Null), theta);
        vec![of(FULL, theta)?, of(SLIDING, 10_000.0)?]
    } else if own {
        // Scaling is that of the layers that see all.
        let local = read.rope_local_base_freq.unwrap_or(10_000.0);
        vec![Rope::parse(source.file, key, &said, theta)?, Rope::parse(source.file, key, &Json::Null, local)?]
    } else {
        vec![Rope::parse(source.file, key, &said, theta)?]
    };
    let layer = |&window: &Option<usize>| LayerConfig { window, rope: usize::from(own && window.is_some()) };
    Ok((ropes, windows.iter().map(layer).collect()))
}
