//! R-Drop's loss of the classification head in a host of the test's own, against the numbers that `tests/reference/make_r_drop.py` got from
//! torch.

use fthost_autograd::{Device, Tape, Tensor};
use fthost_plugin_api::TaskInfo;
use serde_json::json;

use crate::host::{attach_head, tiny_bert};
use crate::reference::{self, close};

#[test]
fn losses_and_gradients_of_two_passes_are_torchs() {
    let numbers = reference::read("r_drop.json");
    let task = TaskInfo {
        name: "t".into(),
        labels: ["a", "b", "c"].map(String::from).into(),
        class_counts: vec![2, 2, 1],
        examples: 5,
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
    let cases = numbers["losses"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    for case in cases {
        let mut model = tiny_bert();
        let (head, spec) = attach_head("classification", &case["options"], &task, &mut model);
        assert_eq!(spec.forwards, 2);
        let labels: Vec<u32> = serde_json::from_value(case["labels"].clone()).unwrap();
        let targets = Tensor::new(labels, &Device::Cpu).unwrap();
        let tape = Tape::recording();
        let outputs = tape.variable(reference::tensor(&case["logits"], &[10, 3]));
        let (sum, weight) = head.loss(&tape, &outputs, &targets, &[]).unwrap();
        assert!((weight - case["weight"].as_f64().unwrap()).abs() < 1e-6);
        let loss = tape.affine(&sum, 1.0 / weight, 0.0).unwrap();
        close(&[loss.tensor().to_scalar::<f32>().unwrap()], &json!([case["loss"]]));
        let gradients = tape.backward(&loss).unwrap();
        close(&gradients.of(&outputs).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(), &case["gradient"]);

        // In evaluation each example passes once.
        let tape = Tape::recording();
        let once = tape.variable(reference::tensor(&case["logits"], &[10, 3]).narrow(0, 0, 5).unwrap());
        let (sum, weight) = head.loss(&tape, &once, &targets, &[]).unwrap();
        close(&[sum.tensor().to_scalar::<f32>().unwrap() / weight as f32], &json!([case["once"]]));
    }
    let (_, spec) = attach_head("classification", &json!({}), &task, &mut tiny_bert());
    assert_eq!(spec.forwards, 1);
}
