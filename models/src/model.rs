//! What every model offers, whatever its architecture.

use std::path::Path;

use fthost_autograd::{Layout, Parameter, Result, Tape, Tensor, Value};

use crate::site::{Hook, Site};
use crate::{FileState, LoadError};

/// A micro-batch of inputs.
#[derive(Clone, Debug)]
pub enum Input {
    /// Packed text.
    Text(TextInput),
    /// Images, `[images, channels, height, width]`, `f32`, normalised.
    Images(Tensor),
}

/// Packed token sequences.
#[derive(Clone, Debug)]
pub struct TextInput {
    /// Token ids of all sequences, one after the other, `[tokens]`.
    pub ids: Vec<u32>,
    /// Segment of each token (0, or 1 in the second text of a pair), `[tokens]`.
    pub types: Vec<u32>,
    /// Where each sequence begins.
    pub layout: Layout,
}

/// Which rows of the last layer are wanted; the others are not computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// One row per example: what the architecture pools, `[examples, width]`.
    Pooled,
    /// Every token, `[tokens, width]`.
    Sequence,
    /// A map per image, `[examples, channels, height, width]`.
    Spatial,
}

/// What an encoder gives.
#[derive(Clone, Debug)]
pub struct Features {
    /// Shape by [`Read`].
    pub value: Value,
    /// The layout of a `[tokens, width]` value; one row per example otherwise. Prompts are left out.
    pub layout: Layout,
}

/// How the architecture's own classification head looks in Hugging Face's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadStyle {
    /// Path of the last linear layer: `classifier`, or RoBERTa's `classifier.out_proj`.
    pub output: String,
    /// Path and activation of the dense layer before it, where there is one: `("classifier.dense", "tanh")`, or
    /// `("bert.pooler.dense", "tanh")` where a checkpoint lacks the pooler of its architecture. Transformers makes a new one there,
    /// so it is trained and saved with the head.
    pub hidden: Option<(String, String)>,
    /// Dropout before the last layer, in thousandths (the config's number times 1000, rounded).
    pub dropout_permille: u32,
}

/// What kind of input a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modality {
    /// [`Input::Text`].
    Text {
        /// The longest sequence, special tokens included.
        max_tokens: usize,
        /// Rows of the word embeddings.
        vocabulary: usize,
    },
    /// [`Input::Images`].
    Images {
        /// Channels.
        channels: usize,
        /// Height and width in pixels.
        size: usize,
        /// Rows of an image: its patches and the class token.
        tokens: usize,
    },
}

/// What the host needs to know of a model.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// Hugging Face's `model_type`: `bert`.
    pub model_type: String,
    /// What stands before every path in a Hugging Face classification checkpoint: `bert.`.
    pub prefix: String,
    /// Hugging Face's class for sequence or image classification: `BertForSequenceClassification`.
    pub classification_class: String,
    /// Width of the features.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Block groups: embeddings, blocks, and what stands above them. Heads belong to the last one, also where the model itself has
    /// nothing there.
    pub groups: usize,
    /// What it takes in.
    pub modality: Modality,
    /// Its own classification head.
    pub head: HeadStyle,
    /// Path of the word embeddings, where there are any.
    pub word_embeddings: Option<String>,
}

/// A base parameter and where it belongs.
#[derive(Clone, Debug)]
pub struct BaseParameter {
    /// The parameter; its name is the Hugging Face path without prefix.
    pub parameter: Parameter,
    /// The block group it belongs to.
    pub group: usize,
}

/// The head that is saved with a model. There may be none: nothing in it then.
#[derive(Clone, Copy, Debug, Default)]
pub struct SavedHead<'a> {
    /// Its tensors by their full names (`classifier.weight`).
    pub tensors: &'a [(String, Tensor)],
    /// What it says of an input.
    pub answer: Answer<'a>,
    /// The dropout before its last layer that it trained with, where that is known.
    pub dropout: Option<f64>,
}

/// What a saved head says of an input: which of Transformers' classes opens the folder, and what its config.json says of the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Nothing that one of these classes computes: the folder opens as an encoder.
    #[default]
    None,
    /// One of these classes.
    Class(&'a [String]),
    /// A real value.
    Value,
    /// One of these classes for each token.
    TokenClass(&'a [String]),
}

/// A pretrained encoder with named sites.
pub trait Model: Send + Sync {
    /// What it is.
    fn info(&self) -> &ModelInfo;

    /// Every place a hook can be set, from the bottom up.
    fn sites(&self) -> &[Site];

    /// Every parameter, from the bottom up. All are trainable at first; the host freezes.
    fn parameters(&self) -> &[BaseParameter];

    /// The files that its parameters were read from; none where they came from elsewhere.
    fn files(&self) -> &[FileState] {
        &[]
    }

    /// Sets a hook at a site, after those already there. Errors where the site is unknown or of another kind.
    fn set_hook(&mut self, path: &str, hook: Hook) -> Result<()>;

    /// Whether hooks are set at a site.
    fn hooked(&self, path: &str) -> bool;

    /// Folds every hook into the weights, so that the model computes the same without hooks, and removes them. `input` is what
    /// each folded layer is tried on.
    ///
    /// # Errors
    /// Where a hook cannot be folded, or a folded layer gives something else than the hooked one; the site is named, and nothing
    /// has changed.
    fn merge_hooks(&mut self, input: &Input) -> Result<()>;

    /// Removes every hook: the base model again.
    fn clear_hooks(&mut self);

    /// Writes config.json and model.safetensors so that Transformers' class for the head loads them. Hooks are not written.
    fn save_folder(&self, folder: &Path, head: &SavedHead<'_>) -> std::result::Result<(), LoadError>;

    /// Whether features of a kind depend on a parameter of the model: a pooler's stand above what is read of each token.
    fn passes(&self, read: Read, parameter: &str) -> bool {
        let _ = (read, parameter);
        true
    }

    /// The longest sequence of tokens that fits, special ones included, beside what the hooks put before every sequence; `None` where
    /// the model takes no tokens.
    fn longest_sequence(&self) -> Result<Option<usize>> {
        Ok(match self.info().modality {
            Modality::Text { max_tokens, .. } => Some(max_tokens),
            Modality::Images { .. } => None,
        })
    }

    /// Features of a micro-batch. Sets the tape's layout.
    fn forward(&self, tape: &Tape, input: &Input, read: Read) -> Result<Features>;
}
