//! Opening and reading a plugin's file, which may be anything.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::refusal::{Refusal, refuse};

/// Bytes that a plugin's file may have. One with kernels for every GPU has a tenth of it.
const MOST: u64 = 256 << 20;
/// A file of this size may hold little: many small ones do not fill a block.
const SMALL: u64 = 16 << 20;
/// So many times larger than what it takes on the disk, a file is empty for the most part, compressed or not.
const EMPTY: u64 = 16;

/// Opens a regular file of a size that a plugin may have.
pub(super) fn open(path: &Path) -> Result<File, Refusal> {
    let cannot = |error: std::io::Error| Refusal { message: format!("cannot be opened: {error}"), help: String::new() };
    // A pipe would be waited for.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.is_dir() {
        return refuse("is a folder, not a plugin", "name the shared library inside it: FOLDER/libNAME.so");
    }
    if !metadata.is_file() {
        return refuse("is not a regular file", "");
    }
    let size = metadata.len();
    let megabytes = |bytes: u64| bytes >> 20;
    if size > MOST {
        return refuse(
            format!("has {} MB, and a plugin's file may have {} MB", megabytes(size), megabytes(MOST)),
            "build it without debug information: cargo build --release",
        );
    }
    let on_disk = metadata.blocks() * 512;
    if size > SMALL && on_disk < size / EMPTY {
        return refuse(
            format!("is empty for the most part: of its {} MB, {} MB are there", megabytes(size), megabytes(on_disk)),
            "build or copy it again",
        );
    }
    Ok(file)
}

/// Its content. What is appended meanwhile is not read beyond the limit.
pub(super) fn content(mut file: &File) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::with_capacity(file.metadata().map_or(0, |file| file.len().min(MOST) as usize));
    match Read::by_ref(&mut file).take(MOST).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => refuse(format!("cannot be read: {error}"), ""),
    }
}
