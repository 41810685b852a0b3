//! What a plugin lends for a call: pointers are looked at before anything is read or written through them, so that the likeliest slip of who
//! writes C, a null one, is an error with a name.

use std::ffi::c_void;

use fthost_plugin_api::abi::tables::{Slice, SliceMut, Status};

/// Sees a gradient of a walk over examples.
pub(super) type Visit = unsafe extern "C" fn(ctx: *mut c_void, param: u64, gradient: u64, weight: f64) -> Status;

type Walk<V> = unsafe extern "C" fn(labels: u32, limit: u64, ctx: *mut c_void, visit: V) -> Status;

/// A function of the host's that can tell a visitor that is null, as the table wants it.
pub(super) const fn may_be_null(walk: Walk<Option<Visit>>) -> Walk<Visit> {
    // SAFETY: a function pointer and one that may be null are passed alike, as Rust promises for `Option` of one.
    unsafe { std::mem::transmute::<Walk<Option<Visit>>, Walk<Visit>>(walk) }
}

/// Refuses a pointer to so many elements that cannot be one; `what` they are is for the error.
pub(super) fn check<T>(ptr: *const T, len: usize, what: &str) -> Result<(), String> {
    if len == 0 {
        return Ok(());
    }
    if ptr.is_null() {
        return Err(format!("{what} has length {len}, and its pointer is null"));
    }
    if !ptr.is_aligned() {
        return Err(format!("the pointer of {what} is not aligned for its elements"));
    }
    match len.checked_mul(size_of::<T>()) {
        Some(bytes) if isize::try_from(bytes).is_ok() => Ok(()),
        _ => Err(format!("{what} has length {len}, which no memory holds")),
    }
}

/// A slice that a plugin lends.
pub(super) trait Lends<T> {
    /// Its elements.
    ///
    /// # Safety
    /// As [`Slice::as_slice`], but that the pointer may be null.
    unsafe fn lent<'a>(self, what: &str) -> Result<&'a [T], String>
    where
        T: 'a;
}

impl<T> Lends<T> for Slice<T> {
    unsafe fn lent<'a>(self, what: &str) -> Result<&'a [T], String>
    where
        T: 'a,
    {
        check(self.ptr, self.len, what)?;
        // SAFETY: the caller's promise.
        Ok(unsafe { self.as_slice() })
    }
}

/// The elements of a slice that a plugin has written to.
///
/// # Safety
/// As [`SliceMut::as_mut_slice`], but that the pointer may be null.
pub(super) unsafe fn written<'a, T>(slice: SliceMut<T>, what: &str) -> Result<&'a mut [T], String> {
    check(slice.ptr, slice.len, what)?;
    // SAFETY: the caller's promise.
    Ok(unsafe { slice.as_mut_slice() })
}

/// Where a plugin wants a result.
pub(super) struct Place<T>(*mut T);

impl<T> Place<T> {
    /// # Errors
    /// Where the pointer is null, or no pointer to a `T`.
    ///
    /// # Safety
    /// `at` is null, or may be written while the call runs.
    pub(super) unsafe fn of(at: *mut T, what: &str) -> Result<Self, String> {
        if at.is_null() {
            return Err(format!("there is no place for {what}: its pointer is null"));
        }
        check(at, 1, what).map(|()| Self(at))
    }

    /// Writes the result.
    pub(super) fn write(self, value: T) {
        // SAFETY: it may be written, as `of` was promised, and is not null.
        unsafe { self.0.write(value) }
    }
}
