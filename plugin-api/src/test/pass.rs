//! What ops need to know of the pass they are part of: whether it trains, and what is held still in it.

use std::cell::RefCell;

use super::{random::Stream, value::Value};

/// One pass through model and head.
#[derive(Default)]
pub(crate) struct Pass {
    /// The seed of dropout's masks, where the pass is one of training.
    dropout: Option<u64>,
    /// Draws of dropout so far.
    draws: u64,
    stopped: Stopped,
}

/// What becomes of values through which no gradient flows.
#[derive(Default)]
enum Stopped {
    /// They pass.
    #[default]
    Pass,
    /// They are remembered, in order.
    Remember(Vec<Value>),
    /// Those that were remembered take their place: finite differences see them stand still, as the gradient does.
    Recall(Vec<Value>, usize),
}

thread_local! {
    static PASS: RefCell<Pass> = RefCell::default();
}

impl Pass {
    /// Dropout drops nothing.
    pub(crate) fn evaluation() -> Self {
        Self::default()
    }

    /// Dropout's masks are a function of the seed and of the place in the pass, so that a pass can be repeated.
    pub(crate) fn training(seed: u64) -> Self {
        Self { dropout: Some(seed), ..Self::default() }
    }

    /// It remembers what no gradient flows through.
    pub(crate) fn remembering(self) -> Self {
        Self { stopped: Stopped::Remember(Vec::new()), ..self }
    }

    /// It finds what another one remembered.
    pub(crate) fn recalling(self, remembered: Vec<Value>) -> Self {
        Self { stopped: Stopped::Recall(remembered, 0), ..self }
    }

    /// Runs a body in this pass; gives what was remembered, too.
    pub(crate) fn run<T>(self, body: impl FnOnce() -> T) -> (T, Vec<Value>) {
        /// Puts the pass around this one back.
        struct Back(Option<Pass>);
        impl Drop for Back {
            fn drop(&mut self) {
                PASS.set(self.0.take().unwrap_or_default());
            }
        }
        let back = Back(Some(PASS.replace(self)));
        let result = body();
        let ended = PASS.take();
        drop(back);
        let remembered = match ended.stopped {
            Stopped::Remember(values) => values,
            _ => Vec::new(),
        };
        (result, remembered)
    }
}

/// The factors of a dropout: 0 or `1 / (1 - p)`. `None` where nothing is dropped.
pub(crate) fn dropout_mask(elements: usize, p: f64) -> Option<Vec<f64>> {
    PASS.with_borrow_mut(|pass| {
        let seed = pass.dropout.filter(|_| p > 0.0)?;
        pass.draws += 1;
        let stream = Stream::new(seed ^ pass.draws, "dropout");
        let factor = |i| if stream.uniform(i) < p { 0.0 } else { 1.0 / (1.0 - p) };
        Some((0..elements as u64).map(factor).collect())
    })
}

/// A value without history.
pub(crate) fn stop(value: &Value) -> Value {
    PASS.with_borrow_mut(|pass| match &mut pass.stopped {
        Stopped::Pass => value.detached(),
        Stopped::Remember(values) => {
            let value = value.detached();
            values.push(value.clone());
            value
        }
        Stopped::Recall(values, next) => {
            *next += 1;
            values.get(*next - 1).cloned().unwrap_or_else(|| value.detached())
        }
    })
}
