//! Tiny decoders of every row of the table against PyTorch and Transformers (tests/reference/make_decoders.py): hidden states, gradients,
//! and positions far from the start.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;

use fthost_models::autograd::{Device, Layout, Result, Tape, Tensor, Value};
use fthost_models::{
    EmbeddingHook, Hook, Input, Loader, Model, PoolBy, Pooling, Prompt, Read, SiteKind, TextInput, Weights,
};
use support::{Expected, assert_close, assert_relative, reference, rows};

const ROWS: [&str; 7] = ["llama", "llama3", "mistral", "qwen2", "qwen3", "gemma3_text", "gpt2"];
const TOLERANCE: f64 = 1e-4;

fn open(row: &str) -> Box<dyn Model> {
    fthost_models::open(&reference().join("decoders").join(row), &Device::Cpu).unwrap()
}

fn expected(row: &str) -> Expected {
    Expected::open(&reference().join("decoders").join(row).join("expected.safetensors"))
}

/// The sequences that the numbers are for.
fn ids(expected: &Expected) -> Vec<Vec<u32>> {
    expected
        .numbered("ids")
        .iter()
        .map(|ids| ids.to_vec1::<i64>().unwrap().iter().map(|id| *id as u32).collect())
        .collect()
}

fn input(sequences: &[Vec<u32>]) -> Input {
    let ids = sequences.concat();
    let layout = Layout::from_lengths(sequences.iter().map(Vec::len));
    Input::Text(TextInput { types: vec![0; ids.len()], ids, layout, before: None })
}

#[test]
fn hidden_states_equal_transformers() {
    for row in ROWS {
        let (model, expected) = (open(row), expected(row));
        let features = model.forward(&Tape::evaluation(), &input(&ids(&expected)), Read::Sequence).unwrap();
        for (i, hidden) in expected.numbered("hidden").iter().enumerate() {
            let found = rows(features.value.tensor(), &features.layout, i);
            assert_close(&found, hidden, TOLERANCE, &format!("{row}, sequence {i}"));
        }
    }
}

#[test]
fn logits_equal_transformers() {
    for row in ROWS {
        let folder = reference().join("decoders").join(row);
        let (model, expected) = (Loader::new(&Device::Cpu).with_vocabulary(0).open(&folder).unwrap(), expected(row));
        let layer = model.info().vocabulary.as_ref().unwrap();
        assert!(layer.causal && layer.new.is_empty(), "{row}");
        let weight = model.parameters().iter().find(|of| of.parameter.name() == layer.weight).unwrap();
        let weight = weight.parameter.tensor().t().unwrap();
        let features = model.forward(&Tape::evaluation(), &input(&ids(&expected)), Read::Sequence).unwrap();
        for (i, logits) in expected.numbered("logits").iter().enumerate() {
            let found = rows(features.value.tensor(), &features.layout, i).matmul(&weight).unwrap();
            assert_close(&found, logits, 1e-3, &format!("{row}, sequence {i}"));
        }
    }
}

#[test]
fn the_last_token_is_pooled_and_others_where_asked() {
    for row in ROWS {
        let (mut model, expected) = (open(row), expected(row));
        let sequences = ids(&expected);
        let pooled = |model: &dyn Model| {
            model.forward(&Tape::evaluation(), &input(&sequences), Read::Pooled).unwrap().value.into_tensor()
        };
        let hidden = expected.numbered("hidden");
        let last: Vec<Tensor> = hidden.iter().map(|of| of.get(of.dims()[0] - 1).unwrap()).collect();
        assert_close(&pooled(&*model), &Tensor::stack(&last, 0).unwrap(), TOLERANCE, row);
        model.set_pooling(0, Pooling { by: PoolBy::Mean, normalize: false }).unwrap();
        let mean: Vec<Tensor> = hidden.iter().map(|of| of.mean(0).unwrap()).collect();
        assert_close(&pooled(&*model), &Tensor::stack(&mean, 0).unwrap(), TOLERANCE, row);
        let error = model.set_pooling(0, Pooling { by: PoolBy::First, normalize: false }).unwrap_err().to_string();
        assert!(error.contains("sees nothing of the text after it"), "{error}");
    }
}

