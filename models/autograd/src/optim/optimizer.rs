//! AdamW, Adam and SGD, as torch defines them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use super::copy_in_place;
use crate::{Parameter, slices};

/// An update rule, with what stays fixed during a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    AdamW {
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the bias-corrected second moment.
        eps: f64,
    },
    /// Adam (Kingma and Ba 2015), whose weight decay is an L2 penalty: it is added to the gradient.
    Adam {
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the bias-corrected second moment.
        eps: f64,
    },
    /// Stochastic gradient descent with momentum (dampening 0) and an L2 penalty.
    Sgd {
        /// Nesterov's look-ahead.
        nesterov: bool,
    },
}

impl Method {
    /// AdamW with torch's beta2 0.999 and eps 1e-8.
    pub const ADAMW: Self = Self::AdamW { beta2: 0.999, eps: 1e-8 };
    /// Adam with torch's beta2 0.999 and eps 1e-8.
    pub const ADAM: Self = Self::Adam { beta2: 0.999, eps: 1e-8 };

    /// The names of the tensors that it keeps for each parameter; torch's.
    pub fn moments(self) -> &'static [&'static str] {
        match self {
            Self::AdamW { .. } | Self::Adam { .. } => &["exp_avg", "exp_avg_sq"],
            Self::Sgd { .. } => &["momentum_buffer"],
        }
    }
}

/// What may differ from step to step and from parameter to parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepSettings {
    /// Learning rate.
    pub lr: f64,
    /// SGD's momentum, Adam's and AdamW's beta1.
    pub momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

/// An update rule and its state: for each parameter, by name, the moments and the number of steps that it has taken. A layer
/// that thaws late so starts as torch's does.
#[derive(Debug)]
pub struct Optimizer {
    method: Method,
    slots: BTreeMap<String, Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    /// The parameter, once it has been seen.
    id: Option<u64>,
    step: u64,
    /// As many as the method has moments, each of the parameter's shape; none before the first step.
    moments: Vec<Moment>,
}

/// Slices on the CPU, so that one pass can write all of them; tensors elsewhere.
#[derive(Debug)]
enum Moment {
    Host(Vec<f32>, Vec<usize>),
    Device(Tensor),
}

impl Moment {
    fn to_tensor(&self) -> Result<Tensor> {
        match self {
            Self::Host(values, shape) => Tensor::from_slice(values, shape.as_slice(), &Device::Cpu),
            Self::Device(tensor) => tensor.copy(),
        }
    }
}

impl Optimizer {
    /// An optimizer that has taken no step.
    pub fn new(method: Method) -> Self {
        Self { method, slots: BTreeMap::new() }
    }

    /// The update rule.
    pub fn method(&self) -> Method {
        self.method
    }

    /// How many steps the parameter of this name has taken.
    pub fn steps(&self, name: &str) -> u64 {
        self.slots.get(name).map_or(0, |slot| slot.step)
    }

