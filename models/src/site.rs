//! Sites: the named places of a model where hooks can be set.

use std::sync::Arc;

use fthost_autograd::{Layout, Result, Tape, Value};

/// What a site is, and so which hook it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SiteKind {
    /// A linear layer.
    Linear,
    /// A convolution, seen as a linear layer over unfolded patches.
    Conv,
    /// The output of a block's attention half, before the residual is added.
    AttentionOutput,
    /// The output of a block's feed-forward half, or of a block of convolutions, before the residual is added.
    FeedForwardOutput,
    /// The input embeddings, before positions are added.
    Embeddings,
    /// Attention's keys and values.
    Attention,
}

/// How a convolution moves over a map. Pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Channels of its input.
    pub channels: usize,
    /// Taps.
    pub kernel: [usize; 2],
    /// Pixels from one place to the next.
    pub stride: [usize; 2],
    /// Pixels of zeros around the map; `None` for as many as TensorFlow's `"SAME"` takes, which the map's size decides.
    pub padding: Option<[usize; 2]>,
    /// Pixels from one tap to the next.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see each other. Hooks are set where there is one.
    pub groups: usize,
}

/// A place in a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Path of its Hugging Face module without the architecture's prefix: `encoder.layer.3.attention.self.query`.
    pub path: String,
    /// What it is.
    pub kind: SiteKind,
    /// Width of its input; of a convolution's patches, channels / groups times taps.
    pub in_features: usize,
    /// Width of its output.
    pub out_features: usize,
    /// The block group it belongs to: 0 holds the embeddings or the stem, then one group per block, then what stands above the blocks.
    pub group: usize,
    /// The stream that it is part of; none where it stands above all.
    pub stream: Option<usize>,
    /// How it moves, where it is a convolution.
    pub convolution: Option<Convolution>,
}

/// Runs at a linear or convolution site. At a convolution rows are places: `x` holds the patches that the kernel meets there,
/// `[places, channels * kh * kw]`, by channel, then down, then right, and `weight` is the kernel in the same order.
pub trait LinearHook: Send + Sync {
    /// What takes the place of the input, `None` for an unchanged one. `x`: `[tokens, in]`.
    fn input(&self, tape: &Tape, x: &Value) -> Result<Option<Value>>;

    /// `x`: `[tokens, in]`; `y`: `[tokens, out]`, the layer's output; `weight`: `[out, in]`. Returns `[tokens, out]`.
    fn forward(&self, tape: &Tape, x: &Value, y: Value, weight: &Value) -> Result<Value>;

    /// The weight that gives the same output without the hook, where there is one. `weight`: `[out, in]`.
    fn merge(&self, tape: &Tape, weight: &Value) -> Result<Option<Value>>;

    /// The bias that goes with the weight of [`merge`](Self::merge), `None` for the layer's own. `bias`: `[out]`.
    fn merge_bias(&self, tape: &Tape, bias: &Value) -> Result<Option<Value>> {
        let _ = (tape, bias);
        Ok(None)
    }
}

/// Runs at a block's output, before the residual is added.
pub trait BlockHook: Send + Sync {
    /// `x`, `residual`: `[tokens, width]`. Returns what takes the place of `x`.
    fn forward(&self, tape: &Tape, x: Value, residual: &Value) -> Result<Value>;
}

/// Rows put before every sequence.
#[derive(Debug)]
pub struct Prompt {
    /// `[prompt tokens, width]`
    pub rows: Value,
    /// Whether the pooled features stay those of the sequence's own first token rather than of the first prompt row.
    pub pool_first_token: bool,
}

/// Runs at the input embeddings, before positions are added.
pub trait EmbeddingHook: Send + Sync {
    /// `embeddings`: `[tokens, width]`.
    fn forward(&self, tape: &Tape, embeddings: Value, layout: &Layout) -> Result<(Value, Option<Prompt>)>;
}

/// Keys and values that every sequence attends to besides its own.
#[derive(Debug)]
pub struct Prefix {
    /// `[prefix tokens, width]`
    pub keys: Value,
    /// `[prefix tokens, width]`
    pub values: Value,
}

/// Runs inside attention.
pub trait AttentionHook: Send + Sync {
    /// `keys`, `values`: `[tokens, width]`.
    fn forward(
        &self,
        tape: &Tape,
        keys: Value,
        values: Value,
        layout: &Layout,
    ) -> Result<(Value, Value, Option<Prefix>)>;

    /// By how many positions the sequences' tokens are shifted, as if the prefix stood before them. Hugging Face shifts a text
    /// model's positions by the length of past keys and values, so prefixes trained with PEFT need their own length here.
    fn position_shift(&self) -> usize {
        0
    }
}

/// A hook with its kind. Several hooks at one site run in the order in which they were set.
#[derive(Clone)]
pub enum Hook {
    /// At [`SiteKind::Linear`] and [`SiteKind::Conv`].
    Linear(Arc<dyn LinearHook>),
    /// At [`SiteKind::AttentionOutput`] and [`SiteKind::FeedForwardOutput`].
    Block(Arc<dyn BlockHook>),
    /// At [`SiteKind::Embeddings`].
    Embeddings(Arc<dyn EmbeddingHook>),
    /// At [`SiteKind::Attention`].
    Attention(Arc<dyn AttentionHook>),
}