#[test]
fn gradients_equal_torchs() {
    for row in ROWS {
        let (model, expected) = (open(row), expected(row));
        let tape = Tape::recording();
        let pooled = model.forward(&tape, &input(&ids(&expected)), Read::Pooled).unwrap().value;
        let gradients = tape.backward_from(vec![(pooled, expected.stacked("weights"))]).unwrap();
        let mut compared = 0;
        for base in model.parameters() {
            let name = format!("{}{}", model.info().streams[0].prefix, base.parameter.name());
            let found = gradients.get(&base.parameter).unwrap_or_else(|| panic!("{row}: {name} got no gradient"));
            let found = found.to_dense(base.parameter.dims()).unwrap();
            let torch = expected.get(&format!("grad.{name}"));
            // GPT-2's layers lie the other way round.
            let found = if name.contains(".c_") && found.rank() == 2 { found.t().unwrap() } else { found };
            // The keys' bias shifts all scores of a row alike before it turns, so its gradient is small.
            match name.contains("k_proj.bias") {
                true => assert_close(&found, torch, 1e-3, &format!("{row}, {name}")),
                false => assert_relative(&found, torch, 1e-3, &format!("{row}, {name}")),
            }
            compared += 1;
        }
        assert_eq!(compared, expected.below("grad.").count(), "{row}");
    }
}

/// Windows, and angles that stretching changes, show in long sequences alone.
#[test]
fn positions_far_from_the_start_equal_transformers() {
    // GPT-2 has learned its 64 positions.
    for row in ROWS.into_iter().filter(|row| *row != "gpt2") {
        let (model, expected) = (open(row), expected(row));
        let far: Vec<u32> = (0..16_000u64).map(|i| 3 + (i * i % 47) as u32).collect();
        let features = model.forward(&Tape::evaluation(), &input(&[far]), Read::Sequence).unwrap();
        let last = features.value.tensor().narrow(0, 16_000 - 4, 4).unwrap();
        assert_close(&last, expected.get("far.hidden"), 2e-3, row);
    }
}

struct Prompts(Tensor);

impl EmbeddingHook for Prompts {
    fn forward(&self, _: &Tape, embeddings: Value, _: &Layout) -> Result<(Value, Option<Prompt>)> {
        Ok((embeddings, Some(Prompt { rows: Value::constant(self.0.clone()), pool_first_token: false })))
    }
}

#[test]
fn prompts_are_tokens_before_the_others() {
    for row in ROWS {
        let (mut model, expected) = (open(row), expected(row));
        let sequences = ids(&expected);
        let before: [u32; 2] = [7, 30];
        let with: Vec<Vec<u32>> = sequences.iter().map(|ids| [&before[..], ids].concat()).collect();
        let read = |model: &dyn Model, sequences: &[Vec<u32>], read| {
            model.forward(&Tape::evaluation(), &input(sequences), read).unwrap()
        };
        let (tokens, last) = (read(&*model, &with, Read::Sequence), read(&*model, &with, Read::Pooled));

        let site = model.sites().iter().find(|site| site.kind == SiteKind::Embeddings).unwrap().path.clone();
        let folder = reference().join("decoders").join(row);
        let words = format!("{}{site}.weight", model.info().streams[0].prefix);
        let words = Weights::open(&folder).unwrap().tensor(&words, &Device::Cpu).unwrap();
        let scale = if row == "gemma3_text" { 4.0 } else { 1.0 };
        let prompt = words.index_select(&Tensor::new(&before, &Device::Cpu).unwrap(), 0).unwrap();
        model.set_hook(&site, Hook::Embeddings(Arc::new(Prompts((prompt * scale).unwrap())))).unwrap();
        let (prompted, pooled) = (read(&*model, &sequences, Read::Sequence), read(&*model, &sequences, Read::Pooled));
        for i in 0..sequences.len() {
            let expected = rows(tokens.value.tensor(), &tokens.layout, i);
            let expected = expected.narrow(0, 2, expected.dims()[0] - 2).unwrap();
            assert_close(&rows(prompted.value.tensor(), &prompted.layout, i), &expected, 1e-5, row);
        }
        assert_close(pooled.value.tensor(), last.value.tensor(), 1e-5, row);
        let positions = if row == "gpt2" { 64 } else { 16_000 };
        assert_eq!(model.longest_sequence().unwrap(), Some(positions - 2));
    }
}

#[test]
fn what_a_config_says_wrongly_is_named() {
    let text = std::fs::read_to_string(reference().join("decoders/qwen2/config.json")).unwrap();
    let check = |from: &str, to: &str, expected: &str| {
        assert!(text.contains(from), "{from}");
        let error = fthost_models::random(&text.replace(from, to), 0, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "must divide the number of heads, which is 4");
    check("\"hidden_act\": \"silu\"", "\"hidden_act\": \"sulk\"", "hidden_act = sulk is not known");
    check("\"sliding_window\": 3", "\"sliding_window\": 0", "must be a number of tokens above 0, or null");
    check("\"full_attention\",", "\"linear_attention\",", "layer_types = linear_attention is not known");
    check("\"rope_type\": \"default\"", "\"rope_type\": \"yarn\"", "\"yarn\", which is not computed here");
    check("\"vocab_size\": 50", "\"vocab_size\": 50, \"final_logit_softcapping\": 30.0", "bounds scores");
    check("\"hidden_size\": 16", "\"hidden_size\": 0", "hidden_size = 0 must lie between");
}
