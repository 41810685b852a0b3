//! Model folders: the forms in which weights come, what is said where something is wrong, and writing them again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use fthost_models::autograd::{DType, Device, Tape, Tensor};
use fthost_models::{Answer, BlockGroup, LoadError, Modality, Model, Read, SavedHead, Stream, Weights};
use support::{ARCHITECTURES, Expected, assert_close, tiny};

/// A folder of this test's own, empty.
fn fresh(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("folder").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn config(architecture: &str) -> String {
    std::fs::read_to_string(tiny(architecture).join("config.json")).unwrap()
}

fn tensors(architecture: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(tiny(architecture).join("model.safetensors"), &Device::Cpu).unwrap()
}

fn save(tensors: &HashMap<String, Tensor>, file: &Path) {
    candle_core::safetensors::save(tensors, file).unwrap();
}

/// The tiny BERT with its tensors changed.
fn changed(name: &str, change: impl FnOnce(&mut HashMap<String, Tensor>)) -> PathBuf {
    let folder = fresh(name);
    let mut weights = tensors("bert");
    change(&mut weights);
    std::fs::write(folder.join("config.json"), config("bert")).unwrap();
    save(&weights, &folder.join("model.safetensors"));
    folder
}

fn open(folder: &Path) -> Result<Box<dyn Model>, LoadError> {
    fthost_models::open(folder, &Device::Cpu)
}

fn pooled(model: &dyn Model, expected: &Expected) -> Tensor {
    model.forward(&Tape::evaluation(), &expected.input(), Read::Pooled).unwrap().value.into_tensor()
}

#[test]
fn every_form_of_the_same_weights_loads() {
    let expected = Expected::tiny("bert");
    let renamed = |name: &str, rename: fn(&str) -> String| {
        changed(name, |weights| *weights = weights.drain().map(|(name, tensor)| (rename(&name), tensor)).collect())
    };
    let sharded = changed("sharded", |_| {});
    let mut shards = [HashMap::new(), HashMap::new()];
    let mut map = HashMap::new();
    for (i, (name, tensor)) in tensors("bert").into_iter().enumerate() {
        map.insert(name.clone(), format!("model-{}-of-2.safetensors", i % 2));
        shards[i % 2].insert(name, tensor);
    }
    for (i, shard) in shards.iter().enumerate() {
        save(shard, &sharded.join(format!("model-{i}-of-2.safetensors")));
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    std::fs::write(sharded.join("model.safetensors.index.json"), index.to_string()).unwrap();
    std::fs::remove_file(sharded.join("model.safetensors")).unwrap();

    let cases = [
        ("without prefix", renamed("bare", |name| name.replace("bert.", "")), 1e-5),
        (
            "old names of norms",
            renamed("gamma", |name| {
                name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            }),
            1e-5,
        ),
        ("two shards", sharded, 1e-5),
        ("half", changed("half", |weights| cast(weights, DType::F16)), 1e-2),
        ("bfloat16", changed("bfloat16", |weights| cast(weights, DType::BF16)), 1e-1),
    ];
    for (what, folder, tolerance) in cases {
        let model = open(&folder).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(model.parameters().iter().all(|base| base.parameter.tensor().dtype() == DType::F32));
        assert_close(&pooled(&*model, &expected), &expected.stacked("pooled"), tolerance, what);
    }
}

fn cast(weights: &mut HashMap<String, Tensor>, dtype: DType) {
    weights.values_mut().for_each(|tensor| *tensor = tensor.to_dtype(dtype).unwrap());
}

#[test]
fn errors_say_what_and_where_and_what_to_do() {
    let with_config = |name: &str, change: fn(String) -> String| {
        let folder = changed(name, |_| {});
        std::fs::write(folder.join("config.json"), change(config("bert"))).unwrap();
        folder
    };
    let truncated = changed("truncated", |_| {});
    let file = truncated.join("model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 100]).unwrap();
    let text = changed("text", |_| {});
    std::fs::write(text.join("model.safetensors"), "version https://git-lfs.github.com/spec/v1").unwrap();
    let bin = changed("bin", |_| {});
    std::fs::rename(bin.join("model.safetensors"), bin.join("tf_model.h5")).unwrap();
    let query = "bert.encoder.layer.1.attention.self.query.weight";
    let zeros = |dims: &[usize], dtype| Tensor::zeros(dims, dtype, &Device::Cpu).unwrap();

    let cases: [(PathBuf, &[&str]); 13] = [
        (fresh("empty"), &["config.json", "A model folder holds config.json and model.safetensors"]),
        (bin, &["no model.safetensors", "tf_model.h5", "save the model again with Transformers"]),
        (truncated, &["truncated/model.safetensors is damaged or incomplete", "Download it again"]),
        (text, &["text/model.safetensors is damaged or incomplete", "Download it again"]),
        (
            changed("missing", |weights| drop(weights.remove(query))),
            &[
                "missing/model.safetensors",
                query,
                "the closest name is bert.encoder.layer.0.attention.self.query.weight",
            ],
        ),
        (
            changed("shape", |weights| drop(weights.insert(query.into(), zeros(&[16, 8], DType::F32)))),
            &["shape/model.safetensors", query, "[16, 8]", "config.json says [16, 16]"],
        ),
        (
            changed("type", |weights| drop(weights.insert(query.into(), zeros(&[16, 16], DType::U8)))),
            &["type/model.safetensors", query, "U8", "F32, F16, BF16"],
        ),
        (
            with_config("mamba", |text| text.replace("\"model_type\": \"bert\"", "\"model_type\": \"mamba\"")),
            &["mamba/config.json", "\"mamba\"", "supported are bert, roberta, xlm-roberta, distilbert, vit"],
        ),
        (with_config("untyped", |text| text.replace("model_type", "kind")), &["model_type missing", "supported are"]),
        (
            with_config("heads", |text| text.replace("\"num_attention_heads\": 4", "\"num_attention_heads\": 5")),
            &["heads/config.json", "num_attention_heads = 5", "must divide the width, which is 16"],
        ),
        (
            with_config("act", |text| text.replace("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"snake\"")),
            &["act/config.json", "hidden_act = snake", "known are gelu"],
        ),
        (
            with_config("decoder", |text| text.replace("\"is_decoder\": false", "\"is_decoder\": true")),
            &["decoder/config.json", "is_decoder = true", "makes attention causal"],
        ),
        (
            with_config("incomplete", |text| text.replace("hidden_size", "hidden_sighs")),
            &["incomplete/config.json", "missing field `hidden_size`"],
        ),
    ];
    for (folder, parts) in cases {
        let error = match open(&folder) {
            Ok(_) => panic!("{} loads", folder.display()),
            Err(error) => error.to_string(),
        };
        for part in parts {
            assert!(error.contains(part), "{error:?} does not say {part:?}");
        }
    }
}

#[test]
fn a_shard_without_its_tensor_is_an_error() {
    let folder = changed("missing-shard", |_| {});
    std::fs::rename(folder.join("model.safetensors"), folder.join("a.safetensors")).unwrap();
    let index = serde_json::json!({ "weight_map": { "bert.nothing": "a.safetensors" } });
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    let error = open(&folder).unwrap_err().to_string();
    assert!(error.contains("a.safetensors") && error.contains("bert.nothing"), "{error}");
}

#[test]
fn without_a_pooler_the_first_token_is_pooled() {
    let folder = changed("no-pooler", |weights| weights.retain(|name, _| !name.contains("pooler")));
    let (model, expected) = (open(&folder).unwrap(), Expected::tiny("bert"));
    let first: Vec<Tensor> = expected.numbered("hidden").iter().map(|hidden| hidden.get(0).unwrap()).collect();
    assert_close(&pooled(&*model, &expected), &Tensor::stack(&first, 0).unwrap(), 1e-5, "first tokens");
    assert!(model.sites().iter().all(|site| site.path != "pooler.dense"));
    // Transformers puts a new one there, so the head brings it.
    assert_eq!(model.info().hidden_layer(), Some(("bert.pooler.dense", "tanh")));
    assert_eq!(open(&tiny("bert")).unwrap().info().hidden_layer(), None);
}

/// What config.json said of the head, the kept floats and the origin of the folder that was loaded is not said of the one that is saved.
#[test]
fn a_saved_folder_speaks_of_its_own_head_alone() {
    let labels = ["a", "b"].map(str::to_owned);
    let stale = serde_json::json!({
        "_name_or_path": "elsewhere", "architectures": ["BertForMaskedLM"], "auto_map": { "AutoModel": "code.Model" },
        "finetuning_task": "sts", "id2label": { "0": "x", "1": "y", "2": "z" }, "label2id": { "x": 0, "y": 1, "z": 2 },
        "num_labels": 3, "problem_type": "multi_label_classification", "torch_dtype": "float16", "dtype": "bfloat16",
        "quantization_config": { "load_in_8bit": true },
    });
    let own = |answer| {
        let text: serde_json::Map<_, _> = [config("bert"), stale.to_string()]
            .iter()
            .flat_map(|text| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).unwrap())
            .collect();
        let text = serde_json::Value::Object(text).to_string();
        let bytes = std::fs::read(tiny("bert").join("model.safetensors")).unwrap();
        let folder = fresh("own");
        let model = fthost_models::from_parts(&text, &bytes, &Device::Cpu).unwrap();
        model.save_folder(&folder, &SavedHead { answer, ..SavedHead::default() }).unwrap();
        let mut saved: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).unwrap()).unwrap();
        assert_eq!((saved["hidden_size"].clone(), saved.remove("dtype")), (16.into(), Some("float32".into())));
        saved.retain(|key, _| stale.get(key).is_some());
        serde_json::Value::Object(saved)
    };
    let (by_id, by_label) = (serde_json::json!({ "0": "a", "1": "b" }), serde_json::json!({ "a": 0, "b": 1 }));
    let check = |answer, expected| assert_eq!(own(answer), expected);
    check(Answer::None, serde_json::json!({ "architectures": ["BertModel"] }));
    check(
        Answer::Class(&labels),
        serde_json::json!({
            "architectures": ["BertForSequenceClassification"], "problem_type": "single_label_classification",
            "id2label": by_id, "label2id": by_label,
        }),
    );
    check(
        Answer::Labels(&labels),
        serde_json::json!({
            "architectures": ["BertForSequenceClassification"], "problem_type": "multi_label_classification",
            "id2label": by_id, "label2id": by_label,
        }),
    );
    check(
        Answer::Value,
        serde_json::json!({
            "architectures": ["BertForSequenceClassification"], "problem_type": "regression",
            "id2label": { "0": "LABEL_0" }, "label2id": { "LABEL_0": 0 },
        }),
    );
    check(
        Answer::TokenClass(&labels),
        serde_json::json!({ "architectures": ["BertForTokenClassification"], "id2label": by_id, "label2id": by_label }),
    );
}

