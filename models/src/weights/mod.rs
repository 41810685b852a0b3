//! The weight files of a model folder: mapped, checked, and read tensor by tensor.

mod blocks;
mod codes;
mod entry;
mod file;
mod gguf;
mod pickle;
mod quantized;
mod saved;
mod stored;
mod to_gguf;
mod torch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::Dtype;
use serde::Deserialize;

use crate::LoadError;
use entry::Elements;
pub use file::FileState;
use file::{Bytes, WeightFile};
pub(crate) use gguf::{Metadata, Vocabulary};
pub use quantized::Quantize;
pub(crate) use quantized::Quantized;
pub use saved::save;
use stored::Form;
pub(crate) use stored::{Change, Stored};
pub use to_gguf::GgufType;
pub(crate) use to_gguf::{Planned, write as write_gguf};

/// The only file of an unsharded folder.
pub(crate) const SINGLE_FILE: &str = "model.safetensors";
const SHARD_INDEX: &str = "model.safetensors.index.json";
/// What Transformers wrote before it wrote safetensors: a state dict of PyTorch's, and the index of several.
const TORCH_FILE: &str = "pytorch_model.bin";
const TORCH_INDEX: &str = "pytorch_model.bin.index.json";
/// Extensions of files that hold weights under any name.
const EXTENSIONS: [&str; 5] = ["safetensors", "pth", "pt", "bin", "gguf"];
/// Weight files of other frameworks, to tell a user what to do with them.
const OTHER_FORMS: [&str; 2] = ["tf_model.h5", "flax_model.msgpack"];

/// All tensors of a model folder. Nothing is copied before it is asked for.
#[derive(Debug)]
pub struct Weights {
    files: Vec<Arc<WeightFile>>,
    /// Where each tensor is.
    index: BTreeMap<String, Place>,
}

/// Where a tensor is.
#[derive(Debug)]
struct Place {
    /// The number of its file.
    file: usize,
    /// Its name there.
    name: String,
    /// What is to be done with what is read.
    change: Option<Change>,
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Maps the weights of a folder: `model.safetensors`, or the shards that `model.safetensors.index.json` names; the same of
    /// `pytorch_model.bin`; or the only file with weights there. Checks what they say of their tensors. A path to one file is that file.
    pub fn open(folder: &Path) -> Result<Self, LoadError> {
        if folder.is_file() {
            return Ok(Self::from_files(vec![WeightFile::open(folder.into())?]));
        }
        for (single, index) in [(SINGLE_FILE, SHARD_INDEX), (TORCH_FILE, TORCH_INDEX)] {
            let (single, index) = (folder.join(single), folder.join(index));
            if single.exists() {
                return Ok(Self::from_files(vec![WeightFile::open(single)?]));
            }
            if index.exists() {
                return Self::open_shards(folder, index);
            }
        }
        let mut others = other_files(folder);
        match (others.pop(), others.pop()) {
            (Some(only), None) => Ok(Self::from_files(vec![WeightFile::open(only)?])),
            (Some(one), Some(other)) => Err(LoadError::Ambiguous { folder: folder.into(), files: [other, one] }),
            _ => {
                let other = OTHER_FORMS.iter().find(|name| folder.join(name).exists());
                Err(LoadError::NoWeights { folder: folder.into(), other: other.map(|name| (*name).into()) })
            }
        }
    }

