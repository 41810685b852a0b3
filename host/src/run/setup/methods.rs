//! Plugins opened for what the run file names, and their strategies and heads attached to the model.

use std::sync::Arc;

use fthost_plugin_api::{HeadSpec, MethodKind, TaskInfo};

use super::from_data;
use super::model as base;
use crate::Result;
use crate::adapted::AdaptedModel;
use crate::plugin::{HeadInstance, Library, Plugin, Search, StrategyInstance};
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
    for (method, kind) in file.methods() {
        let (_, info) = library.find(kind, &method.plugin).map_err(|error| file.plugin_not_found(method, error))?;
        file.check_method(method, &info.config_schema)?;
    }
    file.fill_defaults(|kind, name| Some(from_data::fixed_defaults(&library.find(kind, name).ok()?.1)));
    Ok((file, library))
}

/// Strategies freeze the base before heads add what always trains.
pub(in crate::run) fn attach_strategies(
    file: &RunFile,
    library: &mut Library,
    model: &mut AdaptedModel,
) -> Result<Vec<StrategyInstance>> {
    let mut strategies = Vec::new();
    for (i, method) in file.strategies.iter().enumerate() {
        let plugin = library.find(MethodKind::Strategy, &method.plugin)?.0;
        let strategy = StrategyInstance::create(&plugin, &method.plugin, &method.config);
        let mut strategy = strategy.map_err(|error| file.at_method(method, error))?;
        strategy.attach(model, i).map_err(|error| file.at_method(method, error))?;
        strategies.push(strategy);
    }
    Ok(strategies)
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
    let plugin = library.find(MethodKind::TaskHead, &method.plugin)?.0;
    let head = HeadInstance::create(&plugin, &method.plugin, &method.config);
    let mut head = head.map_err(|error| file.at_method(method, error))?;
    let info = model.model.info();
    let task = TaskInfo {
        name: table.name.clone(),
        labels,
        class_counts,
        examples,
        width: info.plain().width,
        streams: Vec::new(),
        hidden_activation: info
            .hidden_layer()
            .filter(|_| info.pools_as_its_class())
            .map(|(_, activation)| activation.to_owned()),
        bias: !info.pools_as_its_class() || info.classification.as_ref().is_none_or(|class| class.bias),
        dropout: if file.train.dropout { info.head_dropout } else { 0.0 },
        image: base::image_info(file, table, model)?,
    };
    let spec = head.attach(&task, model, index).map_err(|error| file.at_method(method, error))?;
    Ok((Arc::new(head), spec))
}
