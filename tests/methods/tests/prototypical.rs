//! The head in a host of the test's own, against the numbers that `tests/reference/make_prototypical.py` got from torch.

use fthost::adapted::AdaptedModel;
use fthost::plugin::HeadInstance;
use fthost_autograd::{Device, Layout, Tape, Tensor, Value as Recorded};
use fthost_plugin_api::{HeadSpec, LossScope, Sampling, TaskInfo};
use serde_json::{Value, from_value, json};

use crate::host::{attach_head, parameter, tiny_bert};
use crate::reference::{self, close, floats};

const CLASSES: usize = 6;
const WIDTH: usize = 4;

fn numbers() -> Value {
    reference::read("prototypical.json")
}

/// A head for six classes that has declared its parameters on the tiny BERT, for features of width 4.
fn attached(options: &Value, hidden: Option<&str>) -> (HeadInstance, AdaptedModel, HeadSpec) {
    let task = TaskInfo {
        name: "faces".into(),
        labels: (0..CLASSES).map(|class| class.to_string()).collect(),
        class_counts: vec![4; CLASSES],
        examples: 0,
        width: WIDTH,
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
    let (head, spec) = attach_head("prototypical", options, &task, &mut model);
    (head, model, spec)
}

fn classes(numbers: &Value) -> Tensor {
    let classes: Vec<u32> = from_value(numbers["classes"].clone()).unwrap();
    Tensor::new(classes, &Device::Cpu).unwrap()
}

#[test]
fn an_episodes_loss_and_gradient_are_torchs() {
    let numbers = numbers();
    let support: Vec<u8> = from_value(numbers["support"].clone()).unwrap();
    for case in numbers["cases"].as_array().unwrap() {
        let (head, _, _) = attached(&json!({ "distance": case["distance"] }), None);
        let tape = Tape::recording();
        let outputs = tape.variable(reference::tensor(&numbers["embeddings"], &[12, WIDTH]));
        let (sum, weight) = head.loss(&tape, &outputs, &classes(&numbers), &support).unwrap();
        assert_eq!(weight, 6.0, "queries");
        close(&[sum.tensor().to_scalar::<f32>().unwrap()], &json!([case["sum"]]));
        let gradients = tape.backward(&sum).unwrap();
        close(&gradients.of(&outputs).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(), &case["gradient"]);
    }
}

#[test]
fn prototypes_are_means_and_predict_as_torchs() {
    let numbers = numbers();
    let new = Recorded::constant(reference::tensor(&numbers["new"], &[5, WIDTH]));
    for case in numbers["cases"].as_array().unwrap() {
        let (head, mut model, _) = attached(&json!({ "distance": case["distance"] }), None);
        let embeddings = reference::tensor(&numbers["embeddings"], &[12, WIDTH]);
        // What was fitted before leaves nothing.
        head.fit(&mut model, &(&embeddings * 7.0).unwrap(), &classes(&numbers)).unwrap();
        head.fit(&mut model, &embeddings, &classes(&numbers)).unwrap();
        let predicted = head.predict(&Tape::evaluation(), &new).unwrap();
        close(&predicted.flatten_all().unwrap().to_vec1::<f32>().unwrap(), &case["probabilities"]);
    }
}

/// With squared distances they are the linear layer of an ordinary classifier.
#[test]
fn squared_distances_are_a_linear_layer() {
    let numbers = numbers();
    let case = &numbers["cases"][0];
    let (head, mut model, _) = attached(&json!({}), None);
    head.fit(&mut model, &reference::tensor(&numbers["embeddings"], &[12, WIDTH]), &classes(&numbers)).unwrap();
    let value = |name: &str| parameter(&model, name).tensor().clone();
    let known: Vec<u32> = from_value(numbers["known"].clone()).unwrap();
    let known = Tensor::new(known, &Device::Cpu).unwrap();
    let rows =
        |name: &str| value(name).index_select(&known, 0).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    close(&rows("classifier.weight"), &case["weight"]);
    close(&rows("classifier.bias"), &case["bias"]);

    let new = reference::tensor(&numbers["new"], &[5, WIDTH]);
    let logits = new.matmul(&value("classifier.weight").t().unwrap()).unwrap();
    let logits = logits.broadcast_add(&value("classifier.bias")).unwrap();
    let tape = Tape::evaluation();
    let found = tape.softmax(&Recorded::constant(logits)).unwrap();
    let expected: Vec<f32> = floats(&case["probabilities"]);
    for (found, expected) in found.tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().zip(expected) {
        assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
    }
}

#[test]
fn a_trained_head_is_the_architectures_dense_layer_alone() {
    let (_, model, spec) = attached(&json!({ "ways": 3, "shots": 1, "queries": 2, "support": 9 }), None);
    assert_eq!(spec.scope, LossScope::Batch);
    assert_eq!(spec.sampling, Sampling::Episodes { ways: 3, shots: 1, queries: 2, support: 9 });
    let trains = |model: &AdaptedModel| -> Vec<String> {
        let head =
            model.parameters.iter().filter(|p| p.owner != fthost::adapted::Owner::Base && p.parameter.trainable());
        head.map(|p| p.parameter.name().to_owned()).collect()
    };
    assert!(trains(&model).is_empty());
    let (head, model, _) = attached(&json!({}), Some("tanh"));
    assert_eq!(trains(&model), ["dense.weight", "dense.bias"]);
    assert_eq!(parameter(&model, "out_proj.weight").tensor().dims(), [CLASSES, WIDTH]);
    let features = Recorded::constant(reference::tensor(&json!([1.0, -1.0, 0.5, 2.0]), &[1, 4]));
    let outputs = head.forward(&Tape::evaluation(), &features, &Layout::single_rows(1)).unwrap();
    assert_eq!(outputs.dims(), [1, WIDTH]);
}