    /// Updates `parameter` in place by its `gradient`, dense and of its shape.
    ///
    /// Errors where shapes differ, or where another parameter of this name was stepped before.
    pub fn step(&mut self, parameter: &Parameter, gradient: &Tensor, settings: &StepSettings) -> Result<()> {
        let tensor = &parameter.held();
        if gradient.dims() != tensor.dims() {
            candle_core::bail!(
                "parameter {} has shape {:?}, its gradient {:?}",
                parameter.name(),
                tensor.dims(),
                gradient.dims()
            );
        }
        let gradient = gradient.to_dtype(tensor.dtype())?.contiguous()?;
        let slot = match self.slots.entry(parameter.name().to_owned()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Slot::default()),
        };
        if *slot.id.get_or_insert(parameter.id()) != parameter.id() {
            candle_core::bail!("two parameters are named {}; an optimizer tells them apart by name", parameter.name());
        }
        slot.prepare(self.method, tensor)?;
        slot.step += 1;
        let rule = Rule::new(self.method, slot.step, settings);
        match slot.moments.as_mut_slice() {
            [Moment::Host(m, _), Moment::Host(v, _)] => {
                slices::update(tensor, &gradient, |p, g| rule.adam_slices(p, g, m, v))?;
            }
            [Moment::Host(buffer, _)] => {
                slices::update(tensor, &gradient, |p, g| rule.sgd_slices(p, g, buffer))?;
            }
            [Moment::Device(m), Moment::Device(v)] => rule.adam_tensors(tensor, &gradient, m, v)?,
            [Moment::Device(buffer)] => rule.sgd_tensors(tensor, &gradient, buffer)?,
            _ => candle_core::bail!("the optimizer state of {} belongs to another method", parameter.name()),
        }
        parameter.mark_changed();
        Ok(())
    }

    /// All state, to be saved: `{parameter}.{moment}` in the parameter's shape (`exp_avg`, `exp_avg_sq`, `momentum_buffer`)
    /// and `{parameter}.step`, a scalar `i64`.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for (name, slot) in &self.slots {
            state.insert(format!("{name}.step"), Tensor::new(slot.step as i64, &Device::Cpu)?);
            for (moment, kind) in slot.moments.iter().zip(self.method.moments()) {
                state.insert(format!("{name}.{kind}"), moment.to_tensor()?);
            }
        }
        Ok(state)
    }

    /// Replaces all state by what [`state`](Self::state) gave. Errors where it was another method's; nothing has changed then.
    pub fn load(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let mut slots = BTreeMap::new();
        for (key, step) in state {
            let Some(name) = key.strip_suffix(".step") else {
                let known = self.method.moments().iter().any(|kind| key.ends_with(&format!(".{kind}")));
                if !known {
                    candle_core::bail!("optimizer state {key} is none of {:?}'s; start afresh without it", self.method);
                }
                continue;
            };
            let step = step.reshape(())?.to_dtype(DType::I64)?.to_scalar::<i64>()? as u64;
            let mut moments = Vec::new();
            for kind in self.method.moments() {
                let Some(tensor) = state.get(&format!("{name}.{kind}")) else {
                    candle_core::bail!("optimizer state {name}.{kind} is missing; start afresh without the others");
                };
                moments.push(Moment::Device(tensor.copy()?));
            }
            slots.insert(name.to_owned(), Slot { id: None, step, moments });
        }
        self.slots = slots;
        Ok(())
    }
}

impl Slot {
    /// Makes the moments, or brings loaded ones to where the parameter lives.
    fn prepare(&mut self, method: Method, parameter: &Tensor) -> Result<()> {
        let host = slices::is_f32_slice(parameter);
        if self.moments.is_empty() {
            for _ in method.moments() {
                self.moments.push(match host {
                    true => Moment::Host(vec![0.0; parameter.elem_count()], parameter.dims().to_vec()),
                    false => Moment::Device(parameter.zeros_like()?),
                });
            }
        }
        for moment in &mut self.moments {
            let Moment::Device(tensor) = moment else { continue };
            if tensor.dims() != parameter.dims() {
                candle_core::bail!(
                    "the optimizer's state has shape {:?}, the parameter {:?}",
                    tensor.dims(),
                    parameter.dims()
                );
            }
            let tensor = tensor.to_device(parameter.device())?.to_dtype(parameter.dtype())?.contiguous()?;
            *moment = match host {
                true => Moment::Host(tensor.flatten_all()?.to_vec1()?, tensor.dims().to_vec()),
                false => Moment::Device(tensor),
            };
        }
        Ok(())
    }
}

/// The numbers of one step.
struct Rule {
    /// Multiplies the parameter first.
    shrink: f64,
    /// The penalty that is added to the gradient.
    l2: f64,
    /// Adam's beta1, SGD's momentum.
    momentum: f64,
    beta2: f64,
    eps: f64,
    /// Learning rate; Adam's over the bias correction of the first moment.
    rate: f64,
    /// One over the root of the bias correction of the second moment.
    root: f64,
    nesterov: bool,
    /// SGD's buffer starts as the gradient.
    first: bool,
}