#[test]
fn what_is_saved_is_what_was_loaded() {
    for architecture in ARCHITECTURES {
        let model = open(&tiny(architecture)).unwrap();
        let weights = Weights::open(&tiny(architecture)).unwrap();
        let of_model: Vec<&str> = model.parameters().iter().map(|base| base.parameter.name()).collect();
        let head: Vec<(String, Tensor)> = (weights.names())
            .filter(|name| !of_model.iter().any(|own| name.ends_with(own)))
            .map(|name| (name.to_owned(), weights.tensor(name, &Device::Cpu).unwrap()))
            .collect();
        let labels = ["a", "b", "c"].map(str::to_owned);
        let folder = fresh(&format!("saved-{architecture}"));
        let head = SavedHead { tensors: &head, answer: Answer::Class(&labels), dropout: None };
        model.save_folder(&folder, &head).unwrap();

        let (before, after) = (
            tensors(architecture),
            candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap(),
        );
        assert_eq!(before.len(), after.len(), "{architecture}");
        for (name, tensor) in &before {
            assert_close(&after[name], tensor, 0.0, name);
        }
        let config: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["architectures"][0], model.info().classification.as_ref().unwrap().class.as_deref().unwrap());
        assert_eq!(config["id2label"]["2"], "c");
        assert_eq!(config["model_type"], architecture);

        // Over itself, while it is mapped.
        let again = open(&folder).unwrap();
        again.save_folder(&folder, &SavedHead::default()).unwrap();
        let expected = Expected::tiny(architecture);
        assert_close(&pooled(&*open(&folder).unwrap(), &expected), &expected.stacked("pooled"), 1e-5, architecture);
    }
}

