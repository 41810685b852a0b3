//! Memory for intermediate results, and results that are written before they are read.

use std::cell::RefCell;
use std::mem::MaybeUninit;

/// A cache line of 16 lanes: scratch and packed operands are aligned to it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line([f32; LANES]);

/// Lanes of a [`Line`].
pub(crate) const LANES: usize = 16;

impl Line {
    pub(crate) const ZERO: Self = Self([0.0; LANES]);
}

/// Lines as their lanes.
pub(crate) fn lanes(lines: &[Line]) -> &[f32] {
    // SAFETY: a Line is 16 floats without padding.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * LANES) }
}

/// Lines as their lanes.
pub(crate) fn lanes_mut(lines: &mut [Line]) -> &mut [f32] {
    // SAFETY: a Line is 16 floats without padding.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * LANES) }
}

thread_local! {
    static POOL: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Runs `f` with `len` floats of this thread's scratch, aligned to a line. They hold whatever was left there.
pub(crate) fn with<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut lines = POOL.with_borrow_mut(Vec::pop).unwrap_or_default();
    let needed = len.div_ceil(LANES);
    if lines.len() < needed {
        lines.resize(needed, Line::ZERO);
    }
    let result = f(&mut lanes_mut(&mut lines)[..len]);
    POOL.with_borrow_mut(|pool| pool.push(lines));
    result
}

/// A vector of `len` floats that `write` fills without their being zeroed first.
///
/// # Safety
/// `write` must initialise every element of the slice it gets.
pub(crate) unsafe fn written(len: usize, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut out = Vec::with_capacity(len);
    write(&mut out.spare_capacity_mut()[..len]);
    // SAFETY: the capacity is there, and by contract every element was written.
    unsafe { out.set_len(len) };
    out
}
