//! Metrics of texts that a language model says, beside the answers that they should have been.

use super::Metrics;
use super::rouge::rouge_l;

/// A text beside its answer.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Compared {
    /// Whether they are the same, but for the space around them.
    pub exact: bool,
    /// ROUGE-L: the F-measure of the longest common subsequence of their words.
    pub rouge_l: f64,
}

impl Compared {
    /// Of a text and its answer.
    pub fn of(text: &str, answer: &str) -> Self {
        Self { exact: text.trim() == answer.trim(), rouge_l: rouge_l(text, answer) }
    }
}

/// The share of texts that are exact, and the mean of ROUGE-L; not a number without a text.
pub fn of<'a>(rows: impl Iterator<Item = &'a Compared> + Clone) -> Metrics {
    let mean = |value: fn(&Compared) -> f64| rows.clone().map(value).sum::<f64>() / rows.clone().count() as f64;
    [("exact_match", mean(|row| f64::from(u8::from(row.exact)))), ("rouge_l", mean(|row| row.rouge_l))]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_means_over_texts() {
        let rows = [("Paris. ", "\nParis."), ("it is Paris", "Paris")].map(|(text, answer)| Compared::of(text, answer));
        assert_eq!([rows[0].exact, rows[1].exact], [true, false]);
        let found = of(rows.iter());
        assert_eq!((found["exact_match"], found["rouge_l"]), (0.5, 0.75));
        assert!(of([].iter()).values().all(|value| value.is_nan()));
    }
}
