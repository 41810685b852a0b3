//! The gradients of one batch: micro-batches over the cores.
//!
//! Each thread takes micro-batches one after the other through the whole network, forward and backward, on a tape of its
//! own; what is summed is only the gradients of what trains. The split and the order of summing depend on the batch alone,
//! so the bits are the same at any number of threads.

use super::reference::Holding;
use super::{gathered, ordered};
use crate::Result;
use crate::data::{Shown, split_micro_batches};
use crate::run::pass::{Pass, Way, way};

use super::micro_batch::Batch;
pub use super::micro_batch::{BatchGradients, DropoutKey};

impl Pass<'_> {
    /// Loss and gradients of the examples of one batch, with penalties on what earlier heads say of them. `dropout` is `None`
    /// where the run switched it off.
    pub fn gradients(
        &self,
        shown: &Shown,
        dropout: Option<DropoutKey>,
        loss_scale: f64,
        holding: Option<&Holding<'_>>,
    ) -> Result<BatchGradients> {
        let passes = self.spec.forwards as usize;
        let batch = Batch { pass: self, shown, dropout, loss_scale, holding, reads: self.reads(), passes };
        let way = way(self.spec, self.model);
        let parts = self.parts(shown, way)?;
        let on_cores = self.model.device.is_cpu();
        match (way, parts.as_slice()) {
            (_, []) => Ok(BatchGradients::default()),
            (_, [all]) => batch.on_one_tape(all, true),
            (Way::Apart | Way::OneTape(_), parts) => {
                let one = |i: usize| batch.on_one_tape(&parts[i], false);
                ordered::sum(BatchGradients::default(), parts.len(), true, one, |total, part| total.add(part, false))
            }
            (Way::Gathered, parts) => gathered::gradients(&batch, parts, false, on_cores),
            (Way::Twice(_), parts) => gathered::gradients(&batch, parts, true, on_cores),
        }
    }

    /// The places of the examples of each micro-batch.
    fn parts(&self, shown: &Shown, way: Way) -> Result<Vec<Vec<usize>>> {
        let all: Vec<usize> = (0..shown.rows().len()).collect();
        let lengths = || shown.rows().iter().map(|&row| self.data.tokens(row)).collect::<Result<Vec<_>>>();
        Ok(match way {
            Way::OneTape(_) => vec![all],
            // What is small enough for a core is too small for a device with parallelism of its own.
            Way::Twice(most) if !self.model.device.is_cpu() => all.chunks(most).map(<[usize]>::to_vec).collect(),
            Way::Twice(most) => split_micro_batches(&lengths()?, most),
            Way::Apart | Way::Gathered => split_micro_batches(&lengths()?, usize::MAX),
        })
    }
}
