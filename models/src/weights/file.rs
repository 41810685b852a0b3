//! A file of weights, mapped, and what it says of its tensors.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use memmap2::{Mmap, UncheckedAdvice};
use safetensors::SafeTensorError;
use safetensors::tensor::{SafeTensors, TensorInfo};

use super::entry::{Elements, Entry, is_countable};
use super::{gguf, torch};
use crate::LoadError;

/// Length of the field that opens a safetensors file and says how long its header is.
const HEADER_LENGTH: usize = 8;

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

/// A file of weights: its bytes, and where tensors lie in them.
#[derive(Debug)]
pub(super) struct WeightFile {
    pub(super) path: PathBuf,
    /// Nothing of bytes in memory.
    pub(super) state: Option<FileState>,
    pub(super) bytes: Bytes,
    pub(super) entries: BTreeMap<String, Entry>,
    /// What a file of GGUF says of its model.
    pub(super) metadata: Option<gguf::Metadata>,
}

#[derive(Debug)]
pub(super) enum Bytes {
    Mapped(Mmap, File),
    Owned(Vec<u8>),
}

impl Bytes {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map, _) => map,
            Self::Owned(bytes) => bytes,
        }
    }

    /// Copies bytes of a mapped file from `start` on, past the mapping. Whether it could.
    pub(super) fn copy(&self, start: usize, into: &mut [u8]) -> bool {
        match self {
            Self::Mapped(_, file) => file.read_exact_at(into, start as u64).is_ok(),
            Self::Owned(_) => false,
        }
    }

    /// Gives pages of a mapped file back: whoever reads them again finds the same there.
    pub(super) fn give_back(&self, range: Range<usize>) {
        if let Self::Mapped(map, _) = self {
            // SAFETY: of a file that is mapped for reading only the pages come back as they were.
            #[allow(unsafe_code)]
            let advised = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
            // Pages that stay cost memory and nothing else.
            drop(advised);
        }
    }
}

impl WeightFile {
    pub(super) fn open(path: PathBuf) -> Result<Self, LoadError> {
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

    /// Reads what a file says of its tensors, and checks that they lie in it.
    pub(super) fn check(path: PathBuf, state: Option<FileState>, bytes: Bytes) -> Result<Self, LoadError> {
        let content = bytes.as_slice();
        let refused = |reason| LoadError::Refused { file: path.clone(), reason };
        let (entries, metadata) = if gguf::is(content) {
            gguf::read(content).map(|(entries, metadata)| (entries, Some(metadata))).map_err(refused)?
        } else if torch::is(content) {
            (torch::entries(content).map_err(refused)?, None)
        } else {
            let damaged = |reason| LoadError::Damaged { file: path.clone(), reason };
            (safetensors(content).map_err(damaged)?, None)
        };
        if let Some((name, entry)) = entries.iter().find(|(_, entry)| !is_countable(&entry.shape)) {
            let reason = format!("{name} has the shape {:?}, whose sizes no computer counts", entry.shape);
            return Err(LoadError::Damaged { file: path.clone(), reason });
        }
        Ok(Self { path, state, bytes, entries, metadata })
    }
}

/// The tensors of a safetensors file, which describes exactly the bytes that follow its header.
fn safetensors(bytes: &[u8]) -> Result<BTreeMap<String, Entry>, String> {
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| damage(&error, bytes.len()))?;
    let start = HEADER_LENGTH + header;
    let entry = |info: &TensorInfo| Entry {
        elements: Elements::Plain(info.dtype),
        shape: info.shape.clone(),
        strides: None,
        range: start + info.data_offsets.0..start + info.data_offsets.1,
    };
    Ok(metadata.tensors().into_iter().map(|(name, info)| (name, entry(info))).collect())
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
