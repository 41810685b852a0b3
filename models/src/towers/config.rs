//! CLIP's config.json, and the names of its parts in Hugging Face's files.

use serde::Deserialize;
use serde_json::Value as Json;

use crate::LoadError;
use crate::family::Source;
use crate::transformer::architecture::{BlockNames, BottomNames, TowerNames};
use crate::transformer::config::{End, InputConfig, SizeKeys, Stds, TowerConfig};

/// The token that ended texts in configs before Transformers 4.31, whatever ends them: the greatest of a text is meant.
const LEGACY_END: u64 = 2;

// Blocks have no modules where the halves' outputs join the residual; these sites have the decoders' names.
const BLOCK: BlockNames = BlockNames {
    attention: "self_attn",
    query: "self_attn.q_proj",
    key: "self_attn.k_proj",
    value: "self_attn.v_proj",
    attention_dense: "self_attn.out_proj",
    attention_output: "attention_output",
    attention_norm: "layer_norm1",
    intermediate: "mlp.fc1",
    output_dense: "mlp.fc2",
    output: "output",
    output_norm: "layer_norm2",
};

const TEXT: TowerNames = TowerNames {
    bottom: BottomNames {
        input: "embeddings.token_embedding",
        input_bias: false,
        positions: "embeddings.position_embedding.weight",
        class_token: "",
        stored_as_batch: false,
        norm: None,
    },
    block: BLOCK,
    blocks: "encoder.layers",
    pre_norm: true,
    final_norm: Some("final_layer_norm"),
    norms_first_row: false,
    pooler: None,
    attention_output_dropout: false,
    causal: true,
};

const VISION: TowerNames = TowerNames {
    bottom: BottomNames {
        input: "embeddings.patch_embedding",
        class_token: "embeddings.class_embedding",
        norm: Some("pre_layrnorm"), // so in the files
        ..TEXT.bottom
    },
    final_norm: Some("post_layernorm"),
    norms_first_row: true,
    causal: false,
    ..TEXT
};

/// The model, in one form.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) text: TowerConfig,
    pub(super) vision: TowerConfig,
    /// Width of what the projections give.
    pub(super) projection: usize,
    /// What new projections are multiplied with.
    pub(super) factor: f64,
    /// What a new scale is.
    pub(super) scale: f64,
}

#[derive(Deserialize)]
struct Clip {
    text_config: Option<Tower>,
    vision_config: Option<Tower>,
    // What Transformers wrote beside them for a while, and goes before them.
    text_config_dict: Option<Tower>,
    vision_config_dict: Option<Tower>,
    #[serde(default = "projection")]
    projection_dim: usize,
    #[serde(default = "scale")]
    logit_scale_init_value: f64,
    #[serde(default = "one")]
    initializer_factor: f64,
}

/// One tower's part; what is missing is Transformers' default, which for some keys is not the same for both.
#[derive(Default, Deserialize)]
struct Tower {
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
    attention_dropout: Option<f64>,
    initializer_range: Option<f64>,
    vocab_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    #[serde(default)]
    eos_token_id: Json,
    num_channels: Option<usize>,
    image_size: Option<usize>,
    patch_size: Option<usize>,
}

fn projection() -> usize {
    512
}
fn scale() -> f64 {
    2.6592
}
fn one() -> f64 {
    1.0
}

const TEXT_KEYS: SizeKeys = SizeKeys {
    width: "text_config.hidden_size",
    layers: "text_config.num_hidden_layers",
    heads: "text_config.num_attention_heads",
    inner: "text_config.intermediate_size",
    vocabulary: "text_config.vocab_size",
    positions: "text_config.max_position_embeddings",
    types: "",
    channels: "",
    size: "",
    patch: "",
};

const VISION_KEYS: SizeKeys = SizeKeys {
    width: "vision_config.hidden_size",
    layers: "vision_config.num_hidden_layers",
    heads: "vision_config.num_attention_heads",
    inner: "vision_config.intermediate_size",
    vocabulary: "",
    positions: "",
    types: "",
    channels: "vision_config.num_channels",
    size: "vision_config.image_size",
    patch: "vision_config.patch_size",
};

