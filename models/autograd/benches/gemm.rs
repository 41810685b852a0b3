//! The matrix products of a MiniLM micro-batch against candle's, on one thread:
//! `RAYON_NUM_THREADS=1 CANDLE_NUM_THREADS=1 cargo bench -p fthost-autograd`.

#![allow(missing_docs, clippy::unwrap_used)] // criterion's macros write undocumented functions

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fthost_autograd::random::Stream;
use fthost_autograd::{
    Activation, Attention, Codes, Device, Layout, Levels, Parameter, Precision, Quantization, Reading, Source, Tape,
    TapeOptions, Tensor, Value,
};

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

/// Codes of one kind, whatever they say.
#[derive(Debug)]
struct Noise(Quantization);

impl Source for Noise {
    fn read(&self, start: usize, into: &mut [f32]) {
        let mut codes = Codes::default();
        codes.codes.resize(into.len(), 0);
        codes.scales.resize(into.len() / self.0.block, 0.0);
        codes.offsets.resize(if self.0.has_offsets { codes.scales.len() } else { 0 }, 0.0);
        self.read_codes(start, &mut codes);
        codes.values(&self.0, into);
    }

    fn quantization(&self) -> Option<Quantization> {
        Some(self.0)
    }

    fn read_codes(&self, start: usize, into: &mut Codes) {
        let byte = self.0.levels == Levels::Byte;
        let code = |i: usize| (i.wrapping_mul(2_654_435_761) >> 16) as u8 & if byte { 255 } else { 15 };
        into.codes.iter_mut().enumerate().for_each(|(i, x)| *x = code(start + i));
        into.scales.iter_mut().chain(&mut into.offsets).for_each(|x| *x = 0.0078125); // of a half's bits, as in files
    }
}

/// What each token asks for that a text goes on by: the logits of SmolLM2-135M for one text, or a few. The weight comes from memory.
fn rows(c: &mut Criterion) {
    let (k, n) = (576, 49152);
    let quantized = |levels, has_offsets| {
        let source = Noise(Quantization { block: 32, levels, has_offsets });
        Parameter::at_rest("weight", &[n, k], Arc::new(source), Reading::Products, false)
    };
    let held = Parameter::new("weight", random(&[n, k]), false);
    let kinds = [
        ("f32", held.clone(), Precision::F32),
        ("bf16", held, Precision::Bf16),
        ("Q4_1", quantized(Levels::Nibble { zero: 0 }, true), Precision::F32),
        ("Q4_0", quantized(Levels::Nibble { zero: 8 }, false), Precision::F32),
        ("NF4", quantized(Levels::Book(std::array::from_fn(|i| i as f32 / 8.0 - 1.0)), false), Precision::F32),
        ("Q8_0", quantized(Levels::Byte, false), Precision::F32),
    ];
    for m in [1, 4, 8] {
        let x = Value::constant(random(&[m, k]));
        let mut group = c.benchmark_group(format!("{m} rows of {k} times {n}"));
        group.throughput(Throughput::Elements((m * k * n) as u64)); // multiplications
        for (name, weight, precision) in &kinds {
            group.bench_function(*name, |b| {
                b.iter(|| {
                    let tape = Tape::new(TapeOptions { precision: *precision, ..TapeOptions::default() });
                    tape.linear(black_box(&x), &tape.parameter(weight), None).unwrap()
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

criterion_group!(benches, products, rows, layer);
criterion_main!(benches);
