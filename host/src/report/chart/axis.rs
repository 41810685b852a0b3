//! Axes: from values to places between 0 and 1, and round values to mark.

use crate::report::numbers::{decimal, exponential, significant};

/// Values beyond are not drawn: their differences would overflow or vanish.
const LARGEST: f64 = 1e300;
const SMALLEST: f64 = 1e-300;

/// How an axis goes from its lowest to its highest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Equal steps for equal differences.
    #[default]
    Linear,
    /// Equal steps for equal factors. Zero and negative values have no place.
    Log,
}

impl Scale {
    /// Logarithmic where all values are positive and the highest stands fifty times over the median, as a spike does that would
    /// press everything else flat. Values that are not finite do not count.
    pub fn fitting(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        match (values.first(), values.last()) {
            (Some(&low), Some(&high)) if low > 0.0 && high > 50.0 * values[values.len() / 2] => Self::Log,
            _ => Self::Linear,
        }
    }

    /// Whether a value has a place on the axis.
    pub(super) fn takes(self, value: f64) -> bool {
        match self {
            Self::Linear => value.abs() <= LARGEST,
            Self::Log => (SMALLEST..=LARGEST).contains(&value),
        }
    }

    fn apply(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.log10(),
        }
    }
}

/// Where an axis ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// At the lowest and the highest value. Between whole numbers, as steps are, only whole ones are marked.
    Exact,
    /// At the round values around them; at zero, where it is near.
    Round,
}

/// A value that is marked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub(super) place: f64,
    pub(super) text: String,
}

/// An axis over the values of a chart.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    scale: Scale,
    /// The ends, logarithms on a logarithmic scale.
    low: f64,
    high: f64,
    pub(super) ticks: Vec<Tick>,
}

impl Axis {
    /// An axis with `room` ticks at most, one or two more with round ends. Values without a place are left out; without any, it
    /// goes from 0 to 1, or from 1 to 10 on a logarithmic scale.
    pub(super) fn new(scale: Scale, values: impl IntoIterator<Item = f64>, ends: Ends, room: usize) -> Self {
        let (mut low, mut high, mut whole) = (f64::INFINITY, f64::NEG_INFINITY, true);
        for value in values.into_iter().filter(|&value| scale.takes(value)) {
            let value = if value.abs() < SMALLEST { 0.0 } else { value };
            (low, high) = (low.min(value), high.max(value));
            whole &= value.fract() == 0.0;
        }
        if low > high {
            (low, high) = if scale == Scale::Log { (1.0, 10.0) } else { (0.0, 1.0) };
        }
        match scale {
            Scale::Linear => Self::linear(low, high, whole, ends, room),
            Scale::Log => Self::log(low, high, ends, room),
        }
    }

    fn linear(mut low: f64, mut high: f64, whole: bool, ends: Ends, room: usize) -> Self {
        let largest = low.abs().max(high.abs());
        // A constant, or as good as one: it stands in the middle, over zero.
        if high - low <= (1e-9 * largest).max(SMALLEST) {
            let around = if largest > SMALLEST { largest } else { 1.0 };
            (low, high) = match ends {
                _ if low == 0.0 => (0.0, 1.0),
                // It ends with its data: one step stands at the end of those that led to it.
                Ends::Exact => (low.min(0.0), high.max(0.0)),
                Ends::Round => (low - around, high + around),
            };
        }
        if ends == Ends::Round && low > 0.0 && low < 0.35 * high {
            low = 0.0;
        }
        let step = Step::new(high - low, room, whole && ends == Ends::Exact);
        // Slack, so that a tick at the very end is not lost to rounding.
        let (first, last) = match ends {
            Ends::Exact => ((step.number(low) - 1e-9).ceil(), (step.number(high) + 1e-9).floor()),
            Ends::Round => ((step.number(low) + 1e-9).floor(), (step.number(high) - 1e-9).ceil()),
        };
        if ends == Ends::Round {
            (low, high) = (step.times(first), step.times(last));
        }
        let mut axis = Self { scale: Scale::Linear, low, high, ticks: Vec::new() };
        let largest = low.abs().max(high.abs());
        axis.ticks = (first as i64..=last as i64)
            .map(|number| {
                let value = step.times(number as f64);
                Tick { place: axis.fraction(value), text: step.label(value, largest) }
            })
            .collect();
        axis
    }

