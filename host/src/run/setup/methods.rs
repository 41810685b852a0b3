//! Plugins opened for what the run file names, and their strategies and heads attached to the model.

use std::path::Path;
use std::sync::Arc;

use fthost_models::{Modality, ModelInfo};
use fthost_plugin_api::{
    Comparison, HeadSpec, MethodInfo, MethodKind, TaskInfo, Vocabulary, VocabularyTransform, problem_type,
};

use super::from_data;
use super::model as base;
use crate::Result;
use crate::adapted::{AdaptedModel, Owner};
use crate::data::{LanguageModel, Learns};
use crate::plugin::{HeadInstance, Library, Plugin, Search, StrategyInstance, note, streams_of};
use crate::run::file::{Method, Offer, RunFile, split_argument};

/// Opens every plugin that the run file and the command line name, chooses strategies, and checks all options.
pub(in crate::run) fn open_methods(mut file: RunFile, plugins: &[String]) -> Result<(RunFile, Library)> {
    let mut library = Library::new(Search::from_environment());
    let opened =
        plugins.iter().map(|argument| library.open(split_argument(argument).0)).collect::<Result<Vec<Plugin>>>()?;
    let offers: Vec<Offer<'_>> = plugins
        .iter()
        .zip(&opened)
        .map(|(argument, plugin)| Offer { argument, methods: &plugin.info().methods })
        .collect();
    file.choose_strategies(&offers)?;
    for (method, kind) in file.methods_mut() {
        if method.file.as_deref().is_some_and(|own| is_replaced(own, kind, &method.plugin, &opened)) {
            method.file = None;
        }
    }
    checked(file, library)
}

/// As [`open_methods`], of a run file that names all its methods, with the plugins that were open when it was written: none adds a strategy.
pub(in crate::run) fn reopen_methods(file: RunFile, plugins: &[String]) -> Result<(RunFile, Library)> {
    let mut library = Library::new(Search::from_environment());
    plugins.iter().try_for_each(|plugin| library.open(plugin).map(drop))?;
    checked(file, library)
}

/// Opens what a run file names beside what is open, and checks all options.
pub(crate) fn checked(mut file: RunFile, mut library: Library) -> Result<(RunFile, Library)> {
    for (method, kind) in file.methods() {
        let (_, info) = plugin_of(&mut library, method, kind).map_err(|error| file.plugin_not_found(method, error))?;
        file.check_method(method, &info.config_schema)?;
    }
    file.language = language_model(&file, &mut library)?;
    for i in 0..file.tasks.len() {
        file.tasks[i].form.learns = learns(&file, i, &mut library)?;
    }
    file.fill_defaults(|kind, method| Some(from_data::fixed_defaults(&plugin_of(&mut library, method, kind).ok()?.1)));
    Ok((file, library))
}

/// The plugin that a run file's table names, and its method.
///
/// # Errors
/// Where there is none, or it cannot be used.
pub(in crate::run) fn plugin_of(
    library: &mut Library,
    method: &Method,
    kind: MethodKind,
) -> Result<(Plugin, MethodInfo)> {
    library.find_in(method.file.as_deref(), kind, &method.plugin)
}

/// Whether another plugin of the command line has the method of a file that the run file names: it goes before.
fn is_replaced(file: &Path, kind: MethodKind, name: &str, opened: &[Plugin]) -> bool {
    let has = |plugin: &&Plugin| plugin.method(kind, name).is_ok();
    let mut offered = opened.iter().filter(has).peekable();
    let own = || note::check(file).ok().map(|checked| checked.sha256);
    offered.peek().is_some() && own().is_none_or(|own| offered.all(|plugin| plugin.sha256() != own))
}

/// What the model says, where heads are over its vocabulary.
fn language_model(file: &RunFile, library: &mut Library) -> Result<Option<LanguageModel>> {
    let mut found = None;
    for (method, kind) in file.methods().filter(|(_, kind)| *kind == MethodKind::TaskHead) {
        let says = match plugin_of(library, method, kind)?.1.serves.as_str() {
            problem_type::CAUSAL_LM => Some(LanguageModel::Causal),
            problem_type::MASKED_LM => Some(LanguageModel::Masked),
            problem_type::PREFERENCE => Some(LanguageModel::Preference),
            _ => None,
        };
        found = found.or(says);
    }
    Ok(found)
}

/// What a task's head learns, as far as that decides how rows are read.
fn learns(file: &RunFile, index: usize, library: &mut Library) -> Result<Learns> {
    let method = &file.tasks[index].head;
    Ok(match plugin_of(library, method, MethodKind::TaskHead)?.1.serves.as_str() {
        problem_type::CONTRASTIVE => Learns::Matches,
        problem_type::SIMILARITY => Learns::Similarity,
        _ => Learns::Labels,
    })
}

