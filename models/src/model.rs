//! What every model offers, whatever its architecture.

use std::fmt;
use std::path::Path;

use fthost_autograd::{Layout, Map, Parameter, Result, Tape, Tensor, Value};

use crate::cache::Cache;
use crate::info::{Modality, ModelInfo, Read};
use crate::site::{Hook, Site};
use crate::{FileState, FileTokenizer, GgufType, LoadError, Pooling};

/// A micro-batch of inputs.
#[derive(Clone, Debug)]
pub enum Input {
    /// Packed text.
    Text(TextInput),
    /// Images, `[images, height, width, channels]`, `f32`, normalised.
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
    /// What stands before each sequence's own tokens, where something does, as many rows for each, `[sequences * rows, width]`: for a decoder
    /// in place of embeddings, for a stream of a pair [that sees](ModelInfo::sight) the maps of the pictures.
    pub before: Option<Value>,
}

/// What a stream gives.
#[derive(Clone, Debug)]
pub struct Features {
    /// Shape by [`Read`].
    pub value: Value,
    /// Which rows are whose: the tokens of a sequence, without prompts, the pixels of a map, or one row of each example.
    pub layout: Layout,
    /// How the rows are pixels, where they are.
    pub map: Option<Map>,
}

/// A base parameter and where it belongs.
#[derive(Clone, Debug)]
pub struct BaseParameter {
    /// The parameter; its name is the Hugging Face path without prefix.
    pub parameter: Parameter,
    /// The block group it belongs to.
    pub group: usize,
    /// The stream that it is part of; none where it stands above all.
    pub stream: Option<usize>,
    /// Whether it is a buffer, as the running mean of a norm: kept, saved and hashed with the parameters, and never trained.
    pub buffer: bool,
    /// Whether it was quantised as it was loaded ([`Loader::quantized`](crate::Loader::quantized)).
    pub quantized: bool,
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
    /// Any number of these classes.
    Labels(&'a [String]),
    /// A real value.
    Value,
    /// One of these classes for each token.
    TokenClass(&'a [String]),
    /// A token of the vocabulary, by the model's own layer over it.
    Token,
}

/// A pretrained model with named sites.
pub trait Model: Send + Sync {
    /// What it is.
    fn info(&self) -> &ModelInfo;

    /// Every place a hook can be set, from the bottom up.
    fn sites(&self) -> &[Site];

    /// Every parameter and buffer, from the bottom up. All parameters are trainable at first; the host freezes.
    fn parameters(&self) -> &[BaseParameter];

    /// The files that its parameters were read from; none where they came from elsewhere.
    fn files(&self) -> &[FileState] {
        &[]
    }

    /// Whether an example's features depend in training on the others of its batch, as things are now: where a norm over the batch
    /// trains. Then a batch is taken in one piece.
    fn batch_statistics(&self) -> bool {
        false
    }

    /// Pools a stream otherwise than the architecture does. Before hooks are set and heads attached: what it says of itself changes.
    ///
    /// # Errors
    /// Where it cannot pool so, or there is no such stream.
    fn set_pooling(&mut self, stream: usize, pooling: Pooling) -> Result<()>;

    /// Sets a hook at a site, after those already there. Errors where the site is unknown or of another kind.
    fn set_hook(&mut self, path: &str, hook: Hook) -> Result<()>;

    /// Whether hooks are set at a site.
    fn hooked(&self, path: &str) -> bool;

    /// What weights and biases are with every hook folded into them: with these the model computes the same without hooks. `inputs` are
    /// what each folded layer is tried on, one of each stream, in their order. Nothing has changed yet.
    ///
    /// # Errors
    /// Where a hook cannot be folded, or a folded layer gives something else than the hooked one; the site is named.
    fn folded(&self, inputs: &[Input]) -> Result<Vec<(Parameter, Tensor)>>;

    /// Folds every hook into the weights, as [`folded`](Self::folded) says, and removes them.
    ///
    /// # Errors
    /// As [`folded`](Self::folded); nothing has changed then.
    fn merge_hooks(&mut self, inputs: &[Input]) -> Result<()> {
        for (parameter, value) in self.folded(inputs)? {
            parameter.set(&value)?;
        }
        self.clear_hooks();
        Ok(())
    }

    /// Removes every hook: the base model again.
    fn clear_hooks(&mut self);

    /// Writes config.json and model.safetensors so that Transformers' class for the head loads them; those of a model that came from
    /// timm or torchvision under its names there. Hooks are not written.
    fn save_folder(&self, folder: &Path, head: &SavedHead<'_>) -> std::result::Result<(), LoadError>;

    /// Writes a language model with its tokenizer into one file of llama.cpp's, tensor by tensor. Hooks are not written.
    ///
    /// # Errors
    /// Where llama.cpp knows no such model or no such tokenizer, before anything is written, or the file cannot be written.
    fn save_gguf(&self, file: &Path, tokenizer: &FileTokenizer, of: GgufType) -> std::result::Result<(), LoadError> {
        let (_, _) = (tokenizer, of);
        let reason =
            format!("cannot hold a {} model: files of llama.cpp's are written of decoders", self.info().model_type);
        Err(LoadError::Refused { file: file.into(), reason })
    }

    /// Whether features that a stream gives depend on one of its parameters: those of a pooler stand above what is read of each token.
    fn passes(&self, stream: usize, read: Read, parameter: &str) -> bool {
        let _ = (stream, read, parameter);
        true
    }

    /// The longest sequence of tokens that fits, special ones included, beside what the hooks put before every sequence; `None` where
    /// the model takes no tokens.
    fn longest_sequence(&self) -> Result<Option<usize>> {
        Ok(match self.info().plain().modality {
            Modality::Text { max_tokens, .. } => Some(max_tokens),
            Modality::Images { .. } => None,
        })
    }

    /// About how many numbers a pass over so many images of this height and width holds at one time, the most that there are: what it
    /// reads and makes and, where it is followed by a backward pass, what it keeps for that and what that takes. `None` where the width and
    /// the number of a stream's blocks say it, which are alike.
    ///
    /// # Errors
    /// Where the images are too small for the model.
    fn held(&self, _images: usize, _size: [usize; 2], _training: bool) -> Result<Option<usize>> {
        Ok(None)
    }

    /// Height and width of the map that [`Read::Spatial`] gives of an image of this height and width; `None` where the stream takes no
    /// images, or gives no map of them.
    ///
    /// # Errors
    /// Where the image is too small for the model.
    fn map_size(&self, stream: usize, size: [usize; 2]) -> Result<Option<[usize; 2]>> {
        let _ = (stream, size);
        Ok(None)
    }

    /// Whether its blocks are made once more in the backward pass of a tape [that asks for it](fthost_autograd::TapeOptions::recompute).
    fn recomputes(&self) -> bool {
        false
    }

    /// Whether the way of a plain model's inputs can be cut above any of its block groups.
    fn can_be_cut(&self) -> bool {
        false
    }

    /// What the lowest `groups` block groups make of a micro-batch, above the embeddings or the stem at least.
    ///
    /// # Errors
    /// Where the model cannot be cut, or the input is not what it takes.
    fn halfway(&self, tape: &Tape, input: &Input, groups: usize) -> Result<Features> {
        let _ = (tape, input, groups);
        candle_core::bail!("{} is not cut", self.info().model_type)
    }

    /// What the block groups above make of that: as [`features`](Self::features) to the bit. Sets the tape's layout.
    ///
    /// # Errors
    /// Where the model cannot be cut, or it gives no such features.
    fn onward(&self, tape: &Tape, halfway: &Features, groups: usize, read: Read) -> Result<Features> {
        let _ = (tape, halfway, groups, read);
        candle_core::bail!("{} is not cut", self.info().model_type)
    }

    /// What a stream gives of a micro-batch. Sets the tape's layout.
    ///
    /// # Errors
    /// Where the input is not what the stream takes, or it gives no such features.
    fn features(&self, tape: &Tape, stream: usize, input: &Input, read: Read) -> Result<Features>;

    /// A cache for so many texts, of which nothing is seen yet.
    ///
    /// # Errors
    /// Where the model continues no texts: where a token sees those after it.
    fn begin(&self, texts: usize) -> Result<Cache> {
        let _ = texts;
        candle_core::bail!("{} continues no texts: its tokens see those after them", self.info().model_type)
    }

    /// The features of the last token of each text, `[texts, width]`, after new tokens of each, `ids`: as those of a pass over all of its
    /// tokens, but that only the new ones go through the model. Prompts stand before the first tokens, and prefixes before all. `before` is as
    /// [`TextInput::before`], for texts that begin. Sets the tape's layout.
    ///
    /// # Errors
    /// Where the model continues no texts, a text gets no token or more than the model takes, something is put before one that has begun, or
    /// the tape records: gradients would end at what is kept. A cache of a pass that failed is of no more use.
    fn extend(&self, tape: &Tape, cache: &mut Cache, ids: &[Vec<u32>], before: Option<&Value>) -> Result<Features> {
        let _ = (tape, cache, ids, before);
        candle_core::bail!("{} continues no texts: its tokens see those after them", self.info().model_type)
    }

    /// [`features`](Self::features) of a plain model.
    fn forward(&self, tape: &Tape, input: &Input, read: Read) -> Result<Features> {
        self.features(tape, 0, input, read)
    }
}

impl fmt::Debug for dyn Model + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ModelInfo { model_type, streams, .. } = self.info();
        f.debug_struct("Model").field("model_type", model_type).field("streams", streams).finish_non_exhaustive()
    }
}
