//! Pairs of sequences, of which the first is the better one, and what a head gives for them before training.

use fthost_autograd::{DType, Device, Tensor};

use super::dataset::{Dataset, Reference, Targets};
use super::store::UNCOUNTED;
use crate::{Error, Result};

impl Dataset {
    /// Whether an example is a pair of sequences.
    pub fn of_pairs(&self) -> bool {
        self.of_tokens.is_some_and(|of| of.pairs)
    }

    /// Says that targets are what the head gives for the examples before training: nothing is learned until that is known.
    pub fn needs_reference(&mut self) {
        self.targets = Targets::Pairs(Reference::Open);
    }

    /// Takes what the head gives for all examples before training, `[examples, ...]`.
    ///
    /// # Errors
    /// Where it is not of as many examples.
    pub fn set_reference(&mut self, outputs: &Tensor) -> Result<()> {
        if outputs.dims().first() != Some(&self.len()) {
            let (path, found, examples) = (self.path.display(), outputs.dims(), self.len());
            return Err(Error::run(format!("{path}: {examples} pairs have a reference of the shape {found:?}")));
        }
        self.targets = Targets::Pairs(Reference::Known(outputs.to_device(&Device::Cpu)?));
        Ok(())
    }

    /// The references of these rows, `[rows, ...]`; zeros `[rows, 2]` where the head asks for none.
    pub(super) fn references(&self, of: &Reference, rows: &[u32], device: &Device) -> Result<Tensor> {
        Ok(match of {
            Reference::None => Tensor::zeros((rows.len(), 2), DType::F32, device)?,
            Reference::Known(all) => all.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?.to_device(device)?,
            Reference::Open => {
                let path = self.path.display();
                return Err(Error::run(format!("{path}: what the model says before training was never computed")));
            }
        })
    }

    /// The token after each of these rows, in their order, `u32` `[tokens]`: [`UNCOUNTED`] where it is not to be said, and for the last of a
    /// sequence.
    pub fn next_tokens(&self, rows: &[u32], device: &Device) -> Result<Tensor> {
        let mut tokens = Vec::new();
        let (mut ids, mut types) = (Vec::new(), Vec::new());
        for &row in rows {
            let record = self.record(row)?;
            ids.clear();
            self.store.append(&record, &mut ids, &mut types)?;
            let marks = self.store.marks(&record)?;
            // The first token of a sequence is never to be said: so none is before the second of a pair.
            let after = ids.iter().zip(&marks).skip(1);
            tokens.extend(after.map(|(&id, &mark)| if mark == UNCOUNTED { UNCOUNTED } else { id }));
            tokens.push(UNCOUNTED);
        }
        let len = tokens.len();
        Ok(Tensor::from_vec(tokens, len, device)?)
    }

    /// How many tokens of the two answers of a row are to be said.
    pub fn answer_tokens(&self, row: u32) -> Result<usize> {
        Ok(self.store.marks(&self.record(row)?)?.iter().filter(|&&mark| mark != UNCOUNTED).count())
    }
}
