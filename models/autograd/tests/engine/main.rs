//! The engine seen from outside: ops against finite differences and torch, the laws of tapes, optimizers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod at_rest;
mod devices;
mod dropout;
mod images;
mod loss;
mod maps;
mod ops;
mod optim;
mod recompute;
mod tape;

use fthost_autograd::random::Stream;
use fthost_autograd::{Device, Tensor};

/// Fixed normal numbers of a shape, `f64`.
fn normal(name: &str, dims: &[usize]) -> Tensor {
    let stream = Stream::new(0, name);
    let values: Vec<f64> = (0..dims.iter().product::<usize>()).map(|i| stream.normal(i as u64)).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

/// All elements, as `f64`.
fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(fthost_autograd::DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(actual: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len());
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!((a - e).abs() <= tolerance * (1.0 + e.abs()), "element {i}: {a}, expected {e}");
    }
}
