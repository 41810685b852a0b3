//! Two folders joined: each stream is its folder to the bit, paths tell whose they are, hooks, freezing and folders of either.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fthost_models::autograd::{DType, Device, Gradients, Parameter, Result, Tape, Tensor, Value};
use fthost_models::{
    BlockGroup, BlockHook, Hook, Input, LinearHook, LoadError, Loader, Model, PoolBy, Pooling, Quantize, Read,
    SavedHead, Site, SiteKind, Weights, head_weights, is_joined,
};
use support::{Expected, assert_close, assert_slope, tiny, weights};

fn loader() -> Loader<'static> {
    Loader::new(&Device::Cpu)
}

fn join(streams: &[(&str, &Path)]) -> std::result::Result<Box<dyn Model>, LoadError> {
    loader().join(streams)
}

/// A small network of convolutions with batch norms, in a folder.
fn network() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = r#"{"model_type": "conv4", "num_channels": 2, "hidden_size": 6, "image_size": 32}"#;
    loader().random(config, 1).unwrap().save_folder(folder.path(), &SavedHead::default()).unwrap();
    folder
}

/// A text model and an image model, whose paths are the same where both are transformers.
fn folders(of: [&str; 2], network: &Path) -> [PathBuf; 2] {
    of.map(|name| if name == "conv4" { network.into() } else { tiny(name) })
}

fn inputs(text: &str, image: &str) -> [Input; 2] {
    let images = match image {
        "conv4" => {
            let pixels: Vec<f32> = (0..3 * 32 * 32 * 2).map(|i| (0.37 * i as f32).sin()).collect();
            Input::Images(Tensor::from_vec(pixels, (3, 32, 32, 2), &Device::Cpu).unwrap())
        }
        name => Expected::tiny(name).input(),
    };
    [Expected::tiny(text).input(), images]
}

fn pooled(model: &dyn Model, stream: usize, input: &Input) -> Tensor {
    model.features(&Tape::evaluation(), stream, input, Read::Pooled).unwrap().value.into_tensor()
}

const PAIRS: [[&str; 2]; 3] = [["bert", "vit"], ["distilbert", "conv4"], ["roberta", "vit"]];

/// Of weighted features of both streams.
fn gradients(model: &dyn Model, inputs: &[Input; 2]) -> Gradients {
    let tape = Tape::recording();
    let of = |(stream, input): (usize, &Input)| {
        let value = model.features(&tape, stream, input, Read::Pooled).unwrap().value;
        let weights = weights(value.dims());
        (value, weights)
    };
    let read: Vec<_> = inputs.iter().enumerate().map(of).collect();
    tape.backward_from(read).unwrap()
}

