//! A plugin to begin with: `fthost new-plugin`.
//!
//! The templates are the files that they become (`templates`, a folder for each kind). In them a method is called `my-method`, its library
//! `my_method`, and `@api@` stands for where `fthost-plugin-api` comes from; nothing else is put in. Each holds a small method of the
//! literature that works, to be changed into one's own.

mod name;
mod templates;

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use fthost_plugin_api::MethodKind;
use serde::Serialize;

use crate::plugin::search::library_name;
use crate::plugin::{Library, Search};
use crate::{Error, Result};
use templates::{API, METHOD, METHOD_LIBRARY, Template};

/// The crate that a plugin depends on, and the folder of a checkout that holds it.
const API_CRATE: &str = "fthost-plugin-api";
const API_FOLDER: &str = "plugin-api";

/// In what a plugin is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Language {
    /// A crate. Where `fthost-plugin-api` lies; without it that of the checkout that this program lies in, else the registry's.
    Rust(Option<PathBuf>),
    /// One file and a header.
    C,
}

/// A plugin that has been begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewPlugin {
    /// The method's name, which is that of its folder.
    pub name: String,
    /// Its kind.
    pub kind: MethodKind,
    /// The folder, absolute.
    pub folder: PathBuf,
    /// What lies in it.
    pub files: Vec<String>,
    /// The plugin's file once it is built, relative to the folder.
    pub library: String,
    /// Where `fthost-plugin-api` comes from: a folder, or a version of the registry; none for C.
    pub api: Option<String>,
    /// The commands that test, build, check and run it, to be given in the folder.
    pub commands: Vec<String>,
}

/// Writes a plugin into a new folder of this name in `parent`.
///
/// # Errors
/// Where the name is none for a plugin, or is taken by a method that is found; where the folder is there already or cannot be written; where
/// `fthost-plugin-api` does not lie where it should.
pub fn begin(parent: &Path, name: &str, kind: MethodKind, language: &Language) -> Result<NewPlugin> {
    name::check(name)?;
    if let Some((file, method)) = Library::new(Search::from_environment()).noted_name(name) {
        return Err(Error::usage(format!("there is a {} {name:?} already, in {}", method.kind, file.display()))
            .with_help("choose another name: run files find methods by theirs"));
    }
    let templates = templates::of(kind, *language == Language::C);
    if templates.is_empty() {
        return Err(Error::usage(format!("there is no template of a plugin of kind {kind}"))
            .with_help("copy one of that kind from the folder plugins of a checkout"));
    }
    let folder = std::path::absolute(parent.join(name)).map_err(cannot_make(name))?;
    let api = match language {
        Language::C => None,
        Language::Rust(Some(path)) => Some(Api::at(path)?),
        Language::Rust(None) => Some(Api::usual()),
    };
    if folder.symlink_metadata().is_ok() {
        return Err(Error::usage(format!("{} exists already", folder.display()))
            .with_help("choose another name, or begin elsewhere: nothing is overwritten"));
    }
    let source = api.as_ref().map(Api::in_manifest).unwrap_or_default();
    let underscored = name.replace('-', "_");
    let filled = |text: &str| text.replace(API, &source).replace(METHOD, name).replace(METHOD_LIBRARY, &underscored);
    let written = write(&folder, &templates, filled);
    if written.is_err() {
        // What is there in part is of no use, and in the way of the next try.
        let _ = fs::remove_dir_all(&folder);
    }
    written?;
    let file = library_name(name);
    let (library, build): (String, &[&str]) = match language {
        Language::C => (file, &["make"]),
        Language::Rust(_) => (format!("target/release/{file}"), &["cargo test", "cargo build --release"]),
    };
    let own = [format!("fthost validate {library}"), "fthost run.toml".to_owned()];
    Ok(NewPlugin {
        name: name.to_owned(),
        kind,
        folder,
        files: templates.iter().map(|template| filled(template.path)).collect(),
        commands: build.iter().map(ToString::to_string).chain(own).collect(),
        library,
        api: api.map(|api| api.to_string()),
    })
}

impl Display for NewPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "the {} {:?} begins in {}", self.kind, self.name, self.folder.display())?;
        self.files.iter().try_for_each(|file| writeln!(f, "  {file}"))?;
        if let Some(api) = &self.api {
            writeln!(f, "{API_CRATE} comes from {api}")?;
        }
        writeln!(f, "\ncd {}", self.name)?;
        f.write_str(&self.commands.join("\n"))
    }
}

/// Where `fthost-plugin-api` comes from.
enum Api {
    /// A folder, absolute.
    Folder(PathBuf),
    /// The registry, in this program's version.
    Registry,
}

impl Api {
    fn at(path: &Path) -> Result<Self> {
        if !is_api(path) {
            let inside = path.join(API_FOLDER);
            let help = match is_api(&inside) {
                true => format!("it lies in the folder within: --api {}", inside.display()),
                false => format!("name the folder {API_FOLDER} of a checkout of fthost, or leave --api out"),
            };
            return Err(Error::usage(format!("{} is not the folder of {API_CRATE}", path.display())).with_help(help));
        }
        // As a manifest in another folder has to say it.
        let path = path.canonicalize().map_err(Error::io(format!("cannot find {}", path.display())))?;
        Ok(Self::Folder(path))
    }

