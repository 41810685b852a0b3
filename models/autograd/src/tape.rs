//! The tape: what a forward pass leaves for its backward pass.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::{Result, Tensor};

use crate::gradients::Sum;
use crate::{Gradient, Gradients, Layout, NodeId, Observation, Parameter, Precision, Value};

/// Where a training pass draws its dropout masks from. Numbers are counted per example, so that masks depend neither on the
/// split into micro-batches nor on the number of threads.
#[derive(Clone, Debug)]
pub struct Dropout {
    /// The run's seed.
    pub seed: u64,
    /// The optimizer step (and whatever else tells one pass of an example from the next).
    pub step: u64,
    /// A number for each sequence of the micro-batch, unique within the step: its place in the whole batch.
    pub examples: Vec<u64>,
}

/// How a tape computes.
#[derive(Clone, Debug, Default)]
pub struct TapeOptions {
    /// Float type of matrix products.
    pub precision: Precision,
    /// `Some` in training with dropout; `None` leaves dropout out.
    pub dropout: Option<Dropout>,
    /// `false` records nothing (evaluation).
    pub recording: bool,
    /// Split big matrix products and sums over the threads of the pool. Off where micro-batches already fill the cores. The bits
    /// are the same either way.
    pub parallel_ops: bool,
    /// Whether blocks of layers keep nothing but what they begin with, and are [made once more](Tape::recomputed) in the backward pass.
    pub recompute: bool,
}

type Backward = Box<dyn FnOnce(Tensor, &mut Vjp<'_>) -> Result<()> + Send>;

struct Node {
    inputs: Vec<Option<NodeId>>,
    backward: Option<Backward>,
    parameter: Option<Parameter>,
}

/// One forward pass of one micro-batch, on one thread; another may go on with it, or take it back.
pub struct Tape {
    options: TapeOptions,
    nodes: RefCell<Vec<Node>>,
    parameters: RefCell<HashMap<u64, NodeId>>,
    layout: RefCell<Option<Layout>>,
    dropouts: RefCell<Vec<f64>>,
    observations: RefCell<Vec<Observation>>,
    /// What trains and was asked for on a tape that records nothing, in that order.
    met: RefCell<Vec<Parameter>>,
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tape({} nodes)", self.nodes.borrow().len())
    }
}

impl Tape {
    /// An empty tape.
    pub fn new(options: TapeOptions) -> Self {
        Self {
            options,
            nodes: RefCell::default(),
            parameters: RefCell::default(),
            layout: RefCell::default(),
            dropouts: RefCell::default(),
            observations: RefCell::default(),
            met: RefCell::default(),
        }
    }

    /// A tape on which a pass goes on that had this layout and these dropout ops.
    pub(crate) fn going_on(options: TapeOptions, layout: Option<Layout>, dropouts: Vec<f64>) -> Self {
        Self { layout: RefCell::new(layout), dropouts: RefCell::new(dropouts), ..Self::new(options) }
    }

    /// Goes on where a part of the pass has ended, on another tape.
    pub(crate) fn go_on_after(&self, part: &Self) {
        self.layout.replace(part.layout());
        self.dropouts.replace(part.dropouts());
        part.observations.take().into_iter().for_each(|observation| self.observe(observation));
    }

    /// What trains and was asked for, where nothing was recorded.
    pub fn met(&self) -> Vec<Parameter> {
        self.met.borrow().clone()
    }

    /// A tape that records and drops nothing out.
    pub fn recording() -> Self {
        Self::new(TapeOptions { recording: true, ..TapeOptions::default() })
    }

    /// A tape that records nothing.
    pub fn evaluation() -> Self {
        Self::new(TapeOptions::default())
    }

    /// How it computes.
    pub fn options(&self) -> &TapeOptions {
        &self.options
    }

    /// The layout of the rows that pass through now; dropout counts its numbers by it.
    pub fn layout(&self) -> Option<Layout> {
        self.layout.borrow().clone()
    }

    /// Sets the layout of the rows that pass through from now on.
    pub fn set_layout(&self, layout: Layout) {
        self.layout.replace(Some(layout));
    }

    /// A number for the next dropout op of this pass: 0, 1, 2, ... `p` is its probability.
    pub(crate) fn next_dropout(&self, p: f64) -> u64 {
        let mut dropouts = self.dropouts.borrow_mut();
        dropouts.push(p);
        dropouts.len() as u64 - 1
    }

    /// The probabilities of this pass's dropout ops, in order; none where the options have no dropout.
    pub fn dropouts(&self) -> Vec<f64> {
        self.dropouts.borrow().clone()
    }

    /// Sets the dropout ops of a pass that other tapes have begun: the next one's number follows from how many they are.
    pub fn set_dropouts(&self, dropouts: Vec<f64>) {
        self.dropouts.replace(dropouts);
    }

    /// Keeps what running statistics have to be told of this pass's batch, for [`Gradients::settle`]. Of several passes over one batch
    /// the first counts.
    pub fn observe(&self, observation: Observation) {
        let mut known = self.observations.borrow_mut();
        if known.iter().all(|of| of.mean.id() != observation.mean.id()) {
            known.push(observation);
        }
    }

