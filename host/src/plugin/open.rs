//! Opening a checked file: from its bytes to the plugin's table of functions.
//!
//! What is opened is a sealed copy in memory (`memfd`), not the file: overwriting a library that is mapped crashes the process
//! at its next call, and between check and `dlopen` a file could be swapped. A memory file needs no folder that others could
//! write to, leaves nothing behind, and cannot change. It stays open, as does the library: nothing could say when the last
//! pointer into it is gone.

use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use abi_stable::library::{AbiHeaderRef, ROOT_MODULE_LOADER_NAME_WITH_NUL};
use abi_stable::std_types::{RResult, RStr};
use fthost_plugin_api::abi::growth::Theirs;
use fthost_plugin_api::abi::root::{Root_Ref, WANT_V1};
use fthost_plugin_api::abi::tables::{ABI_MAJOR, ENTRY_V1, EntryV1, OK, PluginApi};
use fthost_plugin_api::field;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use super::bridge::{host_api::HOST_API, session};
use crate::{Error, Result};

/// Opens a library from its bytes and connects it. The table lives as long as the process.
///
/// # Errors
/// The loader's or the plugin's own words, the file named.
pub(super) fn open(path: &Path, bytes: &[u8]) -> Result<Theirs<'static, PluginApi>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let file = sealed_copy(&name, bytes).map_err(Error::io(format!("cannot copy the plugin {}", path.display())))?;
    let file = ManuallyDrop::new(file);
    let copy = format!("/proc/self/fd/{}", file.as_raw_fd());
    // RTLD_NOW: a missing symbol is an error here rather than death at a call. RTLD_LOCAL: plugins cannot see each other.
    // SAFETY: the library's constructors run. Plugins are trusted with the process; what can be checked before was.
    let library = unsafe { Library::open(Some(&copy), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| {
        // The loader names the copy; people know the file.
        let text = source_text(&error).replace(&copy, &path.display().to_string());
        Error::plugin(format!("{} cannot be loaded: {text}", path.display()))
            .with_help("build it on this machine, with what it links to installed (ldd shows what is missing)")
    })?;
    let library = ManuallyDrop::new(library);
    connect(&library).map_err(|text| Error::plugin(format!("{} refused to connect: {text}", path.display())))
}

/// A memory file with these bytes that nobody can change any more.
fn sealed_copy(name: &str, bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    let fd = OwnedFd::from(file);
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    // A busy kernel may still hold pages that were just written, and then says so for a moment.
    let mut patience = 50;
    loop {
        match rustix::fs::fcntl_add_seals(&fd, seals) {
            Err(Errno::BUSY) if patience > 0 => std::thread::sleep(Duration::from_millis(20)),
            sealed => return sealed.map(|()| fd).map_err(Into::into),
        }
        patience -= 1;
    }
}

/// The loader's own words stand in the error's source.
fn source_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = inner_text;
        }
        source = inner.source();
    }
    text
}

/// Comes in by the abi_stable root where there is one, else by the C entry.
fn connect(library: &Library) -> Result<Theirs<'static, PluginApi>, String> {
    // SAFETY: under this name abi_stable puts a static whose address is the header; libloading reads it as such.
    let root = unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes()) };
    let api = match root {
        Ok(header) => connect_root(*header)?,
        Err(_) => connect_c(library)?,
    };
    // SAFETY: a plugin gives a table that lives as long as the process, or null.
    let api = unsafe { Theirs::new(api) }.map_err(|error| error.to_string())?;
    check_major(api)?;
    Ok(api)
}

fn connect_root(header: AbiHeaderRef) -> Result<*const PluginApi, String> {
    let root: Root_Ref =
        header.upgrade().and_then(|header| header.init_root_module()).map_err(|error| error.to_string())?;
    match root.connect()((&raw const HOST_API).cast(), RStr::from_str(WANT_V1)) {
        RResult::ROk(api) => Ok(api.cast()),
        RResult::RErr(text) => Err(text.into_string()),
    }
}

fn connect_c(library: &Library) -> Result<*const PluginApi, String> {
    // SAFETY: a plugin's symbol of this name is of this type; the note said that it is one.
    let entry = unsafe { library.get::<EntryV1>(format!("{ENTRY_V1}\0").as_bytes()) };
    let entry = entry.map_err(|_| format!("it exports neither the root module nor {ENTRY_V1}"))?;
    let mut api = std::ptr::null();
    let _ = session::take_reported();
    // SAFETY: the host's table is static, and `api` may be written.
    let status = unsafe { entry(&raw const HOST_API, &raw mut api) };
    if status == OK {
        return Ok(api);
    }
    Err(session::take_reported().unwrap_or_else(|| format!("its entry gave status {status} and no reason")))
}

/// That the table is of this major.
pub(super) fn check_major(api: Theirs<'static, PluginApi>) -> Result<(), String> {
    let major = api.get(field!(PluginApi, abi_major));
    if major == ABI_MAJOR { Ok(()) } else { Err(format!("its table is of ABI {major}, this host's of {ABI_MAJOR}")) }
}
