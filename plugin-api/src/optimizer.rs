//! Optimizers: how a gradient changes a parameter. An extension, `ft.optimizer/1`: tried, and not promised as the four traits are.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Result, Tensor};

/// An update rule. All calls come on the run's thread, one at a time; clipping, schedules and learning-rate factors are the host's.
///
/// A plugin with one says `min_host_minor = 1` in [`export_plugin!`](crate::export_plugin). Since 1.1
pub trait Optimizer: Sized + Send + 'static {
    /// The options of `optimizer = { plugin = "...", ... }` in `[train]`.
    type Config: DeserializeOwned + schemars::JsonSchema;

    /// Makes an instance from checked options.
    fn new(config: Self::Config) -> Result<Self>;

    /// The momentum or beta1 that a schedule may change from step to step.
    fn momentum(&self) -> f64 {
        0.0
    }

    /// What it keeps of a parameter of this name and shape from one step to the next. Zeros before the first; checkpoints hold them.
    fn states(&self, name: &str, shape: &[usize]) -> Result<Vec<StateSpec>>;

    /// One parameter's update, without gradients.
    fn step(&self, update: &Update<'_>) -> Result<Updated>;
}

/// A tensor that an optimizer keeps of a parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateSpec {
    /// Its name, one of each for a parameter: `exp_avg`.
    pub name: String,
    /// Its shape, which need not be the parameter's.
    pub shape: Vec<usize>,
    /// Its elements.
    #[serde(default)]
    pub elements: Elements,
}

impl StateSpec {
    /// One of `f32`.
    pub fn new(name: &str, shape: impl AsRef<[usize]>) -> Self {
        Self { name: name.into(), shape: shape.as_ref().to_vec(), elements: Elements::F32 }
    }
}

/// Elements of a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Elements {
    /// 32-bit floats.
    #[default]
    F32,
    /// Bytes.
    U8,
}

/// What an update is made of.
#[derive(Debug)]
pub struct Update<'a> {
    /// The parameter's name.
    pub name: &'a str,
    /// Its value, `f32`.
    pub value: Tensor,
    /// Its gradient, of the same shape and type.
    pub gradient: Tensor,
    /// Its states, in the order of [`Optimizer::states`].
    pub states: Vec<Tensor>,
    /// How many updates it has had, this one counted: 1 is the first. A layer that thaws late begins with 1.
    pub step: u64,
    /// Learning rate, by the schedule and the parameter's factor.
    pub lr: f64,
    /// Momentum or beta1, by the schedule.
    pub momentum: f64,
    /// `train.weight_decay`; 0 where the parameter gets none.
    pub weight_decay: f64,
}

/// What an update gives.
#[derive(Debug)]
pub struct Updated {
    /// The new value, of the parameter's shape.
    pub value: Tensor,
    /// The new states, as many as there are.
    pub states: Vec<Tensor>,
}
