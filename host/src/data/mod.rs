//! Reading and tokenizing data sets.
//!
//! [`load`] reads a file row by row ([`table`]), encodes the texts in parallel ([`text`]) and keeps token ids and targets only
//! ([`dataset`]). [`sampler`] says which examples come when.

pub mod dataset;
mod images;
mod jsonl;
mod lines;
mod parquet;
pub mod permutation;
pub mod sampler;
pub mod table;
pub mod text;

pub use dataset::{Dataset, Source, load};
pub use images::Part;
pub use permutation::Permutation;
pub use sampler::{Sampler, split_micro_batches};
pub use table::Columns;
pub use text::Tokenizer;

/// SHA-256 of a file's contents, in hexadecimal.
pub fn fingerprint(path: &std::path::Path) -> crate::Result<String> {
    use sha2::Digest;
    let bytes = match path.to_str() {
        Some("demo" | "demo-pretrain") => Vec::new(),
        _ => std::fs::read(path).map_err(crate::Error::io(format!("cannot read {}", path.display())))?,
    };
    Ok(sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}
