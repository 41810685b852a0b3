//! The head in a host of the test's own, against the numbers that `tests/reference/make_token_classification.py` got from torch.

use fthost::adapted::AdaptedModel;
use fthost::plugin::HeadInstance;
use fthost_autograd::{Device, Layout, Tape, Tensor, Value as Recorded};
use fthost_plugin_api::{FeatureKind, HeadSpec, TargetKind, TaskInfo};
use serde_json::{Value, from_value, json};

use crate::host::{attach_head, parameter, tiny_bert};
use crate::reference::{self, close};

/// Tokens and classes of the reference.
const SHAPE: [usize; 2] = [7, 3];

fn numbers() -> Value {
    reference::read("token_classification.json")
}

/// A head for three classes that has declared its parameters on the tiny BERT, for features of width 4. The architecture's own head
/// has a hidden layer: this one has none.
fn attached(options: &Value) -> (HeadInstance, AdaptedModel, HeadSpec) {
    let task = TaskInfo {
        name: "entities".into(),
        labels: ["B-X", "I-X", "O"].map(str::to_owned).into(),
        class_counts: vec![1, 1, 2],
        examples: 0,
        width: 4,
        streams: Vec::new(),
        hidden_activation: Some("tanh".into()),
        bias: true,
        dropout: 0.0,
        image: None,
        vocabulary: None,
        comparison: None,
        sequences: 1,
    };
    let mut model = tiny_bert();
    let (head, spec) = attach_head("token-classification", options, &task, &mut model);
    (head, model, spec)
}

#[test]
fn losses_and_gradients_are_torchs() {
    let numbers = numbers();
    let targets: Vec<u32> = from_value(numbers["targets"].clone()).unwrap();
    let targets = Tensor::from_vec(targets, SHAPE[0], &Device::Cpu).unwrap();
    let cases = numbers["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let options = json!({ "class_weights": case["class_weights"], "label_smoothing": case["label_smoothing"] });
        let (head, _, _) = attached(&options);
        let tape = Tape::recording();
        let outputs = tape.variable(reference::tensor(&numbers["outputs"], &SHAPE));
        let (sum, weight) = head.loss(&tape, &outputs, &targets, &[]).unwrap();
        let loss = sum.tensor().to_scalar::<f32>().unwrap();
        close(&[loss, loss / weight as f32], &json!([case["sum"], case["mean"]]));
        let gradients = tape.backward(&sum).unwrap();
        let gradient = gradients.of(&outputs).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        close(&gradient, &case["gradient"]);
    }
}

#[test]
fn every_token_has_outputs() {
    let numbers = numbers();
    let (head, model, spec) = attached(&json!({}));
    assert_eq!((spec.features, spec.targets), (FeatureKind::Sequence, TargetKind::TokenClass));
    for (name, shape) in [("weight", &[3, 4][..]), ("bias", &[3])] {
        parameter(&model, &format!("classifier.{name}")).set(&reference::tensor(&numbers[name], shape)).unwrap();
    }
    let tape = Tape::evaluation();
    let features = Recorded::constant(reference::tensor(&numbers["features"], &[SHAPE[0], 4]));
    let outputs = head.forward(&tape, &features, &Layout::from_lengths([3, 4])).unwrap();
    close(&outputs.tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap(), &numbers["outputs"]);
    let predicted = head.predict(&tape, &outputs).unwrap();
    assert_eq!(predicted.dims(), SHAPE);
    assert!(predicted.sum(1).unwrap().to_vec1::<f32>().unwrap().iter().all(|sum| (sum - 1.0).abs() < 1e-6));
}
