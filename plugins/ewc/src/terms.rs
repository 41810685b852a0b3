//! What is held of the tasks that are over, and how it is saved.
//!
//! A state's tensors are `fisher.{term}.{parameter}` and `anchor.{term}.{parameter}`, the terms counted from 0.

use std::collections::BTreeMap;

use fthost_plugin_api::{Error, Kept, Param, Result, Tensor};

/// What is held of a task, or of all tasks so far.
pub(crate) struct Term {
    pub(crate) task: String,
    pub(crate) weights: Vec<Weight>,
}

/// How much a parameter is held, and where: both of its shape.
pub(crate) struct Weight {
    pub(crate) param: Param,
    pub(crate) fisher: Kept,
    anchor: Kept,
}

impl Weight {
    /// Holds a parameter where it is now.
    pub(crate) fn here(param: &Param, fisher: &Tensor) -> Result<Self> {
        Ok(Self { param: param.clone(), fisher: fisher.keep()?, anchor: param.tensor().keep()? })
    }

    /// sum F (theta - theta*)^2, a scalar.
    pub(crate) fn distance(&self) -> Result<Tensor> {
        self.param.tensor().squared_distance(&self.anchor, Some(&self.fisher))
    }
}

pub(crate) fn save(terms: &[Term]) -> BTreeMap<String, Tensor> {
    let mut tensors = BTreeMap::new();
    for (k, term) in terms.iter().enumerate() {
        for Weight { param, fisher, anchor } in &term.weights {
            tensors.insert(format!("fisher.{k}.{param}"), fisher.tensor());
            tensors.insert(format!("anchor.{k}.{param}"), anchor.tensor());
        }
    }
    tensors
}

/// The terms of these tasks. What the model lacks is let go: the parameters of a strategy that is there no more.
pub(crate) fn load(
    tasks: Vec<String>,
    tensors: &BTreeMap<String, Tensor>,
    shared: &BTreeMap<String, Param>,
) -> Result<Vec<Term>> {
    let term = |(k, task): (usize, String)| {
        let mut weights = Vec::new();
        for (name, param) in shared {
            let saved = |what: &str| tensors.get(&format!("{what}.{k}.{name}"));
            let (Some(fisher), Some(anchor)) = (saved("fisher"), saved("anchor")) else { continue };
            if fisher.shape()? != param.shape() || anchor.shape()? != param.shape() {
                return Err(Error::new(format!("the state has {name} in another shape: it is of another model")));
            }
            weights.push(Weight { param: param.clone(), fisher: fisher.keep()?, anchor: anchor.keep()? });
        }
        Ok(Term { task, weights })
    };
    tasks.into_iter().enumerate().map(term).collect()
}
