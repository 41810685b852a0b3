//! Tiny decoders of every row of the table, token by token: the features are those of a pass over the whole text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;

use fthost_models::autograd::random::Stream;
use fthost_models::autograd::{Device, Layout, Result, Tape, Tensor, Value};
use fthost_models::{AttentionHook, Cache, EmbeddingHook, Hook, LinearHook, Model, Prefix, Prompt, Read, SiteKind};
use support::{assert_close, reference, rows, text};

const ROWS: [&str; 7] = ["llama", "llama3", "mistral", "qwen2", "qwen3", "gemma3_text", "gpt2"];
const TOLERANCE: f64 = 1e-5;

fn open(row: &str) -> Box<dyn Model> {
    fthost_models::open(&reference().join("decoders").join(row), &Device::Cpu).unwrap()
}

/// Texts of several lengths, the windows of all rows far shorter.
fn texts() -> Vec<Vec<u32>> {
    let ids = |length: u64, step: u64| (0..length).map(|i| 3 + ((i * i + step) % 47) as u32).collect();
    vec![ids(9, 1), ids(17, 5), ids(11, 8)]
}

/// The features of every token of each text, by one pass.
fn whole(model: &dyn Model, texts: &[Vec<u32>]) -> Vec<Tensor> {
    let types: Vec<Vec<u32>> = texts.iter().map(|ids| vec![0; ids.len()]).collect();
    let features = model.forward(&Tape::evaluation(), &text(texts, &types), Read::Sequence).unwrap();
    (0..texts.len()).map(|i| rows(features.value.tensor(), &features.layout, i)).collect()
}

fn extend(model: &dyn Model, cache: &mut Cache, ids: &[Vec<u32>]) -> Tensor {
    model.extend(&Tape::evaluation(), cache, ids, None).unwrap().value.into_tensor()
}

/// Begins with a few tokens of each text, several at once then, then one each time; a text that ends is dropped.
fn check(model: &dyn Model, what: &str) {
    let texts = texts();
    let expected = whole(model, &texts);
    let mut cache = model.begin(texts.len()).unwrap();
    let mut open: Vec<usize> = (0..texts.len()).collect();
    let mut ends: Vec<usize> = vec![0; texts.len()];
    for step in 0.. {
        let going: Vec<usize> = open.iter().copied().filter(|&i| ends[i] < texts[i].len()).collect();
        if going.is_empty() {
            break;
        }
        if going.len() < open.len() {
            let places: Vec<usize> = going.iter().map(|i| open.iter().position(|of| of == i).unwrap()).collect();
            cache.keep(&places);
            open = going;
        }
        let new = |i: usize| match step {
            0 => 2 + i,
            1 => 3,
            _ => 1,
        };
        let ids: Vec<Vec<u32>> =
            open.iter().map(|&i| texts[i][ends[i]..(ends[i] + new(i)).min(texts[i].len())].to_vec()).collect();
        let found = extend(model, &mut cache, &ids);
        for (place, &i) in open.iter().enumerate() {
            ends[i] += ids[place].len();
            let last = expected[i].get(ends[i] - 1).unwrap();
            assert_close(
                &found.get(place).unwrap(),
                &last,
                TOLERANCE,
                &format!("{what}, text {i}, {} tokens", ends[i]),
            );
        }
    }
    assert_eq!(ends, texts.iter().map(Vec::len).collect::<Vec<_>>());
}

/// What was forgotten leaves no trace: another text goes on from what both begin with.
#[test]
fn a_text_goes_on_from_where_another_was_left() {
    for row in ROWS {
        let model = open(row);
        let [one, other] = [[3, 9, 4, 11, 6, 20, 8], [3, 9, 4, 7, 30, 5, 12]].map(|ids| ids.to_vec());
        let mut cache = model.begin(1).unwrap();
        extend(&*model, &mut cache, &[one[..5].to_vec()]);
        extend(&*model, &mut cache, &[one[5..].to_vec()]);
        cache.forget(4);
        extend(&*model, &mut cache, &[other[3..6].to_vec()]);
        let found = extend(&*model, &mut cache, &[other[6..].to_vec()]).get(0).unwrap();
        let expected = whole(&*model, &[other]).remove(0).get(6).unwrap();
        assert_close(&found, &expected, TOLERANCE, row);
    }
}

fn random(name: &str, dims: &[usize]) -> Tensor {
    let mut data = vec![0f32; dims.iter().product()];
    Stream::new(3, name).fill_uniform(&mut data, -0.7, 0.7);
    Tensor::from_vec(data, dims, &Device::Cpu).unwrap()
}

