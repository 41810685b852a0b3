//! A tensor where it lies in its file.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device, Tensor};
use fthost_autograd::{Codes, Quantization, Source};
use half::{bf16, f16};

use super::blocks::dequantize;
use super::codes::{self, Places};
use super::file::WeightFile;
use crate::LoadError;

/// Bytes of a mapped tensor that single rows may leave in memory before its pages are given back.
const RESIDENT: usize = 16 << 20;
/// What the system may map around one row.
const AROUND: usize = 64 << 10;
/// Elements that are converted at once.
const PIECE: usize = 16 << 10;

/// How elements are stored.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// One by one.
    Floats(DType),
    /// In blocks, which have a scale each.
    Blocks(GgmlDType),
}

/// What a file has otherwise than Hugging Face's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Change {
    /// In the rows of each head of this width, elements that turn with each other are neighbours; they become half a head apart.
    Neighbours(usize),
    /// All elements are greater by this.
    Plus(f32),
    /// A matrix lies the other way round: `[in, out]`.
    Transposed,
}

impl Change {
    /// The row of the file that becomes this one.
    fn row(dim: usize, row: usize) -> usize {
        let (head, i, half) = (row / dim, row % dim, dim / 2);
        head * dim + 2 * (i % half) + i / half
    }

    /// A tensor as the file has it: what reading undoes.
    pub(crate) fn made(self, tensor: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Plus(sum) => tensor.affine(1.0, f64::from(sum)),
            Self::Transposed => tensor.t()?.contiguous(),
            Self::Neighbours(dim) => {
                let shape = tensor.dims();
                let (heads, row) = (shape[0] / dim, shape[1..].iter().product::<usize>());
                // [heads, 2, dim / 2, row] -> [heads, dim / 2, 2, row]
                tensor.reshape((heads, 2, dim / 2, row))?.transpose(1, 2)?.contiguous()?.reshape(shape)
            }
        }
    }
}

/// A tensor where it lies in its file: the source of a parameter at rest. It keeps the file mapped.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(super) file: Arc<WeightFile>,
    form: Form,
    range: Range<usize>,
    /// Shape, and elements from one index to the next of each dimension, where it does not lie row by row.
    strided: Option<(Vec<usize>, Vec<usize>)>,
    /// What is to be done with what is read, and how long a row is.
    change: Option<(Change, usize)>,
    /// Bytes that single rows may have brought to memory.
    touched: AtomicUsize,
}

impl Stored {
    /// Elements of this type in these bytes of a file.
    pub(super) fn new(
        file: Arc<WeightFile>,
        form: Form,
        range: Range<usize>,
        strided: Option<(Vec<usize>, Vec<usize>)>,
        change: Option<(Change, usize)>,
    ) -> Self {
        Self { file, form, range, strided, change, touched: AtomicUsize::new(0) }
    }

    /// As a tensor of this shape, which has as many elements.
    pub(crate) fn to_tensor(&self, shape: &[usize], device: &Device) -> Result<Tensor, LoadError> {
        let mut elements = vec![0f32; shape.iter().product()];
        self.read(0, &mut elements);
        Ok(Tensor::from_vec(elements, shape, device)?)
    }
}

impl Source for Stored {
    fn read(&self, start: usize, into: &mut [f32]) {
        match self.change {
            None => self.read_as_it_is(start, into),
            // Told by its strides.
            Some((Change::Transposed, _)) => self.read_as_it_is(start, into),
            Some((Change::Plus(sum), _)) => {
                self.read_as_it_is(start, into);
                into.iter_mut().for_each(|x| *x -= sum);
            }
            Some((Change::Neighbours(dim), width)) => {
                let (mut at, mut rest) = (start, into);
                while !rest.is_empty() {
                    let column = at % width;
                    let (row, more) = rest.split_at_mut(rest.len().min(width - column));
                    self.read_as_it_is(Change::row(dim, at / width) * width + column, row);
                    at += row.len();
                    rest = more;
                }
            }
        }
    }

    fn quantization(&self) -> Option<Quantization> {
        match (self.form, self.change) {
            (Form::Blocks(of), None | Some((Change::Neighbours(_), _))) => codes::quantization(of),
            _ => None,
        }
    }

