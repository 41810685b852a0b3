//! What a call may reach.

use std::sync::Arc;

use fthost_autograd::Tape;

use crate::adapted::AdaptedModel;
use crate::handles::RunHandles;
use crate::plugin::ExampleGradients;

/// What a call may reach.
#[derive(Default)]
pub(in crate::plugin) struct Scope<'a> {
    /// Where ops record; one that records nothing where there is none.
    pub(in crate::plugin) tape: Option<&'a Tape>,
    /// The run's parameters and device.
    pub(in crate::plugin) run: Option<&'a Arc<RunHandles>>,
    /// The model, in `attach` and events.
    pub(in crate::plugin) model: Option<&'a mut AdaptedModel>,
    /// Who measures gradients of single examples, in events.
    pub(in crate::plugin) gradients: Option<&'a mut dyn ExampleGradients>,
    /// What the call may declare.
    pub(in crate::plugin) declares: Declares,
}

/// What a call may add to the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::plugin) enum Declares {
    /// Nothing: it is no `attach`.
    #[default]
    Nothing,
    /// Hooks and parameters of the strategy at this place of the run file.
    Strategy(usize),
    /// Parameters of the head of this task; their names begin with the prefix.
    Head { task: usize, prefix: String },
}
