//! Operands as the micro-kernels read them.

use std::ops::Range;

use super::micro::PANEL;
use crate::Precision;
use crate::kernels::{multiversion, pieces};

/// Greatest number of lanes along k in one block: a panel of B then fits the first cache, a block of A the second.
pub(super) const BLOCK: usize = 384;

/// What stands in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A float.
    F32,
    /// A float that a bf16 can hold.
    RoundedBf16,
    /// A float that a half can hold.
    RoundedF16,
    /// Two bf16, neighbours along k.
    Pairs,
}

impl Format {
    pub(super) fn of(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 if super::micro::bf16_family().is_some() => Self::Pairs,
            Precision::Bf16 => Self::RoundedBf16,
            Precision::F16 => Self::RoundedF16,
        }
    }

    /// Lanes for `k` elements.
    pub(super) fn lanes(self, k: usize) -> usize {
        if self == Self::Pairs { k.div_ceil(2) } else { k }
    }
}

/// A matrix in memory: element (i, j) at `data[i * row + j * column]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strided<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row: usize,
    pub(crate) column: usize,
}

impl<'a> Strided<'a> {
    /// Rows of `width` elements.
    pub(crate) fn rows(data: &'a [f32], width: usize) -> Self {
        Self { data, row: width, column: 1 }
    }

    pub(crate) fn transposed(self) -> Self {
        Self { data: self.data, row: self.column, column: self.row }
    }

    /// Whether an `m` by `n` matrix lies within the data.
    pub(super) fn holds(&self, m: usize, n: usize) -> bool {
        m == 0 || n == 0 || (m - 1) * self.row + (n - 1) * self.column < self.data.len()
    }
}

/// Nearest bf16, ties to even, as a float.
#[inline(always)]
fn round_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) & 0xFFFF_0000;
    // A NaN's payload must not round to infinity.
    f32::from_bits(if x.is_nan() { bits | 0x0040_0000 } else { rounded })
}

/// Nearest half, ties to even, as a float.
#[inline(always)]
fn round_f16(x: f32) -> f32 {
    const SMALLEST_NORMAL: f32 = 6.103_515_6e-5;
    let bits = x.to_bits();
    let normal = f32::from_bits(bits.wrapping_add(0x0FFF + ((bits >> 13) & 1)) & !0x1FFF);
    let normal = if normal.abs() > 65_504.0 { f32::INFINITY.copysign(x) } else { normal };
    // Around 0.75 a float's spacing is that of the subnormal halves.
    let subnormal = (x.abs() + 0.75 - 0.75).copysign(x);
    let rounded = if x.abs() < SMALLEST_NORMAL { subnormal } else { normal };
    if x.is_nan() { x } else { rounded }
}

#[inline(always)]
fn pair(low: f32, high: f32) -> f32 {
    f32::from_bits(round_bf16(low).to_bits() >> 16 | (round_bf16(high).to_bits() & 0xFFFF_0000))
}

#[inline(always)]
fn convert_body<const FMA: bool>(format: Format, source: &[f32], out: &mut [f32]) {
    match format {
        Format::F32 => out.copy_from_slice(source),
        Format::RoundedBf16 => out.iter_mut().zip(source).for_each(|(out, x)| *out = round_bf16(*x)),
        Format::RoundedF16 => out.iter_mut().zip(source).for_each(|(out, x)| *out = round_f16(*x)),
        Format::Pairs => {
            let (pairs, rest) = source.as_chunks::<2>();
            for (out, [low, high]) in out.iter_mut().zip(pairs) {
                *out = pair(*low, *high);
            }
            if let (Some(out), [last]) = (out.last_mut(), rest) {
                *out = pair(*last, 0.0);
            }
        }
    }
}

multiversion! {
    /// Neighbours along k as lanes.
    pub(super) fn convert(format: Format, source: &[f32], out: &mut [f32]) = convert_body
}

#[inline(always)]
fn interleave_body<const FMA: bool>(low: &[f32], high: &[f32], out: &mut [f32]) {
    for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
        *out = pair(*low, *high);
    }
}

multiversion! {
    /// Two rows that are neighbours along k as pairs.
    pub(super) fn interleave(low: &[f32], high: &[f32], out: &mut [f32]) = interleave_body
}

/// Neighbouring elements as the pairs of bf16 that products in `precision` read; `None` where they read floats.
pub(crate) fn to_pairs(source: &[f32], precision: Precision, parallel: bool) -> Option<Vec<f32>> {
    const PIECE: usize = 1 << 14;
    (Format::of(precision) == Format::Pairs).then(|| {
        let mut pairs = vec![0f32; source.len().div_ceil(2)];
        pieces::each(&mut pairs, PIECE, parallel, |i, out| {
            let source = &source[2 * i * PIECE..];
            convert(Format::Pairs, &source[..source.len().min(2 * out.len())], out);
        });
        pairs
    })
}

/// Floats that the packed form of a `k` by `n` matrix takes.
pub(crate) fn scratch_len(k: usize, n: usize, precision: Precision) -> usize {
    packed_len(k, n, Format::of(precision))
}

pub(super) fn packed_len(k: usize, n: usize, format: Format) -> usize {
    format.lanes(k) * n.next_multiple_of(PANEL)
}

/// The blocks along k, in lanes: nearly equal, and a function of the length alone.
pub(super) fn blocks(lanes: usize) -> impl Iterator<Item = Range<usize>> {
    let count = lanes.div_ceil(BLOCK).max(1);
    let size = lanes.div_ceil(count).next_multiple_of(8).max(8);
    (0..lanes.max(1)).step_by(size).map(move |start| start..(start + size).min(lanes))
}

