//! config.json as Hugging Face writes it, brought to one form.

use fthost_autograd::Activation;
use serde::Deserialize;
use serde_json::Value as Json;

use super::architecture::Architecture;
use crate::LoadError;
use crate::family::Source;

/// What the encoder is built from, whatever the architecture calls it.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) architecture: &'static Architecture,
    pub(crate) width: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    /// Width inside the feed-forward half.
    pub(crate) inner: usize,
    pub(crate) activation: Activation,
    /// Transformers' name of it.
    pub(crate) activation_name: String,
    pub(crate) eps: f64,
    pub(crate) hidden_dropout: f64,
    pub(crate) attention_dropout: f64,
    pub(crate) head_dropout: f64,
    pub(crate) qkv_bias: bool,
    /// Standard deviation of new weights.
    pub(crate) init_std: f64,
    pub(crate) input: InputConfig,
}

/// The bottom of the encoder.
#[derive(Clone, Copy, Debug)]
pub(crate) enum InputConfig {
    Text {
        vocabulary: usize,
        /// Rows of the position table.
        positions: usize,
        /// The first token's row in the position table.
        first_position: usize,
        /// Rows of the token type table; 0 where the architecture has none.
        types: usize,
    },
    Images {
        channels: usize,
        /// Height and width in pixels.
        size: usize,
        /// Height and width of a patch in pixels.
        patch: usize,
    },
}

/// BERT, RoBERTa and XLM-RoBERTa.
#[derive(Deserialize)]
struct BertConfig {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "two")]
    type_vocab_size: usize,
    pad_token_id: Option<usize>,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "tiny_eps")]
    layer_norm_eps: f64,
    #[serde(default = "tenth")]
    hidden_dropout_prob: f64,
    #[serde(default = "tenth")]
    attention_probs_dropout_prob: f64,
    classifier_dropout: Option<f64>,
    #[serde(default = "init_std")]
    initializer_range: f64,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
}

#[derive(Deserialize)]
struct DistilBertConfig {
    dim: usize,
    n_layers: usize,
    n_heads: usize,
    hidden_dim: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "gelu")]
    activation: String,
    #[serde(default = "tenth")]
    dropout: f64,
    #[serde(default = "tenth")]
    attention_dropout: f64,
    #[serde(default = "fifth")]
    seq_classif_dropout: f64,
    #[serde(default = "init_std")]
    initializer_range: f64,
}

#[derive(Deserialize)]
struct VitConfig {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    image_size: usize,
    patch_size: usize,
    #[serde(default = "three")]
    num_channels: usize,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "tiny_eps")]
    layer_norm_eps: f64,
    #[serde(default)]
    hidden_dropout_prob: f64,
    #[serde(default)]
    attention_probs_dropout_prob: f64,
    #[serde(default = "yes")]
    qkv_bias: bool,
    #[serde(default = "init_std")]
    initializer_range: f64,
}

// Transformers' defaults, which files may leave out.
fn two() -> usize {
    2
}
fn three() -> usize {
    3
}
fn gelu() -> String {
    "gelu".into()
}
fn tiny_eps() -> f64 {
    1e-12
}
fn tenth() -> f64 {
    0.1
}
fn fifth() -> f64 {
    0.2
}
fn init_std() -> f64 {
    0.02
}
fn yes() -> bool {
    true
}

impl Config {
    /// From a config.json that names one of the table's rows.
    pub(crate) fn parse(source: &Source<'_>) -> Result<Self, LoadError> {
        let model_type = source.config.get("model_type").and_then(Json::as_str).unwrap_or_default();
        let Some(architecture) = Architecture::find(model_type) else {
            return Err(source.setting("model_type", model_type, "is no encoder of the BERT family"));
        };
        let config = match architecture.model_type {
            "distilbert" => Self::from_distilbert(architecture, source, source.read()?),
            "vit" => Self::from_vit(architecture, source, source.read()?),
            _ => Self::from_bert(architecture, source, source.read()?),
        }?;
        config.check(source)?;
        Ok(config)
    }

