//! What a model gives of its inputs: streams, and their features.

use serde::{Deserialize, Serialize};

/// Which features of a stream a head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureKind {
    /// One row per example, `[examples, width]`: what the architecture pools.
    Pooled,
    /// One row per token, `[tokens, width]`, with the layout of the sequences.
    Sequence,
    /// A map of each image, `[pixels, channels]`, with the layout of the images' pixels, which go row by row.
    Spatial,
}

impl FeatureKind {
    /// Its name, as in JSON: `pooled`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pooled => "pooled",
            Self::Sequence => "sequence",
            Self::Spatial => "spatial",
        }
    }
}

/// One way through a model, from inputs of one kind to features: a plain model has one, a pair of towers two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Its name: `text`, `image`.
    pub name: String,
    /// Width of its features; channels of a map.
    pub width: usize,
    /// Number of its blocks, where its blocks are alike.
    #[serde(default)]
    pub layers: Option<usize>,
    /// Attention heads of a block, where blocks attend.
    #[serde(default)]
    pub heads: Option<usize>,
    /// Size of its vocabulary, where it reads tokens.
    #[serde(default)]
    pub vocabulary: Option<usize>,
    /// Which features a head can read of it.
    #[serde(default)]
    pub features: Vec<FeatureKind>,
}
