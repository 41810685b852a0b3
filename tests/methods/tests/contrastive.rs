//! The heads that compare in a host of the test's own, against the numbers that `tests/reference/make_contrastive.py` got from torch.

use fthost::adapted::AdaptedModel;
use fthost::plugin::HeadInstance;
use fthost_autograd::{Device, Layout, Tape, Tensor, Value as Recorded};
use fthost_models::{Loader, Model};
use fthost_plugin_api::{Comparison, HeadSpec, LossScope, PredictionKind, TargetKind, TaskInfo};
use serde_json::{Map, Value, from_value, json};

use crate::host::{attach_head, gradient, parameter, tiny_bert};
use crate::reference;

const EXAMPLES: usize = 5;
/// Widths of the tiny BERT and the tiny ViT, and of the tiny CLIP's images; its texts are as wide as BERT's.
const TEXT: usize = 16;
const IMAGE: usize = 16;
const OF_CLIP: usize = 24;

fn task(sequences: u32, comparison: Option<Comparison>) -> TaskInfo {
    TaskInfo {
        name: "pairs".into(),
        labels: Vec::new(),
        class_counts: Vec::new(),
        examples: EXAMPLES as u64,
        width: TEXT,
        streams: Vec::new(),
        hidden_activation: None,
        bias: true,
        dropout: 0.0,
        image: None,
        vocabulary: None,
        comparison,
        sequences,
    }
}

/// The head on a model that is frozen, as it is beside an adapter.
fn attached(base: Box<dyn Model>, options: &Value, task: &TaskInfo) -> (HeadInstance, AdaptedModel, HeadSpec) {
    let mut model = AdaptedModel::new(base, Device::Cpu, 7);
    model.parameters.iter().for_each(|p| p.parameter.set_trainable(false));
    let (head, spec) = attach_head("contrastive", options, task, &mut model);
    (head, model, spec)
}

/// Gives the head's parameters the values of a case.
fn set(model: &AdaptedModel, inputs: &Map<String, Value>) {
    for (name, values) in inputs.iter().filter(|(name, _)| !["text", "image"].contains(&name.as_str())) {
        let parameter = parameter(model, name);
        parameter.set(&reference::tensor(values, parameter.dims())).unwrap();
    }
}

/// The head's outputs, loss and gradients of a case, whose features are of these streams with so many rows and columns, beside torch's.
fn check(case: &Value, head: &HeadInstance, model: &AdaptedModel, streams: &[(&str, [usize; 2])]) {
    let what = case["options"].to_string();
    let tape = Tape::recording();
    let features: Vec<Recorded> =
        streams.iter().map(|(name, shape)| tape.variable(reference::tensor(&case["inputs"][*name], shape))).collect();
    let layouts: Vec<Layout> = streams.iter().map(|(_, shape)| Layout::single_rows(shape[0])).collect();
    let given: Vec<_> = features.iter().zip(&layouts).collect();
    let outputs = head.forward_streams(&tape, &given, None).unwrap();
    near(&flat(outputs.tensor()), &case["embeddings"], &what);
    let predicted = head.predict(&Tape::evaluation(), &Recorded::constant(outputs.tensor().clone())).unwrap();
    assert_eq!(flat(&predicted), flat(outputs.tensor()));

    let places = Tensor::arange(0u32, EXAMPLES as u32, &Device::Cpu).unwrap();
    let (sum, weight) = head.loss(&tape, &outputs, &places, &[]).unwrap();
    assert_eq!(weight, EXAMPLES as f64);
    let loss = tape.affine(&sum, 1.0 / weight, 0.0).unwrap();
    near(&flat(loss.tensor()), &json!([case["loss"]]), &what);
    let gradients = tape.backward(&loss).unwrap();
    for (name, expected) in case["gradients"].as_object().unwrap() {
        let found = match streams.iter().position(|(stream, _)| stream == name) {
            Some(at) => flat(gradients.of(&features[at]).unwrap()),
            None => gradient(&gradients, parameter(model, name)),
        };
        near(&found, expected, &format!("{what}: {name}"));
    }
}

