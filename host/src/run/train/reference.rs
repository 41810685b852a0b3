//! What the heads of earlier tasks say of a task's examples before it trains, for regularizers that hold it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fthost_autograd::{Device, Tape, Tensor, Value};
use fthost_models::Features;
use fthost_plugin_api::HeadSpec;

use crate::adapted::{AdaptedModel, StreamRead};
use crate::plugin::{HeadInstance, RegularizerInstance};
use crate::run::pass::{Pass, head_outputs, reads_of};
use crate::run::results::evaluate;
use crate::run::setup::task::Task;
use crate::run::state::checkpoint::{self, CHECKPOINTS};
use crate::{Error, Result};

/// The outputs of earlier tasks' heads on the training examples of one task.
#[derive(Debug, Default)]
pub struct Reference {
    /// By the place of the earlier task, `[examples, ...]` on the CPU.
    outputs: BTreeMap<usize, Tensor>,
}

impl Reference {
    /// Records them, without dropout, and keeps them in the run folder for a resumed run.
    ///
    /// # Errors
    /// Where they cannot be computed or written.
    pub fn record<'a>(run: &Path, task: usize, tasks: &[Task], pass: impl Fn(usize) -> Pass<'a>) -> Result<Self> {
        let mut outputs = BTreeMap::new();
        for earlier in heads_before(task, tasks) {
            let pass = pass(earlier);
            let rows: Vec<u32> = (0..pass.data.len() as u32).collect();
            outputs.insert(earlier, evaluate::outputs(&pass, &rows)?.to_device(&Device::Cpu)?);
        }
        let named = outputs.iter().map(|(earlier, tensor)| (tasks[*earlier].name.clone(), tensor.clone())).collect();
        checkpoint::write(&file(run, &tasks[task].name), &(), &named)?;
        Ok(Self { outputs })
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// What each earlier head said.
    pub fn of<'a>(&'a self, tasks: &'a [Task]) -> Vec<Earlier<'a>> {
        let one = |(&earlier, outputs): (&usize, &'a Tensor)| {
            let Task { head, spec, .. } = &tasks[earlier];
            Earlier { head, spec, outputs }
        };
        self.outputs.iter().map(one).collect()
    }

    /// Reads what a run that is resumed has recorded.
    ///
    /// # Errors
    /// Where it is missing or damaged.
    pub fn read(run: &Path, task: usize, tasks: &[Task]) -> Result<Self> {
        let found = checkpoint::open::<()>(&file(run, &tasks[task].name))?;
        let of = |earlier: usize| {
            let name = &tasks[earlier].name;
            let tensor = found.tensors.get(name).cloned();
            let tensor = tensor.ok_or_else(|| Error::run(format!("{} lacks {name}", found.path.display())))?;
            Ok((earlier, tensor))
        };
        heads_before(task, tasks).map(of).collect::<Result<_>>().map(|outputs| Self { outputs })
    }
}

/// The tasks before one that have a head of their own: what those say that have another's is said once.
fn heads_before(task: usize, tasks: &[Task]) -> impl Iterator<Item = usize> {
    (0..task).filter(|&earlier| tasks[earlier].head_of == earlier)
}

fn file(run: &Path, task: &str) -> PathBuf {
    run.join(CHECKPOINTS).join(format!("reference-{task}.safetensors"))
}

/// What the head of an earlier task said of the present one's examples.
pub struct Earlier<'a> {
    /// The head.
    pub head: &'a HeadInstance,
    /// What it declared.
    pub spec: &'a HeadSpec,
    /// What it said of each, `[examples, ...]` on the CPU.
    pub outputs: &'a Tensor,
}

/// Regularizers, and the outputs that they hold.
pub struct Holding<'a> {
    /// The regularizers that want outputs.
    pub regularizers: Vec<&'a RegularizerInstance>,
    /// What earlier heads said.
    pub earlier: Vec<Earlier<'a>>,
    /// What the gradients of its penalties are multiplied by, beside those of the loss.
    pub factor: f64,
}

impl Holding<'_> {
    /// The penalties on what the earlier heads now say of the examples `rows`, whose features for the present head are given with
    /// what they are; a scalar
    /// summed over the rows. `None` where there is none.
    ///
    /// # Errors
    /// Where a head or a regularizer fails.
    pub fn penalty(
        &self,
        tape: &Tape,
        model: &AdaptedModel,
        rows: &[u32],
        (reads, features): (&[StreamRead], &[Features]),
        again: impl Fn(&[StreamRead]) -> Result<Vec<Features>>,
    ) -> Result<Option<Value>> {
        let rows = Tensor::new(rows, &Device::Cpu)?;
        let mut sum: Option<Value> = None;
        for Earlier { head, spec, outputs } in &self.earlier {
            let other;
            let earlier = reads_of(spec, model.model.info());
            let features = if earlier == reads {
                features
            } else {
                other = again(&earlier)?;
                &other
            };
            let now = head_outputs(head, tape, features, None)?;
            let then = Value::constant(outputs.index_select(&rows, 0)?.to_device(&model.device)?);
            for regularizer in &self.regularizers {
                let Some(penalty) = regularizer.output_penalty(tape, &now, &then)? else { continue };
                sum = Some(match sum {
                    Some(sum) => tape.add(&sum, &penalty)?,
                    None => penalty,
                });
            }
        }
        Ok(sum)
    }
}
