//! Tiny encoders of every architecture against PyTorch and Transformers (tests/reference/make_tiny.py): hidden states, pooled
//! features, logits, gradients, prompts and prefixes, each from one packed batch of ragged sequences.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;

use fthost_models::autograd::{Activation, Device, Layout, Map, Result, Tape, Tensor, Value};
use fthost_models::{AttentionHook, EmbeddingHook, FeatureMap, Hook, Model, Prefix, Prompt, Read, Weights};
use support::{ARCHITECTURES, Expected, assert_close, assert_relative, rows, tiny};

const TOLERANCE: f64 = 1e-5;

fn open(architecture: &str) -> Box<dyn Model> {
    fthost_models::open(&tiny(architecture), &Device::Cpu).unwrap()
}

/// The checkpoint's own head on pooled features.
fn logits(architecture: &str, model: &dyn Model, pooled: &Value) -> Tensor {
    let (tape, weights) = (Tape::evaluation(), Weights::open(&tiny(architecture)).unwrap());
    let layer = |path: &str, x: &Value, activation| {
        let tensor = |part| Value::constant(weights.tensor(&format!("{path}.{part}"), &Device::Cpu).unwrap());
        tape.linear_activation(x, &tensor("weight"), Some(&tensor("bias")), activation).unwrap()
    };
    let head = model.info().classification.as_ref().unwrap();
    let x = match &head.hidden {
        Some((path, name)) if name == "tanh" => layer(path, pooled, Activation::Tanh),
        Some((path, name)) if name == "relu" => layer(path, pooled, Activation::Relu),
        Some((_, name)) => panic!("unexpected activation {name}"),
        None => pooled.clone(),
    };
    layer(&head.output, &x, Activation::Identity).into_tensor()
}

#[test]
fn hidden_states_equal_transformers() {
    for architecture in ARCHITECTURES {
        let (model, expected) = (open(architecture), Expected::tiny(architecture));
        let features = model.forward(&Tape::evaluation(), &expected.input(), Read::Sequence).unwrap();
        let sequences = expected.numbered("hidden");
        assert_eq!(features.layout.sequences(), sequences.len());
        for (i, hidden) in sequences.iter().enumerate() {
            let found = rows(features.value.tensor(), &features.layout, i);
            assert_close(&found, hidden, TOLERANCE, &format!("{architecture}, sequence {i}"));
        }
    }
}

#[test]
fn pooled_features_and_logits_equal_transformers() {
    for architecture in ARCHITECTURES {
        let (model, expected) = (open(architecture), Expected::tiny(architecture));
        let features = model.forward(&Tape::evaluation(), &expected.input(), Read::Pooled).unwrap();
        assert_close(features.value.tensor(), &expected.stacked("pooled"), TOLERANCE, architecture);
        let logits = logits(architecture, &*model, &features.value);
        assert_close(&logits, &expected.stacked("logits"), TOLERANCE, &format!("{architecture}, logits"));
    }
}

#[test]
fn a_spatial_map_holds_the_patches_in_rows() {
    let (model, expected) = (open("vit"), Expected::tiny("vit"));
    let features = model.forward(&Tape::evaluation(), &expected.input(), Read::Spatial).unwrap();
    assert_eq!((features.value.dims(), features.map), (&[12, 16][..], Some(Map::new(3, 2, 2))));
    assert_eq!(model.info().plain().maps, [FeatureMap { channels: 16, stride: 4 }]);
    for (i, hidden) in expected.numbered("hidden").iter().enumerate() {
        let patches = rows(features.value.tensor(), &features.layout, i); // [patches, width]
        assert_close(&patches, &hidden.narrow(0, 1, 4).unwrap(), TOLERANCE, "patches");
    }
}

#[test]
fn gradients_of_base_parameters_equal_torchs() {
    for architecture in ARCHITECTURES {
        let (model, expected) = (open(architecture), Expected::tiny(architecture));
        let tape = Tape::recording();
        let pooled = model.forward(&tape, &expected.input(), Read::Pooled).unwrap().value;
        let gradients = tape.backward_from(vec![(pooled, expected.stacked("weights"))]).unwrap();

        let mut compared = 0;
        for base in model.parameters() {
            let parameter = &base.parameter;
            let name = format!("{}{}", model.info().plain().prefix, parameter.name());
            let Some((_, torch)) = expected.below("grad.").find(|(other, _)| *other == name) else { continue };
            let shape = parameter.dims();
            let found = gradients.get(parameter).unwrap_or_else(|| panic!("{name} got no gradient"));
            let found = found.to_dense(shape).unwrap();
            // The keys' bias shifts all scores of a row alike: its gradient is zero but for rounding.
            let torch = torch.reshape(shape).unwrap();
            match name.contains("key.bias") || name.contains("k_lin.bias") {
                true => assert_close(&found, &torch, TOLERANCE, &name),
                false => assert_relative(&found, &torch, 1e-4, &name),
            }
            compared += 1;
        }
        assert_eq!(compared, expected.below("grad.").count(), "{architecture}: every gradient has its parameter");
        assert!(compared >= 16, "{architecture}: {compared}");
    }
}