#[test]
fn each_stream_is_its_folder_to_the_bit() {
    let network = network();
    for of in PAIRS {
        let folders = folders(of, network.path());
        // However they are named, texts are the first.
        let model = join(&[("image", &folders[1]), ("text", &folders[0])]).unwrap();
        let (info, inputs) = (model.info(), inputs(of[0], of[1]));
        assert_eq!(info.model_type, "pair");
        let mut names = BTreeSet::new();
        let (mut sites, mut parameters) = (model.sites().iter(), model.parameters().iter());
        for (stream, name) in ["text", "image"].into_iter().enumerate() {
            let own = loader().open(&folders[stream]).unwrap();
            assert_close(
                &pooled(&*model, stream, &inputs[stream]),
                &pooled(&*own, 0, &inputs[stream]),
                0.0,
                of[stream],
            );
            let (part, plain) = (&info.streams[stream], own.info().plain());
            assert_eq!((part.name.as_str(), &part.modality, part.width), (name, &plain.modality, plain.width));
            assert_eq!(
                (part.root.as_str(), part.prefix.as_str(), &part.reads),
                (&*format!("{name}."), "", &plain.reads)
            );
            for own in own.sites() {
                let site = sites.next().unwrap();
                assert_eq!((&site.path, site.stream), (&format!("{name}.{}", own.path), Some(stream)));
                assert_eq!((site.kind, site.in_features), (own.kind, own.in_features));
                assert_eq!(info.within(site.stream, &site.path), own.path);
                assert_eq!(info.groups[site.group].stream, Some(stream).filter(|_| site.group != info.head_group()));
                assert!(names.insert(site.path.clone()), "{}", site.path);
            }
            for own in own.parameters() {
                let base = parameters.next().unwrap();
                assert_eq!(base.parameter.name(), format!("{name}.{}", own.parameter.name()));
                assert_eq!((base.stream, base.buffer), (Some(stream), own.buffer));
                assert_close(&base.parameter.tensor(), &own.parameter.tensor(), 0.0, base.parameter.name());
            }
            if let Some(words) = &part.word_embeddings {
                assert!(model.parameters().iter().any(|base| base.parameter.name() == format!("{words}.weight")));
            }
        }
        assert!(sites.next().is_none() && parameters.next().is_none());
        assert_eq!(model.longest_sequence().unwrap(), loader().open(&folders[0]).unwrap().longest_sequence().unwrap());
        assert_eq!(model.batch_statistics(), of[1] == "conv4");
        assert_eq!(model.files().len(), 2);
        let error = model.features(&Tape::evaluation(), 1, &inputs[0], Read::Pooled).unwrap_err().to_string();
        assert!(error.contains("in the stream \"image\": an image model got text"), "{error}");
    }
}

#[test]
fn groups_are_those_of_one_folder_and_then_of_the_other() {
    let model = join(&[("text", &tiny("bert")), ("image", &tiny("vit"))]).unwrap();
    let group = |name: &str, stream| BlockGroup { name: name.into(), stream };
    let of = |stream| ["embeddings", "layer.0", "layer.1"].map(|name| group(name, Some(stream)));
    assert_eq!(model.info().groups, [&of(0)[..], &of(1), &[group("head", None)]].concat());
    let at = |path: &str| model.parameters().iter().find(|base| base.parameter.name() == path).unwrap().group;
    assert_eq!(["text.embeddings.LayerNorm.bias", "image.encoder.layer.1.output.dense.bias"].map(at), [0, 5]);
    assert_eq!(["text.pooler.dense.bias", "image.layernorm.bias"].map(at), [6, 6], "above the blocks");
}

#[test]
fn a_stream_is_frozen_by_its_groups_and_changed_by_its_parameters() {
    let network = network();
    for of in PAIRS {
        let folders = folders(of, network.path());
        let (model, inputs) = (join(&[("text", &folders[0]), ("image", &folders[1])]).unwrap(), inputs(of[0], of[1]));
        for trains in 0..2 {
            let groups = &model.info().groups;
            for base in model.parameters().iter().filter(|base| !base.buffer) {
                base.parameter.set_trainable(groups[base.group].stream == Some(trains));
            }
            let gradients = gradients(&*model, &inputs);
            for base in model.parameters() {
                let (name, expected) =
                    (base.parameter.name(), groups[base.group].stream == Some(trains) && !base.buffer);
                assert_eq!(gradients.get(&base.parameter).is_some(), expected, "{name}");
                assert!(!model.passes(1 - base.stream.unwrap(), Read::Pooled, name), "{name}");
            }
            let before = [0, 1].map(|stream| pooled(&*model, stream, &inputs[stream]));
            let trainable = model.parameters().iter().filter(|base| base.parameter.trainable());
            for base in trainable.clone() {
                let step = gradients.get(&base.parameter).unwrap().to_dense(base.parameter.dims()).unwrap();
                base.parameter.set(&(base.parameter.tensor() - (step * 0.1).unwrap()).unwrap()).unwrap();
            }
            let after = [0, 1].map(|stream| pooled(&*model, stream, &inputs[stream]));
            let moved = |stream: usize| {
                let difference = (&after[stream] - &before[stream]).unwrap().abs().unwrap().max_all().unwrap();
                difference.to_scalar::<f32>().unwrap()
            };
            assert!(moved(trains) > 1e-3 && moved(1 - trains) == 0.0, "{of:?}, {trains}");
        }
    }
}

