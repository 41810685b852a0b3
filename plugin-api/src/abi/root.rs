//! The frozen root: the abi_stable module by which a Rust host comes into a plugin.
//!
//! abi_stable compares the layout of the host's root with the plugin's, and refuses *older plugins* as soon as anything
//! that the root reaches by type has grown. So the root has these two fields for ever, and what grows hides behind raw
//! pointers to the append-only [`tables`](super::tables). Never touch this file.

#![allow(non_camel_case_types, reason = "abi_stable's convention: `Root_Ref` is the reference to `Root`")]

use abi_stable::{
    StableAbi,
    library::{__call_root_module_loader, RootModule, RootModuleResult},
    prefix_type::PrefixTypeTrait,
    sabi_types::VersionStrings,
    std_types::{RResult, RStr, RString},
};

use super::{
    entry::{Identity, connect},
    tables::{ABI_MINOR, HostApi},
};

/// The `want` of [`Root::connect`] that stands for the table of this major: `PluginApi` for `HostApi`.
pub const WANT_V1: &str = "fthost.plugin/1";

/// Version of the root module. abi_stable compares it; it never changes.
pub const ROOT_VERSION: &str = "1.0.0";

/// The symbol under which abi_stable looks for a library's header.
pub const HEADER_SYMBOL: &str = "_1as_0lib_1header_0root_bmodule_bloader";

/// The root module.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = Root_Ref)))]
#[sabi(missing_field(panic))]
pub struct Root {
    /// [`ABI_MINOR`] the plugin was built with.
    pub abi_minor: u32,
    /// Takes the host's table (`*const HostApi`) and the name of what is wanted ([`WANT_V1`]), gives the plugin's
    /// (`*const PluginApi`), or one clear sentence.
    #[sabi(last_prefix_field)]
    pub connect: extern "C" fn(host: *const (), want: RStr<'_>) -> RResult<*const (), RString>,
}

impl RootModule for Root_Ref {
    abi_stable::declare_root_module_statics! {Root_Ref}
    const BASE_NAME: &'static str = "fthost_plugin";
    const NAME: &'static str = "fthost_plugin";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new(ROOT_VERSION);
}

/// What `export_plugin!` says of a plugin, as a type so that functions without arguments can know it.
#[doc(hidden)]
pub trait Exported: 'static {
    /// Name, version and license.
    const IDENTITY: &'static Identity;
}

/// The constructor that abi_stable calls.
#[doc(hidden)]
pub extern "C" fn root_module<P: Exported>() -> RootModuleResult {
    __call_root_module_loader(|| Root { abi_minor: ABI_MINOR, connect: connect_rust::<P> }.leak_into_prefix())
}

extern "C" fn connect_rust<P: Exported>(host: *const (), want: RStr<'_>) -> RResult<*const (), RString> {
    if want.as_str() != WANT_V1 {
        let text = format!(
            "this plugin offers `{WANT_V1}`, and the host asks for `{want}`: rebuild one with the other's crate"
        );
        return RResult::RErr(RString::from(text));
    }
    // SAFETY: under `WANT_V1` a host passes its `HostApi`, which lives as long as the process.
    match unsafe { connect(host.cast::<HostApi>(), P::IDENTITY) } {
        Ok(api) => RResult::ROk(std::ptr::from_ref(api).cast()),
        Err(error) => RResult::RErr(RString::from(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_name_that_abi_stable_looks_for() {
        assert_eq!(HEADER_SYMBOL, abi_stable::library::ROOT_MODULE_LOADER_NAME);
    }
}
