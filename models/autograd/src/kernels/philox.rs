//! Philox in lanes, for masks.

use super::multiversion;
use crate::philox::{Philox, philox4x32_10};

const LANES: usize = 16;

#[inline(always)]
fn fill_body<const FMA: bool>(stream: Philox, first: u64, out: &mut [u32]) {
    let mut block = first;
    let (groups, rest) = out.as_chunks_mut::<{ 4 * LANES }>();
    for group in groups {
        let mut x = [[0u32; LANES]; 4];
        for lane in 0..LANES {
            let counter = stream.counter(block + lane as u64);
            for (x, word) in x.iter_mut().zip(counter) {
                x[lane] = word;
            }
        }
        let [mut k0, mut k1] = stream.key;
        for _ in 0..Philox::ROUNDS {
            let [x0, x1, x2, x3] = &mut x;
            for (((x0, x1), x2), x3) in x0.iter_mut().zip(x1).zip(x2).zip(x3) {
                let a = u64::from(*x0) * Philox::MULTIPLIERS[0];
                let b = u64::from(*x2) * Philox::MULTIPLIERS[1];
                *x0 = (b >> 32) as u32 ^ *x1 ^ k0;
                *x2 = (a >> 32) as u32 ^ *x3 ^ k1;
                *x1 = b as u32;
                *x3 = a as u32;
            }
            k0 = k0.wrapping_add(Philox::WEYL[0]);
            k1 = k1.wrapping_add(Philox::WEYL[1]);
        }
        for lane in 0..LANES {
            for (out, x) in group[4 * lane..].iter_mut().zip(&x) {
                *out = x[lane];
            }
        }
        block += LANES as u64;
    }
    for four in rest.chunks_mut(4) {
        four.copy_from_slice(&philox4x32_10(stream.counter(block), stream.key)[..four.len()]);
        block += 1;
    }
}

multiversion! {
    /// The words of blocks `first`, `first + 1`, ... of a stream; the last block may be cut short.
    pub(crate) fn fill(stream: Philox, first: u64, out: &mut [u32]) = fill_body
}
