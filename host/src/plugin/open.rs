//! Opening a checked file: from its bytes to the plugin's table of functions.
//!
//! What is opened is a sealed copy in memory (`memfd`), not the file: overwriting a library that is mapped crashes the process
//! at its next call, and between check and `dlopen` a file could be swapped. A memory file needs no folder that others could
//! write to, leaves nothing behind, and cannot change. It stays open, as does the library: nothing could say when the last
//! pointer into it is gone.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use abi_stable::library::{AbiHeaderRef, ROOT_MODULE_LOADER_NAME_WITH_NUL};
use abi_stable::std_types::{RResult, RStr};
use fthost_plugin_api::abi::borrow::collect_text;
use fthost_plugin_api::abi::draft::about::{ABOUT_DRAFT, AboutDraft};
use fthost_plugin_api::abi::growth::Theirs;
use fthost_plugin_api::abi::root::{Root_Ref, WANT_V1};
use fthost_plugin_api::abi::tables::{ABI_MAJOR, ENTRY_V1, EntryV1, OK, PluginApi, Str};
use fthost_plugin_api::field;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use super::bridge::{host_api::HOST_API, session};
use super::note;
use super::opened::Plugin;
use super::underway::{self, Name};
use crate::{Error, Result};

/// Plugins of this process by the SHA-256 of their files: one content is opened once.
static OPENED: Mutex<Option<HashMap<String, Plugin>>> = Mutex::new(None);

impl Plugin {
    /// Opens a file. The same content gives the same plugin, wherever it lies.
    ///
    /// # Errors
    /// What is wrong with the file, or why the plugin refused, in one sentence.
    pub fn open(path: &Path) -> Result<Self> {
        let checked = note::check(path)?;
        // Held while opening, so that two threads do not open one content twice.
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = opened.get_or_insert_default();
        if let Some(plugin) = opened.get(&checked.sha256) {
            return Ok(plugin.clone());
        }
        let _noted = noted(path, "its opening");
        let api = open(path, &checked.bytes)?;
        let plugin = Self::describe(path.to_owned(), checked.sha256.clone(), api)?;
        opened.insert(checked.sha256, plugin.clone());
        Ok(plugin)
    }

    /// The methods that are linked into this program, `None` where there are none.
    ///
    /// # Errors
    /// Where two of them have one name.
    pub fn built_in() -> Result<Option<Self>> {
        let wrong = |text: &dyn fmt::Display| Error::plugin(format!("the built-in methods cannot be used: {text}"));
        let api = fthost_plugin_api::builtin(&HOST_API).map_err(|error| wrong(&error))?;
        check_major(api).map_err(|text| wrong(&text))?;
        let plugin = Self::describe(PathBuf::from("built-in"), String::new(), api)?;
        Ok(Some(plugin).filter(|plugin| !plugin.info().methods.is_empty()))
    }

    pub(super) fn describe(path: PathBuf, sha256: String, api: Theirs<'static, PluginApi>) -> Result<Self> {
        let wrong = |text: String| Error::plugin(format!("{} cannot say what it holds: {text}", path.display()));
        let _ = session::take_reported();
        let describe = api.need(field!(PluginApi, describe)).map_err(|error| wrong(error.to_string()))?;
        // SAFETY: the plugin's own function, with a sink that lives for the call.
        let (status, text) = collect_text(|sink| unsafe { describe(sink) });
        if status != OK {
            return Err(wrong(session::take_reported().unwrap_or_else(|| format!("status {status}"))));
        }
        let info = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        Ok(Self::new(path, sha256, info, api))
    }

    /// What a person should know of it, where it has the draft by which plugins say that.
    ///
    /// # Errors
    /// Where it fails to say it.
    pub fn about(&self) -> Result<Option<String>> {
        let Some(get_extension) = self.api().get(field!(PluginApi, get_extension)) else { return Ok(None) };
        // SAFETY: the plugin's own function; under this name it gives an `AboutDraft` that lives as long as the process, or null.
        let about = unsafe { get_extension(Str::new(ABOUT_DRAFT)).cast::<AboutDraft>() };
        if about.is_null() {
            return Ok(None);
        }
        let wrong = |text: String| Error::plugin(format!("{} fails to say what it is: {text}", self.path().display()));
        // SAFETY: as above.
        let text = unsafe { Theirs::new(about) }.and_then(|about| about.need(field!(AboutDraft, text)));
        let text = text.map_err(|error| wrong(error.to_string()))?;
        let _ = session::take_reported();
        let _noted = noted(self.path(), "about");
        // SAFETY: the plugin's own function, with a sink that lives for the call.
        let (status, said) = collect_text(|sink| unsafe { text(sink) });
        if status != OK {
            return Err(wrong(session::take_reported().unwrap_or_else(|| format!("status {status}"))));
        }
        Ok(Some(said).filter(|said| !said.is_empty()))
    }
}

/// Notes a call into a file that no method of a plugin is called by.
pub(super) fn noted(path: &Path, what: &str) -> underway::Call {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    underway::enter(underway::name(&format!("plugin {file}")), what, Name::default())
}

/// Opens a library from its bytes and connects it. The table lives as long as the process.
///
/// # Errors
/// The loader's or the plugin's own words, the file named.
fn open(path: &Path, bytes: &[u8]) -> Result<Theirs<'static, PluginApi>> {
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
fn check_major(api: Theirs<'static, PluginApi>) -> Result<(), String> {
    let major = api.get(field!(PluginApi, abi_major));
    if major == ABI_MAJOR { Ok(()) } else { Err(format!("its table is of ABI {major}, this host's of {ABI_MAJOR}")) }
}
