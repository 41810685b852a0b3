//! Philox4x32-10: one block of random bits.

/// A Philox4x32 of ten rounds with its key, and the upper half of its counter.
#[derive(Clone, Copy)]
pub(crate) struct Philox {
    pub(crate) key: [u32; 2],
    pub(crate) upper: [u32; 2],
}

impl Philox {
    pub(crate) const ROUNDS: usize = 10;
    pub(crate) const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    /// What the keys grow by from round to round.
    pub(crate) const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

    #[inline(always)]
    pub(crate) fn counter(self, index: u64) -> [u32; 4] {
        [index as u32, (index >> 32) as u32, self.upper[0], self.upper[1]]
    }
}

/// Philox4x32 with ten rounds: 128 random bits for each 128-bit counter, a bijection for each key.
#[inline]
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut x0, mut x1, mut x2, mut x3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..Philox::ROUNDS {
        let a = u64::from(x0) * Philox::MULTIPLIERS[0];
        let b = u64::from(x2) * Philox::MULTIPLIERS[1];
        (x0, x1, x2, x3) = ((b >> 32) as u32 ^ x1 ^ k0, b as u32, (a >> 32) as u32 ^ x3 ^ k1, a as u32);
        k0 = k0.wrapping_add(Philox::WEYL[0]);
        k1 = k1.wrapping_add(Philox::WEYL[1]);
    }
    [x0, x1, x2, x3]
}
