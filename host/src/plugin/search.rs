//! Where a plugin's file is looked for.
//!
//! A value with a path separator is a path. Anything else is a file name (`liblora.so`) or a method's name (`lora`, which stands
//! for `liblora.so`), looked for in the working directory (unless `--no-plugins-from-cwd` leaves it out), in `FTHOST_PLUGIN_PATH`, beside the
//! executable and in `../lib/fthost` from there, in this order.

use std::path::{Path, PathBuf};

use super::trust;
use crate::{Error, Result};

/// Colon-separated folders that hold plugins.
pub const PATH_VARIABLE: &str = "FTHOST_PLUGIN_PATH";

/// A folder that is searched, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The folder.
    pub folder: PathBuf,
    /// `working directory`.
    pub why: &'static str,
}

/// The folders in which plugins are looked for, in order.
#[derive(Clone, Debug)]
pub struct Search {
    places: Vec<Place>,
}

impl Default for Search {
    fn default() -> Self {
        Self::from_environment()
    }
}

impl Search {
    /// Searches these places only.
    pub fn new(places: Vec<Place>) -> Self {
        Self { places }
    }

    /// The rule of the module's documentation, for this process.
    pub fn from_environment() -> Self {
        let mut places = Vec::new();
        let mut add = |folder: Option<PathBuf>, why| {
            if let Some(folder) = folder
                && !places.iter().any(|known: &Place| known.folder == folder)
            {
                places.push(Place { folder, why });
            }
        };
        add(std::env::current_dir().ok().filter(|_| trust::searches_cwd()), "working directory");
        let variable = std::env::var_os(PATH_VARIABLE).unwrap_or_default();
        for folder in std::env::split_paths(&variable).filter(|folder| !folder.as_os_str().is_empty()) {
            // From the root, because a plugin may change the working directory.
            add(std::path::absolute(folder).ok(), PATH_VARIABLE);
        }
        let executable = std::env::current_exe().ok().and_then(|path| path.canonicalize().ok());
        let beside = executable.as_deref().and_then(Path::parent);
        add(beside.map(Path::to_owned), "beside the executable");
        add(beside.and_then(Path::parent).map(|root| root.join("lib/fthost")), "../lib/fthost from the executable");
        Self { places }
    }

    /// The folders, in order.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The file that `value` stands for.
    ///
    /// # Errors
    /// Where there is none: says where it looked and what is there.
    pub fn find(&self, value: &str) -> Result<PathBuf> {
        if value.is_empty() {
            return Err(
                Error::usage("a plugin's name is empty").with_help("name a method (NAME) or a file (./libNAME.so)")
            );
        }
        if value.contains('/') {
            let path = PathBuf::from(value);
            return if path.exists() { Ok(path) } else { Err(missing_path(&path)) };
        }
        self.look_up(value).ok_or_else(|| self.missing_name(value))
    }

    /// As [`find`](Self::find) for a bare name, without an error.
    pub fn look_up(&self, name: &str) -> Option<PathBuf> {
        let library = library_name(name);
        let files: &[&str] = if name == library { &[name] } else { &[name, &library] };
        // A folder that happens to be called as the method is no plugin.
        self.places
            .iter()
            .flat_map(|place| files.iter().map(|file| place.folder.join(file)))
            .find(|path| path.is_file())
    }

    /// Every shared library in the places, in their order and sorted by name within each.
    pub fn libraries(&self) -> Vec<PathBuf> {
        self.places.iter().flat_map(|place| libraries_in(&place.folder)).collect()
    }

    /// Says where was looked, and what is there: `/opt/plugins (FTHOST_PLUGIN_PATH): lora, adapter`.
    pub fn report(&self) -> String {
        let lines = self.places.iter().map(|place| {
            let names: Vec<String> = libraries_in(&place.folder).iter().map(|path| method_name(path)).collect();
            let listing = match names.as_slice() {
                [] if !place.folder.is_dir() => "no such folder".to_owned(),
                [] => "no plugins".to_owned(),
                names => names.join(", "),
            };
            format!("  {} ({}): {listing}", place.folder.display(), place.why)
        });
        format!("looked in\n{}", lines.collect::<Vec<_>>().join("\n"))
    }