impl Rule {
    fn new(method: Method, step: u64, settings: &StepSettings) -> Self {
        let StepSettings { lr, momentum, weight_decay } = *settings;
        let plain = Self {
            shrink: 1.0,
            l2: weight_decay,
            momentum,
            beta2: 0.0,
            eps: 0.0,
            rate: lr,
            root: 1.0,
            nesterov: false,
            first: step == 1,
        };
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        let adam = |beta2, eps| Self {
            beta2,
            eps,
            rate: lr / correction(momentum),
            root: 1.0 / correction(beta2).sqrt(),
            ..plain
        };
        match method {
            Method::AdamW { beta2, eps } => Self { shrink: 1.0 - lr * weight_decay, l2: 0.0, ..adam(beta2, eps) },
            Method::Adam { beta2, eps } => adam(beta2, eps),
            Method::Sgd { nesterov } => Self { nesterov, ..plain },
        }
    }

    fn adam_slices(&self, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        let [shrink, l2, beta1, beta2, eps, rate, root] =
            [self.shrink, self.l2, self.momentum, self.beta2, self.eps, self.rate, self.root].map(|x| x as f32);
        // 1 - beta is taken before rounding: in f32, 1 - 0.999 is off by 1e-5 of itself.
        let [rest1, rest2] = [1.0 - self.momentum, 1.0 - self.beta2].map(|x| x as f32);
        let update = |p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]| {
            for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
                let g = g + l2 * *p;
                *m = beta1 * *m + rest1 * g;
                *v = beta2 * *v + rest2 * g * g;
                *p = *p * shrink - rate * *m / (v.sqrt() * root + eps);
            }
        };
        const CHUNK: usize = slices::CHUNK;
        if p.len() <= CHUNK {
            update(p, g, m, v);
        } else {
            let chunks = p.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK));
            chunks
                .zip(m.par_chunks_mut(CHUNK))
                .zip(v.par_chunks_mut(CHUNK))
                .for_each(|(((p, g), m), v)| update(p, g, m, v));
        }
    }

    fn sgd_slices(&self, p: &mut [f32], g: &[f32], buffer: &mut [f32]) {
        let [l2, momentum, rate] = [self.l2, self.momentum, self.rate].map(|x| x as f32);
        let kept = if self.first { 0.0 } else { momentum };
        let nesterov = self.nesterov;
        let update = |p: &mut [f32], g: &[f32], buffer: &mut [f32]| {
            for ((p, g), buffer) in p.iter_mut().zip(g).zip(buffer) {
                let g = g + l2 * *p;
                *buffer = kept * *buffer + g;
                *p -= rate * if nesterov { g + momentum * *buffer } else { *buffer };
            }
        };
        const CHUNK: usize = slices::CHUNK;
        if p.len() <= CHUNK {
            update(p, g, buffer);
        } else {
            p.par_chunks_mut(CHUNK)
                .zip(g.par_chunks(CHUNK))
                .zip(buffer.par_chunks_mut(CHUNK))
                .for_each(|((p, g), buffer)| update(p, g, buffer));
        }
    }

    fn penalised(&self, p: &Tensor, g: &Tensor) -> Result<Tensor> {
        if self.l2 == 0.0 { Ok(g.clone()) } else { g + p.affine(self.l2, 0.0)? }
    }

    fn adam_tensors(&self, p: &Tensor, g: &Tensor, m: &mut Tensor, v: &mut Tensor) -> Result<()> {
        let g = self.penalised(p, g)?;
        *m = (m.affine(self.momentum, 0.0)? + g.affine(1.0 - self.momentum, 0.0)?)?;
        *v = (v.affine(self.beta2, 0.0)? + g.sqr()?.affine(1.0 - self.beta2, 0.0)?)?;
        let step = (m.affine(self.rate, 0.0)? / v.sqrt()?.affine(self.root, self.eps)?)?;
        copy_in_place(p, &(p.affine(self.shrink, 0.0)? - step)?)
    }

    fn sgd_tensors(&self, p: &Tensor, g: &Tensor, buffer: &mut Tensor) -> Result<()> {
        let g = self.penalised(p, g)?;
        *buffer = if self.first { g.copy()? } else { (buffer.affine(self.momentum, 0.0)? + &g)? };
        let direction = if self.nesterov { (g + buffer.affine(self.momentum, 0.0)?)? } else { buffer.clone() };
        copy_in_place(p, &(p - direction.affine(self.rate, 0.0)?)?)
    }
}
