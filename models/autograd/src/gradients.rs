//! What a backward pass gives.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Result, Tensor};

use crate::{NodeId, Observation, Parameter, Value, optim, slices};

/// The gradient of one parameter or value.
#[derive(Clone, Debug)]
pub enum Gradient {
    /// The parameter's shape.
    Dense(Tensor),
    /// Only some rows of an embedding table: `(ids [n] u32, rows [n, width])` pieces. Ids may repeat.
    Rows(Vec<(Tensor, Tensor)>),
}

impl Gradient {
    /// As a tensor of the parameter's shape.
    pub fn to_dense(&self, shape: &[usize]) -> Result<Tensor> {
        match self {
            Self::Dense(tensor) => Ok(tensor.clone()),
            Self::Rows(pieces) => {
                let Some((_, first)) = pieces.first() else { candle_core::bail!("a row gradient without rows") };
                let dense = Tensor::zeros(shape, first.dtype(), first.device())?;
                for (ids, rows) in pieces {
                    optim::add_rows_in_place(&dense, ids, rows)?;
                }
                Ok(dense)
            }
        }
    }
}

/// A gradient that grows. A tensor cannot say whether something else holds it too (an op's saved tensor, another input's
/// gradient), so the first addition makes a new one, and only what was made here is added to in place.
#[derive(Debug)]
pub(crate) struct Sum {
    gradient: Gradient,
    /// Of the parameter or value.
    shape: Vec<usize>,
    owned: bool,
}

impl Sum {
    pub(crate) fn new(gradient: Gradient, shape: &[usize]) -> Self {
        Self { gradient, shape: shape.to_vec(), owned: false }
    }

    pub(crate) fn dense(gradient: Tensor) -> Self {
        let shape = gradient.dims().to_vec();
        Self { gradient: Gradient::Dense(gradient), shape, owned: false }
    }

    fn owned(self, tensor: Tensor) -> Self {
        Self { gradient: Gradient::Dense(tensor), shape: self.shape, owned: true }
    }

    pub(crate) fn into_dense(self) -> Result<Tensor> {
        self.gradient.to_dense(&self.shape)
    }

    /// The sum of both; a large one by all threads of the pool where `parallel` says so. The bits are the same either way.
    pub(crate) fn add(mut self, other: Self, parallel: bool) -> Result<Self> {
        match (&mut self.gradient, other.gradient) {
            (Gradient::Dense(mine), Gradient::Dense(theirs)) => {
                let sum = match (self.owned, other.owned) {
                    (true, _) => optim::add_reusing(mine.clone(), &theirs, parallel)?,
                    (false, true) => optim::add_reusing(theirs, mine, parallel)?,
                    (false, false) => optim::sum(mine, &theirs, parallel)?,
                };
                Ok(self.owned(sum))
            }
            (Gradient::Rows(mine), Gradient::Rows(theirs)) => {
                mine.extend(theirs);
                Ok(self)
            }
            (Gradient::Dense(dense), Gradient::Rows(pieces)) => {
                let dense = if self.owned { dense.clone() } else { dense.force_contiguous()? };
                for (ids, rows) in &pieces {
                    optim::add_rows_in_place(&dense, ids, rows)?;
                }
                Ok(self.owned(dense))
            }
            (Gradient::Rows(_), dense @ Gradient::Dense(_)) => Self { gradient: dense, ..other }.add(self, parallel),
        }
    }

    /// Replaces every tensor of numbers by `f` of it: in place (`true`) only where it is owned.
    fn update(&mut self, f: impl Fn(&Tensor, bool) -> Result<Tensor>) -> Result<()> {
        match &mut self.gradient {
            Gradient::Dense(tensor) => {
                *tensor = f(tensor, self.owned)?;
                self.owned = true;
            }
            Gradient::Rows(pieces) => {
                for (_, rows) in pieces {
                    *rows = f(rows, false)?;
                }
            }
        }
        Ok(())
    }

    fn densify(&mut self) -> Result<()> {
        if let Gradient::Rows(_) = self.gradient {
            self.gradient = Gradient::Dense(self.gradient.to_dense(&self.shape)?);
            self.owned = true;
        }
        Ok(())
    }
}

/// Gradients of the trainable parameters that a backward pass reached, in the order of their creation, and of the free
/// variables of the tape.
#[derive(Debug, Default)]
pub struct Gradients {
    parameters: BTreeMap<u64, (Parameter, Sum)>,
    variables: HashMap<NodeId, Tensor>,
    observations: Vec<Observation>,
}

impl Gradients {
    /// None yet, of a pass that saw this.
    pub(crate) fn observing(observations: Vec<Observation>) -> Self {
        Self { observations, ..Self::default() }
    }

