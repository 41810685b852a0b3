//! What crosses the wire without being given away: text and slices, borrowed for a call.

use std::ffi::c_void;

/// 0 is success; see [`OK`](super::tables::OK), [`FAILED`](super::tables::FAILED), [`PANICKED`](super::tables::PANICKED).
pub type Status = i32;

/// UTF-8 text, borrowed for the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Str {
    /// Start; may dangle where `len` is 0.
    pub ptr: *const u8,
    /// Bytes.
    pub len: usize,
}

/// A slice, borrowed for the call.
#[repr(C)]
pub struct Slice<T> {
    /// Start; may dangle where `len` is 0.
    pub ptr: *const T,
    /// Elements.
    pub len: usize,
}

/// A slice that the callee writes, borrowed for the call.
#[repr(C)]
pub struct SliceMut<T> {
    /// Start; may dangle where `len` is 0.
    pub ptr: *mut T,
    /// Elements.
    pub len: usize,
}

/// Where the callee writes text, in one or several pieces.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TextSink {
    /// The caller's own.
    pub ctx: *mut c_void,
    /// Appends a piece.
    // It must not be null. That it may be as far as Rust knows lets a host tell when it is; both are laid out alike.
    pub write: Option<unsafe extern "C" fn(ctx: *mut c_void, text: Str)>,
}
