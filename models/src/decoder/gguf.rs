//! Decoders in llama.cpp's files: its names for tensors and settings, and Hugging Face's.

use serde_json::{Map, Value as Json, json};

use super::architecture::Architecture;
use crate::weights::{Change, Metadata, Weights};

/// One architecture of llama.cpp's.
pub(super) struct Row {
    /// Its name there, which stands before its settings.
    pub(super) name: &'static str,
    /// Hugging Face's `model_type`s of what it computes; a file is opened as the first.
    model_types: &'static [&'static str],
    /// Whether it has layers that see the nearest tokens alone.
    pub(super) windows: bool,
    /// Whether elements of queries and keys that turn with each other are neighbours in its files.
    neighbours: bool,
    /// What is added to the weights of norms in its files.
    norms: f32,
    /// Its names of the norms before and after attention and the feed-forward half, where it has them, and Hugging Face's.
    norms_of_blocks: &'static [(&'static str, &'static str)],
}

const LLAMA: Row = Row {
    name: "llama",
    model_types: &["llama", "mistral"],
    windows: false,
    neighbours: true,
    norms: 0.0,
    norms_of_blocks: &[("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")],
};

const ROWS: [Row; 4] = [
    LLAMA,
    Row { name: "qwen2", model_types: &["qwen2"], neighbours: false, ..LLAMA },
    Row { name: "qwen3", model_types: &["qwen3"], neighbours: false, ..LLAMA },
    Row {
        name: "gemma3",
        model_types: &["gemma3_text"],
        windows: true,
        neighbours: false,
        norms: 1.0,
        norms_of_blocks: &[
            ("attn_norm", "input_layernorm"),
            ("post_attention_norm", "post_attention_layernorm"),
            ("ffn_norm", "pre_feedforward_layernorm"),
            ("post_ffw_norm", "post_feedforward_layernorm"),
        ],
    },
];

const PARTS_OF_BLOCKS: [(&str, &str); 9] = [
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];
const PARTS: [(&str, &str); 3] = [("token_embd", "embed_tokens"), ("output_norm", "norm"), ("output", "lm_head")];
/// By what the frequencies of positions are divided, one factor each.
pub(super) const FACTORS: &str = "rope_freqs.weight";

impl Row {
    fn of(metadata: &Metadata) -> Option<&'static Self> {
        let name = metadata.text("general.architecture")?;
        ROWS.iter().find(|row| row.name == name)
    }

    /// The row of a `model_type`.
    pub(super) fn of_model(model_type: &str) -> Option<&'static Self> {
        ROWS.iter().find(|row| row.model_types.contains(&model_type))
    }

    /// Every `model_type`.
    pub(super) fn model_types() -> Vec<&'static str> {
        ROWS.iter().flat_map(|row| row.model_types).copied().collect()
    }

    /// The name of the part that has this path of Hugging Face's: the other way of [`path`](Self::path).
    pub(super) fn name_of(&self, path: &str) -> Option<String> {
        let find = |table: &[(&str, &str)], path: &str| {
            table.iter().find(|(_, known)| *known == path).map(|(name, _)| (*name).to_owned())
        };
        match path.strip_prefix("layers.") {
            None => find(&PARTS, path),
            Some(path) => {
                let (layer, part) = path.split_once('.')?;
                let part = find(&PARTS_OF_BLOCKS, part).or_else(|| find(self.norms_of_blocks, part))?;
                Some(format!("blk.{layer}.{part}"))
            }
        }
    }

    /// What its files have otherwise of the part with this path; `head_dim` is the width of a head.
    pub(super) fn change(&self, path: &str, head_dim: Option<usize>) -> Option<Change> {
        match head_dim.filter(|_| self.neighbours) {
            Some(dim) if path.ends_with("q_proj") || path.ends_with("k_proj") => Some(Change::Neighbours(dim)),
            _ if self.norms != 0.0 && path.ends_with("norm") => Some(Change::Plus(self.norms)),
            _ => None,
        }
    }

    /// Hugging Face's path of a part.
    fn path(&self, path: &str) -> Option<String> {
        let find = |table: &[(&str, &str)], name: &str| {
            table.iter().find(|(known, _)| *known == name).map(|(_, path)| (*path).to_owned())
        };
        match path.strip_prefix("blk.") {
            None => find(&PARTS, path),
            Some(path) => {
                let (layer, part) = path.split_once('.')?;
                let part = find(&PARTS_OF_BLOCKS, part).or_else(|| find(self.norms_of_blocks, part))?;
                Some(format!("layers.{layer}.{part}"))
            }
        }
    }
}

