//! Products of a few rows with a weight at rest, as each token asks for that a text goes on by: the weight is read once, as it is kept, and
//! multiplied where it comes in. Widening a panel for the tiles costs more than its product does there.
//!
//! An element's steps are those of a tile ([`super::micro`]), in the same order: so its bits are the same.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::ops::Range;

use super::micro::{Lanes, PANEL};
#[cfg(target_arch = "x86_64")]
use crate::kernels::{Isa, isa};
#[cfg(target_arch = "x86_64")]
use crate::quantized::Levels;

/// Rows up to which a weight is read as it is kept. More are worth a panel of floats.
pub(super) const ROWS: usize = 4;

/// Sums of a panel, row by row.
pub(super) type Sums = [[f32; PANEL]; ROWS];

/// A panel as a weight keeps it.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(super) enum Kept<'a> {
    /// Lane after lane of floats.
    Floats(&'a [f32]),
    /// Lane after lane of pairs of bf16, neighbours along k.
    Pairs(&'a [f32]),
    /// Lane after lane of codes, and for each block along k a lane of scales and, where there are any, one of offsets.
    Codes {
        of: &'a crate::quantized::Quantization,
        codes: &'a [u8],
        scales: &'a [f32],
        offsets: &'a [f32],
        /// Whether a level times its scale is never rounded.
        exact: bool,
    },
}

/// Whether this processor has kernels that read a weight as it is kept.
pub(super) fn kernels() -> bool {
    #[cfg(target_arch = "x86_64")]
    return isa() != Isa::Portable;
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The products of up to [`ROWS`] rows of A with the lanes `block` of a panel. A begins with the block's first lane. Only where there
/// are [`kernels`].
///
/// # Safety
/// A has so many rows of so many lanes, which are neighbours.
pub(super) unsafe fn sums(kept: Kept<'_>, block: &Range<usize>, a: Lanes, rows: usize) -> Sums {
    let mut sums = [[0.0; PANEL]; ROWS];
    #[cfg(target_arch = "x86_64")]
    {
        assert!(kernels() && (1..=ROWS).contains(&rows) && block.start.is_multiple_of(2));
        // SAFETY: the processor has avx2 and fma, and by contract.
        unsafe {
            match rows {
                1 => x86::of_rows::<1, 4>(kept, block, a, &mut sums),
                2 => x86::of_rows::<2, 2>(kept, block, a, &mut sums),
                3 => x86::of_rows::<3, 2>(kept, block, a, &mut sums),
                _ => x86::of_rows::<4, 2>(kept, block, a, &mut sums),
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (kept, block, a, rows, &mut sums);
    sums
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use super::*;

    /// Sixteen levels that codes number, as two vectors.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Book(__m256, __m256);

    impl Book {
        #[inline]
        #[target_feature(enable = "avx2")]
        pub(in super::super) fn new(levels: &[f32; 16]) -> Self {
            // SAFETY: there are sixteen floats.
            unsafe { Self(_mm256_loadu_ps(levels.as_ptr()), _mm256_loadu_ps(levels.as_ptr().add(8))) }
        }

        /// The levels of eight codes, whatever bits stand above their four: the low three choose from either vector, the fourth which.
        #[inline]
        #[target_feature(enable = "avx2")]
        pub(in super::super) fn levels(self, codes: __m256i) -> __m256 {
            let half = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(codes));
            let [lower, upper] = [_mm256_permutevar8x32_ps(self.0, codes), _mm256_permutevar8x32_ps(self.1, codes)];
            _mm256_blendv_ps(lower, upper, half)
        }
    }

    /// Columns of a vector.
    const WIDE: usize = 8;

    /// All columns of the panel, `V` vectors at a time.
    ///
    /// # Safety
    /// The processor has avx2 and fma; A has `M` rows of the block's lanes.
    pub(super) unsafe fn of_rows<const M: usize, const V: usize>(
        kept: Kept<'_>,
        block: &Range<usize>,
        a: Lanes,
        sums: &mut Sums,
    ) {
        // SAFETY: by contract.
        unsafe {
            of_columns::<M, V, 0>(kept, block, a, sums);
            if V * WIDE < PANEL {
                of_columns::<M, V, { PANEL / 2 }>(kept, block, a, sums);
            }
        }
    }

    /// `V` vectors, from the column `C` on.
    ///
    /// # Safety
    /// As for [`of_rows`].
    unsafe fn of_columns<const M: usize, const V: usize, const C: usize>(
        kept: Kept<'_>,
        block: &Range<usize>,
        a: Lanes,
        sums: &mut Sums,
    ) {
        // SAFETY: by contract.
        unsafe {
            match kept {
                Kept::Floats(lanes) => floats::<M, V, C>(lanes, block, a, sums),
                Kept::Pairs(lanes) => pairs::<M, V, C>(lanes, block, a, sums),
                Kept::Codes { of, codes, scales, offsets, exact } => {
                    let codes = Codes { codes, scales, offsets, in_block: of.block };
                    match of.levels {
                        Levels::Nibble { zero: 0 } if exact && !offsets.is_empty() => {
                            exact_nibbles::<M, V, C>(&codes, block, a, sums);
                        }
                        Levels::Nibble { zero } => nibbles::<M, V, C>(&codes, f32::from(zero), block, a, sums),
                        Levels::Book(ref book) => from_book::<M, V, C>(&codes, book, block, a, sums),
                        Levels::Byte => whole_bytes::<M, V, C>(&codes, (), block, a, sums),
                    }
                }
            }
        }
    }

    // Loops, and no closures that other functions call: those would be compiled without these instructions.

    /// Vectors of a lane, from the column `C` on.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn vectors<const V: usize, const C: usize>(lane: &[f32; PANEL]) -> [__m256; V] {
        let mut vectors = [_mm256_setzero_ps(); V];
        for (vector, eight) in vectors.iter_mut().zip(lane[C..].as_chunks::<WIDE>().0) {
            // SAFETY: a vector is eight floats.
            *vector = unsafe { _mm256_loadu_ps(eight.as_ptr()) };
        }
        vectors
    }

    /// A step: lane `k` of A's rows times a lane of B.
    ///
    /// # Safety
    /// A has `M` rows, and this lane.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn step<const M: usize, const V: usize>(sums: &mut [[__m256; V]; M], a: Lanes, k: usize, b: [__m256; V]) {
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: by contract.
            let a = _mm256_set1_ps(unsafe { a.data.wrapping_add(i * a.row + k).read_unaligned() });
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = _mm256_fmadd_ps(a, b, *sum);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn put<const M: usize, const V: usize, const C: usize>(from: [[__m256; V]; M], sums: &mut Sums) {
        for (row, from) in sums.iter_mut().zip(from) {
            for (to, from) in row[C..].as_chunks_mut::<WIDE>().0.iter_mut().zip(from) {
                // SAFETY: a vector is eight floats.
                unsafe { _mm256_storeu_ps(to.as_mut_ptr(), from) };
            }
        }
    }

    /// # Safety
    /// As for [`of_rows`].
    #[target_feature(enable = "avx2,fma")]
    unsafe fn floats<const M: usize, const V: usize, const C: usize>(
        lanes: &[f32],
        block: &Range<usize>,
        a: Lanes,
        sums: &mut Sums,
    ) {
        let mut all = [[_mm256_setzero_ps(); V]; M];
        let lanes = &lanes[block.start * PANEL..block.end * PANEL];
        for (i, lane) in lanes.as_chunks::<PANEL>().0.iter().enumerate() {
            // SAFETY: by contract.
            unsafe { step(&mut all, a, i, vectors::<V, C>(lane)) };
        }
        put::<M, V, C>(all, sums);
    }

    /// Pairs that are asked for ahead.
    const AHEAD: usize = 512;

    /// # Safety
    /// As for [`of_rows`].
    #[target_feature(enable = "avx2,fma")]
    unsafe fn pairs<const M: usize, const V: usize, const C: usize>(
        lanes: &[f32],
        block: &Range<usize>,
        a: Lanes,
        sums: &mut Sums,
    ) {
        let high = _mm256_castsi256_ps(_mm256_set1_epi32(0xFFFF_0000_u32.cast_signed()));
        let mut all = [[_mm256_setzero_ps(); V]; M];
        let lanes = &lanes[block.start / 2 * PANEL..block.end.div_ceil(2) * PANEL];
        for (i, lane) in lanes.as_chunks::<PANEL>().0.iter().enumerate() {
            for line in 0..V / 2 {
                // What the processor fetches ahead by itself comes late here. Nothing is read, wherever it points.
                _mm_prefetch::<_MM_HINT_T0>(lane[C..].as_ptr().wrapping_add(AHEAD + 16 * line).cast());
            }
            let pairs = vectors::<V, C>(lane);
            let (mut first, mut second) = (pairs, pairs);
            for (first, second) in first.iter_mut().zip(&mut second) {
                *first = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(*first)));
                *second = _mm256_and_ps(*second, high);
            }
            // SAFETY: by contract.
            unsafe {
                step(&mut all, a, 2 * i, first);
                if 2 * i + 1 < block.len() {
                    step(&mut all, a, 2 * i + 1, second);
                }
            }
        }
        put::<M, V, C>(all, sums);
    }

    /// A panel's codes, and what each block of them has in common.
    struct Codes<'a> {
        codes: &'a [u8],
        scales: &'a [f32],
        offsets: &'a [f32],
        /// Lanes of a block.
        in_block: usize,
    }

    impl Codes<'_> {
        /// Lanes that have scales in common, of those of `block`, and the number of their scales.
        fn runs(&self, block: &Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
            let (size, Range { start, end }) = (self.in_block, block.clone());
            (start / size..end.div_ceil(size)).map(move |i| (i, start.max(i * size)..end.min((i + 1) * size)))
        }
    }

    /// A kernel for codes: `$levels` gives eight floats of a lane's codes, those of the columns from a multiple of eight on.
    macro_rules! code_kernel {
        ($name:ident, $bytes:literal, |$book:ident: $ty:ty| $prepared:expr, |$lane:ident, $column:ident| $levels:expr) => {
            /// # Safety
            /// As for [`of_rows`].
            #[target_feature(enable = "avx2,fma")]
            unsafe fn $name<const M: usize, const V: usize, const C: usize>(
                from: &Codes<'_>,
                $book: $ty,
                block: &Range<usize>,
                a: Lanes,
                sums: &mut Sums,
            ) {
                #[allow(clippy::let_unit_value, clippy::redundant_locals)] // bytes have none
                let $book = $prepared;
                let _ = &$book;
                let mut all = [[_mm256_setzero_ps(); V]; M];
                for (number, run) in from.runs(block) {
                    let scales = vectors::<V, C>(&from.scales.as_chunks::<PANEL>().0[number]);
                    let lanes = from.codes[run.start * $bytes..run.end * $bytes].as_chunks::<$bytes>().0;
                    let levels = |$lane: &[u8; $bytes]| -> [__m256; V] {
                        let mut levels = [_mm256_setzero_ps(); V];
                        for (v, eight) in levels.iter_mut().enumerate() {
                            let $column = C + v * WIDE;
                            *eight = $levels;
                        }
                        levels
                    };
                    let first = run.start - block.start;
                    // Rounded after scale and offset: that is what the values are.
                    if from.offsets.is_empty() {
                        for (i, lane) in lanes.iter().enumerate() {
                            let mut values = levels(lane);
                            for (x, scale) in values.iter_mut().zip(scales) {
                                *x = _mm256_mul_ps(*x, scale);
                            }
                            // SAFETY: by contract.
                            unsafe { step(&mut all, a, first + i, values) };
                        }
                    } else {
                        let offsets = vectors::<V, C>(&from.offsets.as_chunks::<PANEL>().0[number]);
                        for (i, lane) in lanes.iter().enumerate() {
                            let mut values = levels(lane);
                            for ((x, scale), offset) in values.iter_mut().zip(scales).zip(offsets) {
                                *x = _mm256_add_ps(_mm256_mul_ps(*x, scale), offset);
                            }
                            // SAFETY: by contract.
                            unsafe { step(&mut all, a, first + i, values) };
                        }
                    }
                }
                put::<M, V, C>(all, sums);
            }
        };
    }

    /// Eight codes of four bits, each in 32 bits, with other bits above. Two share a byte: those of the columns `i` and `i + 16`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn fours(lane: &[u8; 16], column: usize) -> __m256i {
        let eight = &lane.as_chunks::<8>().0[column / WIDE % 2];
        // SAFETY: eight bytes.
        let bytes = _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(eight.as_ptr().cast()) });
        if column < 16 { bytes } else { _mm256_srli_epi32::<4>(bytes) }
    }

    /// Codes of four bits as floats.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn numbers(lane: &[u8; 16], column: usize) -> __m256 {
        let codes = fours(lane, column);
        _mm256_cvtepi32_ps(if column < 16 { _mm256_and_si256(codes, _mm256_set1_epi32(15)) } else { codes })
    }

    code_kernel!(nibbles, 16, |zero: f32| _mm256_set1_ps(zero), |lane, column| _mm256_sub_ps(
        numbers(lane, column),
        zero
    ));

    /// Codes of four bits from 0 on whose products with their scale are not rounded: scale and offset are a single step then.
    ///
    /// # Safety
    /// As for [`of_rows`].
    #[target_feature(enable = "avx2,fma")]
    unsafe fn exact_nibbles<const M: usize, const V: usize, const C: usize>(
        from: &Codes<'_>,
        block: &Range<usize>,
        a: Lanes,
        sums: &mut Sums,
    ) {
        let mut all = [[_mm256_setzero_ps(); V]; M];
        for (number, run) in from.runs(block) {
            let scales = vectors::<V, C>(&from.scales.as_chunks::<PANEL>().0[number]);
            let mut offsets: *const [f32; PANEL] = &from.offsets.as_chunks::<PANEL>().0[number];
            let lanes = from.codes[run.start * 16..run.end * 16].as_chunks::<16>().0;
            for (i, lane) in lanes.iter().enumerate() {
                // With these the sums would not all stay in registers: so they are read from memory each time.
                #[allow(clippy::pointers_in_nomem_asm_block)] // nothing is read there
                // SAFETY: nothing is done, and the pointer is what it was.
                let offsets = unsafe {
                    std::arch::asm!("/* {0} */", inout(reg) offsets, options(nomem, nostack, preserves_flags));
                    vectors::<V, C>(&*offsets)
                };
                let mut values = [_mm256_setzero_ps(); V];
                for (v, x) in values.iter_mut().enumerate() {
                    *x = _mm256_fmadd_ps(numbers(lane, C + v * WIDE), scales[v], offsets[v]);
                }
                // SAFETY: by contract.
                unsafe { step(&mut all, a, run.start - block.start + i, values) };
            }
        }
        put::<M, V, C>(all, sums);
    }

    code_kernel!(from_book, 16, |book: &[f32; 16]| Book::new(book), |lane, column| book.levels(fours(lane, column)));

    code_kernel!(whole_bytes, 32, |none: ()| none, |lane, column| {
        let eight = &lane.as_chunks::<8>().0[column / WIDE];
        // SAFETY: eight bytes.
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(unsafe { _mm_loadl_epi64(eight.as_ptr().cast()) }))
    });
}
