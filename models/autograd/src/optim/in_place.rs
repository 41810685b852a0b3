//! Updates in place: one pass over slices for `f32` on the CPU, candle ops elsewhere.

use candle_core::{DType, Result, Tensor};

use crate::kernels::joined;
use crate::{Activation, slices};

/// Copies `src` over `dst`, which must be contiguous, have its shape and not share its memory. Casts to `dst`'s type and
/// moves to its device.
pub fn copy_in_place(dst: &Tensor, src: &Tensor) -> Result<()> {
    if dst.dims() != src.dims() {
        candle_core::bail!("cannot copy shape {:?} over shape {:?}", src.dims(), dst.dims());
    }
    let src = src.to_device(dst.device())?.to_dtype(dst.dtype())?.contiguous()?;
    if dst.rank() == 0 {
        return dst.reshape(1)?.slice_set(&src.reshape(1)?, 0, 0);
    }
    dst.slice_set(&src, 0, 0)
}

/// Adds `rows` `[n, width]` to the rows `ids` `[n]` (`u32`, repeats add up) of `dense` `[.., width]`, contiguous.
pub fn add_rows_in_place(dense: &Tensor, ids: &Tensor, rows: &Tensor) -> Result<()> {
    let (count, width) = dense.dims2()?;
    if rows.dims() != [ids.elem_count(), width] || ids.dtype() != DType::U32 {
        candle_core::bail!(
            "{:?} ids {:?} and rows {:?} cannot be added to the rows of {:?}",
            ids.dtype(),
            ids.dims(),
            rows.dims(),
            dense.dims()
        );
    }
    if slices::is_f32_slice(dense) && rows.dtype() == DType::F32 {
        let ids = ids.flatten_all()?.to_vec1::<u32>()?;
        if let Some(id) = ids.iter().find(|id| **id as usize >= count) {
            candle_core::bail!("row {id} of a table of {count} rows");
        }
        slices::update(dense, &rows.contiguous()?, |dense, rows| {
            for (id, row) in ids.iter().zip(rows.chunks_exact(width.max(1))) {
                let into = &mut dense[*id as usize * width..][..width];
                into.iter_mut().zip(row).for_each(|(x, y)| *x += y);
            }
        })?;
        return Ok(());
    }
    copy_in_place(dense, &dense.index_add(&ids.flatten_all()?, &rows.to_dtype(dense.dtype())?.contiguous()?, 0)?)
}

/// `a + b` in memory of its own. Not candle's sum: its threads would spin beside the micro-batches'. `parallel` splits a large one over
/// the threads of the pool.
pub fn sum(a: &Tensor, b: &Tensor, parallel: bool) -> Result<Tensor> {
    if a.dims() == b.dims()
        && let Some(sum) = slices::read([a, b], |[a, b]| joined::sum(a, b, Activation::Identity, parallel))
    {
        return Tensor::from_vec(sum, a.dims(), a.device());
    }
    a + b
}

/// `a + b`, written over `a`, which nothing else may hold. Where `a` cannot be written to so, the sum is a new tensor. `parallel` splits
/// a large one over the threads of the pool.
pub fn add_reusing(a: Tensor, b: &Tensor, parallel: bool) -> Result<Tensor> {
    if a.dims() != b.dims() {
        candle_core::bail!("cannot add shape {:?} to shape {:?} in place", b.dims(), a.dims());
    }
    let sum = |a: &mut [f32], b: &[f32]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    let add = |a: &mut [f32], b: &[f32]| if parallel { slices::each_chunk_with(a, b, sum) } else { sum(a, b) };
    // Views cover part of their memory, and two parts of the same one cannot be locked at once: those are added elsewhere.
    if slices::is_f32_slice(&a) && b.dtype() == DType::F32 && slices::update(&a, &b.contiguous()?, add)? {
        return Ok(a);
    }
    a + b
}
