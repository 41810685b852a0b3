//! A whole model with its head, as Transformers or a run saved it, opened as a run that has ended.

use std::path::Path;

use fthost_models::Weights;
use serde_json::Value;

use super::head::{self, CONFIG, Found};
use super::model::TrainedModel;
use crate::adapted::Owner;
use crate::data::Learns;
use crate::plugin::{Library, Search};
use crate::run::file::{Override, split_argument};
use crate::run::machine::DeviceChoice;
use crate::run::results::keys::head_path;
use crate::run::setup::model as base;
use crate::{Error, Result};

/// Whether the head that a config.json names answers for each token; `None` where it names none.
fn kind(config: &Value) -> Option<bool> {
    let class = config["architectures"][0].as_str()?;
    let ends = |end| class.ends_with(end);
    (ends("ForTokenClassification") || ends("ForSequenceClassification") || ends("ForImageClassification"))
        .then(|| ends("ForTokenClassification"))
}

/// Opens a folder that has a `config.json`, or a file that says as much.
///
/// # Errors
/// Where it holds no head, or no plugin computes such a head.
pub(super) fn open(
    folder: &Path,
    plugins: &[String],
    overrides: &[Override],
    device: DeviceChoice,
) -> Result<TrainedModel> {
    if fthost_models::is_joined(folder) {
        let message = format!("{} holds two joined models and no head", folder.display());
        return Err(Error::usage(message).with_help(
            "name the run folder, which has its heads, or train one on them: [model] path takes the folder; the folders in it open by themselves",
        ));
    }
    let config: Value = fthost_models::config(folder)?;
    let mut file = head::run_file(folder, overrides)?;
    let dense = head::Dense::find(folder)?;
    file.language = head::language(&config).filter(|_| dense.is_none());
    if dense.is_none() && file.language.is_none() && kind(&config).is_none() {
        // An architecture of two streams has its own head, where it has one, which is asked for as for a task of such examples.
        file.tasks[0].form.learns = Learns::Matches;
    }
    let model = base::load_model(&file, device.open()?)?;
    let info = model.model.info();
    if info.contrastive.is_none() {
        file.tasks[0].form.learns = Learns::Labels;
    }
    // What comes from timm, from torchvision or from here is a classifier of pictures, and names no class.
    let nameless = info.classification.as_ref().is_some_and(|head| head.class.is_none()).then_some(false);
    let kind = kind(&config).or(nameless);
    let per_token = kind == Some(true);
    if dense.is_none() && kind.is_none() && file.language.is_none() && info.contrastive.is_none() {
        let class = config["architectures"][0].as_str().unwrap_or("no class");
        return Err(Error::usage(format!(
            "{} holds no head that opens here: its {CONFIG} names {class}",
            folder.display()
        ))
        .with_help(
            "name the run folder, which has its heads, or a model for classification; an encoder is the model of a run",
        ));
    }
    let mut library = Library::new(Search::from_environment());
    for plugin in plugins {
        library.open(split_argument(plugin).0)?;
    }
    if let Some(says) = file.language {
        if let Some(lacking) = model.model.info().vocabulary.as_ref().and_then(|layer| layer.new.first()) {
            return Err(Error::usage(format!(
                "the weights of {} lack {lacking} of its language model",
                folder.display()
            ))
            .with_help("train it first: as the model of a run it gets a new layer over its vocabulary"));
        }
        let found = Found::of_language(says);
        found.choose(&mut file, &mut library)?;
        return found.open(&file, &mut library, model, Vec::new(), |_| Ok(()));
    }
    if model.model.info().contrastive.is_some() {
        let found = Found::of_comparison();
        found.choose(&mut file, &mut library)?;
        return found.open(&file, &mut library, model, Vec::new(), |_| Ok(()));
    }
    if let Some(dense) = dense {
        let found = head::find(folder, &config, dense.outputs()?, false)?;
        found.choose(&mut file, &mut library)?;
        return found.open(&file, &mut library, model, Vec::new(), |model| dense.restore(model));
    }
    let weights = Weights::open(&file.model.path)?;
    let output = format!("{}.weight", head::last_layer(model.model.info(), per_token)?);
    let outputs = weights.tensor(&output, &model.device)?.dims()[0];
    let found = head::find(folder, &config, outputs, per_token)?;
    found.choose(&mut file, &mut library)?;
    found.open(&file, &mut library, model, Vec::new(), |model| {
        for p in model.parameters.iter().filter(|p| matches!(p.owner, Owner::Head(_))) {
            let name = head_path(model.model.info(), p.parameter.name());
            if weights.contains(&name) || !head::bias_is_none(model.model.info(), p.parameter.name()) {
                p.parameter.set(&weights.tensor_of_shape(&name, p.parameter.dims(), &model.device)?)?;
            }
        }
        Ok(())
    })
}
