//! From the bytes of a checked file to the plugin's table of functions, and what it says of itself by them.
//!
//! What is loaded is a sealed copy in memory (`memfd`), not the file: overwriting a library that is mapped crashes the process
//! at its next call, and between check and `dlopen` a file could be swapped. A memory file needs no folder that others could
//! write to, leaves nothing behind, and cannot change. The library stays open: nothing could say when the last pointer into it is gone.

use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use abi_stable::library::{AbiHeaderRef, ROOT_MODULE_LOADER_NAME_WITH_NUL};
use abi_stable::std_types::{RResult, RStr};
use fthost_plugin_api::abi::borrow::collect_text;
use fthost_plugin_api::abi::draft::about::{ABOUT_DRAFT, AboutDraft};
use fthost_plugin_api::abi::growth::Theirs;
use fthost_plugin_api::abi::root::{Root_Ref, WANT_V1};
use fthost_plugin_api::abi::tables::{ABI_MAJOR, ENTRY_V1, EntryV1, OK, PluginApi, Str};
use fthost_plugin_api::{MethodNote, PluginInfo, PluginNote, field};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use super::bridge::{host_api::offered, session};
use crate::report::text::one_line;
use crate::{Error, Result};

/// A library's table, which lives as long as the process.
pub(super) type Api = Theirs<'static, PluginApi>;

/// Loads a library and connects it.
///
/// # Errors
/// The loader's or the plugin's own words, the file named.
pub(super) fn load(path: &Path, copy: BorrowedFd<'_>) -> Result<Api> {
    let copy = format!("/proc/self/fd/{}", copy.as_raw_fd());
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

/// What a plugin says that it holds.
///
/// # Errors
/// Where it fails to say it.
pub(super) fn describe(path: &Path, api: Api) -> Result<PluginInfo> {
    let wrong = |text: String| Error::plugin(format!("{} cannot say what it holds: {text}", path.display()));
    let _ = session::take_reported();
    let describe = api.need(field!(PluginApi, describe)).map_err(|error| wrong(error.to_string()))?;
    // SAFETY: the plugin's own function, with a sink that lives for the call.
    let (status, text) = collect_text(|sink| unsafe { describe(sink) });
    if status != OK {
        return Err(wrong(session::take_reported().unwrap_or_else(|| format!("status {status}"))));
    }
    let mut info: PluginInfo = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let of_methods = info.methods.iter_mut().flat_map(|m| [&mut m.name, &mut m.summary, &mut m.serves]);
    for text in [&mut info.name, &mut info.version, &mut info.license].into_iter().chain(of_methods) {
        *text = one_line(text).into_owned();
    }
    Ok(info)
}

/// Refuses a plugin that says by its code that it holds something else than its notes say: by them it was found, listed and trusted.
///
/// # Errors
/// What differs.
pub(super) fn check_described(
    path: &Path,
    (note, methods): &(PluginNote, Vec<MethodNote>),
    info: &PluginInfo,
) -> Result<()> {
    let mut noted: Vec<String> = methods.iter().map(|m| named(&m.kind, &m.name, &m.serves)).collect();
    let mut said: Vec<String> = info.methods.iter().map(|m| named(&m.kind, &m.name, &m.serves)).collect();
    noted.sort();
    said.sort();
    let (noted, said) = if note.name == info.name {
        (noted.join(", "), said.join(", "))
    } else {
        (format!("{:?}", note.name), format!("{:?}", info.name))
    };
    if noted == said {
        return Ok(());
    }
    let nothing = |text: String| if text.is_empty() { "nothing".to_owned() } else { text };
    let (path, said) = (path.display(), nothing(said));
    Err(Error::plugin(format!("{path} is not what its notes say: they name {noted}, and its code {said}"))
        .with_help("build it again; notes and `describe` of a plugin in C must name the same methods"))
}

fn named(kind: &dyn std::fmt::Display, name: &str, serves: &str) -> String {
    if serves.is_empty() { format!("{kind} {name:?}") } else { format!("{kind} {name:?} for {serves:?}") }
}

/// What a person should know of a plugin, where it has the draft by which plugins say that.
///
/// # Errors
/// Where it fails to say it.
pub(super) fn about(path: &Path, api: Api) -> Result<Option<String>> {
    let Some(get_extension) = api.get(field!(PluginApi, get_extension)) else { return Ok(None) };
    // SAFETY: the plugin's own function; under this name it gives an `AboutDraft` that lives as long as the process, or null.
    let about = unsafe { get_extension(Str::new(ABOUT_DRAFT)).cast::<AboutDraft>() };
    if about.is_null() {
        return Ok(None);
    }
    let wrong = |text: String| Error::plugin(format!("{} fails to say what it is: {text}", path.display()));
    // SAFETY: as above.
    let text = unsafe { Theirs::new(about) }.and_then(|about| about.need(field!(AboutDraft, text)));
    let text = text.map_err(|error| wrong(error.to_string()))?;
    let _ = session::take_reported();
    // SAFETY: the plugin's own function, with a sink that lives for the call.
    let (status, said) = collect_text(|sink| unsafe { text(sink) });
    if status != OK {
        return Err(wrong(session::take_reported().unwrap_or_else(|| format!("status {status}"))));
    }
    Ok(Some(said).filter(|said| !said.is_empty()))
}

/// A memory file with these bytes that nobody can change any more.
pub(super) fn sealed_copy(path: &Path, bytes: &[u8]) -> Result<OwnedFd> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    seal(&name, bytes).map_err(Error::io(format!("cannot copy the plugin {}", path.display())))
}

fn seal(name: &str, bytes: &[u8]) -> std::io::Result<OwnedFd> {
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
fn connect(library: &Library) -> Result<Api, String> {
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
    match root.connect()(offered().cast(), RStr::from_str(WANT_V1)) {
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
    let status = unsafe { entry(offered(), &raw mut api) };
    if status == OK {
        return Ok(api);
    }
    Err(session::take_reported().unwrap_or_else(|| format!("its entry gave status {status} and no reason")))
}

/// That the table is of this major.
pub(super) fn check_major(api: Api) -> Result<(), String> {
    let major = api.get(field!(PluginApi, abi_major));
    if major == ABI_MAJOR { Ok(()) } else { Err(format!("its table is of ABI {major}, this host's of {ABI_MAJOR}")) }
}