/// The derivative along a direction of each parameter, against a difference.
#[test]
fn gradients_are_slopes() {
    let of = ["bert", "vit"];
    let (model, inputs) = (join(&[("text", &tiny(of[0])), ("image", &tiny(of[1]))]).unwrap(), inputs(of[0], of[1]));
    let gradients = gradients(&*model, &inputs);
    let total = || -> f64 {
        let of = |stream: usize| {
            let value = pooled(&*model, stream, &inputs[stream]);
            let product = (&value * weights(value.dims())).unwrap().to_dtype(DType::F64).unwrap();
            product.sum_all().unwrap().to_scalar::<f64>().unwrap()
        };
        of(0) + of(1)
    };
    for base in model.parameters() {
        let parameter = &base.parameter;
        assert_slope(parameter, gradients.get(parameter).unwrap(), &total);
    }
}

/// Adds a row to what a layer or a half of a block gives.
struct Shift(Parameter);

impl Shift {
    fn at(site: &Site) -> Arc<Self> {
        let row: Vec<f32> = (0..site.out_features).map(|i| (i as f32 + 1.0).sin()).collect();
        Arc::new(Self(Parameter::new(site.path.clone(), Tensor::new(row, &Device::Cpu).unwrap(), true)))
    }
}

impl LinearHook for Shift {
    fn input(&self, _: &Tape, _: &Value) -> Result<Option<Value>> {
        Ok(None)
    }
    fn forward(&self, tape: &Tape, _: &Value, y: Value, _: &Value) -> Result<Value> {
        tape.add(&y, &tape.parameter(&self.0))
    }
    fn merge(&self, _: &Tape, weight: &Value) -> Result<Option<Value>> {
        Ok(Some(weight.clone()))
    }
    fn merge_bias(&self, tape: &Tape, bias: &Value) -> Result<Option<Value>> {
        tape.add(bias, &tape.parameter(&self.0)).map(Some)
    }
}

impl BlockHook for Shift {
    fn forward(&self, tape: &Tape, x: Value, _: &Value) -> Result<Value> {
        tape.add(&x, &tape.parameter(&self.0))
    }
}

