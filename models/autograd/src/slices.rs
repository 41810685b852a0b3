//! `f32` tensors on the CPU as slices, for the loops that candle has no op for.
//!
//! Each function says `None` (or `false`) where a tensor is of another kind, and its caller then takes the composite way.

use std::cell::Cell;

use candle_core::{CpuStorage, DType, InplaceOp1, InplaceOp2, Layout, Result, Storage, Tensor};
use rayon::prelude::*;

/// Elements that one task takes. Fixed, so that sums do not depend on the number of threads.
pub(crate) const CHUNK: usize = 1 << 14;
/// From here on a loop is split over the threads of the pool.
const PARALLEL: usize = 8 * CHUNK;

/// Whether the tensor's elements can be had as one `f32` slice.
pub(crate) fn is_f32_slice(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && tensor.dtype() == DType::F32 && tensor.is_contiguous()
}

fn elements<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(all), Some((start, end))) => Ok(&all[start..end]),
        _ => candle_core::bail!("expected a contiguous f32 tensor on the CPU"),
    }
}

fn elements_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(all), Some((start, end))) => Ok(&mut all[start..end]),
        _ => candle_core::bail!("expected a contiguous f32 tensor on the CPU"),
    }
}

/// Reads tensors as slices.
pub(crate) fn read<const N: usize, R>(tensors: [&Tensor; N], f: impl FnOnce([&[f32]; N]) -> R) -> Option<R> {
    if !tensors.iter().all(|tensor| is_f32_slice(tensor)) {
        return None;
    }
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices = [[].as_slice(); N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        let Storage::Cpu(storage) = &**storage else { return None };
        *slice = elements(storage, layout).ok()?;
    }
    Some(f(slices))
}

/// The sum of squares: `f32` within a block, `f64` across blocks.
pub(crate) fn sum_of_squares(x: &Tensor) -> Option<f64> {
    fn blocks(x: &[f32]) -> f64 {
        const LANES: usize = 16;
        x.chunks(1024)
            .map(|block| {
                let mut lanes = [0f32; LANES];
                let (whole, rest) = block.as_chunks::<LANES>();
                for x in whole {
                    for (lane, x) in lanes.iter_mut().zip(x) {
                        *lane += x * x;
                    }
                }
                for (lane, x) in lanes.iter_mut().zip(rest) {
                    *lane += x * x;
                }
                lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>()
            })
            .sum()
    }
    read([x], |[x]| {
        if x.len() < PARALLEL {
            // The same grouping as below, so that the bits do not depend on where the limit stands.
            x.chunks(CHUNK).map(blocks).sum()
        } else {
            x.par_chunks(CHUNK).map(blocks).collect::<Vec<_>>().into_iter().sum()
        }
    })
}

struct Once<F>(Cell<Option<F>>);

impl<F> Once<F> {
    fn take(&self) -> Result<F> {
        self.0.take().ok_or_else(|| candle_core::Error::Msg("an in-place update ran twice".into()))
    }
}

struct Write<F>(Once<F>);

impl<F: FnOnce(&mut [f32])> InplaceOp1 for Write<F> {
    fn name(&self) -> &'static str {
        "write"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        self.0.take()?(elements_mut(storage, layout)?);
        Ok(())
    }
}

struct Update<F>(Once<F>);

impl<F: FnOnce(&mut [f32], &[f32])> InplaceOp2 for Update<F> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        self.0.take()?(elements_mut(s1, l1)?, elements(s2, l2)?);
        Ok(())
    }
}

/// Changes a tensor in place. `false` says that nothing was done.
pub(crate) fn write(x: &Tensor, f: impl FnOnce(&mut [f32])) -> Result<bool> {
    let fits = is_f32_slice(x);
    if fits {
        x.inplace_op1(&Write(Once(Cell::new(Some(f)))))?;
    }
    Ok(fits)
}

/// Changes `x` in place, reading `other`, which must not share its memory. `false` says that nothing was done.
pub(crate) fn update(x: &Tensor, other: &Tensor, f: impl FnOnce(&mut [f32], &[f32])) -> Result<bool> {
    let fits = is_f32_slice(x) && is_f32_slice(other);
    if fits {
        x.inplace_op2(other, &Update(Once(Cell::new(Some(f)))))?;
    }
    Ok(fits)
}

/// Runs `f` on chunks, on the threads of the pool where there are many. `f` must treat each element by itself.
pub(crate) fn each_chunk(x: &mut [f32], f: impl Fn(&mut [f32]) + Send + Sync) {
    if x.len() < PARALLEL {
        f(x);
    } else {
        x.par_chunks_mut(CHUNK).for_each(f);
    }
}

/// [`each_chunk`] with a second slice of the same length.
pub(crate) fn each_chunk_with(x: &mut [f32], y: &[f32], f: impl Fn(&mut [f32], &[f32]) + Send + Sync) {
    if x.len() < PARALLEL {
        f(x, y);
    } else {
        x.par_chunks_mut(CHUNK).zip(y.par_chunks(CHUNK)).for_each(|(x, y)| f(x, y));
    }
}
