//! Plugins: finding, checking and opening them, and calling their methods.
//!
//! How a call travels. [`Search`] finds a file; [`note`] reads it as data and refuses what is no plugin of this host before any
//! of its code runs; `open` maps a sealed copy and trades tables with it: the plugin gets the host's functions, the host the
//! plugin's. [`Library`] finds the method that a run file names, and an instance ([`StrategyInstance`], [`SchedulerInstance`],
//! [`RegularizerInstance`], [`HeadInstance`]) is made from its options. Each call on an instance opens a session on its thread
//! (`bridge::session`), lends tensors as handles, and calls the plugin's function. What the plugin calls back, ops and changes of the
//! model, lands in that session and from there on the engine's tape. Hooks that `attach` set stand in the model as bridges and open
//! a session for every forward pass. A status that is not OK becomes one [`Error::Plugin`] that names plugin and call; after a
//! panic the instance is not called again.
//!
//! Plugins are trusted: they run in this process with all its rights. The only unsafe code of the host is here.
#![allow(unsafe_code)]

mod bridge;
mod instance;
pub mod note;
mod open;
pub mod search;
mod serving;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fthost_autograd::{Parameter, Tensor};
use fthost_plugin_api::abi::borrow::collect_text;
use fthost_plugin_api::abi::draft::about::{ABOUT_DRAFT, AboutDraft};
use fthost_plugin_api::abi::growth::Theirs;
use fthost_plugin_api::abi::tables::{OK, PluginApi, Str};
use fthost_plugin_api::field;
pub use fthost_plugin_api::{FisherLabels, MethodInfo, MethodKind, MethodNote, PluginInfo};

pub use self::bridge::handles::RunHandles;
pub use self::instance::{HeadInstance, RegularizerInstance, SchedulerInstance, State, Stateful, StrategyInstance};
pub use self::search::Search;
use self::search::did_you_mean;
use crate::adapted::AdaptedModel;
use crate::{Error, Result};

/// Measures gradients of single examples for regularizers. The run implements it, because it has data and heads.
pub trait ExampleGradients {
    /// Calls `visit` with each trainable parameter, its gradient for one example (and label) alone, and the label's weight, on the
    /// calling thread. At most `limit` examples. An error of `visit` ends the walk.
    fn visit(
        &mut self,
        model: &AdaptedModel,
        labels: FisherLabels,
        limit: Option<u64>,
        visit: &mut dyn FnMut(&Parameter, &Tensor, f64) -> Result<()>,
    ) -> Result<()>;
}

/// An opened plugin, or the methods that are linked into this program. Clones are the same plugin.
#[derive(Clone)]
pub struct Plugin(Arc<Opened>);

struct Opened {
    path: PathBuf,
    sha256: String,
    info: PluginInfo,
    api: Theirs<'static, PluginApi>,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plugin({})", self.0.path.display())
    }
}

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
        let api = open::open(path, &checked.bytes)?;
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
        let api = fthost_plugin_api::builtin(&bridge::host_api::HOST_API).map_err(|error| wrong(&error))?;
        open::check_major(api).map_err(|text| wrong(&text))?;
        let plugin = Self::describe(PathBuf::from("built-in"), String::new(), api)?;
        Ok(Some(plugin).filter(|plugin| !plugin.info().methods.is_empty()))
    }

    fn describe(path: PathBuf, sha256: String, api: Theirs<'static, PluginApi>) -> Result<Self> {
        let wrong = |text: String| Error::plugin(format!("{} cannot say what it holds: {text}", path.display()));
        let _ = bridge::session::take_reported();
        let describe = api.need(field!(PluginApi, describe)).map_err(|error| wrong(error.to_string()))?;
        // SAFETY: the plugin's own function, with a sink that lives for the call.
        let (status, text) = collect_text(|sink| unsafe { describe(sink) });
        if status != OK {
            return Err(wrong(bridge::session::take_reported().unwrap_or_else(|| format!("status {status}"))));
        }
        let info = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        Ok(Self(Arc::new(Opened { path, sha256, info, api })))
    }

    /// What it says of itself.
    pub fn info(&self) -> &PluginInfo {
        &self.0.info
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
        let _ = bridge::session::take_reported();
        // SAFETY: the plugin's own function, with a sink that lives for the call.
        let (status, said) = collect_text(|sink| unsafe { text(sink) });
        if status != OK {
            return Err(wrong(bridge::session::take_reported().unwrap_or_else(|| format!("status {status}"))));
        }
        Ok(Some(said).filter(|said| !said.is_empty()))
    }

    /// The file it was opened from first; `built-in` for what is linked in.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// SHA-256 of the file, in hexadecimal; empty for what is linked in.
    pub fn sha256(&self) -> &str {
        &self.0.sha256
    }

    /// `liblora.so`.
    pub fn file_name(&self) -> String {
        self.0.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// One of its methods.
    ///
    /// # Errors
    /// Where it has none of that kind and name: says what it has.
    pub fn method(&self, kind: MethodKind, name: &str) -> Result<&MethodInfo> {
        let methods = &self.info().methods;
        if let Some(method) = methods.iter().find(|method| method.kind == kind && method.name == name) {
            return Ok(method);
        }
        let has: Vec<String> = methods.iter().map(|method| format!("{} {:?}", method.kind, method.name)).collect();
        Err(Error::plugin(format!("{} has no {kind} {name:?}; it has {}", self.0.path.display(), has.join(", "))))
    }

    fn has(&self, kind: MethodKind, name: &str) -> bool {
        self.info().methods.iter().any(|method| method.kind == kind && method.name == name)
    }

    pub(self) fn api(&self) -> Theirs<'static, PluginApi> {
        self.0.api
    }
}