    fn open_shards(folder: &Path, index_file: PathBuf) -> Result<Self, LoadError> {
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

    /// Of no file.
    pub(crate) fn none() -> Self {
        Self::from_files(Vec::new())
    }

    fn from_files(files: Vec<WeightFile>) -> Self {
        let place = |file: usize, name: &String| (name.clone(), Place { file, name: name.clone(), change: None });
        let index = files
            .iter()
            .enumerate()
            .flat_map(|(i, file)| file.entries.keys().map(move |name| place(i, name)))
            .collect();
        Self { files: files.into_iter().map(Arc::new).collect(), index }
    }

    /// The state of every file; none where one of them is bytes in memory.
    pub(crate) fn files(&self) -> Vec<FileState> {
        self.files.iter().map(|file| file.state.clone()).collect::<Option<_>>().unwrap_or_default()
    }

    /// What a file of GGUF says of its model.
    pub(crate) fn metadata(&self) -> Option<&Metadata> {
        self.files.iter().find_map(|file| file.metadata.as_ref())
    }

    /// The file that says more than its tensors.
    pub(crate) fn with_metadata(&self) -> Option<&Path> {
        Some(&self.files.iter().find(|file| file.metadata.is_some())?.path)
    }

    /// The tokenizer that a file of GGUF comes with, and that file.
    pub(crate) fn vocabulary(&self) -> Result<Option<(Vocabulary, &Path)>, LoadError> {
        let Some(file) = self.files.iter().find(|file| file.metadata.is_some()) else { return Ok(None) };
        let refused = |reason| LoadError::Refused { file: file.path.clone(), reason };
        let vocabulary = gguf::vocabulary(file.bytes.as_slice()).map_err(refused)?;
        Ok(vocabulary.map(|vocabulary| (vocabulary, file.path.as_path())))
    }

    /// The same tensors by other names, and what is to be done with what is read of each. Those that get none are left out.
    pub(crate) fn renamed(mut self, name: impl Fn(&str) -> Option<(String, Option<Change>)>) -> Self {
        let renamed = self.index.into_values().filter_map(|place| {
            let (name, change) = name(&place.name)?;
            Some((name, Place { change, ..place }))
        });
        self.index = renamed.collect();
        self
    }

    /// The same tensors, with what is to be done with what is read of those of some names.
    pub(crate) fn changed(mut self, change: impl Fn(&str) -> Option<Change>) -> Self {
        self.index.iter_mut().for_each(|(name, place)| place.change = place.change.or(change(name)));
        self
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let (_, entry, _) = self.entry(name)?;
        Some(&entry.shape)
    }

    /// A whole number that stands alone, as a norm's count of batches.
    pub(crate) fn counter(&self, name: &str) -> Option<i64> {
        let (file, entry, _) = self.entry(name)?;
        if entry.elements != Elements::Plain(Dtype::I64) {
            return None;
        }
        let bytes = file.bytes.as_slice().get(entry.range.clone())?;
        bytes.try_into().ok().map(i64::from_le_bytes)
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
        let (file, entry, change) = self.entry(name).ok_or_else(missing)?;
        let form = match entry.elements {
            Elements::Blocks(dtype) => Form::Blocks(dtype),
            Elements::Plain(Dtype::F32) => Form::Floats(DType::F32),
            Elements::Plain(Dtype::F16) => Form::Floats(DType::F16),
            Elements::Plain(Dtype::BF16) => Form::Floats(DType::BF16),
            Elements::Plain(Dtype::F64) => Form::Floats(DType::F64),
            Elements::Plain(other) => {
                let found = format!("{other:?}");
                return Err(LoadError::WrongType { file: file.path.clone(), tensor: name.into(), found });
            }
        };
        let (mut shape, mut strides) = (entry.shape.clone(), entry.strides.clone());
        if let (Some(Change::Transposed), &[_, columns]) = (change, shape.as_slice()) {
            strides.get_or_insert_with(|| vec![columns, 1]).reverse();
            shape.reverse();
        }
        let strided = strides.map(|strides| (shape.clone(), strides));
        let change = change.map(|change| (change, entry.shape.get(1).copied().unwrap_or(1)));
        Ok((Stored::new(file.clone(), form, entry.range.clone(), strided, change), shape))
    }

    /// What a file says of a tensor.
    fn entry(&self, name: &str) -> Option<(&Arc<WeightFile>, &entry::Entry, Option<Change>)> {
        let place = self.index.get(name)?;
        let file = &self.files[place.file];
        Some((file, file.entries.get(&place.name)?, place.change))
    }

    /// The file that stands for all of them in an error about a tensor that none of them has.
    fn file(&self) -> &Path {
        match self.files.as_slice() {
            [single] => &single.path,
            shards => shards.first().and_then(|shard| shard.path.parent()).unwrap_or(Path::new(SHARD_INDEX)),
        }
    }
}

/// Files of a folder that hold weights, by their extensions, sorted.
fn other_files(folder: &Path) -> Vec<PathBuf> {
    let is = |path: &PathBuf| {
        path.extension().is_some_and(|of| EXTENSIONS.iter().any(|known| of.eq_ignore_ascii_case(known)))
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is).collect();
    // What training scripts leave beside the model.
    files.retain(|path| {
        !["training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"].iter().any(|name| path.ends_with(name))
    });
    files.sort();
    files
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
