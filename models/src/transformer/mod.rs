//! Transformer encoders of the BERT family, and ViT: one implementation, and a table of where they differ.

mod architecture;
mod block;
mod config;
mod embeddings;
mod encoder;
mod folder;

pub use architecture::activation;
pub use encoder::Encoder;
