//! Folders of sentence-transformers: a model or an adapter that pools as no class of Transformers does, with its head as a dense layer.
//!
//! The folder itself is the part that makes features of tokens; what follows has a folder each: pooling, division by the length, and the
//! head, whose outputs `SentenceTransformer(folder).encode(texts)` then gives.

use std::collections::BTreeMap;
use std::path::Path;

use fthost_autograd::Tensor;
use fthost_models::{MODULES, PoolBy, Stream, write_tensors};
use serde_json::{Value, json};

use crate::run::state::folder::write_json;
use crate::{Error, Result};

/// The folder of the head.
pub const DENSE: &str = "3_Dense";
const POOLING: &str = "1_Pooling";
const NORMALIZE: &str = "2_Normalize";
/// The division by the length of what the head gives.
const LAST: &str = "4_Normalize";
/// The dense layer's weight in its file, `[outputs, width]`.
pub const WEIGHT: &str = "linear.weight";
/// Its bias, `[outputs]`.
pub const BIAS: &str = "linear.bias";

/// A head that is one linear layer.
pub struct Dense<'a> {
    /// `[outputs, width]`
    pub weight: &'a Tensor,
    /// `[outputs]`
    pub bias: Option<&'a Tensor>,
}

/// Whether sentence-transformers pools so.
pub fn pools(stream: &Stream) -> bool {
    stream.name == "text" && !matches!(stream.pooling.by, PoolBy::Pooler | PoolBy::End)
}

/// Writes the parts beside a model or an adapter that is in the folder. `compared`: whether what comes of it is compared by its direction, and
/// so is divided by its length at the end.
///
/// # Errors
/// Where a file cannot be written.
pub fn write(folder: &Path, stream: &Stream, max_tokens: usize, head: Option<Dense<'_>>, compared: bool) -> Result<()> {
    let Stream { width, pooling, .. } = stream;
    let flag = |by| pooling.by == by;
    let make = |part: &str| {
        let part = folder.join(part);
        std::fs::create_dir_all(&part).map_err(Error::io(format!("cannot make {}", part.display())))
    };
    make(POOLING)?;
    // The flags of versions before the sixth, which later ones read too.
    let config = json!({
        "word_embedding_dimension": width,
        "pooling_mode_cls_token": flag(PoolBy::First),
        "pooling_mode_mean_tokens": flag(PoolBy::Mean),
        "pooling_mode_max_tokens": flag(PoolBy::Max),
        "pooling_mode_lasttoken": flag(PoolBy::Last),
        "pooling_mode_mean_sqrt_len_tokens": false,
    });
    write_json(&folder.join(POOLING).join("config.json"), &config)?;
    let mut parts = vec![("Transformer", ""), ("Pooling", POOLING)];
    if pooling.normalize || (compared && head.is_none()) {
        make(NORMALIZE)?;
        parts.push(("Normalize", NORMALIZE));
    }
    if let Some(Dense { weight, bias }) = head {
        make(DENSE)?;
        let config = json!({
            "in_features": width,
            "out_features": weight.dims()[0],
            "bias": bias.is_some(),
            "activation_function": "torch.nn.modules.linear.Identity",
        });
        write_json(&folder.join(DENSE).join("config.json"), &config)?;
        let bias = bias.map(|bias| (BIAS.to_owned(), bias.clone()));
        let tensors: BTreeMap<_, _> = [(WEIGHT.to_owned(), weight.clone())].into_iter().chain(bias).collect();
        write_tensors(&folder.join(DENSE).join("model.safetensors"), &tensors)?;
        parts.push(("Dense", DENSE));
        if compared {
            make(LAST)?;
            parts.push(("Normalize", LAST));
        }
    }
    let part = |(i, (class, path)): (usize, &(&str, &str))| json!({ "idx": i, "name": i.to_string(), "path": path, "type": format!("sentence_transformers.models.{class}") });
    write_json(&folder.join(MODULES), &Value::Array(parts.iter().enumerate().map(part).collect()))?;
    // Case is the tokenizer's own matter.
    let config = json!({ "max_seq_length": max_tokens, "do_lower_case": false });
    write_json(&folder.join("sentence_bert_config.json"), &config)
}
