//! The update rule of a run: the engine's, or a plugin's.

use std::collections::BTreeMap;

use fthost_autograd::optim::{self, StepSettings};
use fthost_autograd::{Parameter, Tensor};
use fthost_plugin_api::{Elements, MethodKind};

use crate::Result;
use crate::adapted::AdaptedModel;
use crate::plugin::{Library, OptimizerInstance};
use crate::run::file::{self, RunFile};

/// An update rule with its state.
#[derive(Debug)]
pub enum Optimizer {
    /// One of the engine's, and its momentum or beta1.
    Engine(optim::Optimizer, f64),
    /// A plugin's, and its momentum.
    Plugin(OptimizerInstance, f64),
}

impl Optimizer {
    /// The rule that a run file names, which has updated nothing yet.
    ///
    /// # Errors
    /// Where its plugin cannot be used.
    pub fn of(file: &RunFile, library: &mut Library) -> Result<Self> {
        let engine = |method, momentum| Ok(Self::Engine(optim::Optimizer::new(method), momentum));
        let method = match &file.train.optimizer {
            &file::Optimizer::AdamW { betas: [beta1, beta2], eps } => {
                return engine(optim::Method::AdamW { beta2, eps }, beta1);
            }
            &file::Optimizer::Adam { betas: [beta1, beta2], eps } => {
                return engine(optim::Method::Adam { beta2, eps }, beta1);
            }
            &file::Optimizer::Sgd { momentum, nesterov } => return engine(optim::Method::Sgd { nesterov }, momentum),
            file::Optimizer::Plugin(method) => method,
        };
        let at = |error| file.at_option(method, error);
        let plugin = library.find_in(method.file.as_deref(), MethodKind::Optimizer, &method.plugin)?.0;
        let rule = OptimizerInstance::create(&plugin, &method.plugin, &method.config).map_err(at)?;
        let momentum = rule.momentum().map_err(at)?;
        Ok(Self::Plugin(rule, momentum))
    }

    /// The same rule, which has updated nothing yet.
    pub fn fresh(&self) -> Self {
        match self {
            Self::Engine(rule, momentum) => Self::Engine(optim::Optimizer::new(rule.method()), *momentum),
            Self::Plugin(rule, momentum) => Self::Plugin(rule.fresh(), *momentum),
        }
    }

    /// The momentum or beta1 that a schedule may change.
    pub fn momentum(&self) -> f64 {
        match self {
            Self::Engine(_, momentum) | Self::Plugin(_, momentum) => *momentum,
        }
    }

    /// Bytes that it keeps of all that trains.
    pub fn kept_bytes(&self, model: &AdaptedModel) -> Result<usize> {
        let mut bytes = 0;
        for of in model.trainable() {
            let rule = match self {
                Self::Engine(rule, _) => {
                    bytes += rule.method().moments().len() * size_of::<f32>() * of.parameter.elem_count();
                    continue;
                }
                Self::Plugin(rule, _) => rule,
            };
            for spec in rule.states(of.parameter.name(), of.parameter.dims())? {
                let size = match spec.elements {
                    Elements::F32 => size_of::<f32>(),
                    Elements::U8 => 1,
                };
                bytes += size * spec.shape.iter().product::<usize>();
            }
        }
        Ok(bytes)
    }

    /// Updates a parameter in place by its gradient, dense and of its shape.
    pub fn step(&mut self, parameter: &Parameter, gradient: &Tensor, settings: &StepSettings) -> Result<()> {
        match self {
            Self::Engine(rule, _) => Ok(rule.step(parameter, gradient, settings)?),
            Self::Plugin(rule, _) => rule.step(parameter, gradient, settings),
        }
    }

    /// All state, to be saved.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        match self {
            Self::Engine(rule, _) => Ok(rule.state()?),
            Self::Plugin(rule, _) => rule.state(),
        }
    }

    /// Replaces all state by what [`state`](Self::state) gave, of a model with these parameters.
    pub fn load(&mut self, state: &BTreeMap<String, Tensor>, model: &AdaptedModel) -> Result<()> {
        match self {
            Self::Engine(rule, _) => Ok(rule.load(state)?),
            Self::Plugin(rule, _) => {
                let of = |name: &str| model.parameters.iter().find(|of| of.parameter.name() == name);
                rule.load(state, &|name| Some(of(name)?.parameter.dims().to_vec()), &model.device)
            }
        }
    }
}

#[cfg(test)]
impl Default for Optimizer {
    /// AdamW, as torch has it.
    fn default() -> Self {
        Self::Engine(optim::Optimizer::new(optim::Method::ADAMW), 0.9)
    }
}