/// Strategies freeze the base before heads add what always trains.
pub(crate) fn attach_strategies(
    file: &RunFile,
    library: &mut Library,
    model: &mut AdaptedModel,
) -> Result<Vec<StrategyInstance>> {
    let mut strategies = Vec::new();
    for (i, method) in file.strategies.iter().enumerate() {
        let plugin = plugin_of(library, method, MethodKind::Strategy)?.0;
        let strategy = StrategyInstance::create(&plugin, &method.plugin, &method.config);
        let stream = stream_of(file, method, model.model.info())?;
        let mut strategy = strategy.map_err(|error| file.at_method(method, error))?.within(stream);
        strategy.attach(model, i).map_err(|error| file.at_method(method, error))?;
        strategies.push(strategy);
    }
    Ok(strategies)
}

/// The place of the model's stream that a strategy or a schedule keeps to.
///
/// # Errors
/// At its key where the model has no such stream.
pub(super) fn stream_of(file: &RunFile, method: &Method, info: &ModelInfo) -> Result<Option<usize>> {
    let Some(name) = &method.stream else { return Ok(None) };
    if let Some(stream) = info.stream(name) {
        return Ok(Some(stream));
    }
    let names: Vec<String> = info.streams.iter().map(|stream| format!("{:?}", stream.name)).collect();
    let (there_is, verb) = (names.join(" and "), if names.len() == 1 { "is its only one" } else { "are those it has" });
    let message = format!("this model ({}) has no stream {name:?}", info.model_type);
    let help = format!("{there_is} {verb}; without the key it is for all of the model");
    Err(file.error_at(&format!("{}.stream", method.path), message, "no such stream", Some(help)))
}

/// The model's layer over its vocabulary, in the words of plugins.
fn vocabulary(info: &ModelInfo) -> Option<Vocabulary> {
    let layer = info.vocabulary.as_ref()?;
    let Modality::Text { vocabulary, .. } = info.plain().modality else { return None };
    let transform = layer.transform.as_ref().map(|transform| VocabularyTransform {
        dense: transform.dense.clone(),
        activation: transform.activation.clone(),
        norm: transform.norm.clone(),
        eps: transform.eps,
    });
    let (weight, bias) = (layer.weight.clone(), layer.bias.clone());
    Some(Vocabulary { size: vocabulary, weight, bias, causal: layer.causal, transform })
}

/// The model's own head that compares its streams, in the words of plugins.
fn comparison(info: &ModelInfo) -> Option<Comparison> {
    let own = info.contrastive.as_ref()?;
    Some(Comparison { projections: own.projections.clone(), scale: own.scale.clone(), width: own.width })
}

/// Makes a task's head for classes with these names. `counts`: training examples of each, and all.
pub(in crate::run) fn attach_head(
    file: &RunFile,
    index: usize,
    library: &mut Library,
    model: &mut AdaptedModel,
    labels: Vec<String>,
    (class_counts, examples): (Vec<u64>, u64),
) -> Result<(Arc<HeadInstance>, HeadSpec)> {
    let table = &file.tasks[index];
    let method: &Method = &table.head;
    let plugin = plugin_of(library, method, MethodKind::TaskHead)?.0;
    let head = HeadInstance::create(&plugin, &method.plugin, &method.config);
    let mut head = head.map_err(|error| file.at_method(method, error))?;
    let info = model.model.info();
    let mut streams = base::of_task(file, table, info)?;
    if let Some(sight) = info.sight.as_ref().filter(|sight| streams.contains(&sight.texts)) {
        // Pictures stand before the texts: what a head reads of both is of these alone.
        streams.retain(|stream| *stream != sight.pictures);
    }
    let plain = &info.streams[streams[0]];
    let own = streams_of(model).into_iter().enumerate();
    let task = TaskInfo {
        name: table.name.clone(),
        labels,
        class_counts,
        examples,
        width: plain.width,
        streams: own.filter(|(stream, _)| streams.contains(stream)).map(|(_, stream)| stream).collect(),
        hidden_activation: info
            .hidden_layer()
            .filter(|_| info.pools_as_its_class())
            .map(|(_, activation)| activation.to_owned()),
        bias: !info.pools_as_its_class() || info.classification.as_ref().is_none_or(|class| class.bias),
        dropout: if file.train.dropout { info.head_dropout } else { 0.0 },
        image: base::image_info(file, table, model)?,
        vocabulary: vocabulary(info),
        comparison: comparison(info).filter(|_| table.form.learns == Learns::Matches && streams.len() > 1),
        sequences: if streams.len() > 1 { 1 } else { table.form.sequences() as u32 },
    };
    // What the weights lack was never trained, and a projector by its task alone: strategies that freeze what was leave them to train.
    for name in info.trained_with_heads() {
        let lacking = model.parameters.iter().find(|p| p.owner == Owner::Base && p.parameter.name() == name);
        lacking.into_iter().for_each(|p| p.parameter.set_trainable(true));
    }
    let spec = head.attach(&task, model, index).map_err(|error| file.at_method(method, error))?;
    Ok((Arc::new(head), spec))
}