    /// Tells running statistics what the batches held, in their order: once for each step.
    pub fn settle(&mut self) -> Result<()> {
        self.observations.drain(..).try_for_each(|observation| observation.settle())
    }

    pub(crate) fn insert_parameter(&mut self, parameter: Parameter, gradient: Sum) {
        self.parameters.insert(parameter.id(), (parameter, gradient));
    }

    pub(crate) fn insert_variable(&mut self, node: NodeId, gradient: Tensor) {
        self.variables.insert(node, gradient);
    }

    /// The gradient of a parameter, `None` where the pass did not reach it.
    pub fn get(&self, parameter: &Parameter) -> Option<&Gradient> {
        self.parameters.get(&parameter.id()).map(|(_, sum)| &sum.gradient)
    }

    /// The gradient of a variable made by [`Tape::variable`](crate::Tape::variable).
    pub fn of(&self, variable: &Value) -> Option<&Tensor> {
        self.variables.get(&variable.node()?)
    }

    /// Takes the gradient of a parameter out.
    pub(crate) fn take(&mut self, parameter: &Parameter) -> Option<Sum> {
        self.parameters.remove(&parameter.id()).map(|(_, sum)| sum)
    }

    /// Takes the gradient of a variable out.
    pub(crate) fn take_variable(&mut self, variable: &Value) -> Option<Tensor> {
        self.variables.remove(&variable.node()?)
    }

    /// All parameters' gradients, in the order in which the parameters were made.
    pub fn iter(&self) -> impl Iterator<Item = (&Parameter, &Gradient)> {
        self.parameters.values().map(|(parameter, sum)| (parameter, &sum.gradient))
    }

    /// Number of parameters with a gradient.
    pub fn len(&self) -> usize {
        self.parameters.len()
    }

    /// Whether no parameter was reached.
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }

    /// Adds another pass's gradients. The order of calls decides the last bits, so callers keep it fixed.
    ///
    /// Sums grow in place: a tensor that was cloned out of these gradients before the call may change. `parallel` splits large ones over
    /// the threads of the pool, with the same bits; a thread of the pool may meanwhile begin any other work of it, so one that is at
    /// a part of such work itself sums alone.
    pub fn accumulate(&mut self, other: Self, parallel: bool) -> Result<()> {
        for (id, (parameter, gradient)) in other.parameters {
            let sum = match self.parameters.remove(&id) {
                Some((_, mine)) => mine.add(gradient, parallel)?,
                None => gradient,
            };
            self.parameters.insert(id, (parameter, sum));
        }
        self.observations.extend(other.observations);
        Ok(())
    }

    /// Adds `gradient`, of the parameter's shape, to the parameter's own: a penalty's part, for one.
    pub fn add(&mut self, parameter: &Parameter, gradient: Tensor) -> Result<()> {
        let mut other = Self::default();
        other.insert_parameter(parameter.clone(), Sum::dense(gradient));
        self.accumulate(other, true)
    }

    /// Makes every gradient dense, so that it can be scaled and measured.
    pub fn densify(&mut self) -> Result<()> {
        self.parameters.values_mut().try_for_each(|(_, sum)| sum.densify())
    }

    /// Multiplies every gradient.
    pub fn scale(&mut self, factor: f64) -> Result<()> {
        if factor == 1.0 {
            return Ok(());
        }
        self.update(|tensor, owned| {
            let scale = |x: &mut [f32]| slices::each_chunk(x, |x| x.iter_mut().for_each(|x| *x *= factor as f32));
            if owned && slices::write(tensor, scale)? { Ok(tensor.clone()) } else { tensor.affine(factor, 0.0) }
        })
    }

    /// Replaces every tensor of numbers by `f` of it. `f` may work in place where its second argument says so.
    pub(crate) fn update(&mut self, f: impl Fn(&Tensor, bool) -> Result<Tensor>) -> Result<()> {
        self.parameters.values_mut().try_for_each(|(_, sum)| sum.update(&f))
    }

    /// The global L2 norm, as torch's `clip_grad_norm_` takes it. Call [`densify`](Self::densify) first where rows repeat.
    pub fn norm(&self) -> Result<f64> {
        let square = |tensor: &Tensor| match slices::sum_of_squares(tensor) {
            Some(sum) => Ok(sum),
            None => tensor.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>(),
        };
        let mut sum = 0.0;
        for (_, gradient) in self.iter() {
            match gradient {
                Gradient::Dense(tensor) => sum += square(tensor)?,
                Gradient::Rows(pieces) => {
                    for (_, rows) in pieces {
                        sum += square(rows)?;
                    }
                }
            }
        }
        Ok(sum.sqrt())
    }
}