    fn log(low: f64, high: f64, ends: Ends, room: usize) -> Self {
        let (mut low, mut high) = (low.log10(), high.log10());
        if ends == Ends::Round {
            let round = multiples(low.floor() as i32..=high.ceil() as i32, &[1, 2, 5]);
            low = round.iter().map(|tick| tick.0).filter(|&at| at <= low + 1e-9).fold(f64::NAN, f64::max);
            high = round.iter().map(|tick| tick.0).filter(|&at| at >= high - 1e-9).fold(f64::NAN, f64::min);
        }
        if high - low < 1e-9 {
            (low, high) = (low - 0.5, high + 0.5);
        }
        // The fewest kinds of ticks of which three are to be seen.
        let inside = |digits: &[u32]| {
            let mut ticks = multiples(low.floor() as i32..=high.ceil() as i32, digits);
            ticks.retain(|tick| (low - 1e-9..=high + 1e-9).contains(&tick.0));
            ticks
        };
        let kinds: [&[u32]; 3] = [&[1], &[1, 2, 5], &[1, 2, 3, 4, 5, 6, 7, 8, 9]];
        let ticks = kinds.into_iter().map(inside).find(|ticks| ticks.len() >= 3);
        let ticks = ticks.unwrap_or_else(|| inside(kinds[2]));
        let every = ticks.len().div_ceil(room.max(1)).max(1);
        let mut axis = Self { scale: Scale::Log, low, high, ticks: Vec::new() };
        axis.ticks = ticks
            .into_iter()
            .step_by(every)
            .map(|(logarithm, value)| Tick { place: axis.between(logarithm), text: significant(value) })
            .collect();
        axis
    }

    /// Where a value stands: 0 at the lower end, 1 at the upper. Only for values that the scale takes.
    pub(super) fn fraction(&self, value: f64) -> f64 {
        self.between(self.scale.apply(value))
    }

    fn between(&self, applied: f64) -> f64 {
        (applied - self.low) / (self.high - self.low)
    }
}

/// Digits times powers of ten in rising order: logarithms and values.
fn multiples(exponents: std::ops::RangeInclusive<i32>, digits: &[u32]) -> Vec<(f64, f64)> {
    let times = |exponent: i32| {
        digits.iter().map(move |&digit| {
            let step = Step { digit, exponent };
            (f64::from(digit).log10() + f64::from(exponent), step.times(1.0))
        })
    };
    exponents.flat_map(times).collect()
}

/// The distance of ticks: 1, 2 or 5 times a power of ten. Kept as whole numbers, so that `3 * 0.1` is written `0.3`.
#[derive(Clone, Copy, Debug)]
struct Step {
    digit: u32,
    exponent: i32,
}

impl Step {
    /// The smallest that goes into `range` at most `room` times, and is whole where it must be.
    fn new(range: f64, room: usize, whole: bool) -> Self {
        let least = range / room.max(1) as f64;
        let exponent = least.log10().floor() as i32;
        let digit = least / Self { digit: 1, exponent }.times(1.0);
        let step = match digit {
            ..1.000_001 => Self { digit: 1, exponent },
            ..2.000_001 => Self { digit: 2, exponent },
            ..5.000_001 => Self { digit: 5, exponent },
            _ => Self { digit: 1, exponent: exponent + 1 },
        };
        if whole && step.exponent < 0 { Self { digit: 1, exponent: 0 } } else { step }
    }

    fn times(self, number: f64) -> f64 {
        let digits = number * f64::from(self.digit);
        match self.exponent {
            ..0 => digits / 10f64.powi(-self.exponent),
            _ => digits * 10f64.powi(self.exponent),
        }
    }

    /// How many steps make a value.
    fn number(self, value: f64) -> f64 {
        value / self.times(1.0)
    }

