//! The random numbers by which training pictures are changed.

use fthost_autograd::random::Stream;

/// Where the random changes of training pictures and texts come from.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    pictures: Stream,
    batches: Stream,
    tokens: Stream,
}

impl Draws {
    /// Those of a run.
    pub fn new(seed: u64) -> Self {
        Self {
            pictures: Stream::new(seed, "pictures"),
            batches: Stream::new(seed, "mixed pictures"),
            tokens: Stream::new(seed, "guessed tokens"),
        }
    }

    /// The numbers for a picture, by the step and its place in it.
    pub(in crate::data) fn of_picture(&self, step: u64, place: u64) -> impl FnMut() -> f64 + use<> {
        numbers(self.pictures.at(&[step, place]))
    }

    /// The numbers by which the tokens of a text are chosen, by the step and its place in it.
    pub(in crate::data) fn of_text(&self, step: u64, place: u64) -> Stream {
        self.tokens.at(&[step, place])
    }

    /// The numbers for a batch, by the step and the place of its first picture.
    pub(super) fn of_batch(&self, step: u64, first: u64) -> impl FnMut() -> f64 + use<> {
        numbers(self.batches.at(&[step, first]))
    }
}

/// A stream's numbers, one after the other.
fn numbers(stream: Stream) -> impl FnMut() -> f64 {
    let mut next = 0;
    move || {
        next += 1;
        stream.uniform(next - 1)
    }
}