    fn read_codes(&self, start: usize, Codes { codes, scales, offsets }: &mut Codes) {
        let (Form::Blocks(of), Some(Quantization { block, .. })) = (self.form, self.quantization()) else { return };
        let row = match self.change {
            Some((Change::Neighbours(dim), width)) => Some((dim, width)),
            _ => None,
        };
        let step = row.map_or(codes.len(), |(_, width)| width).max(block);
        let mut offsets = offsets.as_mut_slice();
        for (i, (codes, scales)) in codes.chunks_mut(step).zip(scales.chunks_mut(step / block)).enumerate() {
            let at = match row {
                Some((dim, width)) => Change::row(dim, start / width + i) * width,
                None => start,
            };
            let (some, rest) = offsets.split_at_mut(scales.len().min(offsets.len()));
            offsets = rest;
            let begin = self.range.start + at / of.block_size() * of.type_size();
            let length = codes.len() / of.block_size() * of.type_size();
            codes::read(
                of,
                &self.file.bytes.as_slice()[begin..begin + length],
                Places { codes, scales, offsets: some },
            );
            self.touch(length);
        }
    }
}

impl Stored {
    /// Long pieces are copied past the mapping: pages that are mapped have to be given back, which stops the other cores each time.
    /// Of single rows the most frequent may stay in memory.
    fn read_as_it_is(&self, start: usize, into: &mut [f32]) {
        let dtype = match self.form {
            Form::Blocks(of) => return self.read_blocks(of, start, into),
            Form::Floats(dtype) => dtype,
        };
        if let Some((shape, strides)) = &self.strided {
            return self.gather(dtype, start, into, shape, strides);
        }
        let size = dtype.size_in_bytes();
        let range = self.range.start + start * size..self.range.start + (start + into.len()) * size;
        if range.len() >= AROUND && self.copy(dtype, range.start, into) {
            return;
        }
        convert_to_floats(dtype, &self.file.bytes.as_slice()[range.clone()], into);
        self.touch(range.len());
    }

    /// Takes note of bytes that were read by way of the mapping.
    fn touch(&self, bytes: usize) {
        if self.range.len() > RESIDENT && self.touched.fetch_add(bytes.max(AROUND), Ordering::Relaxed) >= RESIDENT {
            self.touched.store(0, Ordering::Relaxed);
            self.file.bytes.give_back(self.range.clone());
        }
    }

    /// Makes floats of the blocks that elements from `start` on lie in.
    fn read_blocks(&self, of: GgmlDType, start: usize, into: &mut [f32]) {
        let (elements, size) = (of.block_size(), of.type_size());
        let (mut at, mut rest) = (start, into);
        let mut floats = Vec::new();
        while !rest.is_empty() {
            let (first, skipped) = (at / elements, at % elements);
            let blocks = (skipped + rest.len()).min(PIECE).div_ceil(elements);
            let begin = self.range.start + first * size;
            let bytes = &self.file.bytes.as_slice()[begin..begin + blocks * size];
            let (piece, more) = rest.split_at_mut(rest.len().min(blocks * elements - skipped));
            if skipped == 0 && piece.len() == blocks * elements {
                dequantize(of, bytes, piece);
            } else {
                floats.resize(blocks * elements, 0.0);
                dequantize(of, bytes, &mut floats);
                piece.copy_from_slice(&floats[skipped..][..piece.len()]);
            }
            self.touch(bytes.len());
            at += piece.len();
            rest = more;
        }
    }

    /// Takes the elements from `start` on one by one.
    fn gather(&self, dtype: DType, start: usize, into: &mut [f32], shape: &[usize], strides: &[usize]) {
        let size = dtype.size_in_bytes();
        let bytes = &self.file.bytes.as_slice()[self.range.clone()];
        let mut index = vec![0; shape.len()];
        let mut rest = start;
        for (i, extent) in shape.iter().enumerate().rev() {
            (index[i], rest) = (rest % extent, rest / extent);
        }
        for x in into.iter_mut() {
            let place: usize = index.iter().zip(strides).map(|(i, stride)| i * stride).sum();
            convert_to_floats(dtype, &bytes[place * size..][..size], std::slice::from_mut(x));
            for (i, extent) in shape.iter().enumerate().rev() {
                index[i] += 1;
                if index[i] < *extent {
                    break;
                }
                index[i] = 0;
            }
        }
        if self.range.len() > RESIDENT {
            self.file.bytes.give_back(self.range.clone());
        }
    }

