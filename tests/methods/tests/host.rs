//! A host of the tests' own: the tiny BERT and the tiny CLIP, and the built plugins on them.

use fthost::adapted::AdaptedModel;
use fthost::plugin::{HeadInstance, Plugin};
use fthost_autograd::{Device, Gradients, Parameter};
use fthost_plugin_api::{HeadSpec, TaskInfo};
use fthost_tests::{build, library_name, root};
use serde_json::Value;

use crate::reference;

/// The plugin of a folder below `plugins/`, opened from its built file.
pub(crate) fn plugin(folder: &str) -> Plugin {
    let library = library_name(&root().join("plugins").join(folder));
    Plugin::open(&build().plugin(&library)).unwrap()
}

/// The tiny BERT, everything trainable.
pub(crate) fn tiny_bert() -> AdaptedModel {
    let model = fthost_models::open(&reference::path("tiny/bert"), &Device::Cpu).unwrap();
    AdaptedModel::new(model, Device::Cpu, 7)
}

/// The tiny CLIP, everything trainable: its streams are `text` and `image`, of two blocks each.
pub(crate) fn tiny_clip() -> AdaptedModel {
    let model = fthost_models::open(&reference::path("tiny/clip"), &Device::Cpu).unwrap();
    AdaptedModel::new(model, Device::Cpu, 7)
}

/// A head that has declared its parameters on a model, and what it declared of itself. Its plugin's folder has its name.
pub(crate) fn attach_head(
    name: &str,
    options: &Value,
    task: &TaskInfo,
    model: &mut AdaptedModel,
) -> (HeadInstance, HeadSpec) {
    let mut head = HeadInstance::create(&plugin(name), name, options).unwrap();
    let spec = head.attach(task, model, 0).unwrap();
    (head, spec)
}

/// A parameter of a model, by name.
#[track_caller]
pub(crate) fn parameter<'a>(model: &'a AdaptedModel, name: &str) -> &'a Parameter {
    &model.parameters.iter().find(|p| p.parameter.name() == name).unwrap().parameter
}

/// Adds a number to every element of a parameter.
#[track_caller]
pub(crate) fn shift(model: &AdaptedModel, name: &str, by: f64) {
    let parameter = parameter(model, name);
    parameter.set(&parameter.tensor().affine(1.0, by).unwrap()).unwrap();
}

/// The gradient of a parameter, element by element.
#[track_caller]
pub(crate) fn gradient(gradients: &Gradients, parameter: &Parameter) -> Vec<f32> {
    let gradient = gradients.get(parameter).unwrap().to_dense(parameter.dims()).unwrap();
    gradient.flatten_all().unwrap().to_vec1().unwrap()
}
