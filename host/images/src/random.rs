//! Random numbers that the caller gives.

use std::f64::consts::TAU;

/// A sequence of random numbers: one for each picture and epoch, or for each batch.
///
/// Every closure that gives uniform numbers is one, so a counted stream of the host's is `|| stream.uniform(count())`.
pub trait Random {
    /// The next number, uniform in `[0, 1)`.
    fn uniform(&mut self) -> f64;

    /// Uniform in `[low, high)`.
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// An integer in `0..n`, for `n` above zero.
    fn below(&mut self, n: usize) -> usize {
        // A product that rounds up to n would be a number too many.
        ((self.uniform() * n as f64) as usize).min(n - 1)
    }

    /// True with this probability.
    fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Standard normal, by Box and Muller. Two numbers are drawn.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (TAU * self.uniform()).cos()
    }

    /// The logarithm of a Gamma(`shape`, 1) number (Marsaglia and Tsang 2000, "A simple method for generating gamma variables").
    fn ln_gamma(&mut self, shape: f64) -> f64 {
        // Below 1 a number of shape + 1 is taken and scaled by U^(1 / shape); as a logarithm that cannot underflow.
        let boost = if shape < 1.0 { (1.0 - self.uniform()).ln() / shape } else { 0.0 };
        let d = if shape < 1.0 { shape + 1.0 } else { shape } - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            let u = 1.0 - self.uniform();
            if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d.ln() + v.ln() + boost;
            }
        }
    }

    /// Beta(`alpha`, `alpha`), for `alpha` above zero.
    fn beta(&mut self, alpha: f64) -> f64 {
        let (a, b) = (self.ln_gamma(alpha), self.ln_gamma(alpha));
        1.0 / (1.0 + (b - a).exp())
    }
}

impl<F: FnMut() -> f64> Random for F {
    fn uniform(&mut self) -> f64 {
        self()
    }
}

/// For tests: SplitMix64 from a seed.
#[cfg(test)]
pub(crate) fn seeded(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed.wrapping_mul(0x2545_F491_4F6C_DD1D);
    move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = state;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_uniform_and_stay_below() {
        let mut random = seeded(1);
        let mut counts = [0; 7];
        (0..70_000).for_each(|_| counts[random.below(7)] += 1);
        assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
        // The largest number that a generator may give.
        let mut last = || 1.0 - f64::EPSILON / 2.0;
        assert_eq!([1, 3, 1 << 40].map(|n| last.below(n)), [0, 2, (1 << 40) - 1]);
        assert!(last.below(usize::MAX) < usize::MAX);
    }

    /// Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)).
    #[test]
    fn beta_has_its_moments() {
        for alpha in [0.001, 0.2, 0.4, 1.0, 2.5, 20.0] {
            let mut random = seeded(2);
            let n = 40_000;
            let draws: Vec<f64> = (0..n).map(|_| random.beta(alpha)).collect();
            assert!(draws.iter().all(|x| (0.0..=1.0).contains(x)), "alpha {alpha}");
            let mean = draws.iter().sum::<f64>() / f64::from(n);
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
            let expected = 0.25 / (2.0 * alpha + 1.0);
            assert!((mean - 0.5).abs() < 0.01, "alpha {alpha}: mean {mean}");
            assert!((variance / expected - 1.0).abs() < 0.03, "alpha {alpha}: {variance}, expected {expected}");
        }
    }
}
