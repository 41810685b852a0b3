//! What is checked of a plugin's file before any of its code runs.
//!
//! `dlopen` runs constructors, and a damaged library kills the process inside of it, so a file is first read as data: that it is a whole
//! shared library for this machine (`header`), that it carries the notes of an fthost plugin and that they say it can work with this host
//! (`notes`), and that what the loader will read and write lies where it may (`layout`, `dynamic`, `relocations`, `versions`). The bytes that
//! were checked are the bytes that are opened. What a check of data cannot see is damaged code: that is tried in a process of its own
//! ([`super::trial`]).

mod digest;
mod dynamic;
mod file;
mod header;
mod layout;
mod notes;
mod refusal;
mod relocations;
#[cfg(test)]
mod tests;
mod versions;

use std::path::Path;

use fthost_plugin_api::{MethodNote, PluginNote};
use object::{ReadCache, ReadRef};
use sha2::{Digest, Sha256};

pub use self::refusal::Refusal;
use super::trust;
use crate::Result;
use crate::report::numbers::hexadecimal;

/// A file that may be opened.
#[derive(Debug)]
pub struct Checked {
    /// Its content.
    pub bytes: Vec<u8>,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
    /// What it says of itself.
    pub note: PluginNote,
    /// The methods it holds.
    pub methods: Vec<MethodNote>,
}

/// A file that looks as if it may be opened.
#[derive(Debug)]
pub struct Listed {
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
    /// What it says of itself.
    pub note: PluginNote,
    /// The methods it holds.
    pub methods: Vec<MethodNote>,
}

/// Reads and checks a file.
///
/// # Errors
/// One sentence for each thing that can be wrong, the file named.
pub fn check(path: &Path) -> Result<Checked> {
    let wrong = |refusal: Refusal| refusal.of(path);
    let file = file::open(path).map_err(wrong)?;
    trust::check_place(path)?;
    let bytes = file::content(&file).map_err(wrong)?;
    let (note, methods) = read(bytes.as_slice()).map_err(wrong)?;
    let sha256 = hexadecimal(&Sha256::digest(&bytes));
    trust::check_digest(path, &sha256)?;
    Ok(Checked { bytes, sha256, note, methods })
}

/// As [`check`], by no more of the file than its headers, tables and notes: for lists. The digest of a file that was seen before is the one
/// that it had then, where nothing tells that it has changed.
///
/// # Errors
/// As [`check`].
pub fn list(path: &Path) -> Result<Listed> {
    let wrong = |refusal: Refusal| refusal.of(path);
    let file = file::open(path).map_err(wrong)?;
    trust::check_place(path)?;
    let (note, methods) = read(&ReadCache::new(&file)).map_err(wrong)?;
    let sha256 = digest::of(path, &file)?;
    trust::check_digest(path, &sha256)?;
    Ok(Listed { sha256, note, methods })
}

/// The methods that a file's notes name; none where it is no plugin.
pub(super) fn methods(path: &Path) -> Vec<MethodNote> {
    let read = |path| read(&ReadCache::new(&file::open(path)?));
    read(path).map(|(_, methods)| methods).unwrap_or_default()
}

/// Reads the notes of a plugin, whether this host can work with it, and whether a loader can.
///
/// # Errors
/// Why not.
pub fn read<'a, R: ReadRef<'a>>(data: R) -> Result<(PluginNote, Vec<MethodNote>), Refusal> {
    let header = header::check(data)?;
    header::check_extents(header, data)?;
    let found = notes::read(header, data)?;
    let layout = layout::Layout::read(header, data)?;
    let dynamic = dynamic::Dynamic::read(&layout)?;
    versions::check(&layout, &dynamic)?;
    relocations::check(&layout, &dynamic)?;
    Ok(found)
}
