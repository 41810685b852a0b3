//! Proof that a run did what was asked: it started where it said, and what was frozen has not changed.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Result;
use crate::adapted::{AdaptedModel, Owner};
use crate::report::numbers::hexadecimal;
use crate::run::setup::phase::Phase;
use crate::run::setup::start::{Checksums, Frozen, Start};

/// Training examples whose order is digested.
const ORDERED: usize = 1024;

/// What a run proves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proof {
    /// Where training started.
    pub start: Start,
    /// Share of the trainable parameters that received a gradient in the first step. Anything below 1 is an error.
    pub parameters_with_gradient: f64,
    /// What never trained.
    pub frozen: Frozen,
    /// What has to be the same in two runs that are compared as a pair.
    pub pairing: Pairing,
}

/// What two runs of one seed share however they train: digests in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairing {
    /// SHA-256 of which examples the first steps take: all further ones follow from the same numbers.
    pub order: String,
    /// SHA-256 of the heads' parameters before the first step.
    pub head: String,
}

impl Pairing {
    /// That of a run before its first step.
    pub fn of(model: &AdaptedModel, phases: &[Phase]) -> Result<Self> {
        let mut order = Sha256::new();
        let mut number = |number: u64| order.update(number.to_le_bytes());
        for phase in phases {
            number(phase.steps_per_epoch());
            let mut left = ORDERED;
            for batch in phase.epoch_from(0, 0).flatten() {
                number(batch.task as u64);
                batch.rows.iter().for_each(|&row| number(u64::from(row)));
                left = left.saturating_sub(batch.rows.len());
                if left == 0 {
                    break;
                }
            }
        }
        let heads = model.parameters.iter().filter(|p| matches!(p.owner, Owner::Head(_)));
        let head = Checksums::of(heads, |parameter, see| parameter.each_value(see).map(|()| true))?;
        Ok(Self { order: hexadecimal(&order.finalize()), head: head.digest() })
    }
}

impl Proof {
    /// The proof as a person reads it.
    pub fn to_text(&self) -> String {
        let Start { equals_base, examples, max_difference, .. } = self.start;
        let start = match equals_base {
            true => format!("step 0 is the base model to the bit (on {examples} examples)"),
            false => format!("step 0 differs from the base model by up to {max_difference:.1e}"),
        };
        let Frozen { tensors, .. } = self.frozen;
        let frozen = match tensors {
            0 => "nothing was frozen".to_owned(),
            _ => format!("{tensors} frozen tensors are unchanged (SHA-256)"),
        };
        let share = 100.0 * self.parameters_with_gradient;
        format!("{start}; {share:.0} % of the trainable tensors got a gradient; {frozen}")
    }
}
