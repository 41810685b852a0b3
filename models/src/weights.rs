//! The weight files of a model folder: mapped, checked, and read tensor by tensor.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use candle_core::{DType, Device, Tensor};
use fthost_autograd::Source;
use half::{bf16, f16};
use memmap2::{Mmap, UncheckedAdvice};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, SafeTensors};
use serde::Deserialize;

use crate::LoadError;

/// Length of the field that opens a safetensors file and says how long its header is.
const HEADER_LENGTH: usize = 8;
/// The only file of an unsharded folder.
pub(crate) const SINGLE_FILE: &str = "model.safetensors";
const SHARD_INDEX: &str = "model.safetensors.index.json";
/// Weight files of other frameworks and forms, to tell a user what to do with them.
const OTHER_FORMS: [&str; 4] =
    ["pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack"];

/// Bytes of a mapped tensor that single rows may leave in memory before its pages are given back.
const RESIDENT: usize = 16 << 20;
/// What the system may map around one row.
const AROUND: usize = 64 << 10;
/// Elements that are converted at once.
const PIECE: usize = 16 << 10;

/// All tensors of a model folder. Nothing is copied before it is asked for.
#[derive(Debug)]
pub struct Weights {
    files: Vec<Arc<WeightFile>>,
    /// Tensor name to its file.
    index: BTreeMap<String, usize>,
}

/// A file that weights came from, as it was when they were mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileState {
    /// What no other file has, and this one no longer once it was written to: path, size, times and inode.
    pub identity: String,
    /// When it was last written to.
    pub modified: SystemTime,
}

impl FileState {
    fn of(path: &Path, file: &std::fs::Metadata) -> Option<Self> {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let (modified, changed) = ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
        let (size, inode, device) = (file.len(), file.ino(), file.dev());
        let identity = format!("{} {size} {modified:?} {changed:?} {inode} {device}", path.display());
        Some(Self { identity, modified: file.modified().ok()? })
    }
}

