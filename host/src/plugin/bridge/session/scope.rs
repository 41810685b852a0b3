//! What a call may reach.

use std::sync::Arc;

use fthost_autograd::Tape;
use fthost_models::ModelInfo;

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
    /// What the call sees of the model and may declare.
    pub(in crate::plugin) view: View,
}

/// What a call sees of the model, and what it may add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::plugin) struct View {
    /// What it may add.
    pub(in crate::plugin) declares: Declares,
    /// The stream that it sees as if the model had no other, and no heads; `None` where it sees everything.
    pub(in crate::plugin) stream: Option<usize>,
}

impl View {
    /// Whether it sees what is part of this stream, or of none.
    pub(in crate::plugin) fn sees(&self, stream: Option<usize>) -> bool {
        self.stream.is_none_or(|own| stream == Some(own))
    }

    /// The number of a block group among those that it sees, the heads' as the last one.
    pub(in crate::plugin) fn group(&self, info: &ModelInfo, group: usize) -> usize {
        match self.stream {
            None => group,
            Some(_) => info.groups[..group].iter().filter(|below| self.sees(below.stream)).count(),
        }
    }
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
