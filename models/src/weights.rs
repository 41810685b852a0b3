//! The weight files of a model folder: mapped, checked, and read tensor by tensor.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use memmap2::Mmap;
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

/// All tensors of a model folder. Nothing is copied before it is asked for.
#[derive(Debug)]
pub struct Weights {
    files: Vec<WeightFile>,
    /// Tensor name to its file.
    index: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct WeightFile {
    path: PathBuf,
    bytes: Bytes,
    metadata: Metadata,
    data_start: usize,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
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
        Ok(Self::from_files(vec![WeightFile::check(name.into(), Bytes::Owned(bytes))?]))
    }

    fn from_files(files: Vec<WeightFile>) -> Self {
        let index = files
            .iter()
            .enumerate()
            .flat_map(|(i, file)| file.metadata.offset_keys().into_iter().map(move |name| (name, i)))
            .collect();
        Self { files, index }
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
        let bytes = &file.bytes.as_slice()[file.data_start..][start..end];
        let stored = Tensor::from_raw_buffer(bytes, dtype, &info.shape, &Device::Cpu)?;
        Ok(stored.to_dtype(DType::F32)?.to_device(device)?)
    }

    /// [`tensor`](Self::tensor), which must have this shape.
    pub fn tensor_of_shape(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor, LoadError> {
        let tensor = self.tensor(name, device)?;
        if tensor.dims() != shape {
            return Err(LoadError::WrongShape {
                file: self.file_of(name).into(),
                tensor: name.into(),
                found: tensor.dims().into(),
                expected: shape.into(),
            });
        }
        Ok(tensor)
    }

    /// The file that stands for all of them in an error about a tensor that none of them has.
    fn file(&self) -> &Path {
        match self.files.as_slice() {
            [single] => &single.path,
            shards => shards.first().and_then(|shard| shard.path.parent()).unwrap_or(Path::new(SHARD_INDEX)),
        }
    }

    fn file_of(&self, name: &str) -> &Path {
        self.index.get(name).map_or(self.file(), |&i| &self.files[i].path)
    }
}

impl WeightFile {
    fn open(path: PathBuf) -> Result<Self, LoadError> {
        let unreadable = |source| LoadError::Read { file: path.clone(), source };
        let file = File::open(&path).map_err(unreadable)?;
        if file.metadata().map_err(unreadable)?.is_dir() {
            return Err(unreadable(std::io::ErrorKind::IsADirectory.into()));
        }
        // SAFETY: a mapping is sound as long as nobody changes the file below it. Model folders are not changed while they are
        // used; our own writer replaces files by renaming, which leaves a mapped one untouched.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
        Self::check(path, Bytes::Mapped(map))
    }

    /// Reads the header, and checks that it describes exactly the bytes that follow.
    fn check(path: PathBuf, bytes: Bytes) -> Result<Self, LoadError> {
        match SafeTensors::read_metadata(bytes.as_slice()) {
            Ok((header, metadata)) => Ok(Self { path, bytes, metadata, data_start: HEADER_LENGTH + header }),
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
