//! Making and reading the borrowed types of the wire: [`Str`], [`Slice`], [`SliceMut`], [`TextSink`].

use std::{ffi::c_void, slice};

use super::tables::{Slice, SliceMut, Status, Str, TextSink};
use crate::{Error, Result};

impl Str {
    /// Borrows text; valid as long as `text` is.
    pub const fn new(text: &str) -> Self {
        Self { ptr: text.as_ptr(), len: text.len() }
    }

    /// The text.
    ///
    /// # Errors
    /// Where the bytes are not UTF-8.
    ///
    /// # Safety
    /// `ptr` points to `len` bytes that stay valid and unchanged for `'a`, or `len` is 0.
    pub unsafe fn as_str<'a>(self) -> Result<&'a str> {
        // SAFETY: the caller's promise, for bytes.
        let bytes = unsafe { Slice { ptr: self.ptr, len: self.len }.as_slice() };
        std::str::from_utf8(bytes)
            .map_err(|error| Error::new(format!("text from the other side is not UTF-8: {error}")))
    }
}

impl<T> Clone for Slice<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Slice<T> {}

impl<T> Clone for SliceMut<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for SliceMut<T> {}

impl<T> Slice<T> {
    /// Borrows a slice; valid as long as `items` is.
    pub const fn new(items: &[T]) -> Self {
        Self { ptr: items.as_ptr(), len: items.len() }
    }

    /// The elements.
    ///
    /// # Safety
    /// `ptr` points to `len` elements that stay valid and unchanged for `'a`, or `len` is 0.
    pub const unsafe fn as_slice<'a>(&self) -> &'a [T] {
        if self.len == 0 || self.ptr.is_null() {
            return &[];
        }
        // SAFETY: not empty, so the caller's promise covers it.
        unsafe { slice::from_raw_parts(self.ptr, self.len) }
    }
}

impl<T> SliceMut<T> {
    /// Borrows a slice for writing; valid as long as `items` is.
    pub const fn new(items: &mut [T]) -> Self {
        Self { ptr: items.as_mut_ptr(), len: items.len() }
    }

    /// The elements.
    ///
    /// # Safety
    /// `ptr` points to `len` elements that nobody else touches for `'a`, or `len` is 0.
    pub const unsafe fn as_mut_slice<'a>(&self) -> &'a mut [T] {
        if self.len == 0 || self.ptr.is_null() {
            return &mut [];
        }
        // SAFETY: not empty, so the caller's promise covers it.
        unsafe { slice::from_raw_parts_mut(self.ptr, self.len) }
    }
}

impl TextSink {
    /// Hands a text over; to nobody where there is no function.
    ///
    /// # Safety
    /// The sink was given for the call that is under way.
    pub unsafe fn put(self, text: &str) {
        if let Some(write) = self.write {
            // SAFETY: a valid sink takes text that is borrowed for the call.
            unsafe { write(self.ctx, Str::new(text)) }
        }
    }
}

/// Makes a call that writes text, and collects what it wrote.
pub fn collect_text(call: impl FnOnce(TextSink) -> Status) -> (Status, String) {
    unsafe extern "C" fn append(ctx: *mut c_void, text: Str) {
        // SAFETY: `ctx` is the vector below, alive while the call runs and touched by nobody else.
        let bytes = unsafe { &mut *ctx.cast::<Vec<u8>>() };
        // SAFETY: the writer lends the text for this call.
        bytes.extend_from_slice(unsafe { Slice { ptr: text.ptr, len: text.len }.as_slice() });
    }
    let mut bytes = Vec::new();
    let status = call(TextSink { ctx: (&raw mut bytes).cast(), write: Some(append) });
    (status, String::from_utf8_lossy(&bytes).into_owned())
}
