//! The boundary between host and plugin. The only unsafe code of this crate.
//!
//! [`tables`] is the wire, [`note`] what a host reads before any code runs, [`root`] the frozen root module by which it
//! comes in. The rest is the plugin's side of it: `entry` takes the host's table and gives the plugin's, `vtables` and
//! `hooks` turn the author's traits into functions of the tables, `failure` keeps panics inside, `host` calls back.
#![allow(unsafe_code)]

pub mod borrow;
pub(crate) mod entry;
pub(crate) mod failure;
pub(crate) mod hooks;
pub(crate) mod host;
pub(crate) mod log;
pub mod note;
pub mod root;
pub mod tables;
#[cfg(test)]
mod tests;
pub(crate) mod vtables;

/// Whether the maker of a table knew a field: its `struct_size` reaches beyond it.
///
/// ```
/// use fthost_plugin_api::has_field;
/// #[repr(C)]
/// struct Table { struct_size: u32, first: u32, later: u64 }
/// let made_before_later = Table { struct_size: 8, first: 1, later: 0 };
/// assert!(has_field!(made_before_later, Table, first));
/// assert!(!has_field!(made_before_later, Table, later));
/// ```
#[macro_export]
macro_rules! has_field {
    ($table:expr, $type:ty, $field:ident) => {
        ::core::mem::offset_of!($type, $field) + $crate::__private::field_size(|table: &$type| &table.$field)
            <= $table.struct_size as usize
    };
}

/// Bytes of the field that a closure borrows.
#[doc(hidden)]
pub const fn field_size<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}