struct Prompts(Tensor);

impl EmbeddingHook for Prompts {
    fn forward(&self, _: &Tape, embeddings: Value, _: &Layout) -> Result<(Value, Option<Prompt>)> {
        Ok((embeddings, Some(Prompt { rows: Value::constant(self.0.clone()), pool_first_token: false })))
    }
}

struct Prefixes([Tensor; 2]);

impl AttentionHook for Prefixes {
    fn forward(&self, _: &Tape, k: Value, v: Value, _: &Layout) -> Result<(Value, Value, Option<Prefix>)> {
        let [keys, values] = self.0.clone().map(Value::constant);
        Ok((k, v, Some(Prefix { keys, values })))
    }

    fn position_shift(&self) -> usize {
        self.0[0].dims()[0]
    }
}

struct LowRank([Tensor; 2]);

impl LinearHook for LowRank {
    fn input(&self, _: &Tape, _: &Value) -> Result<Option<Value>> {
        Ok(None)
    }

    fn merge(&self, _: &Tape, _: &Value) -> Result<Option<Value>> {
        Ok(None)
    }

    fn forward(&self, tape: &Tape, x: &Value, y: Value, _: &Value) -> Result<Value> {
        let [a, b] = self.0.clone().map(Value::constant);
        tape.low_rank(y, x, &a, &b, 0.5)
    }
}

fn set(model: &mut dyn Model, prompt: bool, prefix: bool, low_rank: bool) {
    for site in model.sites().to_vec() {
        let of = |part: &str, dims: &[usize]| random(&format!("{}/{part}", site.path), dims);
        let hook = match site.kind {
            SiteKind::Embeddings if prompt => Hook::Embeddings(Arc::new(Prompts(of("rows", &[3, site.out_features])))),
            SiteKind::Attention if prefix => {
                Hook::Attention(Arc::new(Prefixes(["keys", "values"].map(|part| of(part, &[2, site.out_features])))))
            }
            SiteKind::Linear if low_rank => {
                let [a, b] = [of("a", &[2, site.in_features]), of("b", &[site.out_features, 2])];
                Hook::Linear(Arc::new(LowRank([a, b])))
            }
            _ => continue,
        };
        model.set_hook(&site.path, hook).unwrap();
    }
}

#[test]
fn token_by_token_gives_the_features_of_the_whole_text() {
    for row in ROWS {
        check(&*open(row), row);
    }
}

#[test]
fn hooks_hold_token_by_token() {
    for row in ROWS {
        for hooks in [[true, false, false], [false, true, false], [false, false, true], [true, true, true]] {
            let mut model = open(row);
            let plain = whole(&*model, &texts());
            let [prompt, prefix, low_rank] = hooks;
            set(&mut *model, prompt, prefix, low_rank);
            let changed = (&whole(&*model, &texts())[0] - &plain[0]).unwrap().abs().unwrap().max_all().unwrap();
            assert!(changed.to_scalar::<f32>().unwrap() > 1e-3, "{row}, {hooks:?}");
            check(&*model, &format!("{row}, {hooks:?}"));
        }
    }
}

#[test]
fn mistakes_are_named() {
    let model = open("llama");
    let error = |cache: &mut Cache, tape: &Tape, ids: &[Vec<u32>]| {
        model.extend(tape, cache, ids, None).map(drop).unwrap_err().to_string()
    };
    let mut cache = model.begin(2).unwrap();
    assert!(error(&mut cache, &Tape::recording(), &[vec![3], vec![4]]).contains("gradients would end"));
    assert!(error(&mut cache, &Tape::evaluation(), &[vec![3]]).contains("2 texts cannot go on with tokens for 1"));
    assert!(error(&mut cache, &Tape::evaluation(), &[vec![3], Vec::new()]).contains("sequence 1 is empty"));
    assert!(error(&mut cache, &Tape::evaluation(), &[vec![3], vec![50]]).contains("token id 50 is outside"));
    let mut full = model.begin(1).unwrap();
    extend(&*model, &mut full, &[vec![3; 15_999]]);
    extend(&*model, &mut full, &[vec![3]]);
    assert!(error(&mut full, &Tape::evaluation(), &[vec![3]]).contains("a sequence of 16001 tokens"));

    let encoder = fthost_models::open(&support::tiny("bert"), &Device::Cpu).unwrap();
    assert!(encoder.begin(1).unwrap_err().to_string().contains("bert continues no texts"));
}
