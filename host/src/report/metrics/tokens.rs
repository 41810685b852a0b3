//! Metrics of language models, over the tokens that count.

use std::collections::BTreeMap;

use super::values::Score;

/// Names of the metrics.
pub const NAMES: [&str; 2] = ["accuracy", PERPLEXITY];
/// `e` to the power of the mean loss of a token: among how many tokens, all as probable, the model would choose as well.
pub const PERPLEXITY: &str = "perplexity";

/// The tokens of a row that count.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Counted {
    /// Their number.
    pub tokens: usize,
    /// How many of them the model holds for the most probable.
    pub right: usize,
    /// The sum of the negative natural logarithms of their probabilities.
    pub loss: f64,
}

/// Metrics by name.
pub fn of(rows: &[Counted]) -> BTreeMap<String, f64> {
    let tokens = rows.iter().map(|row| row.tokens).sum::<usize>() as f64;
    let right = rows.iter().map(|row| row.right).sum::<usize>() as f64;
    let loss = rows.iter().map(|row| row.loss).sum::<f64>();
    // Without a token both are not a number.
    [("accuracy", right / tokens), (PERPLEXITY, (loss / tokens).exp())]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

/// The metric of a name that the rows' numbers of tokens and their mean losses tell.
pub fn score(metric: &str) -> Option<Score> {
    (metric == PERPLEXITY).then_some(perplexity as Score)
}

fn perplexity(tokens: &[f64], losses: &[f64]) -> f64 {
    let sum: f64 =
        tokens.iter().zip(losses).map(|(tokens, loss)| if *tokens > 0.0 { tokens * loss } else { 0.0 }).sum();
    (sum / tokens.iter().sum::<f64>()).exp()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn perplexity_is_over_all_tokens_and_not_over_rows() {
        let rows = [(1, 1, 0.5), (3, 1, 4.5), (0, 0, 0.0)].map(|(tokens, right, loss)| Counted { tokens, right, loss });
        let found = of(&rows);
        assert_eq!((found["accuracy"], found[PERPLEXITY]), (0.5, 1.25f64.exp()));
        let (tokens, losses) = ([1.0, 3.0, 0.0], [0.5, 1.5, f64::NAN]);
        assert!((score(PERPLEXITY).unwrap()(&tokens, &losses) - 1.25f64.exp()).abs() < 1e-12);
        assert!(score("accuracy").is_none());
        assert!(of(&[]).values().all(|value| value.is_nan()));
    }
}
