//! Micro-kernels: one tile of C from a few rows of A and one panel of B, held in registers while k runs.
//!
//! Lanes are 32 bits: a float, or a pair of bf16 along k. A step multiplies a broadcast lane of A with a vector of B. For
//! each element of C the steps run in the order of k, whatever the tile's size, so bits do not depend on where a tile lies.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::kernels::{Instructions, Isa, isa};

/// Columns of a panel of B.
pub(super) const PANEL: usize = 32;
/// Rows of the largest tile.
pub(super) const MAX_ROWS: usize = 12;

/// Where a tile goes: `c = alpha a b + bias + addend`.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) c: *mut f32,
    pub(super) c_row: usize,
    pub(super) alpha: f32,
    /// Null, or one number for each column.
    pub(super) bias: *const f32,
    /// Null, or the tile to add (which may be `c`).
    pub(super) addend: *const f32,
    pub(super) addend_row: usize,
}

/// A's tile: lane (i, k) at `data + i row + k column`.
#[derive(Clone, Copy)]
pub(super) struct Lanes {
    pub(super) data: *const f32,
    pub(super) row: usize,
    pub(super) column: usize,
}

/// Computes a tile over `k` lanes. `b` is a panel: lane (k, j) at `b + k PANEL + j`.
///
/// # Safety
/// The processor has the kernel's instructions, and all that the arguments describe is there.
pub(super) type Kernel = unsafe fn(k: usize, a: Lanes, b: *const f32, tile: &Tile);

/// The kernels of one instruction set: a tile has up to `rows` rows and `vectors * lanes` columns.
#[derive(Clone, Copy)]
pub(super) struct Family {
    pub(super) rows: usize,
    pub(super) lanes: usize,
    /// For 1 and 2 vectors, by the number of rows.
    kernels: [[Kernel; MAX_ROWS]; 2],
}

impl Family {
    /// The kernel for a tile of `rows` rows and `vectors` vectors of columns.
    pub(super) fn kernel(&self, rows: usize, vectors: usize) -> Kernel {
        self.kernels[vectors - 1][rows - 1]
    }
}

macro_rules! family {
    ($name:ident, $rows:expr, $lanes:expr) => {
        Family {
            rows: $rows,
            lanes: $lanes,
            kernels: [
                family!(@vectors $name, 1, $rows),
                family!(@vectors $name, 2, $rows),
            ],
        }
    };
    (@vectors $name:ident, $v:literal, $rows:expr) => {
        [
            $name::<1, $v>, $name::<2, $v>, $name::<3, $v>, $name::<4, $v>, $name::<{ at_most(5, $rows) }, $v>,
            $name::<{ at_most(6, $rows) }, $v>, $name::<{ at_most(7, $rows) }, $v>, $name::<{ at_most(8, $rows) }, $v>,
            $name::<{ at_most(9, $rows) }, $v>, $name::<{ at_most(10, $rows) }, $v>,
            $name::<{ at_most(11, $rows) }, $v>, $name::<{ at_most(12, $rows) }, $v>,
        ]
    };
}

const fn at_most(n: usize, limit: usize) -> usize {
    if n < limit { n } else { limit }
}

