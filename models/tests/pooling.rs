//! Ways to pool, against the hidden states that PyTorch gives (tests/reference/make_tiny.py), and through backward.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;

use fthost_models::autograd::{Device, Layout, Result, Tape, Tensor, Value};
use fthost_models::{EmbeddingHook, Hook, Model, PoolBy, Pooling, Prompt, Read};
use support::{ARCHITECTURES, Expected, assert_close, tiny};

fn open(architecture: &str) -> Box<dyn Model> {
    fthost_models::open(&tiny(architecture), &Device::Cpu).unwrap()
}

fn pooled(model: &dyn Model, expected: &Expected) -> Tensor {
    model.forward(&Tape::evaluation(), &expected.input(), Read::Pooled).unwrap().value.into_tensor()
}

/// What a sequence's hidden states `[rows, width]` are pooled to.
fn by_hand(hidden: &Tensor, by: PoolBy, normalize: bool) -> Tensor {
    let rows: Vec<Vec<f64>> = hidden.to_dtype(candle_core::DType::F64).unwrap().to_vec2().unwrap();
    let column = |j: usize| rows.iter().map(move |row| row[j]);
    let pooled = (0..rows[0].len()).map(|j| match by {
        PoolBy::Mean => column(j).sum::<f64>() / rows.len() as f64,
        PoolBy::Max => column(j).fold(f64::MIN, f64::max),
        PoolBy::Last | PoolBy::End => rows[rows.len() - 1][j],
        PoolBy::First | PoolBy::Pooler => rows[0][j],
    });
    let pooled: Vec<f64> = pooled.collect();
    let length = if normalize { pooled.iter().map(|x| x * x).sum::<f64>().sqrt() } else { 1.0 };
    let pooled: Vec<f32> = pooled.iter().map(|x| (x / length) as f32).collect();
    Tensor::new(pooled, &Device::Cpu).unwrap()
}

const WAYS: [PoolBy; 4] = [PoolBy::First, PoolBy::Mean, PoolBy::Max, PoolBy::Last];

#[test]
fn a_packed_batch_is_pooled_sequence_by_sequence() {
    for architecture in ARCHITECTURES {
        let (mut model, expected) = (open(architecture), Expected::tiny(architecture));
        let image = architecture == "vit";
        for by in WAYS {
            for normalize in [false, true] {
                model.set_pooling(0, Pooling { by, normalize }).unwrap();
                let of_class = (by, normalize) == (PoolBy::First, false) && architecture != "bert";
                assert_eq!(model.info().pools_as_its_class(), of_class, "{architecture}, {by}");
                let hidden = expected.numbered("hidden").into_iter().map(|hidden| {
                    // The class token is no patch.
                    let skip = usize::from(image && matches!(by, PoolBy::Mean | PoolBy::Max));
                    by_hand(&hidden.narrow(0, skip, hidden.dims()[0] - skip).unwrap(), by, normalize)
                });
                let expected_rows = Tensor::stack(&hidden.collect::<Vec<_>>(), 0).unwrap();
                assert_close(&pooled(&*model, &expected), &expected_rows, 1e-4, &format!("{architecture}, {by}"));
            }
        }
        let pooler = model.set_pooling(0, Pooling { by: PoolBy::Pooler, normalize: false });
        match architecture {
            "bert" => assert!(pooler.is_ok() && model.info().pools_as_its_class()),
            _ => assert!(pooler.unwrap_err().to_string().contains("hold no pooler; pool by cls, mean, max or last")),
        }
    }
}

struct Prompts(Tensor);

impl EmbeddingHook for Prompts {
    fn forward(&self, _: &Tape, embeddings: Value, _: &Layout) -> Result<(Value, Option<Prompt>)> {
        Ok((embeddings, Some(Prompt { rows: Value::constant(self.0.clone()), pool_first_token: false })))
    }
}

#[test]
fn prompts_are_left_out() {
    let (mut model, expected) = (open("bert"), Expected::tiny("bert"));
    let prompt = expected.get("prompt.rows").clone();
    let length = prompt.dims()[0];
    model.set_hook("embeddings", Hook::Embeddings(Arc::new(Prompts(prompt)))).unwrap();
    for by in [PoolBy::Mean, PoolBy::Max, PoolBy::Last] {
        model.set_pooling(0, Pooling { by, normalize: false }).unwrap();
        let own = expected
            .numbered("prompt.hidden")
            .into_iter()
            .map(|hidden| by_hand(&hidden.narrow(0, length, hidden.dims()[0] - length).unwrap(), by, false));
        let own = Tensor::stack(&own.collect::<Vec<_>>(), 0).unwrap();
        assert_close(&pooled(&*model, &expected), &own, 1e-4, &by.to_string());
    }
}

/// The derivative along a direction of a weight below, against a difference.
#[test]
fn gradients_go_through_pooling() {
    for by in WAYS {
        let (mut model, expected) = (open("bert"), Expected::tiny("bert"));
        model.set_pooling(0, Pooling { by, normalize: true }).unwrap();
        let name = "encoder.layer.0.output.dense.weight";
        let of_name = |model: &dyn Model| {
            model.parameters().iter().find(|base| base.parameter.name() == name).unwrap().parameter.clone()
        };
        let weight = of_name(&*model);
        // Parts of the features weigh differently: those of a vector of length one hardly change together.
        let loss = |tape: &Tape| -> Result<Value> {
            let features = model.forward(tape, &expected.input(), Read::Pooled)?.value;
            let (rows, width) = features.tensor().dims2()?;
            let weights = Tensor::from_iter((0..rows * width).map(|i| (0.7 * i as f32).sin()), &Device::Cpu)?;
            tape.sum(&tape.mul(&features, &Value::constant(weights.reshape((rows, width))?))?)
        };
        let direction: Vec<f32> = (0..weight.elem_count()).map(|i| (1.3 * i as f32).cos()).collect();
        let direction = Tensor::from_vec(direction, weight.dims(), &Device::Cpu).unwrap();
        let tape = Tape::recording();
        let value = loss(&tape).unwrap();
        let gradient = tape.backward(&value).unwrap();
        let gradient = gradient.get(&weight).unwrap().to_dense(weight.dims()).unwrap();
        let along = (&gradient * &direction).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();

        let step = 1e-3;
        let start = weight.tensor().copy().unwrap();
        let at = |step: f64| {
            weight.set(&(&start + (&direction * step).unwrap()).unwrap()).unwrap();
            f64::from(loss(&Tape::evaluation()).unwrap().tensor().to_scalar::<f32>().unwrap())
        };
        let difference = (at(step) - at(-step)) / (2.0 * step);
        let close = (difference - f64::from(along)).abs() < 0.02 * difference.abs().max(0.05);
        assert!(close, "{by}: {along} and {difference}");
    }
}

/// A pooler that nothing reads is passed by no feature.
#[test]
fn a_pooler_is_passed_where_it_pools() {
    let mut model = open("bert");
    assert!(model.passes(0, Read::Pooled, "pooler.dense.weight"));
    assert!(!model.passes(0, Read::Sequence, "pooler.dense.weight"));
    model.set_pooling(0, Pooling { by: PoolBy::Mean, normalize: false }).unwrap();
    assert!(!model.passes(0, Read::Pooled, "pooler.dense.weight"));
    assert!(model.passes(0, Read::Pooled, "encoder.layer.1.output.dense.weight"));
}
