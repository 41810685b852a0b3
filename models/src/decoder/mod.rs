//! Decoders of the Llama family: one implementation, and a table of where they differ.

mod architecture;
mod block;
mod config;
mod gguf;
mod network;
mod rope;
mod to_gguf;
mod tokens;
mod vocabulary;

use architecture::Architecture;
use network::Decoder;
pub use vocabulary::{FileTokenizer, tokenizer, tokenizer_file};

use crate::family::Family;

/// The rows of the table.
pub(crate) const FAMILY: Family = Family {
    model_types: Architecture::model_types,
    architectures: Vec::new,
    recognise: gguf::config,
    build: |source| Ok(Box::new(Decoder::build(source)?)),
};
