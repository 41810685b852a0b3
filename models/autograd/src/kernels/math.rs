//! Branch-free `f32` functions that the compiler vectorises.
//!
//! They keep NaN. `FMA` says whether the surrounding code may fuse multiply and add.

/// `a b + c`.
#[inline(always)]
pub(crate) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Horner's scheme, highest coefficient first.
#[inline(always)]
fn polynomial<const FMA: bool, const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[0];
    for c in &coefficients[1..] {
        sum = mul_add::<FMA>(sum, x, *c);
    }
    sum
}

/// e^x within 1e-7 relative, for x in [-87.3, 88.3]; beyond that it stays at the end's value.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LOW: f32 = -87.3;
    const HIGH: f32 = 88.3;
    // 1.5 * 2^23: adding it rounds to an integer, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first exact in products with small integers.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < LOW { LOW } else { x };
    let x = if x > HIGH { HIGH } else { x };
    let shifted = mul_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<FMA>(n, -LN2_LOW, mul_add::<FMA>(n, -LN2_HIGH, x));
    // Cephes' minimax polynomial for (e^r - 1 - r) / r^2.
    let p =
        polynomial::<FMA, 6>(r, [1.987_569_2e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5]);
    let e = mul_add::<FMA>(p, r * r, r) + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    e * power
}

/// s = 1 / (1 + e^-x), and s (1 - s), both without cancellation.
#[inline(always)]
pub(crate) fn sigmoid<const FMA: bool>(x: f32) -> (f32, f32) {
    let e = exp::<FMA>(-x.abs());
    let larger = 1.0 / (1.0 + e);
    let smaller = e * larger;
    (if x < 0.0 { smaller } else { larger }, larger * smaller)
}

/// The hyperbolic tangent within 2e-7 relative.
#[inline(always)]
pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
    let square = x * x;
    // Cephes' polynomial for (tanh x - x) / x^3 below 0.625.
    let p =
        polynomial::<FMA, 5>(square, [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1]);
    let small = mul_add::<FMA>(p * square, x, x);
    let e = exp::<FMA>(-2.0 * x.abs());
    let large = ((1.0 - e) / (1.0 + e)).copysign(x);
    if x.abs() < 0.625 { small } else { large }
}

/// The standard normal distribution function within 3e-7, and the density.
#[inline(always)]
pub(crate) fn normal<const FMA: bool>(x: f32) -> (f32, f32) {
    const DENSITY_AT_0: f32 = 0.398_942_3;
    let e = exp::<FMA>(-0.5 * x * x);
    // The tail is e t P(t) with t = 1 / (1 + 0.28 |x|) (the form of Hastings 1955); P minimises the greatest error on
    // [0, 6.5], 1.1e-8, times max(|x|, 1).
    let t = 1.0 / mul_add::<FMA>(x.abs(), 0.28, 1.0);
    let p =
        polynomial::<FMA, 6>(t, [-0.106_328_204, 0.392_065_6, -0.240_667_18, 0.271_970_54, 0.066_230_22, 0.116_729_02]);
    let tail = e * (t * p);
    let cdf = if x < 0.0 { tail } else { 1.0 - tail };
    (cdf, e * DENSITY_AT_0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_accurate() {
        fn check(name: &str, tolerance: f64, f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) {
            for i in -40_000..=40_000 {
                let x = i as f32 / 4000.0;
                let (mine, exact) = (f64::from(f(x)), exact(f64::from(x)));
                let error = (mine - exact).abs() / exact.abs().max(1.0);
                assert!(error < tolerance, "{name}({x}) = {mine}, exact {exact}");
            }
        }
        fn cdf(x: f64) -> f64 {
            // By Simpson's rule from 0.
            let n = 200;
            let h = x / f64::from(n);
            let sum: f64 = (0..=n)
                .map(|i| {
                    let weight = if i == 0 || i == n {
                        1.0
                    } else if i % 2 == 1 {
                        4.0
                    } else {
                        2.0
                    };
                    weight * (-0.5 * (f64::from(i) * h).powi(2)).exp()
                })
                .sum();
            0.5 + sum * h / 3.0 / std::f64::consts::TAU.sqrt()
        }
        check("exp", 2e-7, exp::<false>, f64::exp);
        check("exp", 2e-7, exp::<true>, f64::exp);
        check("tanh", 2e-7, tanh::<true>, f64::tanh);
        check("sigmoid", 2e-7, |x| sigmoid::<true>(x).0, |x| 1.0 / (1.0 + (-x).exp()));
        check("normal", 4e-7, |x| normal::<true>(x).0, cdf);
        for x in [1e-3f32, 1e-6, 0.1] {
            assert!((tanh::<true>(x) / x.tanh() - 1.0).abs() < 2e-7);
        }
    }

    #[test]
    fn ends_and_nan_are_kept() {
        assert!(exp::<true>(-1e30) < 1.3e-38 && exp::<true>(1e30).is_finite());
        assert!(
            exp::<true>(f32::NAN).is_nan() && tanh::<true>(f32::NAN).is_nan() && normal::<true>(f32::NAN).0.is_nan()
        );
        assert_eq!(normal::<true>(f32::INFINITY).0, 1.0);
        assert_eq!(tanh::<true>(-100.0), -1.0);
    }
}
