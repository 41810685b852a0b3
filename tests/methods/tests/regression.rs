//! The head in a host of the test's own, against the numbers that `tests/reference/make_regression.py` got from torch.

use fthost::adapted::AdaptedModel;
use fthost::plugin::HeadInstance;
use fthost_autograd::{Layout, Tape, Value as Recorded};
use fthost_plugin_api::{HeadSpec, PredictionKind, TargetKind, TaskInfo};
use serde_json::{Value, from_value, json};

use crate::host::{attach_head, parameter, tiny_bert};
use crate::reference::{self, close};

fn numbers() -> Value {
    reference::read("regression.json")
}

/// A head that has declared its parameters on the tiny BERT, for features of width 4.
fn attached(options: &Value, hidden: Option<&str>) -> (HeadInstance, AdaptedModel, HeadSpec) {
    let task = TaskInfo {
        name: "score".into(),
        labels: Vec::new(),
        class_counts: Vec::new(),
        examples: 0,
        width: 4,
        streams: Vec::new(),
        hidden_activation: hidden.map(str::to_owned),
        bias: true,
        dropout: 0.0,
        image: None,
        vocabulary: None,
        comparison: None,
        sequences: 1,
    };
    let mut model = tiny_bert();
    let (head, spec) = attach_head("regression", options, &task, &mut model);
    (head, model, spec)
}

#[test]
fn losses_and_gradients_are_torchs() {
    let numbers = numbers();
    let targets = reference::tensor(&numbers["targets"], &[6]);
    for case in numbers["cases"].as_array().unwrap() {
        let mut options = json!({ "loss": case["loss"], "center": case["center"], "scale": case["scale"] });
        if !case["delta"].is_null() {
            options["delta"] = case["delta"].clone();
        }
        let (head, _, _) = attached(&options, None);
        let tape = Tape::recording();
        let outputs = tape.variable(reference::tensor(&numbers["outputs"], &[6]));
        let (sum, weight) = head.loss(&tape, &outputs, &targets, &[]).unwrap();
        assert_eq!(weight, 6.0);
        close(&[sum.tensor().to_scalar::<f32>().unwrap()], &json!([case["sum"]]));
        let gradients = tape.backward(&sum).unwrap();
        close(&gradients.of(&outputs).unwrap().to_vec1::<f32>().unwrap(), &case["gradient"]);
    }
}

#[test]
fn outputs_are_torchs_and_predictions_in_the_targets_units() {
    let head = &numbers()["head"];
    let (instance, model, spec) = attached(&json!({ "center": 10.0, "scale": 2.0, "dropout": 0.0 }), Some("tanh"));
    assert_eq!((spec.targets, spec.predictions), (TargetKind::Value, PredictionKind::Values));
    for (name, shape) in
        [("dense.weight", &[4, 4][..]), ("dense.bias", &[4]), ("out_proj.weight", &[1, 4]), ("out_proj.bias", &[1])]
    {
        parameter(&model, name).set(&reference::tensor(&head["weights"][name], shape)).unwrap();
    }
    let tape = Tape::evaluation();
    let features = Recorded::constant(reference::tensor(&head["features"], &[3, 4]));
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
    let features = Recorded::constant(reference::tensor(&json!([1.0, -1.0, 0.5, 2.0]), &[1, 4]));
    let outputs = head.forward(&tape, &features, &Layout::single_rows(1)).unwrap();
    let predicted = head.predict(&tape, &outputs).unwrap().to_vec1::<f32>().unwrap();
    assert!((predicted[0] - 4.5).abs() < 0.2, "{predicted:?}");
}
