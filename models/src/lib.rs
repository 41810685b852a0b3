//! Pretrained encoders with named sites, read from Hugging Face folders.
//!
//! A model knows nothing of plugins: it offers [`Site`]s and calls the [`Hook`]s set there.

mod builder;
mod error;
mod hooks;
mod layers;
mod merge;
mod model;
mod site;
mod transformer;
mod weights;

pub use error::LoadError;
pub use fthost_autograd as autograd;
pub use model::{
    Answer, BaseParameter, Features, HeadStyle, Input, Modality, Model, ModelInfo, Read, SavedHead, TextInput,
};
pub use site::{AttentionHook, BlockHook, EmbeddingHook, Hook, LinearHook, Prefix, Prompt, Site, SiteKind};
pub use transformer::{Encoder, activation};
pub use weights::{FileState, Weights};