/// Also the tensors that are no part of the encoder, a head's, keep nothing mapped.
#[test]
fn a_file_is_mapped_as_long_as_a_parameter_is_at_rest() {
    let (model, expected) = (open(&changed("mapped", |_| {})).unwrap(), Expected::tiny("bert"));
    let mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().contains("folder/mapped/model.safetensors");
    for base in model.parameters() {
        base.parameter.set_trainable(false);
    }
    let run = || model.forward(&Tape::recording(), &expected.input(), Read::Pooled).unwrap();
    run();
    assert!(mapped());
    for base in model.parameters() {
        base.parameter.set_trainable(true);
    }
    run();
    assert!(!mapped(), "everything trains, so everything is in memory");
}

#[test]
fn parts_in_memory_are_a_folder() {
    for architecture in ARCHITECTURES {
        let bytes = std::fs::read(tiny(architecture).join("model.safetensors")).unwrap();
        let model = fthost_models::from_parts(&config(architecture), &bytes, &Device::Cpu).unwrap();
        let expected = Expected::tiny(architecture);
        assert_close(&pooled(&*model, &expected), &expected.stacked("pooled"), 1e-5, architecture);
    }
}

#[test]
fn new_weights_follow_the_seed() {
    for architecture in ARCHITECTURES {
        let new = |seed| fthost_models::random(&config(architecture), seed, &Device::Cpu).unwrap();
        let (a, b, c) = (new(1), new(1), new(2));
        let mut moved = 0;
        for ((a, b), c) in a.parameters().iter().zip(b.parameters()).zip(c.parameters()) {
            let (name, values) = (a.parameter.name(), a.parameter.tensor());
            assert_close(&values, &b.parameter.tensor(), 0.0, name);
            let values: Vec<f32> = values.flatten_all().unwrap().to_vec1().unwrap();
            let other: Vec<f32> = c.parameter.tensor().flatten_all().unwrap().to_vec1().unwrap();
            moved += usize::from(values != other);
            if name.ends_with("bias") {
                assert!(values.iter().all(|x| *x == 0.0), "{name}");
            } else if name.to_lowercase().contains("norm") {
                assert!(values.iter().all(|x| *x == 1.0), "{name}");
            } else if values.len() >= 256 {
                let std = (values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32).sqrt();
                assert!((0.015..0.025).contains(&std), "{name}: {std}");
            }
        }
        assert!(moved > 10, "{architecture}");
    }
}

