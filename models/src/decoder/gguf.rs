//! Decoders in llama.cpp's files: its names for tensors and settings, and Hugging Face's.

use serde_json::{Map, Value as Json, json};

use crate::weights::{Change, Metadata, Weights};

/// One architecture of llama.cpp's.
struct Row {
    /// Its name there, which stands before its settings.
    name: &'static str,
    /// Hugging Face's `model_type`.
    model_type: &'static str,
    /// Whether elements of queries and keys that turn with each other are neighbours in its files.
    neighbours: bool,
    /// What is added to the weights of norms in its files.
    norms: f32,
    /// Its names of the norms before and after attention and the feed-forward half, where it has them, and Hugging Face's.
    norms_of_blocks: &'static [(&'static str, &'static str)],
}

const LLAMA: Row = Row {
    name: "llama",
    model_type: "llama",
    neighbours: true,
    norms: 0.0,
    norms_of_blocks: &[("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")],
};

const ROWS: [Row; 4] = [
    LLAMA,
    Row { name: "qwen2", model_type: "qwen2", neighbours: false, ..LLAMA },
    Row { name: "qwen3", model_type: "qwen3", neighbours: false, ..LLAMA },
    Row {
        name: "gemma3",
        model_type: "gemma3_text",
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
const FACTORS: &str = "rope_freqs.weight";

impl Row {
    fn of(metadata: &Metadata) -> Option<&'static Self> {
        let name = metadata.text("general.architecture")?;
        ROWS.iter().find(|row| row.name == name)
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
    let turning = weights.metadata().and_then(|metadata| head_dim(metadata, row)).filter(|_| row.neighbours);
    weights.renamed(|name| {
        let (path, end) = name.rsplit_once('.')?;
        let path = row.path(path)?;
        let change = match turning {
            Some(dim) if path.ends_with("q_proj") || path.ends_with("k_proj") => Some(Change::Neighbours(dim)),
            _ if row.norms != 0.0 && path.ends_with("norm") => Some(Change::Plus(row.norms)),
            _ => None,
        };
        Some((format!("{path}.{end}"), change))
    })
}

/// What a config.json would say of a file of llama.cpp's.
pub(super) fn config(weights: &Weights) -> Option<Json> {
    let metadata = weights.metadata()?;
    let row = Row::of(metadata)?;
    let key = |key: &str| format!("{}.{key}", row.name);
    let whole = |name: &str| metadata.whole(&key(name));
    let number = |name: &str| metadata.number(&key(name));
    let mut config = Map::new();
    let mut set = |key: &str, value: Option<Json>| value.and_then(|value| config.insert(key.into(), value));
    set("model_type", Some(row.model_type.into()));
    set("hidden_size", whole("embedding_length").map(Json::from));
    set("num_hidden_layers", whole("block_count").map(Json::from));
    set("num_attention_heads", whole("attention.head_count").map(Json::from));
    set("num_key_value_heads", whole("attention.head_count_kv").map(Json::from));
    set("head_dim", head_dim(metadata, row).map(Json::from));
    set("intermediate_size", whole("feed_forward_length").map(Json::from));
    set("max_position_embeddings", whole("context_length").map(Json::from));
    set("rms_norm_eps", number("attention.layer_norm_rms_epsilon").map(Json::from));
    set("sliding_window", whole("attention.sliding_window").map(Json::from));
    set("vocab_size", weights.shape("token_embd.weight").and_then(|shape| shape.first()).map(|&rows| rows.into()));
    set("tie_word_embeddings", Some((!weights.contains("output.weight")).into()));
    set("bos_token_id", metadata.whole("tokenizer.ggml.bos_token_id").map(Json::from));
    set("eos_token_id", metadata.whole("tokenizer.ggml.eos_token_id").map(Json::from));
    set("pad_token_id", metadata.whole("tokenizer.ggml.padding_token_id").map(Json::from));
    let biased = |part: &str| weights.contains(&format!("blk.0.{part}.bias"));
    set("attention_bias", Some((biased("attn_q") && biased("attn_output")).into()));
    set("mlp_bias", Some(biased("ffn_gate").into()));
    set("rope_theta", number("rope.freq_base").map(Json::from));
    set("rope_scaling", scaling(weights, metadata, row));
    Some(config.into())
}

/// How positions are stretched.
fn scaling(weights: &Weights, metadata: &Metadata, row: &Row) -> Option<Json> {
    if weights.contains(FACTORS) {
        let factors = weights.tensor(FACTORS, &candle_core::Device::Cpu).ok()?;
        return Some(json!({ "rope_type": "factors", "factors": factors.to_vec1::<f32>().ok()? }));
    }
    let kind = metadata.text(&format!("{}.rope.scaling.type", row.name)).filter(|kind| *kind != "none")?;
    let factor = metadata.number(&format!("{}.rope.scaling.factor", row.name))?;
    Some(json!({ "rope_type": kind, "factor": factor }))
}
