//! What the boundary costs: a LoRA step whose hooks live in a plugin's library beside the same ops called directly.
//!
//! `cargo bench -p fthost --bench boundary` builds no plugin: build liblora.so first (`cargo build --release`), or name its folder by
//! `FTHOST_PLUGIN_PATH`. The model has all-MiniLM-L6-v2's shape and random weights; a batch is 16 texts of 24 tokens.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a benchmark")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use fthost::adapted::AdaptedModel;
use fthost::plugin::{Library, Search, StrategyInstance};
use fthost_autograd::random::Stream;
use fthost_autograd::{Device, Layout, Parameter, Result, Tape, Tensor, Value};
use fthost_models::{Hook, Input, LinearHook, Model, Read, TextInput};
use fthost_plugin_api::MethodKind;

const RANK: usize = 8;
const SCALE: f64 = 2.0;
const ROUNDS: usize = 60;

/// LoRA without a boundary.
struct Direct {
    a: Parameter, // [rank, in]
    b: Parameter, // [out, rank]
}

impl LinearHook for Direct {
    fn input(&self, _: &Tape, _: &Value) -> Result<Option<Value>> {
        Ok(None)
    }

    fn forward(&self, tape: &Tape, x: &Value, y: Value, _: &Value) -> Result<Value> {
        tape.low_rank(y, x, &tape.parameter(&self.a), &tape.parameter(&self.b), SCALE)
    }

    fn merge(&self, _: &Tape, _: &Value) -> Result<Option<Value>> {
        Ok(None)
    }
}

fn base() -> Box<dyn Model> {
    let config = r#"{
        "model_type": "bert", "vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
        "intermediate_size": 1536, "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1
    }"#;
    fthost_models::random(config, 0, &Device::Cpu).unwrap()
}

fn direct() -> AdaptedModel {
    let mut model = base();
    model.parameters().iter().for_each(|base| base.parameter.set_trainable(false));
    let sites: Vec<String> = model.sites().iter().map(|site| site.path.clone()).collect();
    for site in sites.iter().filter(|path| path.ends_with(".query") || path.ends_with(".value")) {
        let zeros = |shape: (usize, usize)| Tensor::zeros(shape, fthost_autograd::DType::F32, &Device::Cpu).unwrap();
        let hook = Direct {
            a: Parameter::new("a", zeros((RANK, 384)), true),
            b: Parameter::new("b", zeros((384, RANK)), true),
        };
        model.set_hook(site, Hook::Linear(Arc::new(hook))).unwrap();
    }
    AdaptedModel::new(model, Device::Cpu, 0)
}

fn plugged() -> (AdaptedModel, StrategyInstance) {
    let mut library = Library::new(Search::from_environment());
    let (plugin, _) =
        library.find(MethodKind::Strategy, "lora").expect("liblora.so: build it, or set FTHOST_PLUGIN_PATH");
    let options = serde_json::json!({ "rank": RANK, "alpha": SCALE * RANK as f64, "targets": ["query", "value"] });
    let mut strategy = StrategyInstance::create(&plugin, "lora", &options).unwrap();
    let mut model = AdaptedModel::new(base(), Device::Cpu, 0);
    strategy.attach(&mut model, 0).unwrap();
    (model, strategy)
}

/// Forward and backward of one batch on one thread.
fn step(model: &AdaptedModel, input: &Input) -> Duration {
    let began = Instant::now();
    let tape = Tape::recording();
    let features = model.model.forward(&tape, input, Read::Pooled).unwrap();
    let loss = tape.sum(&features.value).unwrap();
    let gradients = tape.backward(&loss).unwrap();
    assert_eq!(gradients.len(), 24, "A and B at 12 sites");
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

#[allow(clippy::print_stdout, reason = "a benchmark")]
fn main() {
    let stream = Stream::new(0, "tokens");
    let layout = Layout::from_lengths([24; 16]);
    let ids: Vec<u32> = (0..layout.tokens() as u64).map(|i| (stream.uniform(i) * 30000.0) as u32).collect();
    let input = Input::Text(TextInput { types: vec![0; ids.len()], ids, layout, before: None });
    let (direct, (plugged, _strategy)) = (direct(), plugged());

    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS + 5 {
        let (a, b) = (step(&direct, &input), step(&plugged, &input));
        if round >= 5 {
            without.push(a);
            with.push(b);
        }
    }
    let (without, with) = (median(without), median(with));
    println!("direct   {without:.3} ms a step\nplugin   {with:.3} ms a step\nratio    {:.4}", with / without);
}
