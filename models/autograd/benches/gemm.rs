//! The matrix products of a MiniLM micro-batch against candle's, on one thread:
//! `RAYON_NUM_THREADS=1 CANDLE_NUM_THREADS=1 cargo bench -p fthost-autograd`.

#![allow(missing_docs, clippy::unwrap_used)] // criterion's macros write undocumented functions

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fthost_autograd::random::Stream;
use fthost_autograd::{Activation, Attention, Device, Layout, Parameter, Precision, Tape, TapeOptions, Tensor, Value};

fn random(dims: &[usize]) -> Tensor {
    let mut data = vec![0f32; dims.iter().product()];
    Stream::new(1, "bench").fill_uniform(&mut data, -1.0, 1.0);
    Tensor::from_vec(data, dims, &Device::Cpu).unwrap()
}

fn products(c: &mut Criterion) {
    for (m, k, n) in [(192, 384, 1536), (192, 1536, 384), (192, 384, 384), (192, 768, 3072), (512, 384, 1536)] {
        let (x, w) = (random(&[m, k]), random(&[n, k]));
        let weight = Parameter::new("weight", w.clone(), false);
        let constant = Value::constant(x.clone());
        let mut group = c.benchmark_group(format!("product {m}x{k}x{n}"));
        group.throughput(Throughput::Elements(2 * (m * k * n) as u64)); // floating-point operations
        group.bench_function("candle f32", |b| b.iter(|| x.matmul(&w.t().unwrap()).unwrap()));
        for precision in [Precision::F32, Precision::Bf16] {
            let options = || TapeOptions { precision, ..TapeOptions::default() };
            group.bench_function(format!("ours {precision:?}"), |b| {
                b.iter(|| {
                    let tape = Tape::new(options());
                    tape.linear(black_box(&constant), &tape.parameter(&weight), None).unwrap()
                });
            });
        }
        group.finish();
    }
}

/// The parts of a transformer layer on 192 tokens of width 384, forward and backward with frozen weights.
fn layer(c: &mut Criterion) {
    let (tokens, width, wide) = (192, 384, 1536);
    let x = random(&[tokens, width]);
    let weight = Parameter::new("weight", random(&[wide, width]), false);
    let (gain, bias) =
        (Parameter::new("gain", random(&[width]), false), Parameter::new("bias", random(&[width]), false));
    let (a, b) = (Parameter::new("a", random(&[8, width]), true), Parameter::new("b", random(&[width, 8]), true));
    let mut group = c.benchmark_group("192 tokens, forward and backward");
    let mut bench = |name: &str, op: &dyn Fn(&Tape, &Value) -> Value| {
        group.bench_function(name, |b| {
            b.iter(|| {
                let tape = Tape::recording();
                let x = tape.variable(x.clone());
                let y = op(&tape, &x);
                let seed = y.tensor().clone();
                tape.backward_from(vec![(y, seed)]).unwrap()
            });
        });
    };
    bench("linear + gelu 384 -> 1536", &|tape, x| {
        tape.linear_activation(x, &tape.parameter(&weight), None, Activation::Gelu).unwrap()
    });
    bench("low rank 8", &|tape, x| tape.low_rank(x.clone(), x, &tape.parameter(&a), &tape.parameter(&b), 2.0).unwrap());
    bench("residual + layer norm", &|tape, x| {
        tape.residual_layer_norm(x, x, &tape.parameter(&gain), Some(&tape.parameter(&bias)), 1e-12).unwrap()
    });
    for length in [24, 64, 192] {
        let layout = Layout::from_lengths(vec![length; tokens / length]);
        bench(&format!("attention, 12 heads, length {length}"), &|tape, x| {
            tape.attention(x, x, x, &Attention::full(12, 0.0), &layout, &layout, None).unwrap()
        });
    }
    group.finish();
}

criterion_group!(benches, products, layer);
criterion_main!(benches);