/// The width of a head.
fn head_dim(metadata: &Metadata, row: &Row) -> Option<usize> {
    let of = |key: &str| metadata.whole(&format!("{}.{key}", row.name));
    of("attention.key_length").or_else(|| of("embedding_length")?.checked_div(of("attention.head_count")?))
}

/// The tensors of a file of llama.cpp's by Hugging Face's names, and as its files have them. Others are as they are.
pub(super) fn with_names(weights: Weights) -> Weights {
    let Some(row) = weights.metadata().and_then(Row::of) else { return weights };
    let head_dim = weights.metadata().and_then(|metadata| head_dim(metadata, row));
    weights.renamed(|name| {
        let (path, end) = name.rsplit_once('.')?;
        let path = row.path(path)?;
        let change = row.change(&path, head_dim);
        Some((format!("{path}.{end}"), change))
    })
}

/// What a config.json would say of a file of llama.cpp's.
pub(super) fn config(weights: &Weights) -> Option<Json> {
    let factors = || weights.tensor(FACTORS, &candle_core::Device::Cpu).ok()?.to_vec1::<f32>().ok();
    let factors = if weights.contains(FACTORS) { Some(factors()?) } else { None };
    said(weights.metadata()?, &|name| weights.shape(name).and_then(|shape| shape.first().copied()), factors)
}

/// What a config.json would say of such settings and tensors. `rows`: the first extent of a tensor, where it is there; `factors`: by what
/// the frequencies of positions are divided.
pub(super) fn said(
    metadata: &Metadata,
    rows: &dyn Fn(&str) -> Option<usize>,
    factors: Option<Vec<f32>>,
) -> Option<Json> {
    let row = Row::of(metadata)?;
    let model_type = row.model_types.first()?;
    let key = |key: &str| format!("{}.{key}", row.name);
    let whole = |name: &str| metadata.whole(&key(name));
    let number = |name: &str| metadata.number(&key(name));
    let mut config = Map::new();
    let mut set = |key: &str, value: Option<Json>| value.and_then(|value| config.insert(key.into(), value));
    set("model_type", Some((*model_type).into()));
    let class = Architecture::find(model_type).map(|known| json!([format!("{}ForCausalLM", known.causal)]));
    set("architectures", class);
    set("hidden_size", whole("embedding_length").map(Json::from));
    set("num_hidden_layers", whole("block_count").map(Json::from));
    set("num_attention_heads", whole("attention.head_count").map(Json::from));
    set("num_key_value_heads", whole("attention.head_count_kv").map(Json::from));
    set("head_dim", head_dim(metadata, row).map(Json::from));
    set("intermediate_size", whole("feed_forward_length").map(Json::from));
    set("max_position_embeddings", whole("context_length").map(Json::from));
    set("rms_norm_eps", number("attention.layer_norm_rms_epsilon").map(Json::from));
    set("sliding_window", whole("attention.sliding_window").map(Json::from));
    set("vocab_size", rows("token_embd.weight").map(Json::from));
    set("tie_word_embeddings", Some(rows("output.weight").is_none().into()));
    set("bos_token_id", metadata.whole("tokenizer.ggml.bos_token_id").map(Json::from));
    set("eos_token_id", metadata.whole("tokenizer.ggml.eos_token_id").map(Json::from));
    set("pad_token_id", metadata.whole("tokenizer.ggml.padding_token_id").map(Json::from));
    let biased = |part: &str| rows(&format!("blk.0.{part}.bias")).is_some();
    set("attention_bias", Some((biased("attn_q") && biased("attn_output")).into()));
    set("mlp_bias", Some(biased("ffn_gate").into()));
    set("rope_theta", number("rope.freq_base").map(Json::from));
    set("rope_scaling", scaling(metadata, row, factors));
    Some(config.into())
}

/// How positions are stretched.
fn scaling(metadata: &Metadata, row: &Row, factors: Option<Vec<f32>>) -> Option<Json> {
    if let Some(factors) = factors {
        return Some(json!({ "rope_type": "factors", "factors": factors }));
    }
    let kind = metadata.text(&format!("{}.rope.scaling.type", row.name)).filter(|kind| *kind != "none")?;
    let factor = metadata.number(&format!("{}.rope.scaling.factor", row.name))?;
    Some(json!({ "rope_type": kind, "factor": factor }))
}
