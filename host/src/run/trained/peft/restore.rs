//! The values in a folder that PEFT saved, given to the parameters they belong to.

use std::collections::BTreeSet;

use fthost_models::{ModelInfo, SiteKind};

use super::super::head;
use super::{Adapter, CONFIG, WEIGHTS, at, below_root, within};
use crate::adapted::{AdaptedModel, ModelParameter, Owner};
use crate::run::results::keys::Keys;
use crate::{Error, Result};

/// Ends of the names of what Transformers computes, and its older versions saved all the same.
const COMPUTED: [&str; 2] = [".position_ids", ".token_type_ids"];

impl Adapter<'_> {
    /// Gives the parameters their values. A bias that trained and was not saved stays the base model's, as in PEFT.
    ///
    /// # Errors
    /// Where a parameter that was added or one of a module that is saved whole has no tensor, a tensor has no parameter, or the two do
    /// not fit.
    pub(super) fn restore(&self, model: &AdaptedModel, headed: bool) -> Result<()> {
        let keys = Keys::of(model, headed);
        let mut left: BTreeSet<&str> = self.names.keys().map(String::as_str).collect();
        let mut unsaved = Vec::new();
        for p in model.parameters.iter().filter(|p| headed || !matches!(p.owner, Owner::Head(_))) {
            let path = keys.path(p);
            // What stands in the model that PEFT wraps, and in none of its layers (matrices that its layers share), is declared with its root.
            let path = below_root(&path).to_owned();
            let is_head = |p: &ModelParameter| matches!(p.owner, Owner::Head(_));
            // PEFT writes a module's only tensor under its own name or the module's.
            let found = [path.clone(), format!("{path}.weight")].into_iter().find(|path| left.remove(path.as_str()));
            match found {
                Some(path) => self.set(model, p, &path)?,
                None if is_head(p) && head::bias_is_none(model.model.info(), p.parameter.name()) => {}
                None if p.owner != Owner::Base || self.is_saved(&keys.plain_path(p)) => {
                    return Err(self.lacks(model.model.info(), p, &path));
                }
                // What the model compares by trains whenever it is used, and is the base model's where the adapter has none.
                None if p.parameter.trainable() && !model.model.info().compares_by(p.parameter.name()) => {
                    unsaved.push(path);
                }
                None => {}
            }
        }
        // Of a layer that was left no rank there are tensors without elements.
        left.retain(|path| !self.weights.shape(&self.names[*path]).is_some_and(|shape| shape.contains(&0)));
        if let Some(path) = left.into_iter().find(|path| !COMPUTED.iter().any(|end| path.ends_with(end))) {
            return Err(self.left_over(model, path, headed));
        }
        if let Some(first) = unsaved.first() {
            tracing::warn!(
                "{} lacks {first} and {} more that the adapter trained: the base model's are used, as PEFT does with folders of its versions \
                 before 0.20, which did not save the biases of bias = \"lora_only\"",
                at(self.folder, WEIGHTS),
                unsaved.len() - 1
            );
        }
        Ok(())
    }

    fn set(&self, model: &AdaptedModel, p: &ModelParameter, path: &str) -> Result<()> {
        let tensor = self.weights.tensor(&self.names[path], &model.device)?;
        let (found, expected) = (tensor.dims(), p.parameter.dims());
        if found == expected {
            return Ok(p.parameter.set(&tensor)?);
        }
        // Sides of what was added that are as long as a layer's, or the features, follow from the base model.
        let name = p.parameter.name();
        let site = model
            .model
            .sites()
            .iter()
            .find(|site| name.strip_prefix(&site.path).is_some_and(|rest| rest.starts_with('.')));
        let width = model.model.info().plain().width;
        let layers = |side: usize| match site {
            Some(site) => [site.in_features, site.out_features].contains(&side),
            None => side.is_multiple_of(width),
        };
        let own = p.owner == Owner::Base
            || found.len() == expected.len()
                && found.iter().zip(expected).any(|(found, expected)| found != expected && layers(*expected));
        Err(Error::usage(format!(
            "{}: {path} has shape {found:?}, and {expected:?} is needed here",
            at(self.folder, WEIGHTS)
        ))
        .with_help(if own { self.other_base(model) } else { self.other_fields() }))
    }

    /// Whether `modules_to_save` names a module that a base parameter stands in, by the end of its path as in PEFT.
    fn is_saved(&self, path: &str) -> bool {
        self.saved.iter().any(|name| within(path, name))
    }

    fn lacks(&self, info: &ModelInfo, p: &ModelParameter, path: &str) -> Error {
        let help = match p.owner {
            Owner::Strategy(_) => self.other_fields(),
            // A pooler that the base model lacks.
            Owner::Head(_) if path.starts_with(&info.plain().prefix) => {
                "the base model has no such layer, so Transformers made one at random, and the adapter does not hold it: train with \
                 modules_to_save=[\"pooler\"]"
                    .into()
            }
            Owner::Head(_) => {
                "the head of such a model has it: train with task_type=\"SEQ_CLS\", and PEFT saves the head".into()
            }
            Owner::Base => {
                format!("modules_to_save of {CONFIG} names its module, which PEFT saves whole: save the adapter again")
            }
        };
        Error::usage(format!("{} lacks {path}", at(self.folder, WEIGHTS))).with_help(help)
    }

    /// The error about a tensor that has no parameter.
    fn left_over(&self, model: &AdaptedModel, path: &str, headed: bool) -> Error {
        let info = model.model.info();
        let keys = Keys::of(model, headed);
        let known: BTreeSet<String> = (model.parameters.iter().filter(|p| !matches!(p.owner, Owner::Strategy(_))))
            .filter_map(|p| keys.plain_path(p).rsplit_once('.').map(|(module, _)| module.to_owned()))
            .collect();
        let ends = path.match_indices('.').map(|(end, _)| &path[..end]);
        let help = match ends.rev().find(|module| known.contains(*module)) {
            None => self.other_base(model),
            Some(module) if self.is_saved(path) => format!(
                "modules_to_save of {CONFIG} names {module}, and PEFT adds nothing to what it saves whole: take it out of one of \
                 target_modules and modules_to_save and train again"
            ),
            Some(module) => {
                let linear = model.model.sites().iter().any(|site| {
                    let prefix = if headed { info.prefix(site.stream) } else { "" };
                    site.kind == SiteKind::Linear && module.strip_prefix(prefix) == Some(site.path.as_str())
                });
                match linear {
                    true => self.other_fields(),
                    false => format!("{module} is none of the encoder's linear layers, which alone are adapted here"),
                }
            }
        };
        Error::usage(format!("{} holds {path}, which has no place here", at(self.folder, WEIGHTS))).with_help(help)
    }

    fn other_fields(&self) -> String {
        format!("the fields of {CONFIG} do not go with it: both files must come from one save")
    }

    fn other_base(&self, model: &AdaptedModel) -> String {
        format!(
            "it belongs to another base model than this {} of width {}; its config says {:?}: --set model.path=FOLDER",
            model.model.info().model_type,
            model.model.info().plain().width,
            self.base
        )
    }
}
