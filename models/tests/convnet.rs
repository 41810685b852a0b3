//! Convolutional networks against PyTorch, Transformers, torchvision and timm (tests/reference/make_convnets.py), by weights and images that
//! both sides compute.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fthost_models::autograd::{Device, Gradients, Layout, Map, Parameter, Result, Tape, Tensor, Value};
use fthost_models::{
    Answer, Hook, Input, LinearHook, Loader, Model, PoolBy, Pooling, Read, SavedHead, SiteKind, Weights, write_tensors,
};
use serde_json::{Value as Json, json};

/// Of the largest element, or of a digest's length.
const TOLERANCE: f64 = 1e-4;

fn reference() -> Json {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/convnets.json");
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn fnv(text: &str, offset: u64, prime: u64) -> u64 {
    text.bytes().fold(offset, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(prime))
}

fn fnv32(text: &str) -> u32 {
    text.bytes().fold(0x811C_9DC5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// As `uniform` of the script.
fn uniform(name: &str, count: usize) -> Vec<f64> {
    let start = fnv32(name);
    let number = |i: u32| {
        let mut x = (i + 1).wrapping_mul(2_654_435_761).wrapping_add(start);
        x ^= x >> 15;
        x = x.wrapping_mul(2_246_822_519);
        x ^= x >> 13;
        f64::from(x >> 8) / f64::from(1 << 24) - 0.5
    };
    (0..count as u32).map(number).collect()
}

/// As `values` of the script.
fn values(name: &str, shape: &[usize]) -> Tensor {
    let mut numbers = uniform(name, shape.iter().product());
    let fan_in: usize = shape.iter().skip(1).product();
    let (base, scale) = match name {
        _ if name.ends_with("running_var") => (1.0, 0.5),
        _ if shape.len() > 1 => (0.0, (24.0 / fan_in as f64).sqrt()),
        _ if name.ends_with("weight") => (1.0, 0.2),
        _ => (0.0, 0.2),
    };
    numbers.iter_mut().for_each(|x| *x = base + scale * *x);
    let numbers: Vec<f32> = numbers.iter().map(|&x| x as f32).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
}

/// Of torch's `[images, channels, height, width]`.
fn pixels(shape: &[usize], add: f64) -> Input {
    let numbers = uniform("pixels", shape.iter().product());
    let numbers: Vec<f32> = numbers.iter().map(|x| (4.0 * x) as f32 + add as f32).collect();
    let images = Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap();
    Input::Images(images.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap())
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

fn numbers(json: &Json) -> Vec<f64> {
    match json {
        Json::Array(all) => all.iter().flat_map(numbers).collect(),
        one => vec![one.as_f64().unwrap()],
    }
}

#[track_caller]
fn assert_digest(found: &Tensor, expected: &Json, tolerance: f64, what: &str) {
    let found = flat(found);
    let length = found.iter().map(|x| x * x).sum::<f64>().sqrt();
    let product: f64 = found.iter().zip(uniform("digest", found.len())).map(|(x, u)| x * u).sum();
    let expected = numbers(expected);
    let (of_length, of_product) = ((length - expected[0]).abs(), (product - expected[1]).abs());
    let allowed = tolerance * expected[0] + 1e-9;
    assert!(of_length <= allowed && of_product <= allowed, "{what}: {length} {product}, torch has {expected:?}");
}

#[track_caller]
fn assert_near(found: &Tensor, expected: &Json, tolerance: f64, what: &str) {
    let (found, expected) = (flat(found), numbers(expected));
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().fold(0.0f64, |size, x| size.max(x.abs()));
    let off = found.iter().zip(&expected).fold(0.0f64, |off, (a, b)| off.max((a - b).abs()));
    assert!(off <= tolerance * size, "{what}: off by {off} of {size}");
}

/// Of a gradient's length, and of what training leaves. In float32 one of a million sums falls on the other side of a kink: by that
/// torch's own gradients of networks with ReLU6 differ from those in float64 by up to 3e-3.
fn of_training(name: &str) -> f64 {
    // ResNet-50's 53 norms of sixteen rows each carry such a difference on.
    if name.contains("mobilenet") || name.contains("efficientnet") || name == "resnet50" { 1e-2 } else { 1e-3 }
}

/// A model of the reference, its weights computed, its head's beside it.
struct Case {
    name: String,
    expected: Json,
    folder: tempfile::TempDir,
    model: Box<dyn Model>,
    /// By their names in files.
    tensors: BTreeMap<String, Tensor>,
}

impl Case {
    fn new(all: &Json, name: &str) -> Self {
        let expected = all["cases"][name].clone();
        let folder = tempfile::tempdir().unwrap();
        let (new, names) = Self::names(&expected);
        assert_names(&names, &expected["names"], name);
        let tensors: BTreeMap<_, _> =
            names.into_iter().map(|(name, shape)| (name.clone(), values(&name, &shape))).collect();
        write_tensors(&folder.path().join("model.safetensors"), &tensors).unwrap();
        std::fs::write(folder.path().join("config.json"), expected["config"].to_string()).unwrap();
        drop(new);
        let model = fthost_models::open(folder.path(), &Device::Cpu).unwrap();
        Self { name: name.into(), expected, folder, model, tensors }
    }

    /// A model of new weights, and all names and shapes of its files, the head's included.
    fn names(expected: &Json) -> (Box<dyn Model>, BTreeMap<String, Vec<usize>>) {
        let model = fthost_models::random(&expected["config"].to_string(), 3, &Device::Cpu).unwrap();
        let info = model.info();
        let mut names: BTreeMap<String, Vec<usize>> = model
            .parameters()
            .iter()
            .map(|base| {
                (format!("{}{}", info.prefix(base.stream), base.parameter.name()), base.parameter.dims().into())
            })
            .collect();
        let (output, classes) = (&info.classification.as_ref().unwrap().output, classes(expected));
        names.insert(format!("{output}.weight"), vec![classes, info.plain().width]);
        names.insert(format!("{output}.bias"), vec![classes]);
        (model, names)
    }

    fn input(&self, add: f64) -> Input {
        let shape: Vec<usize> = numbers(&self.expected["images"]).iter().map(|&side| side as usize).collect();
        pixels(&shape, add)
    }

    fn parameter(&self, name: &str) -> Parameter {
        let own = name.strip_prefix(&self.model.info().plain().prefix).unwrap_or(name);
        let found = self.model.parameters().iter().find(|base| base.parameter.name() == own);
        found.unwrap_or_else(|| panic!("{}: no {name}", self.name)).parameter.clone()
    }

    fn logits(&self) -> (Tensor, Tensor) {
        let tape = Tape::evaluation();
        let pooled = self.model.forward(&tape, &self.input(0.0), Read::Pooled).unwrap().value;
        let output = &self.model.info().classification.as_ref().unwrap().output;
        let layer = |part: &str| Value::constant(self.tensors[&format!("{output}.{part}")].clone());
        let logits = tape.linear(&pooled, &layer("weight"), Some(&layer("bias"))).unwrap();
        (pooled.into_tensor(), logits.into_tensor())
    }

    /// Those of the sum of the pooled features, each times a weight.
    fn gradients(&self, add: f64) -> Gradients {
        let tape = Tape::recording();
        let pooled = self.model.forward(&tape, &self.input(add), Read::Pooled).unwrap().value;
        let weights: Vec<f32> =
            uniform("weights", pooled.tensor().elem_count()).into_iter().map(|x| x as f32).collect();
        let weights = Tensor::from_vec(weights, pooled.dims(), &Device::Cpu).unwrap();
        tape.backward_from(vec![(pooled, weights)]).unwrap()
    }

    fn assert_gradients(&self, gradients: &Gradients, key: &str) {
        let expected = self.expected[key].as_object().unwrap();
        assert!(!expected.is_empty(), "{}", self.name);
        for (name, digest) in expected {
            let parameter = self.parameter(name);
            let found = gradients.get(&parameter).unwrap_or_else(|| panic!("{name} got no gradient"));
            let found = found.to_dense(parameter.dims()).unwrap();
            // A bias that a norm over the batch takes away again changes nothing: its gradient is zero but for rounding, here of f32.
            if digest[0].as_f64().unwrap() < 1e-9 {
                let length = found.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
                assert!(length < 1e-3, "{}, {key}, {name}: {length}, and torch has {digest}", self.name);
                continue;
            }
            assert_digest(&found, digest, of_training(&self.name), &format!("{}, {key}, {name}", self.name));
        }
    }
}

fn classes(expected: &Json) -> usize {
    expected["classes"].as_u64().unwrap() as usize
}

#[track_caller]
fn assert_names(names: &BTreeMap<String, Vec<usize>>, expected: &Json, what: &str) {
    let mut lines: Vec<String> =
        names.iter().map(|(name, shape)| format!("{name} {shape:?}").replace(", ", ",")).collect();
    lines.sort();
    let hash = format!("{:016x}", fnv(&lines.join("\n"), 0xCBF2_9CE4_8422_2325, 0x100_0000_01B3));
    assert_eq!(json!([lines.len(), hash]), *expected, "{what}: other names than torch's:\n{}", lines.join("\n"));
}

const ALL: [&str; 16] = [
    "resnet-basic",
    "resnet-bottleneck",
    "mobilenet-same",
    "mobilenet-dilated",
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v2_flat",
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite1",
    "tf_efficientnet_lite2",
    "tf_efficientnet_lite3",
    "tf_efficientnet_lite4",
    "resnet20",
    "conv4",
    "mlp",
];

#[test]
fn logits_and_features_equal_torchs() {
    let all = reference();
    for name in ALL {
        let case = Case::new(&all, name);
        let (pooled, logits) = case.logits();
        assert_digest(&pooled, &case.expected["pooled"], TOLERANCE, name);
        assert_near(&logits, &case.expected["logits"], TOLERANCE, name);
        // The map's mean is what is pooled.
        if case.model.info().plain().reads.contains(&Read::Spatial) {
            let map = case.model.forward(&Tape::evaluation(), &case.input(0.0), Read::Spatial).unwrap();
            let mean = Tape::evaluation().segment_mean(&map.value, &map.layout).unwrap().into_tensor();
            assert_near(&mean, &json!(flat(&pooled)), 1e-5, name);
        }
    }
}

#[test]
fn gradients_by_frozen_norms_equal_torchs() {
    let all = reference();
    for name in ALL {
        let case = Case::new(&all, name);
        for base in case.model.parameters() {
            base.parameter.set_trainable(base.parameter.dims().len() > 1 && !base.buffer);
        }
        assert!(!case.model.batch_statistics(), "{name}");
        let gradients = case.gradients(0.0);
        case.assert_gradients(&gradients, "frozen_norms");
    }
}

#[test]
fn norms_that_train_by_their_running_statistics_equal_torchs_in_evaluation() {
    let all = reference();
    for name in ALL {
        let mut case = Case::new(&all, name);
        case.model = Loader::new(&Device::Cpu).keeping_statistics(true).open(case.folder.path()).unwrap();
        assert!(!case.model.batch_statistics(), "{name}");
        let buffers = || -> Vec<u64> {
            case.model.parameters().iter().filter(|base| base.buffer).map(|base| base.parameter.version()).collect()
        };
        let before = buffers();
        let mut gradients = case.gradients(0.0);
        case.assert_gradients(&gradients, "kept_statistics");
        case.assert_gradients(&gradients, "frozen_norms");
        gradients.settle().unwrap();
        assert_eq!(buffers(), before, "{name}");
    }
}

/// The first gradient by the batch's statistics, and steps of gradient descent, ten of all but large networks: running statistics and logits.
#[test]
fn training_by_the_batch_equals_torchs() {
    let all = reference();
    let rate = all["rate"].as_f64().unwrap();
    for name in ALL {
        let case = Case::new(&all, name);
        assert_eq!(case.model.batch_statistics(), name != "mlp", "{name}");
        case.assert_gradients(&case.gradients(0.0), "training");
        for step in 0..case.expected["steps"].as_u64().unwrap() {
            let mut gradients = case.gradients(0.1 * step as f64);
            let updates: Vec<(Parameter, Tensor)> = gradients
                .iter()
                .map(|(parameter, gradient)| {
                    let step = gradient.to_dense(parameter.dims()).unwrap().affine(-rate, 0.0).unwrap();
                    (parameter.clone(), (parameter.tensor() + step).unwrap())
                })
                .collect();
            updates.iter().for_each(|(parameter, value)| parameter.set(value).unwrap());
            gradients.settle().unwrap();
        }
        for (name, digest) in case.expected["running"].as_object().unwrap() {
            assert_digest(&case.parameter(name).tensor(), digest, 1e-3, &format!("{}, {name}", case.name));
        }
        assert_near(&case.logits().1, &case.expected["trained_logits"], of_training(name), name);
    }
}

#[test]
fn a_pass_that_is_not_settled_changes_nothing_and_two_over_one_batch_count_once() {
    let all = reference();
    let case = Case::new(&all, "conv4");
    let mean = case.parameter("blocks.0.norm.running_mean");
    let before = flat(&mean.tensor());
    let (once, twice) = {
        drop(case.gradients(0.0));
        assert_eq!(flat(&mean.tensor()), before);
        let after = |reads: &[Read]| {
            let tape = Tape::recording();
            for &read in reads {
                case.model.forward(&tape, &case.input(0.0), read).unwrap();
            }
            tape.backward_from(Vec::new()).unwrap().settle().unwrap();
            let now = flat(&mean.tensor());
            mean.set(&Tensor::from_vec(before.iter().map(|&x| x as f32).collect(), mean.dims(), &Device::Cpu).unwrap())
                .unwrap();
            now
        };
        (after(&[Read::Pooled]), after(&[Read::Pooled, Read::Spatial]))
    };
    assert_ne!(once, before);
    assert_eq!(once, twice);
}

/// Also of networks too large for numbers.
#[test]
fn names_of_deep_resnets_are_torchvisions() {
    let all = reference();
    for name in ["resnet34", "resnet101", "resnet152"] {
        let expected = &all["cases"][name];
        assert_names(&Case::names(expected).1, &expected["names"], name);
    }
}

#[test]
fn weights_alone_are_known_by_their_names() {
    let all = reference();
    for name in ["resnet18", "mobilenet_v2", "mobilenet_v2_flat", "tf_efficientnet_lite0", "resnet20"] {
        let case = Case::new(&all, name);
        let file = case.folder.path().join("model.safetensors");
        std::fs::remove_file(case.folder.path().join("config.json")).unwrap();
        for path in [file.as_path(), case.folder.path()] {
            let model = fthost_models::open(path, &Device::Cpu).unwrap();
            assert_eq!(model.info().model_type, name);
            let pooled = model.forward(&Tape::evaluation(), &case.input(0.0), Read::Pooled).unwrap().value;
            assert_digest(pooled.tensor(), &case.expected["pooled"], TOLERANCE, name);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.safetensors");
    write_tensors(&file, &[("fc1.weight".to_owned(), values("w", &[2, 3]))].into()).unwrap();
    let error = fthost_models::open(&file, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("other.safetensors are those of no network") && error.contains("resnet50"), "{error}");
}

#[test]
fn what_is_saved_has_the_names_that_were_read_and_opens_again() {
    let all = reference();
    for name in ["resnet-basic", "mobilenet-same", "resnet18", "mobilenet_v2", "tf_efficientnet_lite0", "conv4", "mlp"]
    {
        let mut case = Case::new(&all, name);
        // A counter that nothing reads, as torch's files hold for each norm.
        let info = case.model.info();
        let first = case.model.parameters().iter().find(|base| base.buffer);
        let counter = first.map(|base| {
            let path = base.parameter.name().strip_suffix("running_mean").unwrap();
            format!("{}{path}num_batches_tracked", info.prefix(base.stream))
        });
        if let Some(counter) = &counter {
            case.tensors.insert(counter.clone(), Tensor::new(41i64, &Device::Cpu).unwrap());
            write_tensors(&case.folder.path().join("model.safetensors"), &case.tensors).unwrap();
            case.model = fthost_models::open(case.folder.path(), &Device::Cpu).unwrap();
        }
        let output = case.model.info().classification.as_ref().unwrap().output.clone();
        let head: Vec<(String, Tensor)> = ["weight", "bias"]
            .iter()
            .map(|part| format!("{output}.{part}"))
            .map(|name| (name.clone(), case.tensors[&name].narrow(0, 0, 2).unwrap().contiguous().unwrap()))
            .collect();
        let labels = ["cat", "dog"].map(str::to_owned);
        let saved = tempfile::tempdir().unwrap();
        let answer = SavedHead { tensors: &head, answer: Answer::Class(&labels), dropout: None };
        case.model.save_folder(saved.path(), &answer).unwrap();

        let weights = Weights::open(saved.path()).unwrap();
        let names: Vec<&str> = weights.names().collect();
        assert_eq!(names, case.tensors.keys().map(String::as_str).collect::<Vec<_>>(), "{name}");
        if let Some(counter) = &counter {
            let file = std::fs::read(saved.path().join("model.safetensors")).unwrap();
            let file = safetensors::SafeTensors::deserialize(&file).unwrap();
            assert_eq!(file.tensor(counter).unwrap().data(), 41i64.to_le_bytes());
        }
        let config: Json =
            serde_json::from_str(&std::fs::read_to_string(saved.path().join("config.json")).unwrap()).unwrap();
        match case.expected["config"].get("architecture") {
            Some(_) => assert_eq!((&config["num_classes"], &config["label_names"][1]), (&json!(2), &json!("dog"))),
            None => assert_eq!(config["id2label"]["1"], "dog"),
        }
        if name == "resnet-basic" {
            assert_eq!(config["architectures"], json!(["ResNetForImageClassification"]));
        }
        let again = fthost_models::open(saved.path(), &Device::Cpu).unwrap();
        let pooled = again.forward(&Tape::evaluation(), &case.input(0.0), Read::Pooled).unwrap().value;
        assert_digest(pooled.tensor(), &case.expected["pooled"], TOLERANCE, name);
    }
}

/// Adds `x A^T B^T`.
struct LowRank([Parameter; 2]);

impl LowRank {
    fn new(site: &str, inputs: usize, outputs: usize) -> Self {
        let part = |part: &str, shape: &[usize]| {
            let name = format!("{site}.{part}.weight");
            Parameter::new(name.clone(), values(&name, shape).affine(0.1, 0.0).unwrap(), true)
        };
        Self([part("a", &[2, inputs]), part("b", &[outputs, 2])])
    }
}

impl LinearHook for LowRank {
    fn input(&self, _: &Tape, _: &Value) -> Result<Option<Value>> {
        Ok(None)
    }

    fn forward(&self, tape: &Tape, x: &Value, y: Value, weight: &Value) -> Result<Value> {
        assert_eq!(weight.dims(), [y.dims()[1], x.dims()[1]]);
        assert_eq!(tape.layout().map(|layout| layout.tokens()), Some(x.dims()[0]), "rows are counted by their images");
        let [a, b] = self.0.each_ref().map(|part| tape.parameter(part));
        tape.add(&y, &tape.linear(&tape.linear(x, &a, None)?, &b, None)?)
    }

    fn merge(&self, _: &Tape, weight: &Value) -> Result<Option<Value>> {
        let [a, b] = self.0.each_ref().map(Parameter::tensor);
        Ok(Some(Value::constant((weight.tensor() + b.matmul(&a)?)?)))
    }
}

/// Scales what a layer takes.
struct Scale(f64);

impl LinearHook for Scale {
    fn input(&self, tape: &Tape, x: &Value) -> Result<Option<Value>> {
        tape.affine(x, self.0, 0.0).map(Some)
    }

    fn forward(&self, _: &Tape, _: &Value, y: Value, _: &Value) -> Result<Value> {
        Ok(y)
    }

    fn merge(&self, tape: &Tape, weight: &Value) -> Result<Option<Value>> {
        tape.affine(weight, self.0, 0.0).map(Some)
    }
}

#[test]
fn hooks_see_patches_and_fold_into_kernels() {
    let all = reference();
    for name in ["resnet-bottleneck", "mobilenet-same", "resnet20", "conv4", "mlp"] {
        let mut case = Case::new(&all, name);
        let base = case.logits().0;
        let sites = case.model.sites().to_vec();
        let mut hooks = Vec::new();
        for site in &sites {
            if !matches!(site.kind, SiteKind::Conv | SiteKind::Linear) {
                continue;
            }
            let hook = LowRank::new(&site.path, site.in_features, site.out_features);
            hooks.extend(hook.0.clone());
            let set = case.model.set_hook(&site.path, Hook::Linear(Arc::new(hook)));
            let groups = site.convolution.map_or(1, |convolution| convolution.groups);
            assert_eq!(set.is_ok(), groups == 1, "{name}: {}", site.path);
            if let Err(error) = set {
                assert!(error.to_string().contains(&format!("{} is a convolution in {groups} groups", site.path)));
            } else if site.path.len().is_multiple_of(2) {
                case.model.set_hook(&site.path, Hook::Linear(Arc::new(Scale(0.9)))).unwrap();
            }
        }
        for base in case.model.parameters() {
            base.parameter.set_trainable(false);
        }
        let gradients = case.gradients(0.0);
        let reached = hooks.iter().filter(|part| gradients.get(part).is_some()).count();
        let depthwise = sites.iter().filter(|site| site.convolution.is_some_and(|of| of.groups > 1)).count();
        assert_eq!(reached, hooks.len() - 2 * depthwise, "{name}");

        let hooked = case.logits().0;
        assert!(flat(&hooked) != flat(&base), "{name}");
        case.model.merge_hooks(&[case.input(0.0)]).unwrap();
        assert_near(&case.logits().0, &json!(flat(&hooked)), 1e-4, name);
        assert!(sites.iter().all(|site| !case.model.hooked(&site.path)));
    }
}

#[test]
fn sites_groups_and_maps_say_what_a_network_is() {
    let all = reference();
    let case = Case::new(&all, "resnet50");
    let info = case.model.info();
    let names: Vec<&str> = info.groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(
        (names.len(), names[0], names[1], names[4], names[17]),
        (18, "stem", "stage.0.block.0", "stage.1.block.0", "head")
    );
    let maps: Vec<_> = info.plain().maps.iter().map(|map| (map.channels, map.stride)).collect();
    assert_eq!(maps, [(256, 4), (512, 8), (1024, 16), (2048, 32)]);
    let site = |path: &str| case.model.sites().iter().find(|site| site.path == path).unwrap().clone();
    let conv = site("layer2.0.conv2");
    assert_eq!((conv.kind, conv.in_features, conv.out_features, conv.group), (SiteKind::Conv, 128 * 9, 128, 4));
    let convolution = conv.convolution.unwrap();
    assert_eq!((convolution.stride, convolution.padding, convolution.groups), ([2; 2], Some([1; 2]), 1));
    let block = site("layer2.0");
    assert_eq!((block.kind, block.out_features), (SiteKind::FeedForwardOutput, 512));

    // A map of an earlier stage is the same as that of a pass that goes on, and parameters above it do not matter.
    let tape = Tape::evaluation();
    let input = case.input(0.0);
    let stage = case.model.forward(&tape, &input, Read::Stage(1)).unwrap();
    assert_eq!((stage.value.dims(), stage.map), (&[4 * 8 * 6, 512][..], Some(Map::new(4, 8, 6))));
    assert_eq!(stage.layout, Layout::from_lengths([48; 4]));
    assert!(case.model.passes(0, Read::Stage(1), "layer2.3.conv1.weight"));
    assert!(!case.model.passes(0, Read::Stage(1), "layer3.0.conv1.weight"));
    let last = case.model.forward(&tape, &input, Read::Stage(3)).unwrap().value.into_tensor();
    let spatial = case.model.forward(&tape, &input, Read::Spatial).unwrap().value.into_tensor();
    assert_eq!(flat(&last), flat(&spatial));
    let error = case.model.forward(&tape, &input, Read::Stage(4)).unwrap_err().to_string();
    assert!(error.contains("there are 4 maps"), "{error}");
    let error = case.model.forward(&tape, &pixels(&[1, 1, 32, 32], 0.0), Read::Pooled).unwrap_err().to_string();
    assert!(error.contains("[1, 32, 32, 1]") && error.contains("[images, height, width, 3]"), "{error}");
}

#[test]
fn pooling_is_mean_or_max() {
    let all = reference();
    let mut case = Case::new(&all, "conv4");
    case.model.set_pooling(0, Pooling { by: PoolBy::Max, normalize: true }).unwrap();
    let pooled = case.logits().0;
    for row in pooled.to_vec2::<f32>().unwrap() {
        assert!((row.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    }
    assert!(case.model.set_pooling(0, Pooling { by: PoolBy::First, normalize: false }).is_err());
}

#[test]
fn new_weights_are_those_of_the_authors() {
    let model = fthost_models::random(&json!({ "architecture": "resnet18" }).to_string(), 1, &Device::Cpu).unwrap();
    let of = |name: &str| {
        flat(&model.parameters().iter().find(|base| base.parameter.name() == name).unwrap().parameter.tensor())
    };
    let kernel = of("layer2.0.conv1.weight"); // [128, 64, 3, 3]
    let deviation = (kernel.iter().map(|x| x * x).sum::<f64>() / kernel.len() as f64).sqrt();
    assert!((deviation / (2.0f64 / (128.0 * 9.0)).sqrt() - 1.0).abs() < 0.02, "{deviation}");
    assert!(of("layer2.0.bn1.weight").iter().chain(&of("bn1.running_var")).all(|&x| x == 1.0));
    assert!(of("layer2.0.bn1.bias").iter().chain(&of("bn1.running_mean")).all(|&x| x == 0.0));
}

/// EfficientNet-Lite0 as published and under timm's names, and a ResNet20 of CIFAR-10, where they are.
#[test]
fn real_weights_give_torchs_logits() {
    let all = reference();
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let shared = beside.join("shared/data/resnet-cifar10/resnet20.safetensors");
    let efficient = std::env::var("FTHOST_EFFICIENTNET").map_or(beside.join("eff"), PathBuf::from);
    let cases = [
        ("efficientnet-lite0", efficient.join("efficientnet-lite0-57934424.pth"), "_fc", 224),
        ("efficientnet-lite0", efficient.join("timm"), "classifier", 224),
        ("resnet20", shared, "linear", 32),
    ];
    for (name, path, output, size) in cases {
        if !path.exists() {
            let text = format!("skipped: {} is not there\n", path.display());
            std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()).unwrap();
            continue;
        }
        let model = fthost_models::open(&path, &Device::Cpu).unwrap();
        assert_eq!(model.info().classification.as_ref().unwrap().output, output);
        let weights = Weights::open(&path).unwrap();
        let layer = |part: &str| Value::constant(weights.tensor(&format!("{output}.{part}"), &Device::Cpu).unwrap());
        let tape = Tape::evaluation();
        let pooled = model.forward(&tape, &pixels(&[2, 3, size, size], 0.0), Read::Pooled).unwrap().value;
        let logits = tape.linear(&pooled, &layer("weight"), Some(&layer("bias"))).unwrap().into_tensor();
        let expected = &all["real"][name];
        assert_near(&logits.narrow(1, 0, 8).unwrap(), &expected["first"], 1e-3, name);
        assert_digest(&logits, &expected["logits"], 1e-3, name);
    }
}
