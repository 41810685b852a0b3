//! Numbers that are a function of a seed and a name: the same in each run of a test.

use std::f64::consts::TAU;

/// A stream of them.
#[derive(Clone, Copy)]
pub(crate) struct Stream(u64);

/// SplitMix64's finalizer (Steele et al. 2014).
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Stream {
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        Self(name.bytes().fold(mix(seed ^ 0x5eed), |state, byte| mix(state ^ u64::from(byte))))
    }

    fn word(self, index: u64) -> u64 {
        mix(self.0.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// In [0, 1).
    pub(crate) fn uniform(self, index: u64) -> f64 {
        (self.word(index) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// With mean 0 and deviation 1, by Box and Muller.
    pub(crate) fn normal(self, index: u64) -> f64 {
        let (radius, angle) = (1.0 - self.uniform(2 * index), self.uniform(2 * index + 1));
        (-2.0 * radius.ln()).sqrt() * (TAU * angle).cos()
    }

    /// The same, drawn again beyond `limit` deviations.
    fn truncated_normal(self, index: u64, limit: f64) -> f64 {
        let draws = (0..64).map(|draw| self.normal(index + (draw << 32)));
        draws.into_iter().find(|x| x.abs() <= limit).unwrap_or(0.0)
    }

    pub(crate) fn uniforms(self, n: usize, low: f64, high: f64) -> Vec<f64> {
        (0..n as u64).map(|i| low + (high - low) * self.uniform(i)).collect()
    }

    pub(crate) fn normals(self, n: usize, mean: f64, std: f64) -> Vec<f64> {
        (0..n as u64).map(|i| mean + std * self.normal(i)).collect()
    }

    /// Within two deviations.
    pub(crate) fn truncated_normals(self, n: usize, std: f64) -> Vec<f64> {
        (0..n as u64).map(|i| std * self.truncated_normal(i, 2.0)).collect()
    }

    /// The numbers below `n` in another order.
    pub(crate) fn permutation(self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by_key(|&i| self.word(i as u64));
        order
    }
}
