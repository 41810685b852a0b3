//! What the tests read: pictures of every kind and what Pillow, torchvision and Transformers make of them, by
//! tests/reference/make_images.py.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{MAX_PIXELS, Picture, Plane, decode};

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

pub(crate) fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

pub(crate) fn json(name: &str) -> Value {
    serde_json::from_slice(&bytes(name)).unwrap()
}

pub(crate) fn picture(name: &str) -> Picture {
    decode(&bytes(name), name, MAX_PIXELS).unwrap()
}

/// `{ size: [height, width], pixels: hex }`.
pub(crate) fn plane<const C: usize>(value: &Value) -> Plane<C> {
    let hex = value["pixels"].as_str().unwrap();
    let bytes: Vec<u8> = (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
    let side = |i: usize| value["size"][i].as_u64().unwrap() as usize;
    Plane::new(side(0), side(1), bytes.as_chunks::<C>().0.to_vec()).unwrap()
}

/// The largest and the mean difference of levels.
#[track_caller]
pub(crate) fn differences<const C: usize>(a: &Plane<C>, b: &Plane<C>) -> (u8, f64) {
    assert_eq!(a.size(), b.size());
    let apart: Vec<u8> = a.bytes().iter().zip(b.bytes()).map(|(a, b)| a.abs_diff(*b)).collect();
    let sum: u64 = apart.iter().map(|x| u64::from(*x)).sum();
    (apart.iter().copied().max().unwrap(), sum as f64 / apart.len() as f64)
}

/// A picture of noise that is smooth enough to be one.
pub(crate) fn noise(height: usize, width: usize, seed: u64) -> Picture {
    let mut random = crate::random::seeded(seed);
    Plane::from_fn(height, width, |y, x| {
        [0, 1, 2].map(|c| ((y * 5 + x * (3 + c)) % 200) as u8 + (random() * 50.0) as u8)
    })
}
