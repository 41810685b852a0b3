//! Writes tensors into a .safetensors file. What lies in memory as the file has it is written from there: a model that is saved takes
//! no second place in memory.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

use candle_core::{CpuStorage, DType, Device, Error, Storage, Tensor};
use safetensors::tensor::{Dtype, View};
use safetensors::{SafeTensorError, serialize_to_file};

/// A tensor on its way into a file.
struct Saved<'a> {
    tensor: &'a Tensor,
    dtype: DType,
    storage: Box<dyn Deref<Target = Storage> + 'a>,
    /// The places of the elements, where they lie in memory as the file has them.
    places: Option<Range<usize>>,
    /// What went wrong with the others, of which the writer hears nothing.
    failure: &'a RefCell<Option<Error>>,
}

impl<'a> Saved<'a> {
    fn new(tensor: &'a Tensor, dtype: DType, failure: &'a RefCell<Option<Error>>) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        let places = layout.contiguous_offsets().filter(|_| tensor.dtype() == dtype);
        let places = places.map(|(start, end)| start..end);
        Self { tensor, dtype, storage: Box::new(storage), places, failure }
    }

    fn borrowed(&self) -> Option<&[u8]> {
        let places = self.places.clone()?;
        let Storage::Cpu(storage) = &**self.storage else { return None };
        Some(match storage {
            CpuStorage::F32(all) => bytemuck::cast_slice(&all[places]),
            CpuStorage::F64(all) => bytemuck::cast_slice(&all[places]),
            CpuStorage::U32(all) => bytemuck::cast_slice(&all[places]),
            CpuStorage::I64(all) => bytemuck::cast_slice(&all[places]),
            CpuStorage::U8(all) => &all[places],
            _ => return None,
        })
    }

    fn copied(&self) -> candle_core::Result<Vec<u8>> {
        // candle's view panics where it cannot copy from a device; of a tensor that is here it can.
        let here = self.tensor.to_dtype(self.dtype)?.to_device(&Device::Cpu)?;
        Ok(View::data(&here).into_owned())
    }
}

impl View for Saved<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype.into()
    }

    fn shape(&self) -> &[usize] {
        self.tensor.dims()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        if let Some(bytes) = self.borrowed() {
            return Cow::Borrowed(bytes);
        }
        let bytes = self.copied().unwrap_or_else(|error| {
            self.failure.borrow_mut().get_or_insert(error);
            vec![0; self.data_len()]
        });
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.tensor.elem_count() * self.dtype.size_in_bytes()
    }
}

/// Writes named tensors into a file, each as `dtype` says of its own type, with metadata for the header.
///
/// # Errors
/// Where the file cannot be written, or a tensor not converted.
pub fn save<'a>(
    file: &Path,
    tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>,
    metadata: HashMap<String, String>,
    dtype: impl Fn(DType) -> DType,
) -> io::Result<()> {
    let failure = RefCell::new(None);
    let views = tensors.into_iter().map(|(name, tensor)| (name, Saved::new(tensor, dtype(tensor.dtype()), &failure)));
    let written = serialize_to_file(views.collect::<Vec<_>>(), Some(metadata), file);
    match (failure.into_inner(), written) {
        (Some(error), _) => Err(io::Error::other(error)),
        (None, Err(SafeTensorError::IoError(error))) => Err(error),
        (None, written) => written.map_err(io::Error::other),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::collections::BTreeMap;

    use half::bf16;

    use super::*;

    /// What is written from where it lies and what is copied first are the same to a reader.
    #[test]
    fn every_tensor_is_read_as_it_was() {
        let device = &Device::Cpu;
        let all = Tensor::arange(0f32, 12., device).unwrap().reshape((3, 4)).unwrap();
        let tensors = BTreeMap::from([
            ("a part".to_owned(), all.narrow(0, 1, 2).unwrap()),
            ("across".to_owned(), all.t().unwrap()),
            ("half".to_owned(), Tensor::from_vec(vec![bf16::from_f32(1.5), bf16::from_f32(-2.0)], 2, device).unwrap()),
            ("long".to_owned(), Tensor::new(&[1i64 << 40, -1], device).unwrap()),
            ("double".to_owned(), Tensor::new(&[1e300f64], device).unwrap()),
            ("none".to_owned(), all.narrow(0, 0, 0).unwrap()),
            ("whole".to_owned(), Tensor::new(&[7u32, u32::MAX], device).unwrap()),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("all.safetensors");
        save(&file, &tensors, HashMap::new(), |own| own).unwrap();
        let read = candle_core::safetensors::load(&file, device).unwrap();
        assert_eq!(read.len(), tensors.len());
        for (name, tensor) in &tensors {
            assert_eq!((read[name].dtype(), read[name].dims()), (tensor.dtype(), tensor.dims()), "{name}");
            assert_eq!(View::data(&read[name]), View::data(tensor), "{name}");
        }

        save(&file, &tensors, HashMap::new(), |_| DType::F32).unwrap();
        let read = candle_core::safetensors::load(&file, device).unwrap();
        assert_eq!(read["half"].to_vec1::<f32>().unwrap(), [1.5, -2.0]);
        assert_eq!(read["across"].to_vec2::<f32>().unwrap(), all.t().unwrap().to_vec2::<f32>().unwrap());
    }
}