/// Packs all of `b`, block after block of k, each with all its panels; on the threads of the pool where `parallel` says so.
pub(super) fn pack(b: Strided<'_>, k: usize, n: usize, format: Format, out: &mut [f32], parallel: bool) {
    assert!(b.holds(k, n), "an operand of {k} by {n} does not fit its {} elements", b.data.len());
    let (wide, lanes) = (n.next_multiple_of(PANEL), format.lanes(k));
    // All blocks but the last have one length.
    let size = blocks(lanes).next().map_or(0, |block| block.len());
    pieces::each(&mut out[..lanes * wide], size * wide, parallel, |i, out| {
        let block = i * size..lanes.min((i + 1) * size);
        for (p, panel) in out.chunks_mut((block.len() * PANEL).max(1)).enumerate() {
            let columns = p * PANEL..n.min((p + 1) * PANEL);
            if b.column == 1 {
                pack_rows(b, k, block.clone(), columns, format, panel);
            } else {
                pack_columns(b, k, block.clone(), columns, format, panel);
            }
        }
    });
}

/// A panel of a B whose rows are contiguous.
fn pack_rows(b: Strided<'_>, k: usize, block: Range<usize>, columns: Range<usize>, format: Format, panel: &mut [f32]) {
    const ZEROS: [f32; PANEL] = [0.0; PANEL];
    let row = |k: usize| &b.data[k * b.row + columns.start..][..columns.len()];
    for (lane, out) in block.zip(panel.chunks_exact_mut(PANEL)) {
        let (out, rest) = out.split_at_mut(columns.len());
        rest.fill(0.0);
        match format {
            Format::Pairs if 2 * lane + 1 < k => interleave(row(2 * lane), row(2 * lane + 1), out),
            Format::Pairs => interleave(row(2 * lane), &ZEROS, out),
            _ => convert(format, row(lane), out),
        }
    }
}

/// A panel of a B whose columns are contiguous, or neither.
pub(super) fn pack_columns(
    b: Strided<'_>,
    k: usize,
    block: Range<usize>,
    columns: Range<usize>,
    format: Format,
    panel: &mut [f32],
) {
    /// Lanes that are read along a column at a time: a cache line.
    const RUN: usize = 16;
    if columns.len() < PANEL {
        panel.fill(0.0);
    }
    let factor = if format == Format::Pairs { 2 } else { 1 };
    let mut elements = [0f32; 2 * RUN];
    let mut lanes = [0f32; RUN];
    for start in block.clone().step_by(RUN) {
        let run = RUN.min(block.end - start);
        let first = start * factor;
        let count = (run * factor).min(k - first);
        for j in columns.clone() {
            let at = |i: usize| (first + i) * b.row + j * b.column;
            let source = if b.row == 1 {
                &b.data[at(0)..at(0) + count]
            } else {
                elements[..count].iter_mut().enumerate().for_each(|(i, x)| *x = b.data[at(i)]);
                &elements[..count]
            };
            let out = &mut panel[(start - block.start) * PANEL + j - columns.start..];
            let lanes = if format == Format::F32 {
                source
            } else {
                convert(format, source, &mut lanes[..run]);
                &lanes[..run]
            };
            for (out, lane) in out.iter_mut().step_by(PANEL).zip(lanes) {
                *out = *lane;
            }
        }
    }
}

/// A's rows as lanes in `out`, in A's own order: along k where its rows are contiguous, else along the rows. Gives the strides.
pub(super) fn convert_left(
    a: Strided<'_>,
    rows: Range<usize>,
    k: usize,
    format: Format,
    out: &mut [f32],
) -> (usize, usize) {
    let (m, width) = (rows.len(), format.lanes(k));
    if a.column == 1 {
        for (i, out) in rows.zip(out.chunks_exact_mut(width.max(1))) {
            convert(format, &a.data[i * a.row..][..k], out);
        }
        return (width, 1);
    }
    assert_eq!(a.row, 1, "a left operand has contiguous rows or columns");
    const ZEROS: [f32; 64] = [0.0; 64];
    let column = |k: usize| &a.data[k * a.column + rows.start..][..m];
    for (lane, out) in (0..width).zip(out.chunks_exact_mut(m.max(1))) {
        match format {
            Format::Pairs if 2 * lane + 1 < k => interleave(column(2 * lane), column(2 * lane + 1), out),
            Format::Pairs => {
                for (column, out) in column(2 * lane).chunks(ZEROS.len()).zip(out.chunks_mut(ZEROS.len())) {
                    interleave(column, &ZEROS, out);
                }
            }
            _ => convert(format, column(lane), out),
        }
    }
    (1, m)
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn rounding_is_that_of_half() {
        let mut bits = 1u32;
        for _ in 0..200_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Half of the numbers lie where a half float has its exponents.
            let x = f32::from_bits(if bits & 2 == 0 { bits } else { bits & 0x8FFF_FFFF | 0x3000_0000 });
            if x.is_nan() {
                assert!(round_bf16(x).is_nan() && round_f16(x).is_nan());
                continue;
            }
            assert_eq!(round_bf16(x).to_bits(), bf16::from_f32(x).to_f32().to_bits(), "{x:e}");
            assert_eq!(round_f16(x).to_bits(), f16::from_f32(x).to_f32().to_bits(), "{x:e}");
        }
        let two = pair(1.5, -2.0).to_bits();
        assert_eq!((two as u16, (two >> 16) as u16), (bf16::from_f32(1.5).to_bits(), bf16::from_f32(-2.0).to_bits()));
    }
}