/// The plugins of a run.
#[derive(Debug)]
pub struct Library {
    search: Search,
    plugins: Vec<Plugin>,
}

impl Library {
    /// Knows what is linked into this program, and looks for more by `search`.
    pub fn new(search: Search) -> Self {
        let built_in = Plugin::built_in().unwrap_or_else(|error| {
            tracing::error!("{error}");
            None
        });
        Self { search, plugins: built_in.into_iter().collect() }
    }

    /// The plugins so far, in the order of opening.
    pub fn plugins(&self) -> &[Plugin] {
        &self.plugins
    }

    /// Opens a plugin by path or name.
    ///
    /// # Errors
    /// Where there is none, or it cannot be used.
    pub fn open(&mut self, value: &str) -> Result<Plugin> {
        let path = self.search.find(value)?;
        self.open_file(&path)
    }

    fn open_file(&mut self, path: &Path) -> Result<Plugin> {
        let plugin = Plugin::open(path)?;
        if !self.plugins.iter().any(|known| Arc::ptr_eq(&known.0, &plugin.0)) {
            self.plugins.push(plugin.clone());
        }
        Ok(plugin)
    }

    /// The plugin that has a method: one that is open, else `lib<name>.so` by the search rule, else a library in the searched folders
    /// whose notes name it.
    ///
    /// # Errors
    /// Where there is none: what it may have been meant to be, and where was looked.
    pub fn find(&mut self, kind: MethodKind, name: &str) -> Result<(Plugin, MethodInfo)> {
        let known = self.plugins.iter().find(|plugin| plugin.has(kind, name)).cloned();
        let plugin = match known {
            Some(plugin) => plugin,
            None => self.open_file(&self.file_of(kind, name)?)?,
        };
        let method = plugin.method(kind, name)?.clone();
        Ok((plugin, method))
    }

    /// The file of a method that no open plugin has: `lib<name>.so` by the search rule, else a library in the searched folders whose
    /// notes name it. It is not opened.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn file_of(&self, kind: MethodKind, name: &str) -> Result<PathBuf> {
        let found = self.search.look_up(name).or_else(|| self.noted(kind, name));
        found.ok_or_else(|| self.unknown(kind, name))
    }

    /// Names of the methods of a kind in the open plugins and in the searched folders, sorted.
    pub fn known_names(&self, kind: MethodKind) -> Vec<String> {
        let open = self.plugins.iter().flat_map(|plugin| &plugin.info().methods);
        let open = open.filter(|method| method.kind == kind).map(|method| method.name.clone());
        let mut names: Vec<String> = open
            .chain(self.notes().map(|(_, note)| note).filter(|note| note.kind == kind).map(|note| note.name))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The first library in the searched folders whose notes name a method.
    fn noted(&self, kind: MethodKind, name: &str) -> Option<PathBuf> {
        self.notes().find(|(_, note)| note.kind == kind && note.name == name).map(|(path, _)| path)
    }

    /// All methods that the notes in the searched folders name. Runs no code of theirs.
    fn notes(&self) -> impl Iterator<Item = (PathBuf, MethodNote)> {
        self.search.libraries().into_iter().flat_map(|path| {
            let methods =
                std::fs::read(&path).ok().and_then(|bytes| Some(note::read(&bytes).ok()?.1)).unwrap_or_default();
            methods.into_iter().map(move |method| (path.clone(), method))
        })
    }

    fn unknown(&self, kind: MethodKind, name: &str) -> Error {
        let known = self.known_names(kind);
        let guess = did_you_mean(name, known.iter().map(String::as_str));
        let guess = guess.map(|guess| format!("did you mean {guess:?}? ")).unwrap_or_default();
        let known =
            if known.is_empty() { format!("no {kind} is known") } else { format!("known: {}", known.join(", ")) };
        Error::plugin(format!("there is no {kind} {name:?}"))
            .with_help(format!("{guess}{known}; {}", self.search.report()))
    }
}
