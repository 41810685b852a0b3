//! Writes files of GGUF tensor by tensor: each is made when it is its turn, so that no two of them are in memory.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use candle_core::quantized::gguf_file::Value;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

const MAGIC: &[u8] = b"GGUF";
/// The form that llama.cpp writes since 2023.
const VERSION: u32 = 3;
/// What places of tensors are multiples of where a file says nothing else.
const ALIGNMENT: usize = 32;

/// How a GGUF file keeps the numbers of matrices; vectors are always `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GgufType {
    /// Four bytes each.
    F32,
    /// Two bytes each, of which most go to the fraction.
    #[default]
    F16,
    /// Two bytes each, with the range of `f32`.
    BF16,
    /// Blocks of 32 whole numbers of a byte, which have a scale.
    Q8_0,
}

impl GgufType {
    fn ggml(self) -> GgmlDType {
        match self {
            Self::F32 => GgmlDType::F32,
            Self::F16 => GgmlDType::F16,
            Self::BF16 => GgmlDType::BF16,
            Self::Q8_0 => GgmlDType::Q8_0,
        }
    }

    /// llama.cpp's number of it for a tensor.
    fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::BF16 => 30,
            Self::Q8_0 => 8,
        }
    }

    /// llama.cpp's number of it for a file: what most of its tensors are.
    pub(crate) fn file_number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::BF16 => 32,
            Self::Q8_0 => 7,
        }
    }

    /// What a tensor of this shape is kept as.
    pub(crate) fn of_shape(self, shape: &[usize]) -> Self {
        match shape {
            [] | [_] => Self::F32,
            // A block lies within a row.
            [.., row] if !row.is_multiple_of(self.ggml().block_size()) => Self::F16,
            _ => self,
        }
    }

    fn bytes(self, shape: &[usize]) -> usize {
        let of = self.ggml();
        shape.iter().product::<usize>() / of.block_size() * of.type_size()
    }
}

/// A tensor that is to be written.
pub(crate) struct Planned<'a> {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) of: GgufType,
    /// Makes it.
    pub(crate) make: Box<dyn Fn() -> candle_core::Result<Tensor> + 'a>,
}

/// Writes what is said of a model, and its tensors.
///
/// # Errors
/// Where the file cannot be written, or a tensor not be made.
pub(crate) fn write(file: &Path, metadata: &[(String, Value)], tensors: &[Planned<'_>]) -> io::Result<()> {
    let mut header = Vec::new();
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    for count in [tensors.len(), metadata.len()] {
        header.extend((count as u64).to_le_bytes());
    }
    for (key, of) in metadata {
        text(&mut header, key);
        header.extend(kind(of)?.to_le_bytes());
        value(&mut header, of)?;
    }
    let mut offset = 0;
    for Planned { name, shape, of, .. } in tensors {
        text(&mut header, name);
        header.extend((shape.len() as u32).to_le_bytes());
        // The innermost dimension first.
        shape.iter().rev().for_each(|&extent| header.extend((extent as u64).to_le_bytes()));
        header.extend(of.number().to_le_bytes());
        header.extend((offset as u64).to_le_bytes());
        offset += of.bytes(shape).next_multiple_of(ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
    let mut out = BufWriter::new(File::create(file)?);
    out.write_all(&header)?;
    for Planned { of, make, .. } in tensors {
        let made = make().and_then(|tensor| QTensor::quantize(&tensor.to_device(&Device::Cpu)?, of.ggml()));
        let made = made.map_err(io::Error::other)?;
        let bytes = made.data().map_err(io::Error::other)?;
        out.write_all(&bytes)?;
        let padding = bytes.len().next_multiple_of(ALIGNMENT) - bytes.len();
        out.write_all(&[0; ALIGNMENT][..padding])?;
    }
    out.into_inner()?.sync_all()
}

fn text(into: &mut Vec<u8>, text: &str) {
    into.extend((text.len() as u64).to_le_bytes());
    into.extend(text.as_bytes());
}

/// The number of a value's type.
fn kind(value: &Value) -> io::Result<u32> {
    Ok(match value {
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Array(_) => 9,
        other => return Err(io::Error::other(format!("{other:?} is of a type that is not written"))),
    })
}

fn value(into: &mut Vec<u8>, of: &Value) -> io::Result<()> {
    match of {
        Value::U32(x) => into.extend(x.to_le_bytes()),
        Value::I32(x) => into.extend(x.to_le_bytes()),
        Value::F32(x) => into.extend(x.to_le_bytes()),
        Value::Bool(x) => into.push((*x).into()),
        Value::String(x) => text(into, x),
        Value::Array(list) => {
            let of_first = list.first().map(kind).transpose()?;
            into.extend(of_first.unwrap_or_default().to_le_bytes());
            into.extend((list.len() as u64).to_le_bytes());
            return list.iter().try_for_each(|of| value(into, of));
        }
        other => return kind(other).map(drop),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use fthost_autograd::Source;

    use super::super::Weights;
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.gguf");
        let values = |count: usize| (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.013).collect::<Vec<_>>();
        let tensor = |shape: &[usize]| Tensor::from_vec(values(shape.iter().product()), shape, &Device::Cpu).unwrap();
        let shapes: [&[usize]; 3] = [&[3, 64], &[5], &[2, 7]];
        for of in [GgufType::F32, GgufType::F16, GgufType::BF16, GgufType::Q8_0] {
            let mut tensors = Vec::new();
            for (i, shape) in shapes.into_iter().enumerate() {
                let make = Box::new(move || Ok(tensor(shape)));
                tensors.push(Planned { name: format!("t{i}"), shape: shape.into(), of: of.of_shape(shape), make });
            }
            let metadata = [
                ("a.number".to_owned(), Value::U32(7)),
                ("a.text".to_owned(), Value::String("llama".into())),
                ("a.list".to_owned(), Value::Array(vec![Value::I32(1), Value::I32(-1)])),
                ("a.flag".to_owned(), Value::Bool(true)),
                ("a.float".to_owned(), Value::F32(0.5)),
            ];
            write(&file, &metadata, &tensors).unwrap();
            let weights = Weights::open(&file).unwrap();
            let of_file = weights.metadata().unwrap();
            assert_eq!((of_file.whole("a.number"), of_file.text("a.text")), (Some(7), Some("llama")));
            assert_eq!(of_file.number("a.float"), Some(0.5));
            for planned in &tensors {
                let expected = QTensor::quantize(&tensor(&planned.shape), planned.of.ggml()).unwrap();
                let expected = expected.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap();
                let stored = weights.stored(&planned.name, &planned.shape).unwrap();
                let mut found = vec![0f32; planned.shape.iter().product()];
                stored.read(0, &mut found);
                assert_eq!(found, expected.to_vec1::<f32>().unwrap(), "{of:?} {}", planned.name);
            }
        }
    }

    #[test]
    fn vectors_and_rows_that_are_no_blocks_are_kept_otherwise() {
        assert_eq!(GgufType::Q8_0.of_shape(&[64]), GgufType::F32);
        assert_eq!(GgufType::Q8_0.of_shape(&[2, 48]), GgufType::F16);
        assert_eq!(GgufType::Q8_0.of_shape(&[2, 64]), GgufType::Q8_0);
        assert_eq!(GgufType::BF16.of_shape(&[2, 3]), GgufType::BF16);
    }
}