    /// Copies the elements from this byte of the file on. Whether it could.
    fn copy(&self, dtype: DType, start: usize, into: &mut [f32]) -> bool {
        if dtype == DType::F32 {
            // SAFETY: floats have no padding, and any bytes make floats.
            #[allow(unsafe_code)]
            let bytes = unsafe { std::slice::from_raw_parts_mut(into.as_mut_ptr().cast(), size_of_val(into)) };
            let copied = self.file.bytes.copy(start, bytes);
            into.iter_mut().for_each(|x| *x = f32::from_bits(u32::from_le(x.to_bits())));
            return copied;
        }
        let size = dtype.size_in_bytes();
        let mut bytes = vec![0; size * PIECE.min(into.len())];
        into.chunks_mut(PIECE).enumerate().all(|(i, into)| {
            let bytes = &mut bytes[..size * into.len()];
            let copied = self.file.bytes.copy(start + size * PIECE * i, bytes);
            convert_to_floats(dtype, bytes, into);
            copied
        })
    }
}

fn convert_to_floats(dtype: DType, bytes: &[u8], into: &mut [f32]) {
    match dtype {
        DType::F16 => convert(bytes, into, |x| f16::from_le_bytes(x).to_f32()),
        DType::BF16 => convert(bytes, into, |x| bf16::from_le_bytes(x).to_f32()),
        DType::F64 => convert(bytes, into, |x| f64::from_le_bytes(x) as f32),
        _ => convert(bytes, into, f32::from_le_bytes),
    }
}

/// Elements as floats.
fn convert<const N: usize>(bytes: &[u8], into: &mut [f32], float: impl Fn([u8; N]) -> f32) {
    for (x, bytes) in into.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *x = float(*bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::{SINGLE_FILE, Weights};
    use super::*;
    use std::path::Path;

    /// Kilobytes of a mapped file that are in memory.
    fn resident(file: &Path) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = maps.lines().skip_while(|line| !line.ends_with(file.to_str().unwrap()));
        let line = lines.find(|line| line.starts_with("Rss:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Past the mapping, by way of it, and of bytes in memory.
    #[test]
    fn long_and_short_pieces_hold_the_same_values() {
        const COUNT: usize = 40_000;
        let values = Tensor::arange(0f32, COUNT as f32, &Device::Cpu).unwrap().affine(0.37, -7000.0).unwrap();
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join(SINGLE_FILE);
            let stored = values.to_dtype(dtype).unwrap();
            let expected: Vec<f32> = stored.to_dtype(DType::F32).unwrap().to_vec1().unwrap();
            candle_core::safetensors::save(&[("values", stored)].into(), &file).unwrap();
            let mapped = Weights::open(folder.path()).unwrap();
            let owned = Weights::from_bytes("values", std::fs::read(&file).unwrap()).unwrap();
            for weights in [mapped, owned] {
                let stored = weights.stored("values", &[COUNT]).unwrap();
                for length in [COUNT - 2, 100] {
                    let mut piece = vec![0f32; length];
                    stored.read(1, &mut piece);
                    assert_eq!(piece, expected[1..=length], "{dtype:?}");
                }
            }
        }
    }

    #[test]
    fn pages_of_a_mapped_tensor_are_given_back() {
        const ROWS: usize = 12 << 10;
        const WIDTH: usize = 1 << 10; // 48 MB
        let folder = tempfile::tempdir().unwrap();
        let table = Tensor::arange(0f32, (ROWS * WIDTH) as f32, &Device::Cpu).unwrap().reshape((ROWS, WIDTH)).unwrap();
        let file = folder.path().join(SINGLE_FILE);
        candle_core::safetensors::save(&[("table", table)].into(), &file).unwrap();

        let weights = Weights::open(folder.path()).unwrap();
        let stored = weights.stored("table", &[ROWS, WIDTH]).unwrap();
        drop(weights);
        let mut piece = vec![0f32; 32 * WIDTH];
        for start in (0..ROWS * WIDTH).step_by(piece.len()) {
            stored.read(start, &mut piece);
            assert_eq!((piece[0], piece[1]), (start as f32, start as f32 + 1.0));
        }
        // Pages around the last piece may be mapped with it: how many is the kernel's matter.
        let most = (RESIDENT + AROUND) >> 10;
        assert!(resident(&file) <= most, "read in pieces: {} KB stay", resident(&file));
        let mut row = vec![0f32; WIDTH];
        for i in (0..ROWS).rev() {
            stored.read(i * WIDTH, &mut row);
            assert_eq!(row[0], (i * WIDTH) as f32);
        }
        assert!(resident(&file) <= most, "read row by row: {} KB stay", resident(&file));
    }
}
