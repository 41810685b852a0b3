//! The head for ordered classes in a host of the test's own, against the numbers that `tests/reference/make_ordinal.py` got from torch and
//! scikit-learn.

use fthost::adapted::AdaptedModel;
use fthost::plugin::HeadInstance;
use fthost_autograd::{Device, Layout, Tape, Tensor, Value as Recorded};
use fthost_plugin_api::{HeadSpec, PredictionKind, TargetKind, TaskInfo};
use serde_json::{Value, json};

use crate::host::{attach_head, parameter, tiny_bert};
use crate::reference::{self, close};

fn attached(labels: [&str; 4], options: &Value) -> (HeadInstance, AdaptedModel, HeadSpec) {
    let task = TaskInfo {
        name: "grades".into(),
        labels: labels.map(String::from).into(),
        class_counts: vec![10, 20, 0, 40],
        examples: 70,
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
    let (head, spec) = attach_head("ordinal", options, &task, &mut model);
    (head, model, spec)
}

fn classes(of: &Value) -> Tensor {
    let classes: Vec<u32> = serde_json::from_value(of.clone()).unwrap();
    Tensor::new(classes, &Device::Cpu).unwrap()
}

#[test]
fn losses_gradients_and_probabilities_are_corals() {
    let numbers = reference::read("ordinal.json");
    let cases = numbers["losses"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    for case in cases {
        let options = if case["weights"].is_null() { json!({}) } else { json!({ "class_weights": case["weights"] }) };
        let (head, _, spec) = attached(["0", "1", "2", "3"], &options);
        assert_eq!((spec.targets, spec.predictions), (TargetKind::Class, PredictionKind::Classes));
        let tape = Tape::recording();
        let outputs = tape.variable(reference::tensor(&case["logits"], &[6, 3]));
        let (sum, weight) = head.loss(&tape, &outputs, &classes(&case["labels"]), &[]).unwrap();
        assert_eq!(weight, case["weight"].as_f64().unwrap());
        let loss = tape.affine(&sum, 1.0 / weight, 0.0).unwrap();
        close(&[loss.tensor().to_scalar::<f32>().unwrap()], &json!([case["loss"]]));
        let gradients = tape.backward(&loss).unwrap();
        close(&gradients.of(&outputs).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(), &case["gradient"]);
        let predicted = head.predict(&Tape::evaluation(), &outputs).unwrap();
        close(&predicted.flatten_all().unwrap().to_vec1::<f32>().unwrap(), &case["probabilities"]);
    }
}

#[test]
fn metrics_are_scikit_learns() {
    let numbers = reference::read("ordinal.json");
    let (head, _, spec) = attached(["0", "1", "2", "3"], &json!({}));
    assert_eq!(
        spec.metrics.iter().map(|own| (own.name.as_str(), own.higher_is_better)).collect::<Vec<_>>(),
        [("ordinal_mae", false), ("quadratic_kappa", true)]
    );
    for case in numbers["metrics"].as_array().unwrap() {
        let rows = case["targets"].as_array().unwrap().len();
        let predictions = reference::tensor(&case["probabilities"], &[rows, 4]);
        let found = head.metrics(&spec, &predictions, &classes(&case["targets"])).unwrap();
        for (name, value) in found {
            assert!((value - case[&name].as_f64().unwrap()).abs() < 1e-12, "{name}: {value} is not {}", case[&name]);
        }
    }
}

/// Of names whose order is not that of the labels, outputs, losses and metrics are by the order, and probabilities by the labels.
#[test]
fn classes_have_the_order_that_they_are_told() {
    let numbers = reference::read("ordinal.json");
    let case = &numbers["losses"][0];
    let order = json!({ "order": ["poor", "fair", "good", "best"] });
    let (head, _, spec) = attached(["best", "fair", "good", "poor"], &order);
    let label = [3u32, 1, 2, 0]; // by rank
    let tape = Tape::recording();
    let outputs = tape.variable(reference::tensor(&case["logits"], &[6, 3]));
    let ranks: Vec<usize> = serde_json::from_value(case["labels"].clone()).unwrap();
    let targets = classes(&json!(ranks.iter().map(|&rank| label[rank]).collect::<Vec<_>>()));
    let (sum, _) = head.loss(&tape, &outputs, &targets, &[]).unwrap();
    close(&[sum.tensor().to_scalar::<f32>().unwrap() / 6.0], &json!([case["loss"]]));
    let predicted = head.predict(&Tape::evaluation(), &outputs).unwrap().to_vec2::<f32>().unwrap();
    let by_rank: Vec<f32> = predicted.iter().flat_map(|row| label.map(|label| row[label as usize])).collect();
    close(&by_rank, &case["probabilities"]);

    // One that is taken for its neighbour in the order, and one that is taken for the other end.
    let predictions = reference::tensor(&json!([0.1, 0.7, 0.1, 0.1, 0.7, 0.1, 0.1, 0.1]), &[2, 4]);
    let found = head.metrics(&spec, &predictions, &classes(&json!([3, 3]))).unwrap();
    assert_eq!(found["ordinal_mae"], 2.0);
    assert!(found["quadratic_kappa"].abs() < 1e-12);
    let found = head.metrics(&spec, &predictions.narrow(0, 0, 1).unwrap(), &classes(&json!([1]))).unwrap();
    assert!(found["quadratic_kappa"].is_nan(), "one class alone");
}

#[test]
fn starts_with_thresholds_in_order() {
    let (head, model, _) = attached(["0", "1", "2", "3"], &json!({}));
    let thresholds: Vec<f32> = parameter(&model, "thresholds").tensor().to_vec1().unwrap();
    close(&thresholds, &json!([1.0, 2.0 / 3.0, 1.0 / 3.0]));
    let tape = Tape::evaluation();
    let features = Recorded::constant(reference::tensor(&json!([1.0, -1.0, 0.5, 2.0]), &[1, 4]));
    let outputs = head.forward(&tape, &features, &Layout::single_rows(1)).unwrap();
    let predicted = head.predict(&tape, &outputs).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(predicted.len() == 4 && predicted.iter().all(|p| *p > 0.0), "{predicted:?}");
}
