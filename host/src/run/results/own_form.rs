//! fthost's own form of an adapter or of heads that no other tool computes: beside the tensors a file that says what made them, so that the
//! folder opens again as the run did.

use std::collections::BTreeMap;
use std::path::Path;

use fthost_autograd::Tensor;
use serde::{Deserialize, Serialize};

use super::keys::{Keys, TUNED, WRAPPED};
use super::plain::Trained;
use crate::Result;
use crate::adapted::{AdaptedModel, Owner};
use crate::plugin::{State, Stateful};
use crate::run::pass::Decision;
use crate::run::state::folder::write_json;
use crate::run::state::snapshot::{head_place, strategy_place};

/// The file.
pub const FILE: &str = "fthost.json";
/// The form of the file. A host reads those of its own form.
pub const FORM: u32 = 1;
/// What the names of tensors begin with that are part of a plugin's state.
const STATE: &str = "state/";

/// What a folder is opened with again.
#[derive(Debug, Serialize, Deserialize)]
pub struct OwnForm {
    /// [`FORM`].
    pub form: u32,
    /// The resolved run file, as TOML.
    pub run_file: String,
    /// The files of the plugins that it was trained with.
    pub plugins: Vec<String>,
    /// Whether the folder is the whole model, in which nothing of the strategies is left.
    pub whole: bool,
    /// What its heads were made for, by the task.
    pub tasks: BTreeMap<String, OwnTask>,
    /// What plugins know beyond parameters, by the instance's place.
    states: BTreeMap<String, serde_json::Value>,
}

/// A task.
#[derive(Debug, Serialize, Deserialize)]
pub struct OwnTask {
    /// Class names in index order.
    pub labels: Vec<String>,
    /// Training examples of each.
    pub class_counts: Vec<u64>,
    /// Training examples.
    pub examples: u64,
    /// How classes follow from probabilities.
    pub decision: Decision,
}

/// What made a model.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The resolved run file, as TOML.
    pub run_file: String,
    /// The files of its plugins.
    pub plugins: Vec<String>,
}

impl Origin {
    /// Writes the file. `strategies` are the states of those that the folder needs; none where it is a whole model. Gives the tensors that
    /// go with it, by the names that they are to have.
    ///
    /// # Errors
    /// Where a head's state cannot be had, or the file not be written.
    pub fn write(
        &self,
        folder: &Path,
        tasks: &[Trained<'_>],
        strategies: Option<&[State]>,
    ) -> Result<Vec<(String, Tensor)>> {
        let (mut states, mut tensors) = (BTreeMap::new(), Vec::new());
        let mut keep = |place: String, state: &State| {
            let named = |(name, tensor): (&String, &Tensor)| (format!("{STATE}{place}/{name}"), tensor.clone());
            tensors.extend(state.tensors.iter().map(named));
            states.insert(place, state.json.clone());
        };
        for (i, state) in strategies.into_iter().flatten().enumerate() {
            keep(strategy_place(i), state);
        }
        for task in tasks {
            keep(head_place(task.name), &task.head.state()?);
        }
        let of = |task: &Trained<'_>| {
            let (class_counts, examples) = task.counts.clone();
            let (labels, decision) = (task.labels.to_vec(), task.decision.clone());
            (task.name.to_owned(), OwnTask { labels, class_counts, examples, decision })
        };
        let form = OwnForm {
            form: FORM,
            run_file: self.run_file.clone(),
            plugins: self.plugins.clone(),
            whole: strategies.is_none(),
            tasks: tasks.iter().map(of).collect(),
            states,
        };
        write_json(&folder.join(FILE), &form)?;
        Ok(tensors)
    }
}

impl OwnForm {
    /// Gives a plugin its state back. `tensor` reads one by its name, of those that `names` lists.
    ///
    /// # Errors
    /// Where a tensor cannot be read, or the plugin does not take it.
    pub fn restore<'a>(
        &self,
        place: &str,
        plugin: &mut dyn Stateful,
        names: impl Iterator<Item = &'a str>,
        tensor: impl Fn(&str) -> Result<Tensor>,
    ) -> Result<()> {
        let root = format!("{STATE}{place}/");
        let own = names.filter_map(|name| Some((name.strip_prefix(&root)?.to_owned(), tensor(name))));
        let tensors = own.map(|(name, tensor)| Ok((name, tensor?))).collect::<Result<_>>()?;
        plugin.load(&State { json: self.states.get(place).cloned().unwrap_or_default(), tensors })
    }
}

/// The names of an adapter's parameters, by their places in the model: as in PEFT's files, but that a head's are its own.
pub fn names(model: &AdaptedModel) -> Vec<String> {
    let added = || model.parameters.iter().filter(|p| matches!(p.owner, Owner::Strategy(_)));
    let outside = added().next().is_some() && !added().any(|p| p.in_model);
    let (keys, root) = (Keys::plain(model), if outside { WRAPPED } else { TUNED });
    let name = |p: &crate::adapted::ModelParameter| match p.owner {
        Owner::Strategy(_) if !p.in_model => p.parameter.name().to_owned(),
        Owner::Strategy(_) => format!("{TUNED}{}", keys.path(p)),
        Owner::Base => format!("{root}{}", keys.path(p)),
        Owner::Head(_) => format!("{root}{}", p.parameter.name()),
    };
    model.parameters.iter().map(name).collect()
}

/// The parameters of an adapter, by these names: all that was added or has trained.
pub fn adapter(model: &AdaptedModel) -> BTreeMap<String, Tensor> {
    let named = model.parameters.iter().zip(names(model)).filter(|(p, _)| p.trained());
    named.map(|(p, name)| (name, p.parameter.tensor())).collect()
}