#[test]
fn a_model_says_what_it_is() {
    let model = open(&tiny("roberta")).unwrap();
    let info = model.info();
    let Stream { name, width, layers, heads, modality, reads, .. } = info.plain();
    assert_eq!((name.as_str(), *width, *layers, *heads), ("text", 16, Some(2), Some(4)));
    assert_eq!(*modality, Modality::Text { max_tokens: 22, vocabulary: 50 }); // positions 0 and 1 are padding's
    assert_eq!(reads, &[Read::Pooled, Read::Sequence]);
    let group = |name: &str, stream| BlockGroup { name: name.into(), stream };
    let in_stream = ["embeddings", "layer.0", "layer.1"].map(|name| group(name, Some(0)));
    assert_eq!(info.groups, [&in_stream[..], &[group("head", None)]].concat()); // heads stand above the blocks
    let head = info.classification.as_ref().unwrap();
    assert_eq!(head.output, "classifier.out_proj");
    assert_eq!(info.hidden_layer(), Some(("classifier.dense", "tanh")));
    assert_eq!(info.head_dropout, 0.1);
    let error = model.features(&Tape::evaluation(), 1, &Expected::tiny("roberta").input(), Read::Pooled).unwrap_err();
    assert!(error.to_string().contains("roberta has one stream"), "{error}");

    let model = open(&tiny("vit")).unwrap();
    assert_eq!(model.info().plain().modality, Modality::Images { channels: 2, size: 8, any_size: false, tokens: 5 });
    assert_eq!((model.info().groups.len(), &model.info().plain().word_embeddings), (4, &None));
    assert_eq!(model.info().plain().reads, [Read::Pooled, Read::Sequence, Read::Spatial]);
    assert_eq!(open(&tiny("distilbert")).unwrap().info().head_dropout, 0.2);
}
