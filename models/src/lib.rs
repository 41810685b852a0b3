//! Pretrained models with named sites, read from Hugging Face folders.
//!
//! A model knows nothing of plugins: it offers [`Site`]s and calls the [`Hook`]s set there.

mod activation;
mod builder;
mod cache;
mod convnet;
mod decoder;
mod error;
mod family;
mod fold;
mod folder;
mod hooks;
mod info;
mod layers;
mod merge;
mod model;
mod pooling;
mod registry;
mod sequences;
mod site;
mod towers;
mod transformer;
mod weights;

pub use activation::activation;
pub use cache::Cache;
pub use decoder::{FileTokenizer, tokenizer, tokenizer_file};
pub use error::LoadError;
pub use folder::write_tensors;
pub use fthost_autograd as autograd;
pub use info::{
    BlockGroup, BlockMemory, Classification, Contrastive, FeatureMap, Modality, ModelInfo, Read, Sight, Stream,
    VocabularyLayer, VocabularyTransform,
};
pub use model::{Answer, BaseParameter, Features, Input, Model, SavedHead, TextInput};
pub use pooling::{MODULES, Module, PoolBy, Pooling};
pub use registry::{Loader, config, from_parts, open, random};
pub use site::{
    AttentionHook, BlockHook, Convolution, EmbeddingHook, Hook, LinearHook, Prefix, Prompt, Site, SiteKind,
};
pub use towers::pair::{head_weights, is_joined, stream_folder};
pub use weights::{FileState, GgufType, Quantize, Weights, save};
