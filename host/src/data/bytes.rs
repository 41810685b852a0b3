//! Bytes that are written once, front to back, and then read anywhere: in memory while they are few, in a file beyond.
//!
//! The file has no name, so nothing is left behind however the process ends. It is read by position and never mapped:
//! mapped pages count as the process's memory, the system's file cache does not.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The environment variable that names the folder for what does not fit into memory.
const FOLDER: &str = "FTHOST_CACHE";
/// Bytes of a data set that stay in memory.
const IN_MEMORY: usize = 64 << 20;
/// Memory is taken, and files are written, in pieces of this size.
const PIECE: usize = 1 << 20;

/// How much is kept in memory, and where the rest goes.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// Bytes that a data set may keep in memory.
    pub(super) memory: usize,
    /// The folder for the rest.
    pub(super) folder: PathBuf,
}

impl Limits {
    /// 64 MB, and the folder that `FTHOST_CACHE` names, or else the system's temporary folder.
    pub(super) fn from_environment() -> Self {
        Self { memory: IN_MEMORY, folder: cache_folder() }
    }
}

/// The folder that `FTHOST_CACHE` names, or else the system's temporary folder.
pub(crate) fn cache_folder() -> PathBuf {
    let named = std::env::var_os(FOLDER).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    named.unwrap_or_else(std::env::temp_dir)
}

/// This user's folder below [`cache_folder`] for what is remembered from one process to the next: `NAME-1000`. `None` where it cannot be made,
/// is somebody else's, or others can write to it.
pub(crate) fn own_folder(name: &str) -> Option<PathBuf> {
    let user = rustix::process::getuid().as_raw();
    let folder = cache_folder().join(format!("{name}-{user}"));
    // Where it is there already, or cannot be made, the next lines see it.
    let _ = std::fs::DirBuilder::new().mode(0o700).create(&folder);
    let found = std::fs::symlink_metadata(&folder).ok()?;
    (found.is_dir() && found.uid() == user && found.mode() & 0o022 == 0).then_some(folder)
}

/// A file without a name in a folder, which is made where it is missing: it is gone when nobody has it open.
pub(crate) fn unnamed_file(folder: &Path) -> io::Result<File> {
    std::fs::create_dir_all(folder)?;
    tempfile::tempfile_in(folder)
}

/// Bytes that are complete.
#[derive(Debug)]
pub(super) enum Bytes {
    /// Pieces of `PIECE` bytes, the last one shorter.
    Memory(Vec<Vec<u8>>),
    /// A file without a name.
    File(File),
}

impl Bytes {
    /// Reads the bytes from `at` on; there must be as many. Any number of threads may read.
    pub(super) fn read(&self, at: u64, into: &mut [u8]) -> Result<()> {
        match self {
            Self::Memory(pieces) => {
                let (mut piece, mut start) = (at as usize / PIECE, at as usize % PIECE);
                let mut rest = into;
                while !rest.is_empty() {
                    let from = &pieces[piece][start..];
                    let (now, later) = rest.split_at_mut(rest.len().min(from.len()));
                    now.copy_from_slice(&from[..now.len()]);
                    (piece, start, rest) = (piece + 1, 0, later);
                }
                Ok(())
            }
            Self::File(file) => file.read_exact_at(into, at).map_err(Error::io("cannot read tokenized data back")),
        }
    }

    /// How many of them are in memory.
    pub(super) fn in_memory(&self) -> usize {
        match self {
            Self::Memory(pieces) => pieces.iter().map(Vec::len).sum(),
            Self::File(_) => 0,
        }
    }
}

/// Writes [`Bytes`].
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// Full pieces and the one that is being filled; that one alone once there is a file.
    pieces: Vec<Vec<u8>>,
    file: Option<(File, PathBuf)>,
    len: u64,
}

impl Writer {
    /// Bytes written so far.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of them in memory.
    pub(super) fn in_memory(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }

