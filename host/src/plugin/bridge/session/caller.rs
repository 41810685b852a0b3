//! Who is called, and for what, as errors name it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::plugin::Plugin;
use crate::plugin::underway::{self, Name};

/// One instance of a method, as calls and their errors name it.
pub(in crate::plugin) struct Caller {
    plugin: Plugin,
    method: String,
    name: Name,
    poisoned: AtomicBool,
}

/// What is called, as errors name it.
#[derive(Clone, Copy)]
pub(in crate::plugin) struct What<'a> {
    /// `attach`, `its linear hook`: up to 24 bytes are noted.
    pub(in crate::plugin) call: &'static str,
    /// Where, if it is at a site.
    pub(in crate::plugin) site: Option<&'a Site>,
}

/// A site of the model.
pub(in crate::plugin) struct Site {
    path: String,
    name: Name,
}

impl Site {
    pub(in crate::plugin) fn new(path: &str) -> Self {
        Self { path: path.to_owned(), name: underway::name(path) }
    }

    /// Its path.
    pub(in crate::plugin) fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

impl From<&'static str> for What<'_> {
    fn from(call: &'static str) -> Self {
        Self { call, site: None }
    }
}

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.site {
            Some(site) => write!(f, "{} at {site}", self.call),
            None => f.write_str(self.call),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin {} ({})", self.method, self.plugin.file_name())
    }
}

impl Caller {
    pub(in crate::plugin) fn new(plugin: Plugin, method: &str) -> Arc<Self> {
        let method = method.to_owned();
        let mut caller = Self { plugin, method, name: Name::default(), poisoned: AtomicBool::new(false) };
        caller.name = underway::name(&caller.to_string());
        Arc::new(caller)
    }

    /// Notes that a call begins, for who watches over this process.
    pub(in crate::plugin) fn enter(&self, what: What<'_>) -> underway::Call {
        underway::enter(self.name, what.call, what.site.map_or(Name::default(), |site| site.name))
    }

    /// The method's name.
    pub(in crate::plugin) fn method(&self) -> &str {
        &self.method
    }

    /// Whether it panicked, and is not called again.
    pub(in crate::plugin) fn poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Has it not be called again.
    pub(super) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }
}
