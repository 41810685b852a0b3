//! An opened plugin: what it says of itself, and its table of functions.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fthost_plugin_api::abi::growth::Theirs;
use fthost_plugin_api::abi::tables::PluginApi;
use fthost_plugin_api::{MethodInfo, MethodKind, PluginInfo};

use crate::{Error, Result};

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

impl Plugin {
    pub(super) fn new(path: PathBuf, sha256: String, info: PluginInfo, api: Theirs<'static, PluginApi>) -> Self {
        Self(Arc::new(Opened { path, sha256, info, api }))
    }

    /// Whether both are one.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What it says of itself.
    pub fn info(&self) -> &PluginInfo {
        &self.0.info
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

    pub(super) fn has(&self, kind: MethodKind, name: &str) -> bool {
        self.info().methods.iter().any(|method| method.kind == kind && method.name == name)
    }

    pub(super) fn api(&self) -> Theirs<'static, PluginApi> {
        self.0.api
    }
}