    fn missing_name(&self, value: &str) -> Error {
        let known: Vec<String> = self.libraries().iter().map(|path| method_name(path)).collect();
        let wanted = method_name(Path::new(value));
        let guess = did_you_mean(&wanted, known.iter().map(String::as_str));
        Error::usage(format!("there is no plugin {value:?}")).with_help(format!(
            "{}{}",
            guess.map(|name| format!("did you mean {name:?}? ")).unwrap_or_default(),
            self.report()
        ))
    }
}

/// Splits what names a plugin into the plugin and the method that is chosen from it: `PATH#name`.
pub fn split_argument(argument: &str) -> (&str, Option<&str>) {
    match argument.rsplit_once('#') {
        Some((plugin, name)) if !plugin.is_empty() && !name.is_empty() && !name.contains('/') => (plugin, Some(name)),
        _ => (argument, None),
    }
}

/// Whether a name is that of a file and not of a method: a path, or `liblora.so`.
pub fn is_file_name(name: &str) -> bool {
    name.contains('/') || name.ends_with(".so")
}

/// The file of a method's library: `one-cycle` is in `libone_cycle.so`.
pub fn library_name(name: &str) -> String {
    if name.ends_with(".so") { name.to_owned() } else { format!("lib{}.so", name.replace('-', "_")) }
}

/// The name that a library's file stands for: `lora` for `liblora.so`.
fn method_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".so").unwrap_or(&name);
    name.strip_prefix("lib").unwrap_or(name).to_owned()
}

fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "so") && path.is_file())
        .collect();
    found.sort();
    found
}

fn missing_path(path: &Path) -> Error {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let error = Error::usage(format!("there is no plugin file {}", path.display()));
    if !folder.is_dir() {
        return error.with_help(format!("the folder {} does not exist", folder.display()));
    }
    let names: Vec<String> =
        libraries_in(folder).iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
    let wanted = path.file_name().unwrap_or_default().to_string_lossy();
    error.with_help(match (did_you_mean(&wanted, names.iter().map(String::as_str)), names.as_slice()) {
        (Some(name), _) => format!("did you mean {}?", folder.join(name).display()),
        (None, []) => {
            format!("{} holds no shared library; build the plugin first: cargo build -p NAME", folder.display())
        }
        (None, names) => format!("{} holds {}", folder.display(), names.join(", ")),
    })
}

/// The candidate that `wanted` was probably meant to be.
pub fn did_you_mean<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(wanted, candidate), candidate))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn places() -> (tempfile::TempDir, Search) {
        let root = tempfile::tempdir().unwrap();
        for file in
            ["first/liblora.so", "second/liblora.so", "second/libone_cycle.so", "second/odd.so", "first/adapter"]
        {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        std::fs::create_dir_all(root.path().join("first/one-cycle")).unwrap();
        let place = |name: &str| Place { folder: root.path().join(name), why: "test" };
        let search = Search::new(vec![place("first"), place("second"), place("third")]);
        (root, search)
    }

    #[test]
    fn names_and_paths_are_found_in_order() {
        let (root, search) = places();
        let check = |value: &str, expected: Option<&str>| {
            assert_eq!(search.find(value).ok(), expected.map(|file| root.path().join(file)), "{value}");
        };
        check("lora", Some("first/liblora.so"));
        check("liblora.so", Some("first/liblora.so"));
        check("one-cycle", Some("second/libone_cycle.so"));
        check("odd.so", Some("second/odd.so"));
        check("odd", None);
        let path = root.path().join("second/liblora.so");
        assert_eq!(search.find(path.to_str().unwrap()).unwrap(), path);
    }

    #[test]
    fn what_is_missing_is_explained() {
        let (root, search) = places();
        let check = |value: &str, parts: &[&str]| {
            let Error::Usage { message, help } = search.find(value).unwrap_err() else { panic!("another kind") };
            let text = format!("{message}\n{}", help.unwrap());
            for part in parts {
                assert!(text.contains(part), "{value}: {part:?} is not in {text}");
            }
        };
        check(
            "lorra",
            &[
                "there is no plugin \"lorra\"",
                "did you mean \"lora\"?",
                "(test): lora, one_cycle, odd",
                "no such folder",
            ],
        );
        check("", &["name is empty"]);
        let inside = |file: &str| root.path().join(file).to_str().unwrap().to_owned();
        check(&inside("second/libLora.so"), &["did you mean", "second/liblora.so"]);
        check(&inside("nowhere/liblora.so"), &["does not exist"]);
    }
}
