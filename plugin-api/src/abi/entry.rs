//! The way in, shared by the C entry, the abi_stable root and statically linked methods.

use std::{collections::BTreeSet, ffi::c_void, ptr, sync::OnceLock};

use super::{
    draft::{
        about::{ABOUT_DRAFT, AboutDraft},
        optimizer::{OPTIMIZER, OptimizerExtension},
    },
    failure,
    growth::{Grows, Theirs},
    host, log,
    tables::{ABI_MAJOR, ABI_MINOR, HostApi, Instance, PluginApi, Status, Str, TextSink},
};
use crate::{
    Error, Result, field,
    info::{MethodKind, PluginInfo},
    registry::{self, MethodEntry},
};

/// Who a plugin is.
#[doc(hidden)]
#[derive(Debug)]
pub struct Identity {
    /// Its library's name.
    pub name: &'static str,
    /// Its crate's version.
    pub version: &'static str,
    /// SPDX expression.
    pub license: &'static str,
    /// What a person should know of it; empty for nothing.
    pub about: &'static str,
}

static BUILT_IN: Identity =
    Identity { name: "built-in", version: env!("CARGO_PKG_VERSION"), license: env!("CARGO_PKG_LICENSE"), about: "" };

static IDENTITY: OnceLock<&'static Identity> = OnceLock::new();

static API: PluginApi = PluginApi {
    abi_major: ABI_MAJOR,
    abi_minor: ABI_MINOR,
    describe: Some(describe),
    create: Some(create),
    get_extension: Some(get_extension),
    options_from_peft: Some(options_from_peft),
    ..PluginApi::EMPTY
};

static OPTIMIZERS: OptimizerExtension =
    OptimizerExtension { create: Some(create_optimizer), ..OptimizerExtension::EMPTY };

static ABOUT: AboutDraft = AboutDraft { text: Some(about), ..AboutDraft::EMPTY };

/// The methods that are linked into this binary, for a host that was built with them.
///
/// # Errors
/// Where the host's table is not of this major, or two methods of one kind share a name.
pub fn builtin(host: &'static HostApi) -> Result<Theirs<'static, PluginApi>> {
    // SAFETY: a table that says its own size.
    take_host(unsafe { Theirs::new(host) }.map_err(old_host)?)?;
    check_names()?;
    let _ = IDENTITY.set(&BUILT_IN);
    Ok(Theirs::ours(&API))
}

/// Takes the host's table and gives the plugin's.
///
/// # Safety
/// `host` is null or points to a `HostApi`, of the length that it says, that lives as long as the process.
pub(crate) unsafe fn connect(host: *const HostApi, identity: &'static Identity) -> Result<&'static PluginApi> {
    // SAFETY: the caller's promise.
    take_host(unsafe { Theirs::new(host) }.map_err(old_host)?)?;
    check_names()?;
    let _ = IDENTITY.set(identity);
    log::forward();
    Ok(&API)
}

/// The body of `fthost_plugin_entry_v1`.
///
/// # Safety
/// As [`EntryV1`](super::tables::EntryV1) says: `host` lives as long as the process, `out` may be written.
#[doc(hidden)]
pub unsafe fn c_entry(host: *const HostApi, out: *mut *const PluginApi, identity: &'static Identity) -> Status {
    failure::guard(|| {
        // SAFETY: the caller's promise about `host`.
        let api = unsafe { connect(host, identity) }?;
        if out.is_null() {
            return Err(Error::new("the host passed no place for the plugin's table"));
        }
        // SAFETY: not null, and the caller's promise about `out`.
        unsafe { out.write(api) };
        Ok(())
    })
}

fn old_host(error: Error) -> Error {
    error.context("the host's table cannot be used (update the host)")
}

fn take_host(host: Theirs<'static, HostApi>) -> Result<()> {
    let major = host.get(field!(HostApi, abi_major));
    if major != ABI_MAJOR {
        return Err(Error::new(format!(
            "the host speaks plugin ABI {major}, this plugin {ABI_MAJOR}: rebuild the plugin with the host's fthost-plugin-api"
        )));
    }
    host::install(host);
    failure::install_panic_hook();
    Ok(())
}

fn check_names() -> Result<()> {
    let mut seen = BTreeSet::new();
    for method in registry::methods() {
        if !seen.insert((method.kind, method.name)) {
            return Err(Error::new(format!(
                "two methods are registered as {} `{}`: rename one",
                method.kind, method.name
            )));
        }
    }
    Ok(())
}

/// What this binary offers.
pub(crate) fn info() -> PluginInfo {
    let identity = IDENTITY.get().copied().unwrap_or(&BUILT_IN);
    PluginInfo {
        name: identity.name.into(),
        version: identity.version.into(),
        license: identity.license.into(),
        methods: registry::methods().into_iter().map(MethodEntry::info).collect(),
    }
}

unsafe extern "C" fn describe(sink: TextSink) -> Status {
    failure::guard(|| {
        let text = serde_json::to_string(&info())?;
        // SAFETY: the sink belongs to this call.
        unsafe { sink.put(&text) };
        Ok(())
    })
}

unsafe extern "C" fn create_optimizer(name: Str, config: Str, out: *mut Instance) -> Status {
    // SAFETY: the host keeps the promises of `create`.
    unsafe { create(MethodKind::Optimizer.code(), name, config, out) }
}

unsafe extern "C" fn create(kind: u32, name: Str, config: Str, out: *mut Instance) -> Status {
    failure::guard(|| {
        // SAFETY: the host lends both texts for this call.
        let (name, config) = unsafe { (name.as_str()?, config.as_str()?) };
        let instance = (method(kind, name)?.create)(config)?;
        // SAFETY: `out` is the host's place for the result.
        unsafe { out.write(instance) };
        Ok(())
    })
}

unsafe extern "C" fn options_from_peft(name: Str, config: Str, sink: TextSink) -> Status {
    failure::guard(|| {
        // SAFETY: the host lends both texts for this call.
        let (name, config) = unsafe { (name.as_str()?, config.as_str()?) };
        let options = (method(MethodKind::Strategy.code(), name)?.options_from_peft)(config)?;
        // SAFETY: the sink belongs to this call.
        unsafe { sink.put(&serde_json::to_string(&options)?) };
        Ok(())
    })
}

/// The method of a kind, by its code, and name.
fn method(kind: u32, name: &str) -> Result<&'static MethodEntry> {
    let methods = registry::methods();
    let found = methods.iter().find(|method| method.kind.code() == kind && method.name == name);
    found.copied().ok_or_else(|| {
        let known: Vec<_> = methods.iter().map(|method| format!("{} `{}`", method.kind, method.name)).collect();
        Error::new(format!("no method `{name}` of kind {kind} here; there are {}", known.join(", ")))
    })
}

unsafe extern "C" fn get_extension(name: Str) -> *const c_void {
    let about = IDENTITY.get().is_some_and(|identity| !identity.about.is_empty());
    // SAFETY: the host lends the text for this call.
    match unsafe { name.as_str() } {
        Ok(OPTIMIZER) if registry::methods().iter().any(|method| method.kind == MethodKind::Optimizer) => {
            (&raw const OPTIMIZERS).cast()
        }
        Ok(ABOUT_DRAFT) if about => (&raw const ABOUT).cast(),
        _ => ptr::null(),
    }
}

unsafe extern "C" fn about(sink: TextSink) -> Status {
    failure::guard(|| {
        // SAFETY: the sink belongs to this call.
        unsafe { sink.put(IDENTITY.get().map_or("", |identity| identity.about)) };
        Ok(())
    })
}
