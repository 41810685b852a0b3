//! What is held of the tasks that are over, and how it is saved.
//!
//! Every task's term is a quadratic in each parameter, so all of them together are one, whatever their number: with F = F_a + F_b and
//! theta* = (F_a a + F_b b) / F,
//!
//!     F_a (theta - a)^2 + F_b (theta - b)^2 = F (theta - theta*)^2 + F_a F_b / F (a - b)^2
//!
//! where the last summand is no matter of theta. A step costs as much after the tenth task as after the first.
//!
//! A state's tensors are `fisher.{parameter}` and `anchor.{parameter}`.

use std::collections::BTreeMap;

use fthost_plugin_api::{Error, Kept, Param, Result, Tensor};

/// The terms of all tasks so far.
#[derive(Default)]
pub(crate) struct Terms {
    /// The tasks, in their order.
    pub(crate) tasks: Vec<String>,
    weights: BTreeMap<String, Weight>,
    /// What of the sum is no matter of theta.
    pub(crate) rest: f64,
}

/// How much a parameter is held, and where: both of its shape.
struct Weight {
    param: Param,
    fisher: Kept,
    anchor: Kept,
}

impl Terms {
    /// Adds the term of a task that has just ended: F of each parameter, and the parameters where they are now.
    pub(crate) fn add(&mut self, fisher: &BTreeMap<String, Tensor>, shared: &BTreeMap<String, Param>) -> Result<()> {
        for (name, fisher) in fisher {
            let param = shared[name].clone();
            let weight = match self.weights.remove(name) {
                None => Weight { fisher: fisher.keep()?, anchor: param.tensor().keep()?, param },
                Some(before) => {
                    let sum = before.fisher.tensor().add(fisher)?;
                    // Where nothing is held, F is 0 and so is the share.
                    let share = fisher.div(&sum.maximum_scalar(f64::from(f32::MIN_POSITIVE))?)?;
                    let moved = param.tensor().sub(&before.anchor)?;
                    let anchor = before.anchor.tensor().add(&share.mul(&moved)?)?;
                    let between = before.fisher.tensor().mul(&share)?.mul(&moved.square()?)?;
                    self.rest += between.sum()?.to_scalar()?;
                    Weight { fisher: sum.keep()?, anchor: anchor.keep()?, param }
                }
            };
            self.weights.insert(name.clone(), weight);
        }
        Ok(())
    }

    /// Puts one term in the place of all: F as it was, times `gamma`, with the new one, about where the parameters are now.
    pub(crate) fn replace(
        &mut self,
        gamma: f64,
        mut fisher: BTreeMap<String, Tensor>,
        shared: &BTreeMap<String, Param>,
    ) -> Result<()> {
        for (name, before) in std::mem::take(&mut self.weights) {
            let left = before.fisher.tensor().mul_scalar(gamma)?;
            let sum = match fisher.remove(&name) {
                Some(fisher) => fisher.add(&left)?,
                None => left,
            };
            fisher.insert(name, sum);
        }
        self.add(&fisher, shared)
    }

    /// The sum of the terms, a scalar; `None` where nothing is held.
    pub(crate) fn sum(&self) -> Result<Option<Tensor>> {
        let mut sum: Option<Tensor> = None; // a scalar
        for Weight { param, fisher, anchor } in self.weights.values() {
            let term = param.tensor().squared_distance(anchor, Some(fisher))?;
            sum = Some(match sum {
                Some(sum) => sum.add(&term)?,
                None => term,
            });
        }
        sum.map(|sum| sum.add_scalar(self.rest)).transpose()
    }

    pub(crate) fn save(&self) -> BTreeMap<String, Tensor> {
        let tensors = self.weights.iter().flat_map(|(name, Weight { fisher, anchor, .. })| {
            [(format!("fisher.{name}"), fisher.tensor()), (format!("anchor.{name}"), anchor.tensor())]
        });
        tensors.collect()
    }

    /// The terms of these tasks. What the model lacks is let go: the parameters of a strategy that is there no more.
    pub(crate) fn load(
        tasks: Vec<String>,
        rest: f64,
        tensors: &BTreeMap<String, Tensor>,
        shared: &BTreeMap<String, Param>,
    ) -> Result<Self> {
        let mut weights = BTreeMap::new();
        for (name, param) in shared {
            let saved = |what: &str| tensors.get(&format!("{what}.{name}"));
            let (Some(fisher), Some(anchor)) = (saved("fisher"), saved("anchor")) else { continue };
            if fisher.shape()? != param.shape() || anchor.shape()? != param.shape() {
                return Err(Error::new(format!("the state has {name} in another shape: it is of another model")));
            }
            weights
                .insert(name.clone(), Weight { param: param.clone(), fisher: fisher.keep()?, anchor: anchor.keep()? });
        }
        Ok(Self { tasks, weights, rest })
    }
}
