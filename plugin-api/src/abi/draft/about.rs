//! `ft.about.draft/1`, of a plugin: what a person should know of it. `fthost inspect` prints it.

use std::ffi::c_void;

use crate::abi::{
    growth::Grows,
    tables::{Status, TextSink},
};

/// The name to ask `PluginApi::get_extension` for.
pub const ABOUT_DRAFT: &str = "ft.about.draft/1";

/// What a plugin says of itself.
#[repr(C)]
pub struct AboutDraft {
    /// Bytes of this table.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Writes the text: a paper, a home page, whom to ask. `[any thread]`
    pub text: Option<unsafe extern "C" fn(sink: TextSink) -> Status>,
}

// SAFETY: `repr(C)` with its size first; a zero is a value of every field.
unsafe impl Grows for AboutDraft {
    const NAME: &'static str = "AboutDraft";
    const MINOR_0: usize = size_of::<[u32; 2]>() + size_of::<*const c_void>();
}
