//! Results that are written piece by piece.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::scratch;

/// Calls `f` with the number and the elements of each piece, on the threads of the pool where `parallel` says so. Pieces are fixed
/// by the caller, so the bits depend on no number of threads.
pub(crate) fn each<T: Send>(out: &mut [T], piece: usize, parallel: bool, f: impl Fn(usize, &mut [T]) + Send + Sync) {
    let piece = piece.max(1);
    if parallel && out.len() > piece {
        out.par_chunks_mut(piece).enumerate().for_each(|(i, out)| f(i, out));
    } else {
        out.chunks_mut(piece).enumerate().for_each(|(i, out)| f(i, out));
    }
}

/// A vector of `len` elements, written by [`each`].
///
/// # Safety
/// `f` must initialise every element of the slices it gets.
pub(crate) unsafe fn written(
    len: usize,
    piece: usize,
    parallel: bool,
    f: impl Fn(usize, &mut [MaybeUninit<f32>]) + Send + Sync,
) -> Vec<f32> {
    // SAFETY: the pieces cover the slice.
    unsafe { scratch::written(len, |out| each(out, piece, parallel, f)) }
}

/// `f` of each index below `count`, in order, on the threads of the pool where `parallel` says so.
pub(crate) fn collect<R: Send>(count: usize, parallel: bool, f: impl Fn(usize) -> R + Send + Sync) -> Vec<R> {
    if parallel && count > 1 { (0..count).into_par_iter().map(f).collect() } else { (0..count).map(f).collect() }
}

/// The elements, now that they are written.
///
/// # Safety
/// All of them are.
pub(crate) unsafe fn initialized(out: &mut [MaybeUninit<f32>]) -> &mut [f32] {
    // SAFETY: by contract; the layouts are the same.
    unsafe { std::slice::from_raw_parts_mut(out.as_mut_ptr().cast(), out.len()) }
}