    /// That of the checkout that this program was built in, else the registry's.
    fn usual() -> Self {
        let program = std::env::current_exe().ok().and_then(|path| path.canonicalize().ok());
        let found = program.iter().flat_map(|program| program.ancestors()).map(|above| above.join(API_FOLDER));
        found.into_iter().find(|path| is_api(path)).map_or(Self::Registry, Self::Folder)
    }

    /// What a manifest says of it.
    fn in_manifest(&self) -> String {
        match self {
            // A JSON string is a TOML string too.
            Self::Folder(path) => format!("path = {}", serde_json::Value::from(path.display().to_string())),
            Self::Registry => format!("version = \"{}\"", env!("CARGO_PKG_VERSION")),
        }
    }
}

impl Display for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Registry => write!(f, "the registry, version {}", env!("CARGO_PKG_VERSION")),
        }
    }
}

/// Whether a folder is that of the crate.
fn is_api(folder: &Path) -> bool {
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).ok().and_then(|text| text.parse::<toml::Table>().ok());
    let name = manifest.as_ref().and_then(|manifest| manifest.get("package")?.get("name")?.as_str());
    name == Some(API_CRATE)
}

fn cannot_make(what: impl Display) -> impl FnOnce(std::io::Error) -> Error {
    Error::io(format!("cannot make {what}"))
}

/// Writes the templates' files into a folder that is not there yet.
fn write(folder: &Path, templates: &[Template], filled: impl Fn(&str) -> String) -> Result<()> {
    fs::create_dir(folder).map_err(cannot_make(folder.display()))?;
    for template in templates {
        let path = folder.join(filled(template.path));
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(cannot_make(path.display()))?;
        let text = if template.is_filled { filled(template.text) } else { template.text.to_owned() };
        fs::write(&path, text).map_err(cannot_make(path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const KINDS: [MethodKind; 4] =
        [MethodKind::Strategy, MethodKind::Scheduler, MethodKind::Regularizer, MethodKind::TaskHead];

    fn api() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(API_FOLDER)
    }

    #[test]
    fn nothing_of_the_templates_own_names_is_left() {
        let parent = tempfile::tempdir().unwrap();
        for (number, kind) in KINDS.into_iter().enumerate() {
            let name = format!("odd-name{number}");
            let made = begin(parent.path(), &name, kind, &Language::Rust(Some(api()))).unwrap();
            assert_eq!(made.library, format!("target/release/libodd_name{number}.so"));
            for file in &made.files {
                let text = fs::read_to_string(made.folder.join(file)).unwrap();
                for left in [API, METHOD, METHOD_LIBRARY] {
                    assert!(!text.contains(left), "{file} of a {kind} still says {left}");
                }
            }
            let manifest: toml::Table = fs::read_to_string(made.folder.join("Cargo.toml")).unwrap().parse().unwrap();
            let depends = manifest["dependencies"][API_CRATE]["path"].as_str().unwrap();
            assert!(Path::new(depends).is_absolute() && is_api(Path::new(depends)), "{depends}");
            let source = fs::read_to_string(made.folder.join("src/lib.rs")).unwrap();
            assert!(source.contains(&format!("\"{name}\" =>")), "{source}");
        }
        for (number, kind) in KINDS.into_iter().enumerate() {
            let name = format!("in-c{number}");
            let made = begin(parent.path(), &name, kind, &Language::C).unwrap();
            assert_eq!((&*made.library, &*made.commands[0], made.api), (&*format!("libin_c{number}.so"), "make", None));
            for file in &made.files {
                let text = fs::read_to_string(made.folder.join(file)).unwrap();
                assert!(!text.contains(METHOD) && !text.contains(METHOD_LIBRARY), "{file} of a {kind}");
            }
            let source = fs::read_to_string(made.folder.join(format!("in_c{number}.c"))).unwrap();
            assert!(source.contains(&format!("#define NAME \"{name}\"")), "{source}");
            assert!(made.folder.join("fthost_plugin.h").is_file());
        }
    }

    #[test]
    fn what_cannot_be_begun_is_refused_and_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let check = |name: &str, kind, language: &Language, expected: &str| {
            let Error::Usage { message, help } = begin(parent.path(), name, kind, language).unwrap_err() else {
                panic!("another kind of error")
            };
            let text = format!("{message}; {}", help.unwrap_or_default());
            assert!(text.contains(expected), "{text}");
        };
        let (rust, strategy) = (Language::Rust(None), MethodKind::Strategy);
        fs::create_dir(parent.path().join("taken")).unwrap();
        check("taken", strategy, &rust, "taken exists already; choose another name, or begin elsewhere");
        check("../up", strategy, &rust, "a plugin cannot be named \"../up\"");
        check(
            "mine",
            strategy,
            &Language::Rust(Some(parent.path().to_owned())),
            "is not the folder of fthost-plugin-api",
        );
        let above = Language::Rust(Some(api().join("..")));
        check("mine", strategy, &above, "it lies in the folder within: --api");
        let left: Vec<_> = fs::read_dir(parent.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}
