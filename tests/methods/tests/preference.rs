//! The head in a host of the test's own, against the numbers that `tests/reference/make_preference.py` got from torch.

use fthost::adapted::AdaptedModel;
use fthost::plugin::HeadInstance;
use fthost_autograd::{Device, Layout, Tape, Tensor};
use fthost_models::Loader;
use fthost_plugin_api::{HeadSpec, PredictionKind, TargetKind, TaskInfo, Vocabulary};
use serde_json::{Value, json};

use crate::host::attach_head;
use crate::reference;

/// The head on a tiny decoder with its own layer over a vocabulary of 50.
fn attached(options: &Value) -> (HeadInstance, AdaptedModel, HeadSpec) {
    let loader = Loader::new(&Device::Cpu).with_vocabulary(7);
    let base = loader.open(&reference::path("decoders/llama")).unwrap();
    let layer = base.info().vocabulary.clone().unwrap();
    let vocabulary =
        Vocabulary { size: 50, weight: layer.weight, bias: layer.bias, causal: layer.causal, transform: None };
    let task = TaskInfo {
        name: "answers".into(),
        labels: Vec::new(),
        class_counts: Vec::new(),
        examples: 5,
        width: 16,
        streams: Vec::new(),
        hidden_activation: None,
        bias: true,
        dropout: 0.0,
        image: None,
        vocabulary: Some(vocabulary),
        comparison: None,
        sequences: 1,
    };
    let mut model = AdaptedModel::new(base, Device::Cpu, 7);
    let (head, spec) = attach_head("preference", options, &task, &mut model);
    (head, model, spec)
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn losses_gradients_and_rewards_are_torchs() {
    let numbers = reference::read("preference.json");
    let cases = numbers["losses"].as_array().unwrap();
    assert_eq!(cases.len(), 5);
    for case in cases {
        let options = &case["options"];
        let (head, _model, spec) = attached(options);
        let asks = options["loss"] != "orpo" && options["reference_free"] != true;
        assert_eq!((spec.targets, spec.predictions), (TargetKind::Preference, PredictionKind::Preferences));
        assert_eq!(spec.reference, asks, "{options}");
        let zeros = Value::from(vec![0.0; 10]);
        let targets = reference::tensor(if asks { &case["reference"] } else { &zeros }, &[5, 2]);
        let tape = Tape::recording();
        let outputs = tape.variable(reference::tensor(&case["policy"], &[5, 2]));
        let (sum, weight) = head.loss(&tape, &outputs, &targets, &[]).unwrap();
        assert_eq!(weight, 5.0);
        let loss = tape.affine(&sum, 1.0 / weight, 0.0).unwrap();
        let value = loss.tensor().to_scalar::<f32>().unwrap();
        near(&[value], &json!([case["loss"]]));
        let gradients = tape.backward(&loss).unwrap();
        near(&flat(gradients.of(&outputs).unwrap()), &case["gradient"]);
        // What is predicted, less that by the reference.
        let scores = |of: &Tensor| {
            let tape = Tape::evaluation();
            head.predict(&tape, &fthost_autograd::Value::constant(of.clone())).unwrap()
        };
        near(&flat(&(scores(outputs.tensor()) - scores(&targets)).unwrap()), &case["rewards"]);
    }
}

/// From features to the loss of two pairs, and back.
#[test]
fn the_way_from_features_is_torchs() {
    let numbers = &reference::read("preference.json")["forward"];
    let offsets: Vec<u32> = serde_json::from_value(numbers["offsets"].clone()).unwrap();
    let tokens = offsets[4] as usize;
    let next: Vec<u32> = serde_json::from_value(numbers["next"].clone()).unwrap();
    let next = Tensor::from_vec(next, tokens, &Device::Cpu).unwrap();
    for pass in numbers["passes"].as_array().unwrap() {
        let (head, model, _) = attached(&pass["options"]);
        // The layer is frozen, as it is beside an adapter.
        model.parameters.iter().for_each(|p| p.parameter.set_trainable(false));
        let tape = Tape::recording();
        let features = tape.variable(reference::tensor(&numbers["features"], &[tokens, 16]));
        let layout = Layout::from_lengths(offsets.windows(2).map(|two| (two[1] - two[0]) as usize));
        let outputs = head.forward_streams(&tape, &[(&features, &layout)], Some(&next)).unwrap();
        assert_eq!(outputs.dims(), [2, 2]);
        near(&flat(outputs.tensor()), &pass["outputs"]);
        let targets = reference::tensor(&pass["reference"], &[2, 2]);
        let (sum, weight) = head.loss(&tape, &outputs, &targets, &[]).unwrap();
        let loss = tape.affine(&sum, 1.0 / weight, 0.0).unwrap();
        near(&[loss.tensor().to_scalar::<f32>().unwrap()], &json!([pass["loss"]]));
        let gradients = tape.backward(&loss).unwrap();
        near(&flat(gradients.of(&features).unwrap()), &pass["gradient"]);
    }
}

/// Log-probabilities of tens, of which a loss takes differences: rounding is that of the larger number.
#[track_caller]
fn near(found: &[f32], expected: &Value) {
    let expected: Vec<f64> = serde_json::from_value(expected.clone()).unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() <= 1e-5 * (1.0 + expected.abs()), "{found} is not {expected}");
    }
}