    /// The value of a parameter: a leaf where it trains, a constant where it is frozen.
    pub fn parameter(&self, parameter: &Parameter) -> Value {
        if !parameter.trainable() {
            return Value::of_parameter(parameter, None);
        }
        if !self.options.recording {
            let mut met = self.met.borrow_mut();
            if met.iter().all(|known| known.id() != parameter.id()) {
                met.push(parameter.clone());
            }
            return Value::of_parameter(parameter, None);
        }
        parameter.held(); // what trains is no longer at rest
        let mut known = self.parameters.borrow_mut();
        let node = *known.entry(parameter.id()).or_insert_with(|| {
            self.push(Node { inputs: Vec::new(), backward: None, parameter: Some(parameter.clone()) })
        });
        Value::of_parameter(parameter, Some(node))
    }

    /// A leaf that is no parameter: its gradient is found by [`Gradients::of`].
    pub fn variable(&self, tensor: Tensor) -> Value {
        let node = self.push(Node { inputs: Vec::new(), backward: None, parameter: None });
        Value::recorded(tensor, node)
    }

    /// Records an op's result. `backward` gets the result's gradient by move and gives each input that wants one its own.
    /// Where no input requires a gradient, `backward` is dropped at once, and what it saved with it.
    pub fn record(
        &self,
        output: Tensor,
        inputs: &[&Value],
        backward: impl FnOnce(Tensor, &mut Vjp<'_>) -> Result<()> + Send + 'static,
    ) -> Value {
        if !self.options.recording || !inputs.iter().any(|input| input.requires_grad()) {
            return Value::constant(output);
        }
        let node = self.push(Node {
            inputs: inputs.iter().map(|input| input.node()).collect(),
            backward: Some(Box::new(backward)),
            parameter: None,
        });
        Value::recorded(output, node)
    }

    fn push(&self, node: Node) -> NodeId {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(node);
        NodeId(nodes.len() - 1)
    }

    /// Gradients of a scalar. Consumes the tape.
    pub fn backward(self, loss: &Value) -> Result<Gradients> {
        let seed = loss.tensor().ones_like()?;
        self.backward_from(vec![(loss.clone(), seed)])
    }

    /// Gradients of several values, each with the gradient that reaches it from outside. Consumes the tape.
    pub fn backward_from(self, seeds: Vec<(Value, Tensor)>) -> Result<Gradients> {
        self.backward_onto(seeds, HashMap::new())
    }

    /// [`backward_from`](Self::backward_from), where parameters have these sums to begin with, by their ids.
    pub(crate) fn backward_onto(self, seeds: Vec<(Value, Tensor)>, mut sums: HashMap<u64, Sum>) -> Result<Gradients> {
        let parallel = self.options.parallel_ops;
        let nodes = self.nodes.into_inner();
        let begun = |node: &Node| sums.remove(&node.parameter.as_ref()?.id());
        let mut slots: Vec<Option<Sum>> = nodes.iter().map(begun).collect();
        for (value, gradient) in seeds {
            if let Some(NodeId(i)) = value.node() {
                add_to(&mut slots[i], Sum::dense(gradient), parallel)?;
            }
        }
        let mut gradients = Gradients::observing(self.observations.into_inner());
        // Nodes were pushed after their inputs, so the reverse order is topological. Popping frees what a node saved.
        for (i, node) in nodes.into_iter().enumerate().rev() {
            let Some(sum) = slots[i].take() else { continue };
            if let Some(parameter) = node.parameter {
                gradients.insert_parameter(parameter, sum);
                continue;
            }
            let tensor = sum.into_dense()?;
            match node.backward {
                Some(backward) => {
                    backward(tensor, &mut Vjp { inputs: &node.inputs, slots: &mut slots, parallel })?;
                }
                None => gradients.insert_variable(NodeId(i), tensor),
            }
        }
        Ok(gradients)
    }
}

/// Hands an op's input gradients on.
pub struct Vjp<'a> {
    inputs: &'a [Option<NodeId>],
    slots: &'a mut [Option<Sum>],
    parallel: bool,
}

impl Vjp<'_> {
    /// Whether input `i` needs a gradient; skip the work where it does not.
    pub fn wants(&self, i: usize) -> bool {
        self.inputs.get(i).is_some_and(Option::is_some)
    }

    /// Gives input `i` its gradient. Adds to what other uses of the input gave. Does nothing where it wants none.
    pub fn give(&mut self, i: usize, gradient: Tensor) -> Result<()> {
        self.put(i, Sum::dense(gradient))
    }

    /// Gives input `i`, an embedding table of `shape`, the gradients of some rows: `ids` `[n]` `u32`, `rows` `[n, width]`.
    pub fn give_rows(&mut self, i: usize, ids: Tensor, rows: Tensor, shape: &[usize]) -> Result<()> {
        self.put(i, Sum::new(Gradient::Rows(vec![(ids, rows)]), shape))
    }

    /// What other uses of input `i` have given so far, to be [`put`](Self::put) back with more.
    pub(crate) fn take(&mut self, i: usize) -> Option<Sum> {
        let NodeId(slot) = (*self.inputs.get(i)?)?;
        self.slots[slot].take()
    }

    pub(crate) fn put(&mut self, i: usize, gradient: Sum) -> Result<()> {
        match self.inputs.get(i) {
            Some(Some(NodeId(slot))) => add_to(&mut self.slots[*slot], gradient, self.parallel),
            _ => Ok(()),
        }
    }
}

/// Adds a gradient to what there is.
pub(crate) fn add_to(slot: &mut Option<Sum>, gradient: Sum, parallel: bool) -> Result<()> {
    *slot = Some(match slot.take() {
        Some(mine) => mine.add(gradient, parallel)?,
        None => gradient,
    });
    Ok(())
}
