//! Hooks that can be watched, and left out: what a model with strategies gives beside what it gives without them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use fthost_autograd::{DType, Layout, Result, Tape, Value};
use fthost_models::{AttentionHook, BlockHook, EmbeddingHook, Hook, LinearHook, Prefix, Prompt};

/// What the hooks of a model do in its passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    /// What they are for.
    #[default]
    Applied,
    /// The same, and what they give is compared with what they got.
    Watched,
    /// Nothing.
    LeftOut,
}

/// What all hooks of a model share.
#[derive(Debug, Default)]
pub(super) struct Watch {
    mode: RwLock<Mode>,
    changed: AtomicBool,
}

impl Watch {
    /// Runs a pass in which hooks are watched, and says whether none of them changed or added anything.
    pub(super) fn watching<R>(&self, pass: impl FnOnce() -> R) -> (R, bool) {
        self.changed.store(false, Ordering::Relaxed);
        let result = self.in_mode(Mode::Watched, pass);
        (result, !self.changed.load(Ordering::Relaxed))
    }

    /// Runs a pass without hooks.
    pub(super) fn leaving_out<R>(&self, pass: impl FnOnce() -> R) -> R {
        self.in_mode(Mode::LeftOut, pass)
    }

    fn in_mode<R>(&self, mode: Mode, pass: impl FnOnce() -> R) -> R {
        let set = |mode| *self.mode.write().unwrap_or_else(PoisonError::into_inner) = mode;
        set(mode);
        let result = pass();
        set(Mode::Applied);
        result
    }

    fn is(&self, mode: Mode) -> bool {
        *self.mode.read().unwrap_or_else(PoisonError::into_inner) == mode
    }

    /// What a hook gets, where it is watched. Nobody else keeps it: an op may use its memory again.
    fn before<const N: usize>(&self, values: [&Value; N]) -> Option<[Value; N]> {
        self.is(Mode::Watched).then(|| values.map(Value::clone))
    }

    /// Compares what a hook gave with what it got.
    fn compare<const N: usize>(&self, before: Option<[Value; N]>, after: [&Value; N]) -> Result<()> {
        for (before, after) in before.iter().flatten().zip(after) {
            self.note(bits(before)? != bits(after)?);
        }
        Ok(())
    }

    fn note(&self, changed: bool) {
        self.changed.fetch_or(changed, Ordering::Relaxed);
    }
}

fn bits(value: &Value) -> Result<Vec<u64>> {
    let values = value.tensor().flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    Ok(values.into_iter().map(f64::to_bits).collect())
}

/// A hook of a model's with what they share.
struct Watched<H: ?Sized> {
    hook: Arc<H>,
    watch: Arc<Watch>,
}

/// The hook as one that can be watched.
pub(super) fn watched(hook: Hook, watch: &Arc<Watch>) -> Hook {
    let watch = watch.clone();
    match hook {
        Hook::Linear(hook) => Hook::Linear(Arc::new(Watched { hook, watch })),
        Hook::Block(hook) => Hook::Block(Arc::new(Watched { hook, watch })),
        Hook::Embeddings(hook) => Hook::Embeddings(Arc::new(Watched { hook, watch })),
        Hook::Attention(hook) => Hook::Attention(Arc::new(Watched { hook, watch })),
    }
}

impl LinearHook for Watched<dyn LinearHook> {
    fn input(&self, tape: &Tape, x: &Value) -> Result<Option<Value>> {
        if self.watch.is(Mode::LeftOut) {
            return Ok(None);
        }
        let input = self.hook.input(tape, x)?;
        if let Some(input) = &input {
            self.watch.compare(self.watch.before([x]), [input])?;
        }
        Ok(input)
    }

    fn forward(&self, tape: &Tape, x: &Value, y: Value, weight: &Value) -> Result<Value> {
        if self.watch.is(Mode::LeftOut) {
            return Ok(y);
        }
        let before = self.watch.before([&y]);
        let y = self.hook.forward(tape, x, y, weight)?;
        self.watch.compare(before, [&y])?;
        Ok(y)
    }

    fn merge(&self, tape: &Tape, weight: &Value) -> Result<Option<Value>> {
        self.hook.merge(tape, weight)
    }

    fn merge_bias(&self, tape: &Tape, bias: &Value) -> Result<Option<Value>> {
        self.hook.merge_bias(tape, bias)
    }
}

impl BlockHook for Watched<dyn BlockHook> {
    fn forward(&self, tape: &Tape, x: Value, residual: &Value) -> Result<Value> {
        if self.watch.is(Mode::LeftOut) {
            return Ok(x);
        }
        let before = self.watch.before([&x]);
        let x = self.hook.forward(tape, x, residual)?;
        self.watch.compare(before, [&x])?;
        Ok(x)
    }
}

impl EmbeddingHook for Watched<dyn EmbeddingHook> {
    fn forward(&self, tape: &Tape, embeddings: Value, layout: &Layout) -> Result<(Value, Option<Prompt>)> {
        if self.watch.is(Mode::LeftOut) {
            return Ok((embeddings, None));
        }
        let before = self.watch.before([&embeddings]);
        let (embeddings, prompt) = self.hook.forward(tape, embeddings, layout)?;
        self.watch.compare(before, [&embeddings])?;
        self.watch.note(prompt.is_some());
        Ok((embeddings, prompt))
    }
}

impl AttentionHook for Watched<dyn AttentionHook> {
    fn forward(
        &self,
        tape: &Tape,
        keys: Value,
        values: Value,
        layout: &Layout,
    ) -> Result<(Value, Value, Option<Prefix>)> {
        if self.watch.is(Mode::LeftOut) {
            return Ok((keys, values, None));
        }
        let before = self.watch.before([&keys, &values]);
        let (keys, values, prefix) = self.hook.forward(tape, keys, values, layout)?;
        self.watch.compare(before, [&keys, &values])?;
        self.watch.note(prefix.is_some());
        Ok((keys, values, prefix))
    }

    fn position_shift(&self) -> usize {
        if self.watch.is(Mode::LeftOut) {
            return 0;
        }
        let shift = self.hook.position_shift();
        self.watch.note(shift > 0);
        shift
    }
}
