//! Precision, recall and F1, and their averages.

use serde::Serialize;

/// Precision, recall and F1 of one class, or averages of them. Where a denominator is zero, zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Scores {
    /// Of the examples predicted as the class, the share that is of it.
    pub precision: f64,
    /// Of the class's examples, the share predicted as it.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
    /// True examples.
    pub support: u64,
}

/// A share; zero of nothing.
pub(in crate::report) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The mean of scores, weighted; zero of none.
pub(in crate::report) fn average(all: &[Scores], support: u64, weight: impl Fn(&Scores) -> f64) -> Scores {
    let whole: f64 = all.iter().map(&weight).sum();
    let mean = |score: fn(&Scores) -> f64| match whole {
        0.0 => 0.0,
        whole => all.iter().map(|scores| score(scores) * weight(scores)).sum::<f64>() / whole,
    };
    Scores { precision: mean(|s| s.precision), recall: mean(|s| s.recall), f1: mean(|s| s.f1), support }
}
