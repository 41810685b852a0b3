//! `ft.run.draft/1`, of the host: which run a call is part of.

use std::ffi::c_void;

use crate::abi::{growth::Grows, tables::Status};

/// The name to ask `HostApi::get_extension` for.
pub const RUN_DRAFT: &str = "ft.run.draft/1";

/// The run of the call that is under way on this thread. Outside of one, and before `attach`, its functions fail.
#[repr(C)]
pub struct RunDraft {
    /// Bytes of this table.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Writes the run's seed. `[any thread]`
    pub seed: Option<unsafe extern "C" fn(out: *mut u64) -> Status>,
    /// Writes the optimizer step, counted from 0 in its phase; 0 before the first. `[any thread]`
    pub step: Option<unsafe extern "C" fn(out: *mut u64) -> Status>,
}

// SAFETY: `repr(C)` with its size first; a zero is a value of every field.
unsafe impl Grows for RunDraft {
    const NAME: &'static str = "RunDraft";
    const MINOR_0: usize = size_of::<[u32; 2]>() + 2 * size_of::<*const c_void>();
}
