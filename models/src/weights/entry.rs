//! Where a tensor lies in a file.

use std::ops::Range;

use candle_core::quantized::GgmlDType;
use safetensors::tensor::Dtype;

use super::pickle::{Refusal, Storage, TensorRecord, size};

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Elements {
    /// One by one.
    Plain(Dtype),
    /// In blocks of llama.cpp's.
    Blocks(GgmlDType),
}

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) elements: Elements,
    pub(super) shape: Vec<usize>,
    /// Elements from one index to the next of each dimension; `None` where it lies row by row.
    pub(super) strides: Option<Vec<usize>>,
    /// Its bytes in the file, from its first element to its last.
    pub(super) range: Range<usize>,
}

/// Whether no size that is computed of a shape overflows. One of its extents may be 0, and there are no elements then, but steps from one
/// index to the next are products of the others all the same.
pub(super) fn is_countable(shape: &[usize]) -> bool {
    shape
        .iter()
        .filter(|&&extent| extent > 0)
        .try_fold(1usize, |product, &extent| product.checked_mul(extent))
        .is_some()
}

impl Entry {
    /// A tensor of PyTorch's, whose storage takes these bytes of a file of so many.
    pub(super) fn of(name: &str, tensor: &TensorRecord, storage: Range<usize>, file: usize) -> Result<Self, Refusal> {
        let TensorRecord { storage: Storage { dtype, length, .. }, offset, shape, strides } = tensor;
        let size = size(*dtype);
        let bytes_of = |elements: usize| {
            elements.checked_mul(size).ok_or_else(|| format!("says that {name} has {length} elements"))
        };
        if storage.end > file || storage.len() < bytes_of(*length)? {
            return Err(format!(
                "says that the storage of {name} has {length} elements, and has {} bytes of them",
                storage.len().min(file)
            ));
        }
        // The interpreter has seen to it that these lie within the storage's elements.
        let places = match strides {
            Some(strides) => 1 + shape.iter().zip(strides).map(|(extent, stride)| (extent - 1) * stride).sum::<usize>(),
            None => shape.iter().product(),
        };
        let start = storage.start + bytes_of(*offset)?;
        let (shape, strides) = (shape.clone(), strides.clone());
        Ok(Self { elements: Elements::Plain(*dtype), shape, strides, range: start..start + bytes_of(places)? })
    }
}