    /// The value with as many digits as tell ticks apart; `largest` says of which size the axis is.
    fn label(self, value: f64, largest: f64) -> String {
        if value != 0.0 && !(1e-3..1e7).contains(&largest) {
            let digits = value.abs().log10().floor() as i32 - self.exponent;
            return exponential(value, digits.clamp(0, 9) as usize);
        }
        decimal(value, -self.exponent)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn texts(scale: Scale, low: f64, high: f64, ends: Ends) -> Vec<String> {
        Axis::new(scale, [low, high], ends, 5).ticks.into_iter().map(|tick| tick.text).collect()
    }

    #[test]
    fn ticks_are_round() {
        let check = |low, high, ends, expected: &[&str]| assert_eq!(texts(Scale::Linear, low, high, ends), expected);
        check(0.0, 1.0, Ends::Round, &["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        check(0.28, 0.71, Ends::Exact, &["0.3", "0.4", "0.5", "0.6", "0.7"]);
        check(0.28, 0.71, Ends::Round, &["0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8"]);
        check(0.1, 0.71, Ends::Round, &["0", "0.2", "0.4", "0.6", "0.8"]);
        check(1.0, 400.0, Ends::Exact, &["100", "200", "300", "400"]);
        check(1.0, 100_000.0, Ends::Exact, &["20,000", "40,000", "60,000", "80,000", "100,000"]);
        check(0.0, 5e-5, Ends::Round, &["0", "1e-5", "2e-5", "3e-5", "4e-5", "5e-5"]);
        check(-1.5, 2.5, Ends::Exact, &["-1", "0", "1", "2"]);
    }

    #[test]
    fn steps_are_never_halved() {
        assert_eq!(texts(Scale::Linear, 1.0, 3.0, Ends::Exact), ["1", "2", "3"]);
    }

    #[test]
    fn powers_of_ten_are_marked_and_what_lies_between_where_they_are_few() {
        let check = |low, high, ends, expected: &[&str]| assert_eq!(texts(Scale::Log, low, high, ends), expected);
        check(1e-7, 1e-4, Ends::Exact, &["1e-7", "1e-6", "1e-5", "1e-4"]);
        check(0.3, 40.0, Ends::Round, &["0.2", "1", "5", "20"]);
        check(0.3, 0.8, Ends::Round, &["0.2", "0.5", "1"]);
        check(1e-9, 1.0, Ends::Exact, &["1e-9", "1e-7", "1e-5", "0.001", "0.1"]);
    }

    #[test]
    fn a_constant_stands_in_the_middle() {
        let axis = Axis::new(Scale::Linear, [0.001; 3], Ends::Round, 4);
        assert!((axis.fraction(0.001) - 0.5).abs() < 1e-9);
        assert_eq!(axis.ticks[0].text, "0");
    }

    #[test]
    fn what_is_as_good_as_zero_is_zero() {
        assert_eq!(
            texts(Scale::Linear, -3.5e-309, -3.5e-309, Ends::Exact),
            texts(Scale::Linear, 0.0, 0.0, Ends::Exact)
        );
    }

    #[test]
    fn a_spike_asks_for_a_logarithmic_scale() {
        assert_eq!(Scale::fitting([1.0, 1.1, 0.9, 80.0]), Scale::Log);
        assert_eq!(Scale::fitting([1.0, 1.1, 0.9, 8.0, f64::INFINITY, f64::NAN]), Scale::Linear);
        assert_eq!(Scale::fitting([0.0, 0.1, 0.1, 80.0]), Scale::Linear);
        assert_eq!(Scale::fitting([]), Scale::Linear);
    }

    proptest! {
        #[test]
        fn any_values_give_an_axis(values: Vec<f64>, positive in prop::collection::vec(0.0..f64::MAX, 0..3)) {
            let values: Vec<f64> = values.into_iter().chain(positive).collect();
            for scale in [Scale::Linear, Scale::Log] {
                for ends in [Ends::Exact, Ends::Round] {
                    let axis = Axis::new(scale, values.iter().copied(), ends, 5);
                    prop_assert!(axis.ticks.len() <= 8, "{:?}", axis);
                    for tick in &axis.ticks {
                        prop_assert!((-1e-6..=1.000_001).contains(&tick.place), "{:?}", axis);
                    }
                    prop_assert!(axis.ticks.is_sorted_by(|a, b| a.place < b.place), "{:?}", axis);
                    for &value in values.iter().filter(|&&value| scale.takes(value)) {
                        prop_assert!((-1e-6..=1.000_001).contains(&axis.fraction(value)), "{} in {:?}", value, axis);
                    }
                }
            }
        }
    }
}
