//! The head in a host of the test's own, against the numbers that `tests/reference/make_regression.py` got from torch.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use fthost::adapted::AdaptedModel;
use fthost::plugin::{HeadInstance, Plugin};
use fthost_autograd::{Device, Layout, Tape, Tensor as Numbers, Value as Recorded};
use fthost_models::Encoder;
use fthost_plugin_api::serde_json::{from_str, from_value};

use super::*;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/reference");

fn reference() -> Value {
    from_str(&std::fs::read_to_string(Path::new(ROOT).join("regression.json")).unwrap()).unwrap()
}

fn numbers(of: &Value, shape: &[usize]) -> Numbers {
    let data: Vec<f32> = from_value(of.clone()).unwrap();
    Numbers::from_vec(data, shape, &Device::Cpu).unwrap()
}

/// A head that has declared its parameters on the tiny BERT, for features of width 4.
fn attached(options: &Value, hidden: Option<&str>) -> (HeadInstance, AdaptedModel, HeadSpec) {
    let encoder = Encoder::open(&Path::new(ROOT).join("tiny/bert"), &Device::Cpu).unwrap();
    let mut model = AdaptedModel::new(Box::new(encoder), Device::Cpu, 7);
    let task = TaskInfo {
        name: "score".into(),
        labels: Vec::new(),
        class_counts: Vec::new(),
        width: 4,
        hidden_activation: hidden.map(str::to_owned),
        dropout: 0.0,
    };
    let plugin = Plugin::built_in().unwrap().unwrap();
    let mut head = HeadInstance::create(&plugin, "regression", options).unwrap();
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
    let targets = numbers(&reference["targets"], &[6]);
    for case in reference["cases"].as_array().unwrap() {
        let mut options = json!({ "loss": case["loss"], "center": case["center"], "scale": case["scale"] });
        if !case["delta"].is_null() {
            options["delta"] = case["delta"].clone();
        }
        let (head, _, _) = attached(&options, None);
        let tape = Tape::recording();
        let outputs = tape.variable(numbers(&reference["outputs"], &[6]));
        let (sum, weight) = head.loss(&tape, &outputs, &targets, &[]).unwrap();
        assert_eq!(weight, 6.0);
        close(&[sum.tensor().to_scalar::<f32>().unwrap()], &json!([case["sum"]]));
        let gradients = tape.backward(&sum).unwrap();
        close(&gradients.of(&outputs).unwrap().to_vec1::<f32>().unwrap(), &case["gradient"]);
    }
}

#[test]
fn outputs_are_torchs_and_predictions_in_the_targets_units() {
    let head = &reference()["head"];
    let (instance, model, spec) = attached(&json!({ "center": 10.0, "scale": 2.0, "dropout": 0.0 }), Some("tanh"));
    assert_eq!((spec.targets, spec.predictions), (TargetKind::Value, PredictionKind::Values));
    for (name, shape) in
        [("dense.weight", &[4, 4][..]), ("dense.bias", &[4]), ("out_proj.weight", &[1, 4]), ("out_proj.bias", &[1])]
    {
        let parameter = model.parameters.iter().find(|p| p.parameter.name() == name).unwrap();
        parameter.parameter.set(&numbers(&head["weights"][name], shape)).unwrap();
    }
    let tape = Tape::evaluation();
    let features = Recorded::constant(numbers(&head["features"], &[3, 4]));
    let outputs = instance.forward(&tape, &features, &Layout::single_rows(3)).unwrap();
    assert_eq!(outputs.dims(), [3]);
    close(&outputs.tensor().to_vec1::<f32>().unwrap(), &head["outputs"]);
    let predicted = instance.predict(&tape, &outputs).unwrap().to_vec1::<f32>().unwrap();
    let expected: Vec<f64> = from_value(head["outputs"].clone()).unwrap();
    close(&predicted, &json!(expected.iter().map(|y| 10.0 + 2.0 * y).collect::<Vec<_>>()));
}

#[test]
fn starts_near_the_center() {
    let (head, model, _) = attached(&json!({ "center": 4.5 }), None);
    let declared: Vec<_> =
        model.parameters.iter().map(|p| p.parameter.name()).filter(|n| n.contains("classifier")).collect();
    assert_eq!(declared, ["classifier.weight", "classifier.bias"]);
    let tape = Tape::evaluation();
    let features = Recorded::constant(numbers(&json!([1.0, -1.0, 0.5, 2.0]), &[1, 4]));
    let outputs = head.forward(&tape, &features, &Layout::single_rows(1)).unwrap();
    let predicted = head.predict(&tape, &outputs).unwrap().to_vec1::<f32>().unwrap();
    assert!((predicted[0] - 4.5).abs() < 0.2, "{predicted:?}");
}

#[test]
fn refuses_what_cannot_be_meant() {
    let check = |options: Value, expected: &str| {
        let Err(error) = Regression::new(from_value(options.clone()).unwrap()) else { panic!("{options} is taken") };
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(json!({ "scale": 0.0 }), "scale is 0, and must be above 0");
    check(json!({ "delta": 0.5 }), "set loss = \"huber\", or leave delta out");
    check(json!({ "loss": "huber", "delta": -1.0 }), "delta must be above 0");
    check(json!({ "dropout": 1.0 }), "below 1");
}