#[test]
fn hooks_are_set_in_either_stream_and_merge_in_both_or_none() {
    let of = ["bert", "vit"];
    let (mut model, inputs) = (join(&[("text", &tiny(of[0])), ("image", &tiny(of[1]))]).unwrap(), inputs(of[0], of[1]));
    let all = |model: &dyn Model| [0, 1].map(|stream| pooled(model, stream, &inputs[stream]));
    let own = all(&*model);
    let close =
        |a: &Tensor, b: &Tensor| (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-4;
    let linear: Vec<Site> = model.sites().iter().filter(|site| site.kind == SiteKind::Linear).cloned().collect();
    let query = "encoder.layer.1.attention.attention.query";
    assert!(
        model
            .set_hook(query, Hook::Linear(Shift::at(&linear[0])))
            .unwrap_err()
            .to_string()
            .contains("the closest is image.")
    );

    let values =
        |stream| linear.iter().find(move |site| site.stream == Some(stream) && site.path.ends_with("value")).unwrap();
    for stream in 0..2 {
        model.set_hook(&values(stream).path, Hook::Linear(Shift::at(values(stream)))).unwrap();
        assert!(model.hooked(&values(stream).path) && !model.hooked(&values(1 - stream).path));
        let hooked = all(&*model);
        assert_eq!([0, 1].map(|of| close(&hooked[of], &own[of])), [stream != 0, stream != 1]);
        model.clear_hooks();
    }

    linear.iter().for_each(|site| model.set_hook(&site.path, Hook::Linear(Shift::at(site))).unwrap());
    let hooked = all(&*model);
    let block = model.sites().iter().find(|site| site.stream == Some(1) && site.kind == SiteKind::AttentionOutput);
    let block = block.unwrap().clone();
    model.merge_hooks(&inputs).unwrap();
    let merged = all(&*model);
    assert!((0..2).all(|of| close(&merged[of], &hooked[of]) && !close(&merged[of], &own[of])));
    assert!(!linear.iter().any(|site| model.hooked(&site.path)));

    model.set_hook(&linear[0].path, Hook::Linear(Shift::at(&linear[0]))).unwrap();
    model.set_hook(&block.path, Hook::Block(Shift::at(&block))).unwrap();
    let before = all(&*model);
    let error = model.merge_hooks(&inputs).unwrap_err().to_string();
    assert!(
        error.contains("in the stream \"image\": what is added at") && error.contains("is no change of a weight"),
        "{error}"
    );
    let after = all(&*model);
    (0..2).for_each(|of| assert_close(&after[of], &before[of], 0.0, "a failed merge"));
}

#[test]
fn what_is_saved_are_both_folders_and_how_they_are_joined() {
    let network = network();
    for of in PAIRS {
        let folders = folders(of, network.path());
        let (mut model, inputs) =
            (join(&[("text", &folders[0]), ("image", &folders[1])]).unwrap(), inputs(of[0], of[1]));
        let mean = Pooling { by: PoolBy::Mean, normalize: true };
        model.set_pooling(0, mean).unwrap();
        for base in model.parameters().iter().filter(|base| base.parameter.name().ends_with("bias")) {
            base.parameter.set(&(base.parameter.tensor() + 0.25).unwrap()).unwrap();
        }
        let before = [0, 1].map(|stream| pooled(&*model, stream, &inputs[stream]));
        let folder = tempfile::tempdir().unwrap();
        model.save_folder(folder.path(), &SavedHead::default()).unwrap();

        let text = std::fs::read_to_string(folder.path().join("streams.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let text = serde_json::json!({ "name": "text", "folder": "text", "pooling": "mean", "normalize": true });
        assert_eq!((&json["streams"][0], &json["streams"][1]["folder"]), (&text, &"image".into()));
        // Each is a folder as any other.
        for (stream, name) in ["text", "image"].into_iter().enumerate() {
            let mut own = loader().open(&folder.path().join(name)).unwrap();
            if stream == 0 {
                own.set_pooling(0, mean).unwrap();
            }
            assert_close(&pooled(&*own, 0, &inputs[stream]), &before[stream], 0.0, name);
            let read =
                |folder: &Path| candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap();
            let (was, is) = (read(&folders[stream]), read(&folder.path().join(name)));
            let of_model = is.keys().all(|name| was.get(name).is_some_and(|was| was.dims() == is[name].dims()));
            assert!(of_model && !is.is_empty(), "{name}: the names and shapes that were there");
        }
        // Over itself, while it is mapped.
        for _ in 0..2 {
            let again = loader().open(folder.path()).unwrap();
            assert_eq!(again.info(), model.info());
            for (a, b) in again.parameters().iter().zip(model.parameters()) {
                assert_eq!(a.parameter.name(), b.parameter.name());
                assert_close(&a.parameter.tensor(), &b.parameter.tensor(), 0.0, a.parameter.name());
            }
            (0..2).for_each(|stream| {
                assert_close(&pooled(&*again, stream, &inputs[stream]), &before[stream], 0.0, of[stream])
            });
            again.save_folder(folder.path(), &SavedHead::default()).unwrap();
        }
    }
}

#[test]
fn heads_lie_beside_what_is_joined() {
    let model = join(&[("text", &tiny("bert")), ("image", &tiny("vit"))]).unwrap();
    let tensors = [("head.weight".to_owned(), Tensor::ones((2, 3), DType::F32, &Device::Cpu).unwrap())];
    let folder = tempfile::tempdir().unwrap();
    model.save_folder(folder.path(), &SavedHead { tensors: &tensors, ..SavedHead::default() }).unwrap();
    let weights = head_weights(folder.path()).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["head.weight"]);
    assert_close(&weights.tensor("head.weight", &Device::Cpu).unwrap(), &tensors[0].1, 0.0, "the head");
    assert!(is_joined(folder.path()) && !is_joined(&folder.path().join("text")));
    for part in ["text", "image"] {
        assert!(!Weights::open(&folder.path().join(part)).unwrap().contains("head.weight"), "{part}");
    }
    assert_eq!(loader().open(folder.path()).unwrap().info(), model.info());
    std::fs::remove_file(folder.path().join("head.safetensors")).unwrap();
    assert_eq!(head_weights(folder.path()).unwrap().names().count(), 0);
    // Of a single model they are among its own.
    let single = tempfile::tempdir().unwrap();
    let bert = loader().open(&tiny("bert")).unwrap();
    bert.save_folder(single.path(), &SavedHead { tensors: &tensors, ..SavedHead::default() }).unwrap();
    assert!(head_weights(single.path()).unwrap().contains("head.weight"));

    let error = fthost_models::config(folder.path()).unwrap_err().to_string();
    assert!(error.contains("streams.json") && error.contains("joins folders, each with a config.json"), "{error}");
}

#[test]
fn a_folder_is_pooled_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(tiny("bert").join(file), folder.path().join(file)).unwrap();
    }
    let module = r#"[{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#;
    std::fs::write(folder.path().join("modules.json"), module).unwrap();
    std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    std::fs::write(folder.path().join("1_Pooling/config.json"), r#"{"pooling_mode": "mean"}"#).unwrap();
    let model = join(&[("text", folder.path()), ("image", &tiny("vit"))]).unwrap();
    assert_eq!([0, 1].map(|stream| model.info().streams[stream].pooling.by), [PoolBy::Mean, PoolBy::First]);
}

#[test]
fn weights_of_both_are_quantised() {
    let model =
        loader().quantized(Some(Quantize::Q8_0)).join(&[("text", &tiny("bert")), ("image", &tiny("vit"))]).unwrap();
    let quantized = |stream| model.parameters().iter().any(|base| base.quantized && base.stream == Some(stream));
    assert!(quantized(0) && quantized(1));
}

#[test]
fn what_is_no_pair_is_refused_by_name() {
    let (bert, vit, clip) = (tiny("bert"), tiny("vit"), tiny("clip"));
    let refused = |streams: &[(&str, &Path)]| join(streams).unwrap_err().to_string();
    for (streams, says) in [
        (&[("text", &*bert)][..], "tiny/bert is one of 1 streams; two are joined, text and image"),
        (
            &[("text", &bert), ("imag", &vit)],
            "tiny/vit is no stream \"imag\": there are text and image; did you mean image?",
        ),
        (&[("text", &bert), ("sound", &vit)], "is no stream \"sound\": there are text and image"),
        (&[("text", &bert), ("text", &bert)], "tiny/bert is the stream \"text\" a second time"),
        (&[("text", &vit), ("image", &bert)], "tiny/vit takes images, and is to be the stream \"text\""),
        (&[("text", &clip), ("image", &vit)], "tiny/clip is a clip model of two streams already: open it by itself"),
    ] {
        let error = refused(streams);
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }
    let vocabulary = loader().with_vocabulary(0).join(&[("text", &bert), ("image", &vit)]).err().unwrap().to_string();
    assert!(vocabulary.contains("fills masked places: pictures stand before the texts of a decoder"), "{vocabulary}");

    let folder = tempfile::tempdir().unwrap();
    for (text, says) in [
        (
            r#"{"streams": [{"name": "text", "folder": ".", "pooling": "cls", "normalize": false}]}"#,
            "names . as a stream's folder",
        ),
        (
            r#"{"streams": [{"name": "text", "folder": "../text", "pooling": "cls", "normalize": false}]}"#,
            "names ../text as",
        ),
        (
            r#"{"streams": [{"name": "text", "folder": "text", "pooling": "median", "normalize": false}]}"#,
            "unknown variant `median`",
        ),
        ("{", "streams.json is not a usable config"),
    ] {
        std::fs::write(folder.path().join("streams.json"), text).unwrap();
        let error = loader().open(folder.path()).err().unwrap().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }
}
