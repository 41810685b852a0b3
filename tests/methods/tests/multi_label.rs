//! The head in a host of the test's own, against the numbers that `tests/reference/make_multi_label.py` got from torch.

use fthost::adapted::AdaptedModel;
use fthost::plugin::HeadInstance;
use fthost_autograd::{Layout, Tape, Value as Recorded};
use fthost_plugin_api::{HeadSpec, PredictionKind, TargetKind, TaskInfo};
use serde_json::{Value, json};

use crate::host::{attach_head, tiny_bert};
use crate::reference::{self, close};

fn attached(options: &Value) -> (HeadInstance, AdaptedModel, HeadSpec) {
    let task = TaskInfo {
        name: "mentions".into(),
        labels: ["a", "b", "c", "d"].map(String::from).into(),
        class_counts: vec![10, 20, 0, 40],
        examples: 40,
        width: 4,
        streams: Vec::new(),
        hidden_activation: None,
        bias: true,
        dropout: 0.0,
        image: None,
        vocabulary: None,
        comparison: None,
        sequences: 1,
    };
    let mut model = tiny_bert();
    let (head, spec) = attach_head("multi-label", options, &task, &mut model);
    (head, model, spec)
}

#[test]
fn losses_gradients_and_probabilities_are_torchs() {
    let numbers = reference::read("multi_label.json");
    let cases = numbers["losses"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    for case in cases {
        let options =
            if case["weights"].is_null() { json!({}) } else { json!({ "positive_weights": case["weights"] }) };
        let (head, _, spec) = attached(&options);
        assert_eq!((spec.targets, spec.predictions), (TargetKind::MultiLabel, PredictionKind::MultiLabel));
        let (logits, targets) =
            (reference::tensor(&flat(&case["logits"]), &[5, 4]), reference::tensor(&flat(&case["targets"]), &[5, 4]));
        let tape = Tape::recording();
        let outputs = tape.variable(logits);
        let (sum, weight) = head.loss(&tape, &outputs, &targets, &[]).unwrap();
        assert_eq!(weight, 20.0);
        let loss = tape.affine(&sum, 1.0 / weight, 0.0).unwrap();
        close(&[loss.tensor().to_scalar::<f32>().unwrap()], &json!([case["loss"]]));
        let gradients = tape.backward(&loss).unwrap();
        let gradient = gradients.of(&outputs).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        close(&gradient, &flat(&case["gradient"]));
        let predicted = head.predict(&Tape::evaluation(), &outputs).unwrap();
        close(&predicted.flatten_all().unwrap().to_vec1::<f32>().unwrap(), &flat(&case["probabilities"]));
    }
}

fn flat(rows: &Value) -> Value {
    rows.as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap().clone()).collect()
}

#[test]
fn balanced_weights_are_those_without_over_those_with() {
    let loss = |options: Value, target: [f64; 4]| {
        let (head, _, _) = attached(&options);
        let tape = Tape::recording();
        let outputs = tape.variable(reference::tensor(&json!([0.0, 0.0, 0.0, 0.0]), &[1, 4]));
        let targets = reference::tensor(&json!(target), &[1, 4]);
        f64::from(head.loss(&tape, &outputs, &targets, &[]).unwrap().0.tensor().to_scalar::<f32>().unwrap())
    };
    let half = std::f64::consts::LN_2;
    let balanced = || json!({ "positive_weights": "balanced" });
    assert!((loss(json!({}), [1.0, 0.0, 0.0, 1.0]) - 4.0 * half).abs() < 1e-6);
    // 30 / 10, 20 / 20, none counted, 0 / 40
    assert!((loss(balanced(), [1.0, 1.0, 1.0, 1.0]) - (3.0 + 1.0 + 1.0 + 0.0) * half).abs() < 1e-6);
    assert!((loss(balanced(), [0.0; 4]) - 4.0 * half).abs() < 1e-6);
}

#[test]
fn starts_with_each_class_at_about_one_half() {
    let (head, model, _) = attached(&json!({}));
    let declared: Vec<_> =
        model.parameters.iter().map(|p| p.parameter.name()).filter(|n| n.contains("classifier")).collect();
    assert_eq!(declared, ["classifier.weight", "classifier.bias"]);
    let tape = Tape::evaluation();
    let features = Recorded::constant(reference::tensor(&json!([1.0, -1.0, 0.5, 2.0]), &[1, 4]));
    let outputs = head.forward(&tape, &features, &Layout::single_rows(1)).unwrap();
    let predicted = head.predict(&tape, &outputs).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(predicted.len() == 4 && predicted.iter().all(|p| (p - 0.5).abs() < 0.1), "{predicted:?}");
}
