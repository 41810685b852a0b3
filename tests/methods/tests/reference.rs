//! The reference numbers of `tests/reference`.

use std::path::PathBuf;

use fthost_autograd::{Device, Tensor};
use fthost_tests::root;
use serde_json::{Value, from_str, from_value};

/// A file or folder there.
pub(crate) fn path(name: &str) -> PathBuf {
    root().join("tests/reference").join(name)
}

/// What a JSON file there holds.
pub(crate) fn read(file: &str) -> Value {
    from_str(&std::fs::read_to_string(path(file)).unwrap()).unwrap()
}

/// A list of numbers.
pub(crate) fn floats(of: &Value) -> Vec<f32> {
    from_value(of.clone()).unwrap()
}

/// A list of numbers in a shape.
pub(crate) fn tensor(of: &Value, shape: &[usize]) -> Tensor {
    Tensor::from_vec(floats(of), shape, &Device::Cpu).unwrap()
}

/// Fails where a number is not the expected one, up to rounding.
#[track_caller]
pub(crate) fn close(found: &[f32], expected: &Value) {
    let expected: Vec<f64> = from_value(expected.clone()).unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() <= 1e-6 * (1.0 + expected.abs()), "{found} is not {expected}");
    }
}
