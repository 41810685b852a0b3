//! What the tests share: reference numbers, and comparing with them.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use fthost_models::autograd::{DType, Device, Gradient, Layout, Parameter, Tensor};
use fthost_models::{Input, TextInput};

pub(crate) const ARCHITECTURES: [&str; 5] = ["bert", "roberta", "xlm-roberta", "distilbert", "vit"];

pub(crate) fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference")
}

pub(crate) fn tiny(architecture: &str) -> PathBuf {
    reference().join("tiny").join(architecture)
}

/// The tensors of a reference file.
pub(crate) struct Expected(HashMap<String, Tensor>);

impl Expected {
    pub(crate) fn open(file: &Path) -> Self {
        Self(candle_core::safetensors::load(file, &Device::Cpu).unwrap())
    }

    pub(crate) fn tiny(architecture: &str) -> Self {
        Self::open(&tiny(architecture).join("expected.safetensors"))
    }

    pub(crate) fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("the reference has no {name}"))
    }

    /// `{name}.0`, `{name}.1`, ... as far as they go.
    pub(crate) fn numbered(&self, name: &str) -> Vec<Tensor> {
        (0..).map_while(|i| self.0.get(&format!("{name}.{i}")).cloned()).collect()
    }

    /// The numbered vectors as rows of a matrix.
    pub(crate) fn stacked(&self, name: &str) -> Tensor {
        Tensor::stack(&self.numbered(name), 0).unwrap()
    }

    /// What stands behind a prefix, with the rest of the name.
    pub(crate) fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Tensor)> {
        self.0.iter().filter_map(move |(name, tensor)| Some((name.strip_prefix(prefix)?, tensor)))
    }

    /// The input that the numbers are for: all sequences in one packed batch, or all images.
    pub(crate) fn input(&self) -> Input {
        if let Some(pixels) = self.0.get("pixels") {
            return Input::Images(pixels.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap());
        }
        let integers = |name| -> Vec<Vec<u32>> {
            let vectors = self.numbered(name).into_iter();
            vectors.map(|tensor| tensor.to_dtype(DType::U32).unwrap().to_vec1().unwrap()).collect()
        };
        text(&integers("ids"), &integers("types"))
    }
}

pub(crate) fn text(ids: &[Vec<u32>], types: &[Vec<u32>]) -> Input {
    let layout = Layout::from_lengths(ids.iter().map(Vec::len));
    Input::Text(TextInput { ids: ids.concat(), types: types.concat(), layout, before: None })
}

/// The rows of sequence `i`.
pub(crate) fn rows(packed: &Tensor, layout: &Layout, i: usize) -> Tensor {
    let range = layout.range(i);
    packed.narrow(0, range.start, range.len()).unwrap()
}

/// Every element within `tolerance`, absolutely.
#[track_caller]
pub(crate) fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(found.dims(), expected.dims(), "{what}: shape");
    let difference = largest(&(found - expected).unwrap());
    assert!(difference <= tolerance, "{what}: differs by {difference:e}, more than {tolerance:e}");
}

/// The largest difference within `tolerance` of the largest element.
#[track_caller]
pub(crate) fn assert_relative(found: &Tensor, expected: &Tensor, tolerance: f64, what: &str) {
    assert_close(found, expected, tolerance * largest(expected), what);
}

/// The largest element's size. NaN counts as infinite.
fn largest(x: &Tensor) -> f64 {
    let values: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
    values.iter().map(|x| if x.is_nan() { f64::INFINITY } else { f64::from(x.abs()) }).fold(0.0, f64::max)
}

/// Numbers by which outputs are summed, or the direction in which a parameter is moved.
pub(crate) fn weights(dims: &[usize]) -> Tensor {
    let weights: Vec<f32> = (0..dims.iter().product()).map(|i| (1.3 * i as f32).cos()).collect();
    Tensor::from_vec(weights, dims, &Device::Cpu).unwrap()
}

/// A parameter's gradient of `total` along a direction, against a difference.
#[track_caller]
pub(crate) fn assert_slope(parameter: &Parameter, gradient: &Gradient, total: &dyn Fn() -> f64) {
    let own = parameter.tensor().copy().unwrap();
    let direction = weights(parameter.dims());
    let length = direction.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    let direction = (direction / f64::from(length)).unwrap();
    let gradient = gradient.to_dense(parameter.dims()).unwrap();
    let along = (gradient * &direction).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    let at = |step: f64| {
        parameter.set(&(&own + (&direction * step).unwrap()).unwrap()).unwrap();
        total()
    };
    let step = 5e-3;
    let difference = (at(step) - at(-step)) / (2.0 * step);
    parameter.set(&own).unwrap();
    let close = (difference - f64::from(along)).abs() < 0.02 * difference.abs().max(0.1);
    assert!(close, "{}: {along} and {difference}", parameter.name());
}
