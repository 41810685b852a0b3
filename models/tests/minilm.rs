//! all-MiniLM-L6-v2 against PyTorch and PEFT (tests/reference/make_minilm.py) and against candle-transformers.
//!
//! The folder is looked for in `FTHOST_MINILM`, then in target/fixtures/all-MiniLM-L6-v2; without it these tests are skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_nn::VarBuilder;
use candle_transformers::models::bert::BertModel;
use fthost_models::autograd::{DType, Device, Parameter, Result, Tape, Tensor, Value};
use fthost_models::{Hook, Input, LinearHook, Read};
use support::{Expected, assert_close, assert_relative, reference, rows, text};

fn folder() -> Option<PathBuf> {
    let given = std::env::var_os("FTHOST_MINILM").map(PathBuf::from);
    let fixture = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fixtures/all-MiniLM-L6-v2");
    let folder = given.unwrap_or_else(fixture);
    if !folder.exists() {
        println!("skipped: no MiniLM folder (set FTHOST_MINILM)");
        return None;
    }
    Some(folder)
}

#[derive(serde::Deserialize)]
struct Sentences {
    labels: Vec<u32>,
    input_ids: Vec<Vec<u32>>,
}

fn sentences() -> Sentences {
    serde_json::from_str(&std::fs::read_to_string(reference().join("minilm.json")).unwrap()).unwrap()
}

fn packed(sentences: &Sentences) -> Input {
    let types: Vec<Vec<u32>> = sentences.input_ids.iter().map(|ids| vec![0; ids.len()]).collect();
    text(&sentences.input_ids, &types)
}

#[test]
fn hidden_states_of_a_packed_batch_equal_torchs() {
    let Some(folder) = folder() else { return };
    let expected = Expected::open(&reference().join("minilm.safetensors"));
    let model = fthost_models::open(&folder, &Device::Cpu).unwrap();
    let input = packed(&sentences());

    let features = model.forward(&Tape::evaluation(), &input, Read::Sequence).unwrap();
    for (i, hidden) in expected.numbered("hidden").iter().enumerate() {
        let found = rows(features.value.tensor(), &features.layout, i);
        assert_close(&found, hidden, 1e-4, &format!("sentence {i}"));
    }
    let pooled = model.forward(&Tape::evaluation(), &input, Read::Pooled).unwrap().value;
    assert_close(pooled.tensor(), &expected.stacked("pooled"), 1e-4, "pooled");
}

#[test]
fn hidden_states_equal_candle_transformers() {
    let Some(folder) = folder() else { return };
    let model = fthost_models::open(&folder, &Device::Cpu).unwrap();
    let config = serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).unwrap()).unwrap();
    let weights = candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap();
    let theirs = BertModel::load(VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu), &config).unwrap();

    let sentences = sentences();
    let features = model.forward(&Tape::evaluation(), &packed(&sentences), Read::Sequence).unwrap();
    for (i, ids) in sentences.input_ids.iter().enumerate().take(3) {
        let ids = Tensor::new(ids.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let expected = theirs.forward(&ids, &ids.zeros_like().unwrap(), None).unwrap().squeeze(0).unwrap();
        let found = rows(features.value.tensor(), &features.layout, i);
        assert_close(&found, &expected, 1e-4, &format!("sentence {i}"));
    }
}

struct Lora {
    a: Parameter,
    b: Parameter,
}

impl LinearHook for Lora {
    fn input(&self, _: &Tape, _: &Value) -> Result<Option<Value>> {
        Ok(None)
    }

    fn forward(&self, tape: &Tape, x: &Value, y: Value, _: &Value) -> Result<Value> {
        tape.low_rank(y, x, &tape.parameter(&self.a), &tape.parameter(&self.b), 2.0) // alpha 16, rank 8
    }

    fn merge(&self, _: &Tape, _: &Value) -> Result<Option<Value>> {
        Ok(None)
    }
}

#[test]
fn gradients_of_lora_equal_pefts() {
    let Some(folder) = folder() else { return };
    let expected = Expected::open(&reference().join("minilm.safetensors"));
    let mut model = fthost_models::open(&folder, &Device::Cpu).unwrap();
    for base in model.parameters() {
        base.parameter.set_trainable(false);
    }
    let trained: Vec<Parameter> = expected
        .below("lora.value.base_model.model.")
        .map(|(name, value)| Parameter::new(name, value.clone(), true))
        .collect();
    let named = |name: String| trained.iter().find(|p| p.name() == name).unwrap().clone();
    for layer in 0..model.info().plain().layers.unwrap() {
        for projection in ["query", "value"] {
            let path = format!("encoder.layer.{layer}.attention.self.{projection}");
            let half = |letter| named(format!("bert.{path}.lora_{letter}.weight"));
            let hook = Lora { a: half('A'), b: half('B') };
            model.set_hook(&path, Hook::Linear(Arc::new(hook))).unwrap();
        }
    }

    let sentences = sentences();
    let tape = Tape::recording();
    let pooled = model.forward(&tape, &packed(&sentences), Read::Pooled).unwrap().value;
    let (weight, bias) = (named("classifier.weight".into()), named("classifier.bias".into()));
    let logits = tape.linear(&pooled, &tape.parameter(&weight), Some(&tape.parameter(&bias))).unwrap();
    let targets = Tensor::new(sentences.labels.as_slice(), &Device::Cpu).unwrap();
    let (sum, count) = tape.cross_entropy(&logits, &targets, None, 0.0).unwrap();
    let loss = tape.affine(&sum, 1.0 / count, 0.0).unwrap();
    assert_close(logits.tensor(), expected.get("lora.logits"), 1e-4, "logits");
    assert_close(&loss.tensor().reshape(1).unwrap(), expected.get("lora.loss"), 1e-5, "loss");

    let gradients = tape.backward(&loss).unwrap();
    assert_eq!(gradients.len(), trained.len());
    for parameter in &trained {
        let found = gradients.get(parameter).unwrap().to_dense(parameter.dims()).unwrap();
        let torch = expected.get(&format!("lora.grad.base_model.model.{}", parameter.name()));
        assert_relative(&found, torch, 1e-3, parameter.name());
    }
}
