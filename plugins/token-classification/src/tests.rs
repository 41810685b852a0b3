//! The head in a host of the test's own, against the numbers that `tests/reference/make_token_classification.py` got from torch.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use fthost::adapted::AdaptedModel;
use fthost::plugin::{HeadInstance, Plugin};
use fthost_autograd::{Device, Layout, Tape, Tensor as Numbers, Value as Recorded};
use fthost_models::Encoder;
use fthost_plugin_api::serde_json::{from_str, from_value};

use super::*;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/reference");
/// Tokens and classes of the reference.
const SHAPE: [usize; 2] = [7, 3];

fn reference() -> Value {
    from_str(&std::fs::read_to_string(Path::new(ROOT).join("token_classification.json")).unwrap()).unwrap()
}

fn numbers(of: &Value, shape: &[usize]) -> Numbers {
    let data: Vec<f32> = from_value(of.clone()).unwrap();
    Numbers::from_vec(data, shape, &Device::Cpu).unwrap()
}

/// A head for three classes that has declared its parameters on the tiny BERT, for features of width 4. The architecture's own head
/// has a hidden layer: this one has none.
fn attached(options: &Value) -> (HeadInstance, AdaptedModel, HeadSpec) {
    let encoder = Encoder::open(&Path::new(ROOT).join("tiny/bert"), &Device::Cpu).unwrap();
    let mut model = AdaptedModel::new(Box::new(encoder), Device::Cpu, 7);
    let task = TaskInfo {
        name: "entities".into(),
        labels: ["B-X", "I-X", "O"].map(str::to_owned).into(),
        class_counts: vec![1, 1, 2],
        width: 4,
        hidden_activation: Some("tanh".into()),
        dropout: 0.0,
    };
    let plugin = Plugin::built_in().unwrap().unwrap();
    let mut head = HeadInstance::create(&plugin, "token-classification", options).unwrap();
    let spec = head.attach(&task, &mut model, 0).unwrap();
    (head, model, spec)
}

#[track_caller]
fn close(found: &[f32], expected: &Value) {
    let expected: Vec<f64> = from_value(expected.clone()).unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() <= 1e-6 * (1.0 + expected.abs()), "{found} is not {expected}");
    }
}

#[test]
fn losses_and_gradients_are_torchs() {
    let reference = reference();
    let targets: Vec<u32> = from_value(reference["targets"].clone()).unwrap();
    let targets = Numbers::from_vec(targets, SHAPE[0], &Device::Cpu).unwrap();
    let cases = reference["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let options = json!({ "class_weights": case["class_weights"], "label_smoothing": case["label_smoothing"] });
        let (head, _, _) = attached(&options);
        let tape = Tape::recording();
        let outputs = tape.variable(numbers(&reference["outputs"], &SHAPE));
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
    let reference = reference();
    let (head, model, spec) = attached(&json!({}));
    assert_eq!((spec.features, spec.targets), (FeatureKind::Sequence, TargetKind::TokenClass));
    for (name, shape) in [("weight", &[3, 4][..]), ("bias", &[3])] {
        let full = format!("classifier.{name}");
        let parameter = model.parameters.iter().find(|p| p.parameter.name() == full).unwrap();
        parameter.parameter.set(&numbers(&reference[name], shape)).unwrap();
    }
    let tape = Tape::evaluation();
    let features = Recorded::constant(numbers(&reference["features"], &[SHAPE[0], 4]));
    let outputs = head.forward(&tape, &features, &Layout::from_lengths([3, 4])).unwrap();
    close(&outputs.tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap(), &reference["outputs"]);
    let predicted = head.predict(&tape, &outputs).unwrap();
    assert_eq!(predicted.dims(), SHAPE);
    assert!(predicted.sum(1).unwrap().to_vec1::<f32>().unwrap().iter().all(|sum| (sum - 1.0).abs() < 1e-6));
}

#[test]
fn refuses_shares_of_one() {
    for options in [json!({ "dropout": 1.0 }), json!({ "label_smoothing": 1.5 })] {
        assert!(TokenClassification::new(from_value(options.clone()).unwrap()).is_err(), "{options}");
    }
}
