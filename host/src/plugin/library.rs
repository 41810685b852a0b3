//! The plugins of a run, and the methods that a run file names.

use std::path::{Path, PathBuf};

use fthost_plugin_api::{MethodInfo, MethodKind, MethodNote};

use super::note;
use super::opened::Plugin;
use super::search::{Search, did_you_mean, is_file_name};
use crate::{Error, Result};

/// The plugins of a run. Clones know the same.
#[derive(Clone, Debug)]
pub struct Library {
    pub(super) search: Search,
    pub(super) plugins: Vec<Plugin>,
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

    /// The files of those that are no part of this program, as a later process finds them.
    pub fn files(&self) -> Vec<String> {
        let files = self.plugins.iter().filter(|plugin| !plugin.sha256().is_empty()).map(Plugin::path);
        files.map(|path| std::path::absolute(path).unwrap_or(path.to_owned()).display().to_string()).collect()
    }

    /// Opens a plugin by path or name.
    ///
    /// # Errors
    /// Where there is none, or it cannot be used.
    pub fn open(&mut self, value: &str) -> Result<Plugin> {
        let path = self.search.find(value)?;
        self.open_file(&path)
    }

    pub(super) fn open_file(&mut self, path: &Path) -> Result<Plugin> {
        let plugin = Plugin::open(path)?;
        if !self.plugins.iter().any(|known| known.is(&plugin)) {
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

    /// As [`find`](Self::find), where a run file may name the plugin's file. One that is open stands for a file that is gone.
    ///
    /// # Errors
    /// As [`find`](Self::find); where the file cannot be used, or lacks the method.
    pub fn find_in(&mut self, file: Option<&Path>, kind: MethodKind, name: &str) -> Result<(Plugin, MethodInfo)> {
        let Some(file) = file else { return self.find(kind, name) };
        if !file.exists() && self.plugins.iter().any(|plugin| plugin.has(kind, name)) {
            return self.find(kind, name);
        }
        let plugin = self.open_file(&self.search.find(&file.display().to_string())?)?;
        let method = plugin.method(kind, name)?.clone();
        Ok((plugin, method))
    }

    /// What a name stands for: all methods of a file, or those of this name in the plugin that has some; of a plugin whose library alone is
    /// called so, all.
    ///
    /// # Errors
    /// Where there is none: what it may have been meant to be, and where was looked.
    pub fn named(&mut self, name: &str) -> Result<(Plugin, Vec<MethodInfo>)> {
        let found = match is_file_name(name) {
            true => Some(self.search.find(name)?),
            false => self.search.look_up(name).or_else(|| self.noted_name(name).map(|(path, _)| path)),
        };
        let plugin = match found {
            Some(path) => self.open_file(&path)?,
            None => {
                let built_in = self.plugins.iter().find(|plugin| plugin.info().methods.iter().any(|m| m.name == name));
                built_in.cloned().ok_or_else(|| self.unknown_name(name))?
            }
        };
        let methods = &plugin.info().methods;
        let own: Vec<MethodInfo> = methods.iter().filter(|method| method.name == name).cloned().collect();
        let methods = if own.is_empty() { methods.clone() } else { own };
        Ok((plugin, methods))
    }

    /// The method of this name, whatever its kind, that the notes in the searched folders name first, and its file. Runs no code of theirs.
    pub fn noted_name(&self, name: &str) -> Option<(PathBuf, MethodNote)> {
        self.notes().find(|(_, note)| note.name == name)
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
    pub(super) fn notes(&self) -> impl Iterator<Item = (PathBuf, MethodNote)> {
        self.search
            .libraries()
            .into_iter()
            .flat_map(|path| note::methods(&path).into_iter().map(move |method| (path.clone(), method)))
    }

    fn unknown_name(&self, name: &str) -> Error {
        let mut known: Vec<String> = self.notes().map(|(_, note)| note.name).collect();
        known.sort();
        known.dedup();
        let guess = did_you_mean(name, known.iter().map(String::as_str));
        let guess = guess.map(|guess| format!("did you mean {guess:?}? ")).unwrap_or_default();
        Error::usage(format!("there is no method {name:?}")).with_help(format!("{guess}{}", self.search.report()))
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