    fn from_bert(
        architecture: &'static Architecture,
        source: &Source<'_>,
        config: BertConfig,
    ) -> Result<Self, LoadError> {
        if let Some(kind) = config.position_embedding_type.filter(|kind| kind != "absolute") {
            return Err(source.setting("position_embedding_type", kind, "is not supported; only \"absolute\" is"));
        }
        if config.is_decoder {
            let why = "makes attention causal, which is not supported; a model that reads both ways says false";
            return Err(source.setting("is_decoder", true, why));
        }
        // RoBERTa's own padding token, where the file does not say.
        let padding = config.pad_token_id.unwrap_or(1);
        Ok(Self {
            architecture,
            width: config.hidden_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            inner: config.intermediate_size,
            activation: source.activation("hidden_act", &config.hidden_act)?,
            activation_name: config.hidden_act,
            eps: config.layer_norm_eps,
            hidden_dropout: config.hidden_dropout_prob,
            attention_dropout: config.attention_probs_dropout_prob,
            head_dropout: config.classifier_dropout.unwrap_or(config.hidden_dropout_prob),
            qkv_bias: true,
            init_std: config.initializer_range,
            input: InputConfig::Text {
                vocabulary: config.vocab_size,
                positions: config.max_position_embeddings,
                first_position: if architecture.positions_after_padding { padding.saturating_add(1) } else { 0 },
                types: config.type_vocab_size,
            },
        })
    }

    fn from_distilbert(
        architecture: &'static Architecture,
        source: &Source<'_>,
        config: DistilBertConfig,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            architecture,
            width: config.dim,
            layers: config.n_layers,
            heads: config.n_heads,
            inner: config.hidden_dim,
            activation: source.activation("activation", &config.activation)?,
            activation_name: config.activation,
            eps: tiny_eps(),
            hidden_dropout: config.dropout,
            attention_dropout: config.attention_dropout,
            head_dropout: config.seq_classif_dropout,
            qkv_bias: true,
            init_std: config.initializer_range,
            input: InputConfig::Text {
                vocabulary: config.vocab_size,
                positions: config.max_position_embeddings,
                first_position: 0,
                types: 0,
            },
        })
    }

    fn from_vit(
        architecture: &'static Architecture,
        source: &Source<'_>,
        config: VitConfig,
    ) -> Result<Self, LoadError> {
        if config.patch_size == 0 || !config.image_size.is_multiple_of(config.patch_size) {
            let why = format!("must divide image_size, which is {}", config.image_size);
            return Err(source.setting("patch_size", config.patch_size, why));
        }
        Ok(Self {
            architecture,
            width: config.hidden_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            inner: config.intermediate_size,
            activation: source.activation("hidden_act", &config.hidden_act)?,
            activation_name: config.hidden_act,
            eps: config.layer_norm_eps,
            hidden_dropout: config.hidden_dropout_prob,
            attention_dropout: config.attention_probs_dropout_prob,
            head_dropout: 0.0,
            qkv_bias: config.qkv_bias,
            init_std: config.initializer_range,
            input: InputConfig::Images {
                channels: config.num_channels,
                size: config.image_size,
                patch: config.patch_size,
            },
        })
    }

    /// Every size by its key in most architectures' files.
    fn sizes(&self) -> Vec<(&'static str, usize)> {
        let mut sizes = vec![
            ("hidden_size", self.width),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("intermediate_size", self.inner),
        ];
        match self.input {
            InputConfig::Text { vocabulary, positions, types, .. } => sizes.extend([
                ("vocab_size", vocabulary),
                ("max_position_embeddings", positions),
                ("type_vocab_size", types.max(1)), // 0 where there are none
            ]),
            InputConfig::Images { channels, size, patch } => {
                sizes.extend([("num_channels", channels), ("image_size", size), ("patch_size", patch)]);
            }
        }
        sizes
    }

    fn check(&self, source: &Source<'_>) -> Result<(), LoadError> {
        source.check_sizes(&self.sizes())?;
        if !self.width.is_multiple_of(self.heads) {
            let why = format!("must divide the width, which is {}", self.width);
            return Err(source.setting("num_attention_heads", self.heads, why));
        }
        if let InputConfig::Text { positions, first_position, .. } = self.input
            && positions <= first_position
        {
            let why = format!("leaves no token a position: the first is {first_position}");
            return Err(source.setting("max_position_embeddings", positions, why));
        }
        Ok(())
    }
}
