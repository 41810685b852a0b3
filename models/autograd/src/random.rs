//! Random numbers that are counted, not drawn: number `i` of a named stream is a function of the seed, the name and `i`.
//!
//! Streams drive the init of parameters, dropout, sampling and augmentation. Nothing is shared between them and nothing is
//! advanced, so results depend neither on the order in which things happen nor on the number of threads, and a resumed run
//! needs no saved generator.
//!
//! The generator is Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): the seed is its key,
//! the stream's name the upper and the index the lower half of its counter. All methods of a stream read the same numbers, so
//! a stream should serve one purpose.

use crate::kernels;
use crate::philox::Philox;
pub use crate::philox::philox4x32_10;

/// SplitMix64's finalizer: a bijection that spreads every bit.
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// FNV-1a, 64 bits: fixed for all time and machines, as std's hash is not.
const fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01B3);
        i += 1;
    }
    hash
}

/// An endless sequence of random numbers that can be read at any index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    seed: u64,
    space: u64,
}

impl Stream {
    /// The stream of this name: `Stream::new(seed, "init/encoder.layer.0.lora_A")`.
    pub fn new(seed: u64, name: &str) -> Self {
        Self { seed, space: mix(fnv1a(name.as_bytes())) }
    }

    /// The stream of these numbers, in this order: a purpose, a step, an example.
    pub fn keyed(seed: u64, keys: &[u64]) -> Self {
        Self { seed, space: 0 }.at(keys)
    }

    /// A stream below this one: `Stream::new(seed, "augment").at(&[epoch, example])`.
    #[must_use]
    pub fn at(&self, keys: &[u64]) -> Self {
        let space =
            keys.iter().fold(self.space, |space, key| mix(mix(space.wrapping_add(0x9E37_79B9_7F4A_7C15)) ^ key));
        Self { seed: self.seed, space }
    }

    fn philox(&self) -> Philox {
        let split = |x: u64| [x as u32, (x >> 32) as u32];
        Philox { key: split(self.seed), upper: split(self.space) }
    }

    /// 128 bits: block `index` of the stream.
    #[inline]
    pub fn u32x4(&self, index: u64) -> [u32; 4] {
        let philox = self.philox();
        philox4x32_10(philox.counter(index), philox.key)
    }

    /// Words `start..start + out.len()` of the stream, four to a block.
    pub fn fill_u32(&self, start: u64, out: &mut [u32]) {
        let skip = (start % 4) as usize;
        let head = if skip == 0 { 0 } else { (4 - skip).min(out.len()) };
        let (head, body) = out.split_at_mut(head);
        if !head.is_empty() {
            head.copy_from_slice(&self.u32x4(start / 4)[skip..][..head.len()]);
        }
        kernels::philox::fill(self.philox(), start.div_ceil(4), body);
    }

    /// 64 bits, two numbers to a block.
    #[inline]
    fn u64(&self, index: u64) -> u64 {
        let [a, b, c, d] = self.u32x4(index / 2);
        let (low, high) = if index.is_multiple_of(2) { (a, b) } else { (c, d) };
        u64::from(high) << 32 | u64::from(low)
    }

