//! The head in a host of the test's own, against the numbers that `tests/reference/make_masks.py` got from torch.

use fthost::adapted::AdaptedModel;
use fthost_autograd::{Device, Layout, Tape, Tensor};
use fthost_plugin_api::{FeatureKind, ImageInfo, PredictionKind, TargetKind, TaskInfo};
use serde_json::{Value, json};

use crate::host::{attach_head, gradient, parameter};
use crate::reference::{self, floats};

const MODEL: &str =
    r#"{ "model_type": "conv4", "num_channels": 3, "image_size": 8, "hidden_size": 5, "num_blocks": 1 }"#;

/// Fails where a number is not the expected one; sums over hundreds of places in f32 round more than [`reference::close`] lets pass.
#[track_caller]
fn close(found: &[f32], expected: &Value, what: &str) {
    let expected = floats(expected);
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-5 * (1.0 + expected.abs()), "{what}: {found} is not {expected}");
    }
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn losses_gradients_and_probabilities_are_torchs() {
    let numbers = reference::read("masks.json");
    let heads = numbers["heads"].as_array().unwrap();
    assert_eq!(heads.len(), 2);
    for case in heads {
        let sides = |key: &str| serde_json::from_value::<[usize; 2]>(case[key].clone()).unwrap();
        let (map, size) = (sides("map"), sides("size"));
        let task = TaskInfo {
            name: "street".into(),
            labels: ["a", "b", "c"].map(String::from).into(),
            class_counts: vec![10, 20, 30],
            examples: 2,
            width: case["width"].as_u64().unwrap() as usize,
            streams: Vec::new(),
            hidden_activation: None,
            bias: true,
            dropout: 0.0,
            image: Some(ImageInfo { size, map }),
            vocabulary: None,
            comparison: None,
            sequences: 1,
        };
        let mut options = json!({
            "channels": case["channels"], "stages": case["stages"], "label_smoothing": case["label_smoothing"], "dropout": 0.0
        });
        if !case["class_weights"].is_null() {
            options["class_weights"] = case["class_weights"].clone();
        }
        let model = fthost_models::random(MODEL, 0, &Device::Cpu).unwrap();
        let mut model = AdaptedModel::new(model, Device::Cpu, 7);
        let (head, spec) = attach_head("segmentation", &options, &task, &mut model);
        assert_eq!(
            (spec.features, spec.targets, spec.predictions),
            (FeatureKind::Spatial, TargetKind::Mask, PredictionKind::Masks)
        );
        for (name, values) in case["parameters"].as_object().unwrap() {
            let parameter = parameter(&model, name);
            parameter.set(&reference::tensor(values, parameter.dims())).unwrap();
        }

        let tape = Tape::recording();
        let pixels = map[0] * map[1];
        let features = tape.variable(reference::tensor(&case["features"], &[2 * pixels, task.width]));
        let outputs = head.forward(&tape, &features, &Layout::from_lengths([pixels; 2])).unwrap();
        let targets: Vec<i64> = serde_json::from_value(case["targets"].clone()).unwrap();
        let targets: Vec<u32> = targets.iter().map(|&class| u32::try_from(class).unwrap_or(u32::MAX)).collect();
        let targets = Tensor::from_vec(targets, (2, size[0], size[1]), &Device::Cpu).unwrap();
        let (sum, weight) = head.loss(&tape, &outputs, &targets, &[]).unwrap();
        let loss = tape.affine(&sum, 1.0 / weight, 0.0).unwrap();
        close(&[loss.tensor().to_scalar().unwrap()], &json!([case["loss"]]), "loss");
        let predicted = head.predict(&Tape::evaluation(), &outputs).unwrap();
        close(&flat(&predicted), &case["probabilities"], "probabilities");
        let gradients = tape.backward(&loss).unwrap();
        close(&flat(gradients.of(&features).unwrap()), &case["features_grad"], "features");
        for (name, expected) in case["gradients"].as_object().unwrap() {
            close(&gradient(&gradients, parameter(&model, name)), expected, name);
        }
    }
}