#[derive(Debug)]
struct WeightFile {
    path: PathBuf,
    /// Nothing of bytes in memory.
    state: Option<FileState>,
    bytes: Bytes,
    metadata: Metadata,
    data_start: usize,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap, File),
    Owned(Vec<u8>),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map, _) => map,
            Self::Owned(bytes) => bytes,
        }
    }

    /// Copies bytes of a mapped file from `start` on, past the mapping. Whether it could.
    fn copy(&self, start: usize, into: &mut [u8]) -> bool {
        match self {
            Self::Mapped(_, file) => file.read_exact_at(into, start as u64).is_ok(),
            Self::Owned(_) => false,
        }
    }

    /// Gives pages of a mapped file back: whoever reads them again finds the same there.
    fn give_back(&self, range: Range<usize>) {
        if let Self::Mapped(map, _) = self {
            // SAFETY: of a file that is mapped for reading only the pages come back as they were.
            #[allow(unsafe_code)]
            let advised = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
            // Pages that stay cost memory and nothing else.
            drop(advised);
        }
    }
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Maps `model.safetensors`, or the shards that `model.safetensors.index.json` names, and checks their headers.
    pub fn open(folder: &Path) -> Result<Self, LoadError> {
        let single = folder.join(SINGLE_FILE);
        if single.exists() {
            return Ok(Self::from_files(vec![WeightFile::open(single)?]));
        }
        let index_file = folder.join(SHARD_INDEX);
        if !index_file.exists() {
            let other = OTHER_FORMS.iter().find(|name| folder.join(name).exists());
            return Err(LoadError::NoWeights { folder: folder.into(), other: other.map(|name| (*name).into()) });
        }
        let text = std::fs::read_to_string(&index_file)
            .map_err(|source| LoadError::Read { file: index_file.clone(), source })?;
        let shards: ShardIndex = serde_json::from_str(&text)
            .map_err(|error| LoadError::Damaged { file: index_file.clone(), reason: error.to_string() })?;
        let mut names: Vec<&String> = shards.weight_map.values().collect();
        names.sort();
        names.dedup();
        let files = names.into_iter().map(|name| WeightFile::open(folder.join(name))).collect::<Result<_, _>>()?;
        let weights = Self::from_files(files);
        match shards.weight_map.iter().find(|(tensor, _)| !weights.index.contains_key(*tensor)) {
            Some((tensor, shard)) => {
                let reason = format!("{} says that tensor {tensor} is in it, and it is not", index_file.display());
                Err(LoadError::Damaged { file: folder.join(shard), reason })
            }
            None => Ok(weights),
        }
    }

    /// From the bytes of one safetensors file. `name` stands for the file in errors.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self, LoadError> {
        Ok(Self::from_files(vec![WeightFile::check(name.into(), None, Bytes::Owned(bytes))?]))
    }

    fn from_files(files: Vec<WeightFile>) -> Self {
        let index = files
            .iter()
            .enumerate()
            .flat_map(|(i, file)| file.metadata.offset_keys().into_iter().map(move |name| (name, i)))
            .collect();
        Self { files: files.into_iter().map(Arc::new).collect(), index }
    }

    /// The state of every file; none where one of them is bytes in memory.
    pub(crate) fn files(&self) -> Vec<FileState> {
        self.files.iter().map(|file| file.state.clone()).collect::<Option<_>>().unwrap_or_default()
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// A tensor as `f32`, copied to `device`. Errors where it is missing or holds no floats.
    pub fn tensor(&self, name: &str, device: &Device) -> Result<Tensor, LoadError> {
        let (stored, shape) = self.find(name)?;
        stored.to_tensor(&shape, device)
    }

    /// [`tensor`](Self::tensor), which must have this shape.
    pub fn tensor_of_shape(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor, LoadError> {
        self.stored(name, shape)?.to_tensor(shape, device)
    }

    /// Where the elements of a tensor lie, which must have this shape.
    pub(crate) fn stored(&self, name: &str, shape: &[usize]) -> Result<Stored, LoadError> {
        let (stored, found) = self.find(name)?;
        if found != shape {
            return Err(LoadError::WrongShape {
                file: stored.file.path.clone(),
                tensor: name.into(),
                found,
                expected: shape.into(),
            });
        }
        Ok(stored)
    }

    /// Where a tensor lies, and its shape.
    fn find(&self, name: &str) -> Result<(Stored, Vec<usize>), LoadError> {
        let missing = || LoadError::MissingTensor {
            file: self.file().into(),
            tensor: name.into(),
            closest: closest(name, self.names()).map(str::to_owned),
        };
        let file = &self.files[*self.index.get(name).ok_or_else(missing)?];
        let info = file.metadata.info(name).ok_or_else(missing)?;
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F64 => DType::F64,
            other => {
                let found = format!("{other:?}");
                return Err(LoadError::WrongType { file: file.path.clone(), tensor: name.into(), found });
            }
        };
        let (start, end) = info.data_offsets;
        let range = file.data_start + start..file.data_start + end;
        Ok((Stored { file: file.clone(), dtype, range, touched: AtomicUsize::new(0) }, info.shape.clone()))
    }

    /// The file that stands for all of them in an error about a tensor that none of them has.
    fn file(&self) -> &Path {
        match self.files.as_slice() {
            [single] => &single.path,
            shards => shards.first().and_then(|shard| shard.path.parent()).unwrap_or(Path::new(SHARD_INDEX)),
        }
    }
}

/// A tensor where it lies in its file: the source of a parameter at rest. It keeps the file mapped.
#[derive(Debug)]
pub(crate) struct Stored {
    file: Arc<WeightFile>,
    dtype: DType,
    range: Range<usize>,
    /// Bytes that single rows may have brought to memory.
    touched: AtomicUsize,
}

impl Stored {
    /// As a tensor of this shape, which has as many elements.
    pub(crate) fn to_tensor(&self, shape: &[usize], device: &Device) -> Result<Tensor, LoadError> {
        let mut elements = vec![0f32; shape.iter().product()];
        self.read(0, &mut elements);
        Ok(Tensor::from_vec(elements, shape, device)?)
    }
}