/// A vector kernel: `$step` is a macro-like closure over (sum, broadcast lane of A, vector of B).
#[cfg(target_arch = "x86_64")]
macro_rules! vector_kernel {
    ($name:ident, $features:literal, $vector:ty, $lanes:literal, $zero:ident, $load:ident, $store:ident, $splat:ident,
        $mul:ident, $add:ident, |$sum:ident, $a:ident, $b:ident| $step:expr) => {
        #[target_feature(enable = $features)]
        unsafe fn $name<const M: usize, const V: usize>(k: usize, a: Lanes, b: *const f32, tile: &Tile) {
            // SAFETY: by the contract of `Kernel`.
            unsafe {
                let mut sums = [[$zero(); V]; M];
                // Wrapping and unaligned, because those need no checks in builds with assertions.
                // Four row pointers: with the stride once and twice in the address they reach 12 rows.
                let mut bases = [a.data; MAX_ROWS / 3];
                for (j, base) in bases.iter_mut().enumerate() {
                    *base = a.data.wrapping_add(3 * j * a.row);
                }
                let mut b = b;
                for _ in 0..k {
                    let mut columns: [$vector; V] = [$zero(); V];
                    for (v, column) in columns.iter_mut().enumerate() {
                        *column = $load(b.wrapping_add(v * $lanes));
                    }
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let $a = $splat(bases[i / 3].wrapping_add((i % 3) * a.row).read_unaligned());
                        for (sum, column) in sums.iter_mut().zip(columns) {
                            let ($sum, $b) = (*sum, column);
                            *sum = $step;
                        }
                    }
                    for base in &mut bases {
                        *base = base.wrapping_add(a.column);
                    }
                    b = b.wrapping_add(PANEL);
                }
                let alpha = $splat(tile.alpha);
                for (i, sums) in sums.iter().enumerate() {
                    for (v, sum) in sums.iter().enumerate() {
                        let at = v * $lanes;
                        let mut x = $mul(*sum, alpha);
                        if !tile.bias.is_null() {
                            x = $add(x, $load(tile.bias.add(at)));
                        }
                        if !tile.addend.is_null() {
                            x = $add(x, $load(tile.addend.add(i * tile.addend_row + at)));
                        }
                        $store(tile.c.add(i * tile.c_row + at), x);
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;

    vector_kernel!(
        f32_512,
        "avx512f",
        __m512,
        16,
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_set1_ps,
        _mm512_mul_ps,
        _mm512_add_ps,
        |sum, a, b| _mm512_fmadd_ps(a, b, sum)
    );

    vector_kernel!(
        bf16_512,
        "avx512f,avx512bf16",
        __m512,
        16,
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_set1_ps,
        _mm512_mul_ps,
        _mm512_add_ps,
        |sum, a, b| _mm512_dpbf16_ps(
            sum,
            std::mem::transmute::<__m512, __m512bh>(a),
            std::mem::transmute::<__m512, __m512bh>(b)
        )
    );

    vector_kernel!(
        f32_256,
        "avx2,fma",
        __m256,
        8,
        _mm256_setzero_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_set1_ps,
        _mm256_mul_ps,
        _mm256_add_ps,
        |sum, a, b| _mm256_fmadd_ps(a, b, sum)
    );

    pub(super) static F32_512: Family = family!(f32_512, 12, 16);
    pub(super) static BF16_512: Family = family!(bf16_512, 12, 16);
    pub(super) static F32_256: Family = family!(f32_256, 6, 8);

    /// The bf16 kernel's packing and tiling on processors without its instruction: the same step by shifts and two
    /// multiply-adds.
    #[cfg(test)]
    pub(super) mod emulated {
        use super::*;

        #[target_feature(enable = "avx512f")]
        fn halves(x: __m512) -> [__m512; 2] {
            let bits = _mm512_castps_si512(x);
            let high = _mm512_set1_epi32(0xFFFF_0000_u32 as i32);
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)), _mm512_castsi512_ps(_mm512_and_si512(bits, high))]
        }

        vector_kernel!(
            bf16_emulated,
            "avx512f",
            __m512,
            16,
            _mm512_setzero_ps,
            _mm512_loadu_ps,
            _mm512_storeu_ps,
            _mm512_set1_ps,
            _mm512_mul_ps,
            _mm512_add_ps,
            |sum, a, b| {
                let ([a0, a1], [b0, b1]) = (halves(a), halves(b));
                _mm512_fmadd_ps(a1, b1, _mm512_fmadd_ps(a0, b0, sum))
            }
        );

        pub(in super::super) static BF16_EMULATED: Family = family!(bf16_emulated, 12, 16);
    }
}

/// Plain loops over four lanes at a time.
unsafe fn portable<const M: usize, const V: usize>(k: usize, a: Lanes, b: *const f32, tile: &Tile) {
    use crate::kernels::{NATIVE_FMA, math::mul_add};
    const LANES: usize = 4;
    // SAFETY: by the contract of `Kernel`.
    unsafe {
        let mut sums = [[[0f32; LANES]; V]; M];
        for k in 0..k {
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = *a.data.add(i * a.row + k * a.column);
                for (v, sums) in sums.iter_mut().enumerate() {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum = mul_add::<NATIVE_FMA>(a, *b.add(k * PANEL + v * LANES + j), *sum);
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.as_flattened().iter().enumerate() {
                let mut x = sum * tile.alpha;
                if !tile.bias.is_null() {
                    x += *tile.bias.add(j);
                }
                if !tile.addend.is_null() {
                    x += *tile.addend.add(i * tile.addend_row + j);
                }
                *tile.c.add(i * tile.c_row + j) = x;
            }
        }
    }
}

static PORTABLE: Family = family!(portable, 4, 4);

/// The kernels for float lanes.
pub(super) fn f32_family() -> &'static Family {
    match isa() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => &x86::F32_512,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => &x86::F32_256,
        _ => &PORTABLE,
    }
}

/// The kernels for pairs of bf16, where the processor has them.
pub(super) fn bf16_family() -> Option<&'static Family> {
    match Instructions::in_use() {
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512Bf16 => Some(&x86::BF16_512),
        _ => None,
    }
}

/// Every family of float lanes, and of pairs, that this processor can run.
#[cfg(test)]
pub(super) fn runnable() -> (Vec<&'static Family>, Vec<&'static Family>) {
    let (mut floats, mut pairs) = (vec![&PORTABLE], Vec::new());
    #[cfg(target_arch = "x86_64")]
    {
        if isa() != Isa::Portable {
            floats.push(&x86::F32_256);
        }
        if isa() == Isa::Avx512 {
            floats.push(&x86::F32_512);
            pairs.push(&x86::emulated::BF16_EMULATED);
        }
        pairs.extend(bf16_family());
    }
    (floats, pairs)
}