    /// Uniform in [0, 1), with 53 random bits.
    #[inline]
    pub fn uniform(&self, index: u64) -> f64 {
        (self.u64(index) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// An integer in `0..n`, for `n` above zero. (The bias of `n / 2^64` is beyond any measurement.)
    #[inline]
    pub fn below(&self, index: u64, n: u64) -> u64 {
        ((u128::from(self.u64(index)) * u128::from(n)) >> 64) as u64
    }

    /// Standard normal, by Box and Muller: numbers `2 i` and `2 i + 1` come from one pair of uniforms.
    pub fn normal(&self, index: u64) -> f64 {
        let pair = index & !1;
        let radius = (-2.0 * (1.0 - self.uniform(pair)).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.uniform(pair + 1)).sin_cos();
        radius * if index.is_multiple_of(2) { cos } else { sin }
    }

    /// Standard normal, drawn again until it lies within `limit` standard deviations. Valid for `index` below 2^48.
    pub fn truncated_normal(&self, index: u64, limit: f64) -> f64 {
        // The chance that 2^16 draws all lie outside is nil for any limit that an init uses; the clamp only ends the loop.
        (0..1u64 << 16).map(|attempt| self.normal(index + (attempt << 48))).find(|x| x.abs() <= limit).unwrap_or(limit)
    }

    /// Number `i` becomes uniform in [`low`, `high`).
    pub fn fill_uniform(&self, out: &mut [f32], low: f64, high: f64) {
        for (i, x) in out.iter_mut().enumerate() {
            *x = (low + (high - low) * self.uniform(i as u64)) as f32;
        }
    }

    /// Number `i` becomes normal.
    pub fn fill_normal(&self, out: &mut [f32], mean: f64, std: f64) {
        for (i, x) in out.iter_mut().enumerate() {
            *x = (mean + std * self.normal(i as u64)) as f32;
        }
    }

    /// Number `i` becomes normal, truncated at `limit` standard deviations.
    pub fn fill_truncated_normal(&self, out: &mut [f32], mean: f64, std: f64, limit: f64) {
        for (i, x) in out.iter_mut().enumerate() {
            *x = (mean + std * self.truncated_normal(i as u64, limit)) as f32;
        }
    }

    /// A uniform permutation of `0..n` (Fisher and Yates).
    pub fn permutation(&self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u64, i as u64 + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random123's `kat_vectors`, lines `philox4x32 10`.
    #[test]
    fn philox_gives_the_known_answers() {
        let check = |counter, key, expected: [u32; 4]| assert_eq!(philox4x32_10(counter, key), expected);
        check([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        check([u32::MAX; 4], [u32::MAX; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        check(
            [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
            [0xa4093822, 0x299f31d0],
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
        );
    }

    #[test]
    fn streams_differ_by_seed_name_and_keys() {
        let base = Stream::new(7, "init").u32x4(0);
        assert_eq!(base, Stream::new(7, "init").u32x4(0));
        for other in
            [Stream::new(8, "init"), Stream::new(7, "inis"), Stream::new(7, "init").at(&[0]), Stream::keyed(7, &[0, 0])]
        {
            assert_ne!(base, other.u32x4(0));
        }
        assert_ne!(Stream::keyed(0, &[1, 2]), Stream::keyed(0, &[2, 1]));
        assert_ne!(Stream::keyed(0, &[0]), Stream::keyed(0, &[0, 0]));
    }

    /// The bits of a seed must never change: saved runs resume from them.
    #[test]
    fn names_are_hashed_as_published() {
        assert_eq!(fnv1a(b""), 0xcbf29ce484222325);
        assert_eq!(fnv1a(b"a"), 0xaf63dc4c8601ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x85944171f73967e8);
    }

    #[test]
    fn words_can_be_filled_from_anywhere() {
        let stream = Stream::new(1, "words");
        let mut whole = [0; 300];
        stream.fill_u32(0, &mut whole);
        for (block, words) in whole.as_chunks::<4>().0.iter().enumerate() {
            assert_eq!(*words, stream.u32x4(block as u64));
        }
        for start in 0..9 {
            for len in [0, 1, 2, 3, 4, 5, 63, 64, 65, 130, 200] {
                let mut part = vec![0; len];
                stream.fill_u32(start as u64, &mut part);
                assert_eq!(part, whole[start..start + len]);
            }
        }
    }

    #[test]
    fn moments_are_right() {
        const N: usize = 100_000;
        let check = |xs: &[f32], mean: f64, var: f64| {
            let m = xs.iter().map(|x| f64::from(*x)).sum::<f64>() / N as f64;
            let v = xs.iter().map(|x| (f64::from(*x) - m).powi(2)).sum::<f64>() / N as f64;
            assert!((m - mean).abs() < 0.02 && (v - var).abs() < 0.02, "mean {m}, variance {v}");
        };
        let mut xs = vec![0f32; N];
        Stream::new(3, "u").fill_uniform(&mut xs, -1.0, 2.0);
        check(&xs, 0.5, 0.75);
        assert!(xs.iter().all(|x| (-1.0..=2.0).contains(x)));
        Stream::new(3, "n").fill_normal(&mut xs, 0.5, 1.0);
        check(&xs, 0.5, 1.0);
        Stream::new(3, "t").fill_truncated_normal(&mut xs, 0.0, 1.0, 2.0);
        check(&xs, 0.0, 0.7737); // 1 - 4 phi(2) / (2 Phi(2) - 1)
        assert!(xs.iter().all(|x| x.abs() <= 2.0));
    }

    #[test]
    fn permutations_are_uniform() {
        assert!(Stream::new(0, "p").permutation(0).is_empty());
        let mut counts = [[0u32; 5]; 5];
        for draw in 0..10_000 {
            let order = Stream::keyed(9, &[draw]).permutation(5);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
            for (place, item) in order.into_iter().enumerate() {
                counts[place][item as usize] += 1;
            }
        }
        assert!(counts.as_flattened().iter().all(|c| (1800..2200).contains(c)), "{counts:?}");
    }
}
