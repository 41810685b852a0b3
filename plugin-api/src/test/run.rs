//! One run of the mock host: parameters, sites, hooks, and where it stands.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{
    toy::{Declared, Pair, Toy, WIDTH},
    value::Value,
};
use crate::{Error, Result, Site, SiteKind, abi::tables::hook_kind};

/// Whose a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Base,
    Strategy,
    Head,
}

/// A parameter. Its value is replaced where it changes, so what was computed of the old one keeps it.
#[derive(Clone)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) value: Value,
    pub(crate) owner: Owner,
    pub(crate) trainable: bool,
    pub(crate) group: usize,
    pub(crate) lr_factor: f64,
    pub(crate) decay: Option<bool>,
}

/// Which function of a hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Forward,
    Input,
    Merge,
    MergeBias,
}

/// What a hook's function gave.
#[derive(Default)]
pub(crate) struct Answer {
    pub(crate) values: Vec<Option<Value>>,
    pub(crate) flag: i64,
}

/// A plugin's hook, set at a site.
pub(crate) trait Hook: Send + Sync {
    /// By [`hook_kind`].
    fn kind(&self) -> u32;

    /// By how many positions it shifts the tokens of a text.
    fn position_shift(&self) -> usize;

    /// One call; `None` where it has no such function. `outputs`: how many results it gives.
    fn call(
        &self,
        run: &Arc<Run>,
        function: Function,
        inputs: &[&Value],
        offsets: &[u32],
        outputs: usize,
    ) -> Result<Option<Answer>>;
}

/// Where a run stands and what it has heard.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) hooks: Vec<(String, Arc<dyn Hook>)>,
    /// Weight and bias that take the place of a layer and its hooks, by the layer's path.
    pub(crate) merged: BTreeMap<String, (Value, Option<Value>)>,
    /// Gradients of the step just taken, by the parameter's number; within its `StepEnd` alone.
    pub(crate) gradients: Option<BTreeMap<usize, Vec<f64>>>,
    /// The step that is under way, counted from 0.
    pub(crate) step: u64,
    /// How many were taken.
    pub(crate) taken: u64,
    /// What the method told: steps taken, name, value.
    pub(crate) scalars: Vec<(u64, String, f64)>,
}

/// A run.
pub(crate) struct Run {
    pub(crate) number: u32,
    pub(crate) seed: u64,
    pub(crate) toy: Toy,
    /// Whether a second stream stands beside the toy's, for heads alone.
    pub(crate) pair: Option<Pair>,
    pub(crate) sites: Vec<Site>,
    state: Mutex<State>,
}

/// How much of a handle is the run's number.
const RUN_BITS: u32 = 20;
/// What tells a parameter's handle from none.
const PARAMETER: u64 = 1 << 52;

impl Run {
    pub(crate) fn new(toy: Toy, pair: Option<Pair>, seed: u64) -> Arc<Self> {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let number = RUNS.fetch_add(1, Ordering::Relaxed) & ((1 << RUN_BITS) - 1);
        let parameter = |(name, shape, data, group): Declared, trainable| Parameter {
            name,
            value: made(&shape, data, trainable),
            owner: Owner::Base,
            trainable,
            group,
            lr_factor: 1.0,
            decay: None,
        };
        // A strategy that was there before the head has frozen what the head may thaw.
        let compared = pair.into_iter().flat_map(Pair::parameters).map(|of| parameter(of, false));
        let parameters = toy.parameters().into_iter().map(|of| parameter(of, true)).chain(compared).collect();
        let state = State { parameters, ..State::default() };
        Arc::new(Self { number, seed, toy, pair, sites: toy.sites(), state: Mutex::new(state) })
    }

    /// What the model is made of, and how wide the features of each part are.
    pub(crate) fn towers(&self) -> Vec<(Toy, usize)> {
        if self.pair.is_some() { Pair::TOWERS.to_vec() } else { vec![(self.toy, WIDTH)] }
    }

    /// The ways through the model.
    pub(crate) fn streams(&self) -> Vec<crate::Stream> {
        self.towers().into_iter().map(|(toy, width)| toy.described(width)).collect()
    }

    /// What changes. Held for a moment, never across a call into a plugin.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle of the parameter of this number.
    pub(crate) fn handle(&self, index: usize) -> u64 {
        PARAMETER | u64::from(self.number) << 32 | index as u64
    }

    /// Whether it is a parameter's handle, of this run or of another one.
    pub(crate) fn is_parameter(handle: u64) -> bool {
        handle >> 52 == 1
    }

    /// The number of a parameter of this run.
    pub(crate) fn index(&self, handle: u64) -> Option<usize> {
        let index = (handle & u64::from(u32::MAX)) as usize;
        (handle == self.handle(index) && index < self.state().parameters.len()).then_some(index)
    }

    /// A parameter's value by its name.
    ///
    /// # Errors
    /// Where there is none.
    pub(crate) fn value(&self, name: &str) -> Result<Value> {
        let state = self.state();
        let found = state.parameters.iter().find(|parameter| parameter.name == name);
        found
            .map(|parameter| parameter.value.clone())
            .ok_or_else(|| Error::new(format!("there is no parameter {name}")))
    }

    /// Gives a parameter other numbers.
    pub(crate) fn set(&self, index: usize, data: Vec<f64>) {
        let parameter = &mut self.state().parameters[index];
        parameter.value = made(parameter.value.shape(), data, parameter.trainable);
    }

    pub(crate) fn set_trainable(&self, index: usize, trainable: bool) {
        let parameter = &mut self.state().parameters[index];
        parameter.trainable = trainable;
        parameter.value = made(parameter.value.shape(), parameter.value.data().to_vec(), trainable);
    }

    /// The parameters that train now: number, name and value.
    pub(crate) fn trainable(&self) -> Vec<(usize, String, Value)> {
        let state = self.state();
        let all = state.parameters.iter().enumerate().filter(|(_, parameter)| parameter.trainable);
        all.map(|(i, parameter)| (i, parameter.name.clone(), parameter.value.clone())).collect()
    }

    /// The hooks at a site, in the order in which they were set.
    pub(crate) fn hooks(&self, site: &str) -> Vec<Arc<dyn Hook>> {
        let state = self.state();
        state.hooks.iter().filter(|(at, _)| at == site).map(|(_, hook)| Arc::clone(hook)).collect()
    }

    /// Sets a hook.
    ///
    /// # Errors
    /// Where there is no such site, or one of another kind.
    pub(crate) fn set_hook(&self, path: &str, hook: Arc<dyn Hook>) -> Result<()> {
        let site = self.sites.iter().find(|site| site.path == path);
        let site = site.ok_or_else(|| Error::new(format!("the toy model has no site {path}")))?;
        let wanted = match site.kind {
            SiteKind::Linear | SiteKind::Conv => hook_kind::LINEAR,
            SiteKind::AttentionOutput | SiteKind::FeedForwardOutput => hook_kind::BLOCK,
            SiteKind::Embeddings => hook_kind::EMBEDDINGS,
            SiteKind::Attention => hook_kind::ATTENTION,
        };
        if hook.kind() != wanted {
            return Err(Error::new(format!(
                "{path} is a site of kind {:?}, and takes no hook of kind {}",
                site.kind,
                hook.kind()
            )));
        }
        self.state().hooks.push((path.to_owned(), hook));
        Ok(())
    }
}

fn made(shape: &[usize], data: Vec<f64>, trainable: bool) -> Value {
    if trainable { Value::variable(shape, data) } else { Value::floats(shape, data) }
}