impl Source for Stored {
    /// Long pieces are copied past the mapping: pages that are mapped have to be given back, which stops the other cores each time.
    /// Of single rows the most frequent may stay in memory.
    fn read(&self, start: usize, into: &mut [f32]) {
        let size = self.dtype.size_in_bytes();
        let range = self.range.start + start * size..self.range.start + (start + into.len()) * size;
        if range.len() >= AROUND && self.copy(range.start, into) {
            return;
        }
        self.convert(&self.file.bytes.as_slice()[range.clone()], into);
        if self.range.len() > RESIDENT && self.touched.fetch_add(range.len().max(AROUND), Ordering::Relaxed) >= RESIDENT
        {
            self.touched.store(0, Ordering::Relaxed);
            self.file.bytes.give_back(self.range.clone());
        }
    }
}

impl Stored {
    /// Copies the elements from this byte of the file on. Whether it could.
    fn copy(&self, start: usize, into: &mut [f32]) -> bool {
        if self.dtype == DType::F32 {
            // SAFETY: floats have no padding, and any bytes make floats.
            #[allow(unsafe_code)]
            let bytes = unsafe { std::slice::from_raw_parts_mut(into.as_mut_ptr().cast(), size_of_val(into)) };
            let copied = self.file.bytes.copy(start, bytes);
            into.iter_mut().for_each(|x| *x = f32::from_bits(u32::from_le(x.to_bits())));
            return copied;
        }
        let size = self.dtype.size_in_bytes();
        let mut bytes = vec![0; size * PIECE.min(into.len())];
        into.chunks_mut(PIECE).enumerate().all(|(i, into)| {
            let bytes = &mut bytes[..size * into.len()];
            let copied = self.file.bytes.copy(start + size * PIECE * i, bytes);
            self.convert(bytes, into);
            copied
        })
    }

    fn convert(&self, bytes: &[u8], into: &mut [f32]) {
        match self.dtype {
            DType::F16 => convert(bytes, into, |x| f16::from_le_bytes(x).to_f32()),
            DType::BF16 => convert(bytes, into, |x| bf16::from_le_bytes(x).to_f32()),
            DType::F64 => convert(bytes, into, |x| f64::from_le_bytes(x) as f32),
            _ => convert(bytes, into, f32::from_le_bytes),
        }
    }
}

/// Elements as floats.
fn convert<const N: usize>(bytes: &[u8], into: &mut [f32], float: impl Fn([u8; N]) -> f32) {
    for (x, bytes) in into.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *x = float(*bytes);
    }
}

impl WeightFile {
    fn open(path: PathBuf) -> Result<Self, LoadError> {
        let unreadable = |source| LoadError::Read { file: path.clone(), source };
        let file = File::open(&path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.is_dir() {
            return Err(unreadable(std::io::ErrorKind::IsADirectory.into()));
        }
        let state = FileState::of(&path, &metadata);
        // SAFETY: a mapping is sound as long as nobody changes the file below it. Model folders are not changed while they are
        // used; our own writer replaces files by renaming, which leaves a mapped one untouched.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
        Self::check(path, state, Bytes::Mapped(map, file))
    }

    /// Reads the header, and checks that it describes exactly the bytes that follow.
    fn check(path: PathBuf, state: Option<FileState>, bytes: Bytes) -> Result<Self, LoadError> {
        match SafeTensors::read_metadata(bytes.as_slice()) {
            Ok((header, metadata)) => Ok(Self { path, state, bytes, metadata, data_start: HEADER_LENGTH + header }),
            Err(error) => Err(LoadError::Damaged { file: path, reason: damage(&error, bytes.as_slice().len()) }),
        }
    }
}

/// What is wrong with a safetensors file of this many bytes.
fn damage(error: &SafeTensorError, bytes: usize) -> String {
    match error {
        SafeTensorError::HeaderTooSmall => format!("it has {bytes} bytes only"),
        SafeTensorError::HeaderTooLarge | SafeTensorError::InvalidHeaderLength => {
            format!("its header would be longer than the file, which has {bytes} bytes")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            format!(
                "the tensors that its header lists do not fill the file, or do not fit into it: it has {bytes} bytes"
            )
        }
        other => other.to_string(),
    }
}

/// The most similar of some names, where one is similar at all.
pub(crate) fn closest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const SIMILAR: f64 = 0.6;
    names
        .map(|other| (strsim::normalized_levenshtein(name, other), other))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

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
