//! What a plugin sees of the model, and what it may change: sites, parameters, hooks.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod access;

pub use access::Model;

use crate::{Operand, Tensor};

/// What a site is, and so which hook it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SiteKind {
    /// A linear layer: [`LinearHook`](crate::LinearHook).
    Linear,
    /// A convolution, seen as a linear layer over unfolded patches: [`LinearHook`](crate::LinearHook).
    Conv,
    /// The output of the attention half of a block: [`BlockHook`](crate::BlockHook).
    AttentionOutput,
    /// The output of the feed-forward half of a block, or of a block of convolutions: [`BlockHook`](crate::BlockHook).
    FeedForwardOutput,
    /// The input embeddings: [`EmbeddingHook`](crate::EmbeddingHook).
    Embeddings,
    /// Attention's keys and values: [`AttentionHook`](crate::AttentionHook).
    Attention,
}

/// How a convolution moves over a map. Pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Convolution {
    /// Channels of its input.
    pub channels: usize,
    /// Taps.
    pub kernel: [usize; 2],
    /// Pixels from one place to the next.
    pub stride: [usize; 2],
    /// Pixels of zeros around the map; none where there are as many as TensorFlow's `"SAME"` takes.
    pub padding: Option<[usize; 2]>,
    /// Pixels from one tap to the next.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see each other. Hooks are set where there is one.
    pub groups: usize,
}

/// A place in the model that a hook can be set at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Path of its Hugging Face module, without the architecture's prefix: `encoder.layer.3.attention.self.query`.
    pub path: String,
    /// What it is.
    pub kind: SiteKind,
    /// Width of its input.
    pub in_features: usize,
    /// Width of its output.
    pub out_features: usize,
    /// The block group it belongs to, counted from the bottom: 0 holds the embeddings, then one group per block.
    pub group: usize,
    /// The name of the stream that it is part of; empty for what belongs to none.
    #[serde(default)]
    pub stream: String,
    /// Whether hooks were set here before: a linear hook's `y` is then what these made of the layer's output.
    #[serde(default)]
    pub hooked: bool,
    /// How it moves, where it is a convolution. A hook's `x` holds the patches that the kernel meets, `[places, channels * kh * kw]`, by
    /// channel, then down, then right, and `weight` is the kernel in the same order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convolution: Option<Convolution>,
}

/// A parameter of the model or of a plugin, as the host lists it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParamInfo {
    /// Path of the Hugging Face parameter: `encoder.layer.3.attention.self.query.weight`.
    pub path: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether it trains now.
    pub trainable: bool,
    /// The block group it belongs to; a head's parameters are in the last one.
    pub group: usize,
    /// The name of the stream that it is part of; empty for what belongs to none.
    #[serde(default)]
    pub stream: String,
    /// Whether it belongs to the pretrained model rather than to a plugin.
    pub base: bool,
    /// The handle by which ops take it.
    pub handle: u64,
    /// Whether it belongs to a task head.
    #[serde(default)]
    pub head: bool,
    /// Whether it belongs to a head that several tasks have together.
    #[serde(default)]
    pub shared: bool,
    /// By which factor `train.lr` is multiplied for it now.
    #[serde(default = "unscaled")]
    pub lr_factor: f64,
}

/// The rate's factor where a host does not say it.
fn unscaled() -> f64 {
    1.0
}

/// How a new parameter starts. Random ones draw from the run's generator under the parameter's name, so they do not depend
/// on the order of declaration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "init")]
#[non_exhaustive]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// All one value. Since 1.1
    Constant {
        /// The value, finite.
        value: f64,
    },
    /// Uniform in `[low, high)`.
    Uniform {
        /// Lower bound.
        low: f64,
        /// Upper bound.
        high: f64,
    },
    /// Normal.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
    /// Normal, redrawn outside two standard deviations.
    TruncatedNormal {
        /// Standard deviation.
        std: f64,
    },
    /// Rows of the model's word embeddings, drawn without replacement. Shape `[rows, width]`.
    VocabularyRows,
    /// Rows of the model's word embeddings of this text's tokens, repeated to the number of rows.
    TextRows {
        /// The text.
        text: String,
    },
    /// A copy of a tensor of this call; [`Init::copy_of`] makes it.
    Copy {
        /// Its handle.
        tensor: u64,
    },
}

impl Init {
    /// U(-1/sqrt(in), 1/sqrt(in)) for a `[out, in]` matrix: Kaiming uniform with a = sqrt 5, as torch's `nn.Linear`.
    pub fn kaiming_uniform(in_features: usize) -> Self {
        let bound = 1.0 / (in_features.max(1) as f64).sqrt();
        Self::Uniform { low: -bound, high: bound }
    }

    /// A copy of a tensor that was computed in this call, or of a parameter: DoRA's magnitudes start as norms of weights.
    pub fn copy_of(tensor: &impl Operand) -> Self {
        Self::Copy { tensor: tensor.handle() }
    }
}

/// Which sites or parameters an option names, by PEFT's rules: a string is a regular expression that must match the whole
/// path, a list holds exact paths or their ends at a dot (`query` is `....self.query`). `exclude` goes first. Before either may stand a
/// stream and a colon, for what is part of it alone: `text:query`. An entry of a list may have stars, for anything: `image:blocks.6.*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Targets {
    /// A regular expression over the whole path.
    Pattern(String),
    /// Exact paths or their last parts.
    Names(Vec<String>),
}

impl<const N: usize> From<[&str; N]> for Targets {
    fn from(names: [&str; N]) -> Self {
        Self::Names(names.iter().map(ToString::to_string).collect())
    }
}

/// A declared parameter: a handle that stays valid for the whole run and may be kept in a hook.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Param {
    pub(crate) handle: u64,
    name: String,
    shape: Vec<usize>,
}

impl Param {
    pub(crate) fn from_parts(handle: u64, name: String, shape: Vec<usize>) -> Self {
        Self { handle, name, shape }
    }

    /// Its full name: the site's path and the name it was declared with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its current value as a tensor, for its methods. Ops take a `&Param` as it is where it is the other operand.
    pub fn tensor(&self) -> Tensor {
        Tensor::shared(self.handle)
    }
}

impl Operand for Param {
    fn handle(&self) -> u64 {
        self.handle
    }
}

impl fmt::Display for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
