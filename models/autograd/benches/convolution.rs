//! Convolutions of ResNet-50 and MobileNetV2, forward and both gradients, beside torch's times where a Python with torch is named:
//! `PYTHON=python3 RAYON_NUM_THREADS=2 cargo bench -p fthost-autograd --bench convolution [PART OF A NAME]`.
//!
//! Milliseconds, the best of several runs; with `CLOCK=cpu`, for a machine that others use as well, those of the processor, on average.
//! Torch's are the better of its two memory formats, and in bf16 its tensors are bf16 throughout,
//! while here activations stay `f32`.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::process::Command;
use std::time::Instant;

use fthost_autograd::random::Stream;
use fthost_autograd::{Device, Map, Parameter, Precision, Tape, TapeOptions, Tensor, Value, Window};

struct Shape {
    name: &'static str,
    side: usize,
    channels: usize,
    out: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
}

const IMAGES: usize = 8;

#[rustfmt::skip]
const SHAPES: [Shape; 7] = [
    Shape { name: "3x3 64, 56x56", side: 56, channels: 64, out: 64, kernel: 3, stride: 1, groups: 1 },
    Shape { name: "3x3 512, 7x7", side: 7, channels: 512, out: 512, kernel: 3, stride: 1, groups: 1 },
    Shape { name: "3x3 128 stride 2, 56x56", side: 56, channels: 128, out: 128, kernel: 3, stride: 2, groups: 1 },
    Shape { name: "7x7 3-64 stride 2, 224x224", side: 224, channels: 3, out: 64, kernel: 7, stride: 2, groups: 1 },
    Shape { name: "1x1 256-64, 56x56", side: 56, channels: 256, out: 64, kernel: 1, stride: 1, groups: 1 },
    Shape { name: "depthwise 3x3 144, 56x56", side: 56, channels: 144, out: 144, kernel: 3, stride: 1, groups: 144 },
    Shape { name: "depthwise 3x3 144 stride 2, 56x56", side: 56, channels: 144, out: 144, kernel: 3, stride: 2, groups: 144 },
];

fn random(dims: &[usize]) -> Tensor {
    let mut data = vec![0f32; dims.iter().product()];
    Stream::new(1, "bench").fill_uniform(&mut data, -1.0, 1.0);
    Tensor::from_vec(data, dims, &Device::Cpu).unwrap()
}

/// Milliseconds of what `run` says it took, the best or the mean of several.
fn several(mut run: impl FnMut() -> f64) -> f64 {
    run();
    let begin = Instant::now();
    let mut times = Vec::new();
    while times.len() < 5 || (begin.elapsed().as_secs_f64() < 0.7 && times.len() < 200) {
        times.push(run());
    }
    match by_processor() {
        true => times.iter().sum::<f64>() / times.len() as f64,
        false => times.into_iter().fold(f64::INFINITY, f64::min),
    }
}

fn by_processor() -> bool {
    std::env::var("CLOCK").is_ok_and(|clock| clock == "cpu")
}

/// Seconds, of the wall's clock or of the processor's for all threads of this process.
fn now(begin: Instant) -> f64 {
    if !by_processor() {
        return begin.elapsed().as_secs_f64();
    }
    let threads = std::fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
    let nanoseconds = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() * 1e-9
}

fn timed<R>(f: impl FnOnce() -> R) -> (R, f64) {
    let clock = Instant::now();
    let begin = now(clock);
    let result = f();
    (result, (now(clock) - begin) * 1e3)
}

fn ours(shape: &Shape, precision: Precision) -> [f64; 3] {
    let map = Map::new(IMAGES, shape.side, shape.side);
    let window = Window::square(shape.kernel).stride(shape.stride).padding(shape.kernel / 2);
    let dims = [shape.out, shape.channels / shape.groups, shape.kernel, shape.kernel];
    let weight = |trainable| Parameter::new("weight", random(&dims), trainable);
    let (frozen, trained) = (weight(false), weight(true));
    let x = random(&[map.rows(), shape.channels]);
    let options = || TapeOptions { precision, recording: true, parallel_ops: true, ..TapeOptions::default() };
    let forward = |tape: &Tape, x: &Value, weight: &Parameter| {
        tape.conv2d(x, map, &tape.parameter(weight), None, &window, shape.groups).unwrap().0
    };
    let backward = |variable: bool, weight: &Parameter| {
        let tape = Tape::new(options());
        let x = if variable { tape.variable(x.clone()) } else { Value::constant(x.clone()) };
        let y = forward(&tape, &x, weight);
        let seed = y.tensor().clone();
        timed(|| tape.backward_from(vec![(y, seed)]).unwrap()).1
    };
    let constant = Value::constant(x.clone());
    [
        several(|| timed(|| forward(&Tape::new(options()), &constant, &frozen)).1),
        several(|| backward(true, &frozen)),
        several(|| backward(false, &trained)),
    ]
}

/// Torch's times of a shape, in the same order.
fn torchs(python: &str, shape: &Shape, precision: Precision) -> Option<Vec<f64>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/reference/time_convolution.py");
    let numbers = [IMAGES, shape.side, shape.channels, shape.out, shape.kernel, shape.stride, shape.groups];
    let output = Command::new(python)
        .arg(script)
        .arg(if precision == Precision::Bf16 { "bf16" } else { "f32" })
        .args(numbers.map(|x| x.to_string()))
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let times: Vec<f64> = text.split_whitespace().filter_map(|x| x.parse().ok()).collect();
    (times.len() == 3).then_some(times)
}

fn main() {
    let part = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let python = std::env::var("PYTHON").ok();
    println!("{:<34} {:<5} {:>24} {:>24} {:>24}", "ms, ours / torch's", "", "forward", "dx", "dw");
    for shape in SHAPES.iter().filter(|shape| shape.name.contains(&part)) {
        for precision in [Precision::F32, Precision::Bf16] {
            let torchs = python.as_ref().and_then(|python| torchs(python, shape, precision));
            let cell = |(i, ours): (usize, f64)| match &torchs {
                Some(torchs) => format!("{ours:8.2} / {:7.2} = {:4.2}", torchs[i], ours / torchs[i]),
                None => format!("{ours:8.2}"),
            };
            let [forward, dx, dw] = ours(shape, precision);
            let cells = [(0, forward), (1, dx), (2, dw)].map(cell);
            println!(
                "{:<34} {:<5} {:>24} {:>24} {:>24}",
                shape.name,
                format!("{precision:?}"),
                cells[0],
                cells[1],
                cells[2]
            );
        }
    }
}