    /// Writes bytes after those that are there.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.len += bytes.len() as u64;
        while !bytes.is_empty() {
            let piece = match self.pieces.last_mut() {
                Some(piece) if piece.len() < PIECE => piece,
                _ => {
                    self.flush()?;
                    let first = self.pieces.is_empty() && self.file.is_none();
                    self.pieces.push(Vec::with_capacity(if first { 0 } else { PIECE }));
                    continue;
                }
            };
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - piece.len()));
            piece.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Moves everything to a file in `folder`, and what is still to come with it.
    pub(super) fn spill(&mut self, folder: &Path) -> Result<()> {
        if self.file.is_none() {
            let file = unnamed_file(folder).map_err(|error| cannot_write(folder, &error))?;
            self.file = Some((file, folder.to_owned()));
        }
        self.flush()
    }

    /// Writes what is in memory to the file, where there is one.
    fn flush(&mut self) -> Result<()> {
        let Some((file, folder)) = &mut self.file else { return Ok(()) };
        for piece in self.pieces.drain(..) {
            file.write_all(&piece).map_err(|error| cannot_write(folder, &error))?;
        }
        Ok(())
    }

    /// Ends the writing.
    pub(super) fn finish(mut self) -> Result<Bytes> {
        self.flush()?;
        Ok(match self.file {
            Some((file, _)) => Bytes::File(file),
            None => {
                self.pieces.iter_mut().for_each(Vec::shrink_to_fit);
                Bytes::Memory(self.pieces)
            }
        })
    }
}

fn cannot_write(folder: &Path, error: &io::Error) -> Error {
    Error::Usage {
        message: format!("the data do not fit into memory, and cannot be written to {}: {error}", folder.display()),
        help: Some(format!("name a folder on a disk with enough room in the environment variable {FOLDER}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use miette::Diagnostic;

    use super::*;

    /// A byte that tells its place.
    fn byte(place: usize) -> u8 {
        (place % 251) as u8
    }

    #[test]
    fn bytes_are_read_back_from_memory_and_from_a_file() {
        const LEN: usize = 2 * PIECE + 1234;
        let folder = tempfile::tempdir().unwrap();
        for spill_at in [None, Some(0), Some(10), Some(PIECE), Some(PIECE + 1), Some(LEN)] {
            let mut writer = Writer::default();
            let mut place = 0;
            for size in (1..).step_by(997) {
                if spill_at.is_some_and(|at| place >= at) {
                    writer.spill(folder.path()).unwrap();
                }
                let bytes: Vec<u8> = (place..LEN.min(place + size)).map(byte).collect();
                writer.push(&bytes).unwrap();
                place += bytes.len();
                assert_eq!(writer.len(), place as u64);
                if bytes.len() < size {
                    break;
                }
            }
            if spill_at == Some(place) {
                writer.spill(folder.path()).unwrap();
            }
            let bytes = writer.finish().unwrap();
            assert_eq!(bytes.in_memory(), if spill_at.is_some() { 0 } else { LEN });
            for (start, end) in [(0, 0), (0, 7), (PIECE - 3, PIECE + 3), (5, LEN), (LEN - 1, LEN), (LEN, LEN)] {
                let mut read = vec![0; end - start];
                bytes.read(start as u64, &mut read).unwrap();
                assert!((start..end).map(byte).eq(read), "{start}..{end}, spilled at {spill_at:?}");
            }
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the files have no names");
    }

    #[test]
    fn a_full_disk_and_a_wrong_folder_name_the_variable() {
        let check = |error: Error, expected: &str| {
            let text = format!("{error} ({})", error.help().unwrap());
            assert!(text.contains(expected) && text.contains("FTHOST_CACHE"), "{text}");
        };
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut writer = Writer { file: Some((full, "/dev".into())), ..Writer::default() };
        writer.push(&[1]).unwrap();
        check(writer.finish().unwrap_err(), "No space left on device");
        let folder = tempfile::NamedTempFile::new().unwrap(); // a file where a folder should be
        check(Writer::default().spill(folder.path()).unwrap_err(), "cannot be written to");
    }
}
