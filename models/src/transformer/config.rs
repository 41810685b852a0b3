//! config.json as Hugging Face writes it, brought to one form.

use fthost_autograd::Activation;
use serde::Deserialize;
use serde_json::Value as Json;

use super::architecture::{Architecture, TowerNames};
use crate::LoadError;
use crate::family::Source;

/// What the encoder is built from, whatever the architecture calls it.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) architecture: &'static Architecture,
    pub(crate) tower: TowerConfig,
    pub(crate) head_dropout: f64,
}

/// What a tower of blocks is built from.
#[derive(Debug)]
pub(crate) struct TowerConfig {
    pub(crate) names: &'static TowerNames,
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
    pub(crate) qkv_bias: bool,
    pub(crate) stds: Stds,
    pub(crate) input: InputConfig,
}

/// Standard deviations of new weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stds {
    /// Of what stands below the blocks, and above them.
    pub(crate) around: f64,
    /// Of the row before the patches of an image.
    pub(crate) class_token: f64,
    /// Of queries, keys and values.
    pub(crate) attention: f64,
    pub(crate) attention_dense: f64,
    pub(crate) intermediate: f64,
    pub(crate) output_dense: f64,
}

impl Stds {
    /// One for all.
    pub(crate) fn all(std: f64) -> Self {
        Self {
            around: std,
            class_token: std,
            attention: std,
            attention_dense: std,
            intermediate: std,
            output_dense: std,
        }
    }
}

/// Which token ends a text, and is pooled by [`PoolBy::End`](crate::PoolBy::End).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The first of this id; the first of all where there is none.
    Token(u32),
    /// The first of the greatest id.
    Greatest,
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
        /// Which token ends a text, where the architecture says it.
        end: Option<End>,
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
        config.tower.check(source, &SIZES)?;
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
        let tower = TowerConfig {
            names: &architecture.tower,
            width: config.hidden_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            inner: config.intermediate_size,
            activation: source.activation("hidden_act", &config.hidden_act)?,
            activation_name: config.hidden_act,
            eps: config.layer_norm_eps,
            hidden_dropout: config.hidden_dropout_prob,
            attention_dropout: config.attention_probs_dropout_prob,
            qkv_bias: true,
            stds: Stds::all(config.initializer_range),
            input: InputConfig::Text {
                vocabulary: config.vocab_size,
                positions: config.max_position_embeddings,
                first_position: if architecture.positions_after_padding { padding.saturating_add(1) } else { 0 },
                types: config.type_vocab_size,
                end: None,
            },
        };
        Ok(Self { architecture, tower, head_dropout: config.classifier_dropout.unwrap_or(config.hidden_dropout_prob) })
    }

    fn from_distilbert(
        architecture: &'static Architecture,
        source: &Source<'_>,
        config: DistilBertConfig,
    ) -> Result<Self, LoadError> {
        let tower = TowerConfig {
            names: &architecture.tower,
            width: config.dim,
            layers: config.n_layers,
            heads: config.n_heads,
            inner: config.hidden_dim,
            activation: source.activation("activation", &config.activation)?,
            activation_name: config.activation,
            eps: tiny_eps(),
            hidden_dropout: config.dropout,
            attention_dropout: config.attention_dropout,
            qkv_bias: true,
            stds: Stds::all(config.initializer_range),
            input: InputConfig::Text {
                vocabulary: config.vocab_size,
                positions: config.max_position_embeddings,
                first_position: 0,
                types: 0,
                end: None,
            },
        };
        Ok(Self { architecture, tower, head_dropout: config.seq_classif_dropout })
    }

    fn from_vit(
        architecture: &'static Architecture,
        source: &Source<'_>,
        config: VitConfig,
    ) -> Result<Self, LoadError> {
        let tower = TowerConfig {
            names: &architecture.tower,
            width: config.hidden_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            inner: config.intermediate_size,
            activation: source.activation("hidden_act", &config.hidden_act)?,
            activation_name: config.hidden_act,
            eps: config.layer_norm_eps,
            hidden_dropout: config.hidden_dropout_prob,
            attention_dropout: config.attention_probs_dropout_prob,
            qkv_bias: config.qkv_bias,
            stds: Stds::all(config.initializer_range),
            input: InputConfig::Images {
                channels: config.num_channels,
                size: config.image_size,
                patch: config.patch_size,
            },
        };
        Ok(Self { architecture, tower, head_dropout: 0.0 })
    }
}

/// The keys of a tower's sizes.
pub(crate) struct SizeKeys {
    pub(crate) width: &'static str,
    pub(crate) layers: &'static str,
    pub(crate) heads: &'static str,
    pub(crate) inner: &'static str,
    pub(crate) vocabulary: &'static str,
    pub(crate) positions: &'static str,
    pub(crate) types: &'static str,
    pub(crate) channels: &'static str,
    pub(crate) size: &'static str,
    pub(crate) patch: &'static str,
}

/// Those of most architectures' files.
const SIZES: SizeKeys = SizeKeys {
    width: "hidden_size",
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    inner: "intermediate_size",
    vocabulary: "vocab_size",
    positions: "max_position_embeddings",
    types: "type_vocab_size",
    channels: "num_channels",
    size: "image_size",
    patch: "patch_size",
};

impl TowerConfig {
    pub(crate) fn check(&self, source: &Source<'_>, keys: &SizeKeys) -> Result<(), LoadError> {
        let mut sizes = vec![
            (keys.width, self.width),
            (keys.layers, self.layers),
            (keys.heads, self.heads),
            (keys.inner, self.inner),
        ];
        match self.input {
            InputConfig::Text { vocabulary, positions, types, .. } => sizes.extend([
                (keys.vocabulary, vocabulary),
                (keys.positions, positions),
                (keys.types, types.max(1)), // 0 where there are none
            ]),
            InputConfig::Images { channels, size, patch } => {
                sizes.extend([(keys.channels, channels), (keys.size, size), (keys.patch, patch)]);
            }
        }
        source.check_sizes(&sizes)?;
        if !self.width.is_multiple_of(self.heads) {
            let why = format!("must divide the width, which is {}", self.width);
            return Err(source.setting(keys.heads, self.heads, why));
        }
        match self.input {
            InputConfig::Text { positions, first_position, .. } if positions <= first_position => {
                let why = format!("leaves no token a position: the first is {first_position}");
                Err(source.setting(keys.positions, positions, why))
            }
            InputConfig::Images { size, patch, .. } if !size.is_multiple_of(patch) => {
                Err(source.setting(keys.patch, patch, format!("must divide {}, which is {size}", keys.size)))
            }
            _ => Ok(()),
        }
    }
}
