//! Opening a file as a plugin: checked as data, tried in a process of its own where it is new, loaded from a sealed copy.

use std::collections::HashMap;
use std::fmt;
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::bridge::host_api::HOST_API;
use super::loading::{self, Api};
use super::opened::Plugin;
use super::underway::{self, Name};
use super::{note, trial};
use crate::{Error, Result};

/// Plugins of this process by the SHA-256 of their files: one content is opened once.
static OPENED: Mutex<Option<HashMap<String, Plugin>>> = Mutex::new(None);

impl Plugin {
    /// Opens a file. The same content gives the same plugin, wherever it lies.
    ///
    /// # Errors
    /// What is wrong with the file, or why the plugin refused, in one sentence.
    pub fn open(path: &Path) -> Result<Self> {
        let began = Instant::now();
        let checked = note::check(path)?;
        // Held while opening, so that two threads do not open one content twice.
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = opened.get_or_insert_default();
        if let Some(plugin) = opened.get(&checked.sha256) {
            return Ok(plugin.clone());
        }
        let copy = loading::sealed_copy(path, &checked.bytes)?;
        let tried = trial::passes(path, copy.as_fd(), &checked.sha256)?;
        // It stays open from here: the loader knows libraries by their names, and this one's is the number under which it is open.
        let copy = ManuallyDrop::new(copy);
        let _noted = noted(path, "its opening");
        let api = loading::load(path, copy.as_fd())?;
        let info = loading::describe(path, api)?;
        loading::check_described(path, &(checked.note, checked.methods), &info)?;
        let plugin = Self::new(path.to_owned(), checked.sha256.clone(), info, api);
        opened.insert(checked.sha256, plugin.clone());
        tracing::debug!(file = %path.display(), ?tried, took = ?began.elapsed(), "a plugin was opened");
        Ok(plugin)
    }

    /// The methods that are linked into this program, `None` where there are none.
    ///
    /// # Errors
    /// Where two of them have one name.
    pub fn built_in() -> Result<Option<Self>> {
        let wrong = |text: &dyn fmt::Display| Error::plugin(format!("the built-in methods cannot be used: {text}"));
        let api = fthost_plugin_api::builtin(&HOST_API).map_err(|error| wrong(&error))?;
        loading::check_major(api).map_err(|text| wrong(&text))?;
        let plugin = Self::describe(PathBuf::from("built-in"), String::new(), api)?;
        Ok(Some(plugin).filter(|plugin| !plugin.info().methods.is_empty()))
    }

    pub(super) fn describe(path: PathBuf, sha256: String, api: Api) -> Result<Self> {
        let info = loading::describe(&path, api)?;
        Ok(Self::new(path, sha256, info, api))
    }

    /// What a person should know of it, where it has the draft by which plugins say that.
    ///
    /// # Errors
    /// Where it fails to say it.
    pub fn about(&self) -> Result<Option<String>> {
        let _noted = noted(self.path(), "about");
        loading::about(self.path(), self.api())
    }
}

/// Notes a call into a file that no method of a plugin is called by.
pub(super) fn noted(path: &Path, what: &str) -> underway::Call {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    underway::enter(underway::name(&format!("plugin {file}")), what, Name::default())
}