impl Config {
    pub(super) fn parse(source: &Source<'_>) -> Result<Self, LoadError> {
        let config: Clip = source.read()?;
        let factor = config.initializer_factor;
        let text = config.text_config_dict.or(config.text_config).unwrap_or_default();
        let vision = config.vision_config_dict.or(config.vision_config).unwrap_or_default();

        let vocabulary = text.vocab_size.unwrap_or(49408);
        let input = InputConfig::Text {
            vocabulary,
            positions: text.max_position_embeddings.unwrap_or(77),
            first_position: 0,
            types: 0,
            end: Some(end(source, &text.eos_token_id)?),
        };
        // Transformers starts the text's embeddings from the one value, and those of images by the config.
        let text = text.tower(source, "text_config.hidden_act", &TEXT, [512, 2048, 8], input, (factor, Some(0.02)))?;
        let input = InputConfig::Images {
            channels: vision.num_channels.unwrap_or(3),
            size: vision.image_size.unwrap_or(224),
            patch: vision.patch_size.unwrap_or(32),
        };
        let act = "vision_config.hidden_act";
        let vision = vision.tower(source, act, &VISION, [768, 3072, 12], input, (factor, None))?;
        text.check(source, &TEXT_KEYS)?;
        vision.check(source, &VISION_KEYS)?;
        source.check_sizes(&[("projection_dim", config.projection_dim)])?;
        Ok(Self { text, vision, projection: config.projection_dim, factor, scale: config.logit_scale_init_value })
    }
}

/// Which token ends a text. A text without any is pooled at its first token, as Transformers does.
fn end(source: &Source<'_>, id: &Json) -> Result<End, LoadError> {
    const DEFAULT: u32 = 49407;
    match id {
        Json::Null => Ok(End::Token(DEFAULT)),
        id if id.as_u64() == Some(LEGACY_END) => Ok(End::Greatest),
        id => match id.as_u64().and_then(|id| u32::try_from(id).ok()) {
            Some(id) => Ok(End::Token(id)),
            None => Err(source.setting("text_config.eos_token_id", id, "is not the one token that ends a text")),
        },
    }
}

impl Tower {
    /// `defaults`: width, width inside the feed-forward half, heads. `around`: what new weights are multiplied with, and the standard
    /// deviation of embeddings where the config does not say it.
    fn tower(
        self,
        source: &Source<'_>,
        act: &'static str,
        names: &'static TowerNames,
        [width, inner, heads]: [usize; 3],
        input: InputConfig,
        (factor, around): (f64, Option<f64>),
    ) -> Result<TowerConfig, LoadError> {
        let width = self.hidden_size.unwrap_or(width);
        let layers = self.num_hidden_layers.unwrap_or(12);
        let activation_name = self.hidden_act.unwrap_or_else(|| "quick_gelu".into());
        let (by_width, by_depth) = ((width.max(1) as f64).powf(-0.5), (2.0 * layers.max(1) as f64).powf(-0.5));
        let around = around.or(self.initializer_range).unwrap_or(0.02);
        Ok(TowerConfig {
            names,
            width,
            layers,
            heads: self.num_attention_heads.unwrap_or(heads),
            inner: self.intermediate_size.unwrap_or(inner),
            activation: source.activation(act, &activation_name)?,
            activation_name,
            eps: self.layer_norm_eps.unwrap_or(1e-5),
            hidden_dropout: 0.0,
            attention_dropout: self.attention_dropout.unwrap_or(0.0),
            qkv_bias: true,
            stds: Stds {
                around: factor * around,
                class_token: factor * by_width,
                attention: factor * by_width * by_depth,
                attention_dense: factor * by_width,
                intermediate: factor * by_width * std::f64::consts::FRAC_1_SQRT_2,
                output_dense: factor * by_width * by_depth,
            },
            input,
        })
    }
}