#[test]
fn two_streams_are_compared_as_by_torch() {
    let numbers = reference::read("contrastive.json");
    let cases = numbers["streams"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let folders = [("text", reference::path("tiny/bert")), ("image", reference::path("tiny/vit"))];
        let folders = folders.each_ref().map(|(name, folder)| (*name, folder.as_path()));
        let base = Loader::new(&Device::Cpu).join(&folders).unwrap();
        let (head, model, spec) = attached(base, &case["options"], &task(1, None));
        assert_eq!((spec.scope, spec.targets), (LossScope::Batch, TargetKind::Match));
        assert_eq!((spec.predictions, spec.streams.len()), (PredictionKind::Embeddings, 2));
        set(&model, case["inputs"].as_object().unwrap());
        check(case, &head, &model, &[("text", [EXAMPLES, TEXT]), ("image", [EXAMPLES, IMAGE])]);
    }
}

#[test]
fn clips_own_matrices_are_used_and_train() {
    let base = Loader::new(&Device::Cpu).with_contrastive().open(&reference::path("tiny/clip")).unwrap();
    let of = base.info().contrastive.clone().unwrap();
    let own = Comparison { projections: of.projections, scale: of.scale, width: of.width };
    let (head, model, _) = attached(base, &json!({}), &task(1, Some(own)));
    let case = &reference::read("contrastive.json")["own"];
    check(case, &head, &model, &[("text", [EXAMPLES, TEXT]), ("image", [EXAMPLES, OF_CLIP])]);
    let trains: Vec<&str> = model.trainable().map(|p| p.parameter.name()).collect();
    assert_eq!(trains.len(), 3, "{trains:?}");
}

#[test]
fn a_streams_texts_are_compared_as_by_torch() {
    let numbers = reference::read("contrastive.json");
    let cases = numbers["texts"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let sides = case["sides"].as_u64().unwrap() as usize;
        let mut model = tiny_bert();
        let (head, spec) = attach_head("contrastive", &case["options"], &task(sides as u32, None), &mut model);
        assert_eq!(spec.streams.len(), 1);
        set(&model, case["inputs"].as_object().unwrap());
        check(case, &head, &model, &[("text", [EXAMPLES * sides, TEXT])]);
    }
}

#[test]
fn cosines_are_learned_as_by_torch() {
    let numbers = reference::read("contrastive.json");
    for case in numbers["cosines"].as_array().unwrap() {
        let mut model = tiny_bert();
        let (head, spec) = attach_head("similarity", &case["options"], &task(2, None), &mut model);
        assert_eq!((spec.scope, spec.targets), (LossScope::Example, TargetKind::Value));
        let tape = Tape::recording();
        let features = tape.variable(reference::tensor(&case["text"], &[2 * EXAMPLES, TEXT]));
        let outputs = head.forward(&tape, &features, &Layout::single_rows(2 * EXAMPLES)).unwrap();
        near(&flat(outputs.tensor()), &case["outputs"], "cosines");
        let predicted = head.predict(&Tape::evaluation(), &Recorded::constant(outputs.tensor().clone())).unwrap();
        near(&flat(&predicted), &case["predictions"], "predictions");
        let values = reference::tensor(&case["values"], &[EXAMPLES]);
        let (sum, weight) = head.loss(&tape, &outputs, &values, &[]).unwrap();
        let loss = tape.affine(&sum, 1.0 / weight, 0.0).unwrap();
        near(&flat(loss.tensor()), &json!([case["loss"]]), "loss");
        let gradients = tape.backward(&loss).unwrap();
        near(&flat(gradients.of(&features).unwrap()), &case["gradient"], "gradient");
    }
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Logits go up to a hundred, and a loss is the difference of two of them: rounding is that of the larger number.
#[track_caller]
fn near(found: &[f32], expected: &Value, what: &str) {
    let expected: Vec<f64> = from_value(expected.clone()).unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (f64::from(*found) - expected).abs() <= 1e-5 * (1.0 + expected.abs()),
            "{what}: {found} is not {expected}"
        );
    }
}