struct Prompts {
    rows: Tensor,
    pool_first_token: bool,
}

impl EmbeddingHook for Prompts {
    fn forward(&self, _: &Tape, embeddings: Value, _: &Layout) -> Result<(Value, Option<Prompt>)> {
        let rows = Value::constant(self.rows.clone());
        Ok((embeddings, Some(Prompt { rows, pool_first_token: self.pool_first_token })))
    }
}

#[test]
fn prompts_equal_rows_before_the_word_embeddings() {
    for architecture in ARCHITECTURES.into_iter().filter(|name| *name != "vit") {
        let (mut model, expected) = (open(architecture), Expected::tiny(architecture));
        let prompt = expected.get("prompt.rows").clone();
        let length = prompt.dims()[0];
        let set = |model: &mut dyn Model, rows: &Tensor, pool_first_token| {
            let hook = Prompts { rows: rows.clone(), pool_first_token };
            model.set_hook("embeddings", Hook::Embeddings(Arc::new(hook))).unwrap();
        };
        let run = |model: &dyn Model, read| model.forward(&Tape::evaluation(), &expected.input(), read).unwrap();

        set(&mut *model, &prompt, false);
        let features = run(&*model, Read::Sequence);
        for (i, hidden) in expected.numbered("prompt.hidden").iter().enumerate() {
            let found = rows(features.value.tensor(), &features.layout, i);
            let own = hidden.narrow(0, length, hidden.dims()[0] - length).unwrap();
            assert_close(&found, &own, TOLERANCE, &format!("{architecture}, prompted sequence {i}"));
        }
        let pooled = run(&*model, Read::Pooled).value;
        assert_close(pooled.tensor(), &expected.stacked("prompt.pooled"), TOLERANCE, architecture);

        // The same rows from two hooks: the later one's come first.
        model.clear_hooks();
        set(&mut *model, &prompt.narrow(0, 1, length - 1).unwrap(), false);
        set(&mut *model, &prompt.narrow(0, 0, 1).unwrap(), false);
        let both = run(&*model, Read::Pooled).value;
        assert_close(both.tensor(), pooled.tensor(), TOLERANCE, &format!("{architecture}, two prompts"));

        // Pooling the sequence's own first token. Only BERT's pooler lies between hidden states and pooled features.
        if architecture != "bert" {
            model.clear_hooks();
            set(&mut *model, &prompt, true);
            let first: Vec<Tensor> =
                expected.numbered("prompt.hidden").iter().map(|hidden| hidden.get(length).unwrap()).collect();
            let pooled = run(&*model, Read::Pooled).value;
            assert_close(pooled.tensor(), &Tensor::stack(&first, 0).unwrap(), TOLERANCE, architecture);
        }
    }
}

struct Prefixes {
    /// `[prefix, width]`
    keys: Tensor,
    values: Tensor,
}

impl AttentionHook for Prefixes {
    fn forward(&self, _: &Tape, keys: Value, values: Value, _: &Layout) -> Result<(Value, Value, Option<Prefix>)> {
        let constant = |x: &Tensor| Value::constant(x.clone());
        let prefix = Prefix { keys: constant(&self.keys), values: constant(&self.values) };
        Ok((keys, values, Some(prefix)))
    }

    fn position_shift(&self) -> usize {
        self.keys.dims()[0]
    }
}

#[test]
fn prefixes_equal_pefts() {
    let (mut model, expected) = (open("bert"), Expected::tiny("bert"));
    let prefix = expected.get("prefix.rows"); // [prefix, layers * 2 * width]
    let width = model.info().plain().width;
    for layer in 0..model.info().plain().layers.unwrap() {
        let part = |i| prefix.narrow(1, (2 * layer + i) * width, width).unwrap().contiguous().unwrap();
        let hook = Prefixes { keys: part(0), values: part(1) };
        let path = format!("encoder.layer.{layer}.attention.self");
        model.set_hook(&path, Hook::Attention(Arc::new(hook))).unwrap();
    }
    let pooled = model.forward(&Tape::evaluation(), &expected.input(), Read::Pooled).unwrap().value;
    assert_close(
        &logits("bert", &*model, &pooled),
        &expected.stacked("prefix.logits"),
        TOLERANCE,
        "logits with prefixes",
    );
}
