//! Hooks: what runs inside the model's forward pass.
//!
//! A hook's `forward` takes `&self` and runs on several threads at once, each with its own micro-batch `[any thread]`.
//! It is differentiable without more: every op records itself on the host's tape.

use crate::{Result, Tensor};

/// At a linear or convolution site: LoRA, DoRA, IA3.
pub trait LinearHook: Send + Sync + 'static {
    /// `x`: `[tokens, in]`, the layer's input after all hooks' [`input`](Self::input); `y`: `[tokens, out]`, its output with what earlier
    /// hooks made of it ([`Site::hooked`](crate::Site::hooked) says whether there are any); `weight`: `[out, in]`, the layer's own. Returns `[tokens, out]`.
    fn forward(&self, x: &Tensor, y: Tensor, weight: &Tensor) -> Result<Tensor>;

    /// The weight that gives the same output without the hook, `[out, in]`, where there is one (`fthost merge`). `weight`: the
    /// layer's own, or what other hooks made of it: those that change inputs come after all others. What is merged is compared
    /// with what [`forward`](Self::forward) gave, and a difference is an error.
    fn merge(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        let _ = weight;
        Ok(None)
    }

    /// The bias that goes with [`merge`](Self::merge)'s weight, `[out]`; `None` for the layer's own. Called where the layer
    /// has one: a method that scales the output (IA3) scales the bias too.
    fn merge_bias(&self, bias: &Tensor) -> Result<Option<Tensor>> {
        let _ = bias;
        Ok(None)
    }

    /// What takes the place of the input, `[tokens, in]`, `None` for an unchanged one. Called before the base layer
    /// runs, so a method that changes the input (IA3 on feed-forward, LoRA dropout does not) can.
    fn input(&self, x: &Tensor) -> Result<Option<Tensor>> {
        let _ = x;
        Ok(None)
    }
}

/// At a block's output, after attention or after feed-forward, before the residual is added: Houlsby and Pfeiffer adapters.
pub trait BlockHook: Send + Sync + 'static {
    /// `x`: `[tokens, width]`, the sub-layer's output; `residual`: `[tokens, width]`, what will be added to it.
    /// Returns what takes the place of `x`, `[tokens, width]`.
    fn forward(&self, x: Tensor, residual: &Tensor) -> Result<Tensor>;
}

/// Rows that an [`EmbeddingHook`] puts before every sequence.
#[derive(Debug)]
pub struct Prompt {
    /// `[prompt tokens, width]`, the same rows for every sequence.
    pub rows: Tensor,
    /// `true`: the pooled features are still those of the sequence's own first token. `false`: those of the first prompt
    /// row, as PEFT does it.
    pub pool_first_token: bool,
}

/// At the input embeddings, before positions are added: prompt tuning.
pub trait EmbeddingHook: Send + Sync + 'static {
    /// `embeddings`: `[tokens, width]`; `offsets`: start of each sequence, and the end of the last.
    /// Returns the embeddings and, if any, a prompt for every sequence.
    fn forward(&self, embeddings: Tensor, offsets: &[u32]) -> Result<(Tensor, Option<Prompt>)>;
}

/// Keys and values that every sequence attends to besides its own.
#[derive(Debug)]
pub struct Prefix {
    /// `[prefix tokens, width]`
    pub keys: Tensor,
    /// `[prefix tokens, width]`
    pub values: Tensor,
}

/// Inside attention: prefix tuning.
pub trait AttentionHook: Send + Sync + 'static {
    /// `keys`, `values`: `[tokens, width]`; `offsets`: start of each sequence, and the end of the last.
    /// Returns keys and values, and a prefix if any.
    fn forward(&self, keys: Tensor, values: Tensor, offsets: &[u32]) -> Result<(Tensor, Tensor, Option<Prefix>)>;

    /// By how many positions the tokens of a text are shifted, as if the prefix stood before them: Transformers shifts them by
    /// the length of past keys and values, so a prefix that PEFT shall read needs its own length here. The largest shift of
    /// all hooks holds. Asked once, when the hook is set. `[run thread]`
    fn position_shift(&self) -> usize {
        0
    }
}
