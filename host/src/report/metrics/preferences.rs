//! Metrics of preferences, over pairs of answers of which the first is the better one, by TRL's names where it has them.

use std::collections::BTreeMap;

/// Names of the metrics.
pub const NAMES: [&str; 4] = ["reward_accuracy", "reward_margin", "rewards_chosen", "rewards_rejected"];

/// A pair of answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Pair {
    /// Tokens of both that count.
    pub tokens: usize,
    /// The reward of the better one.
    pub chosen: f64,
    /// The reward of the other.
    pub rejected: f64,
}

impl Pair {
    /// Two rewards as the cell of a table has them.
    pub fn cell(&self) -> String {
        format!("{} {}", self.chosen, self.rejected)
    }

    /// Reads what [`cell`](Self::cell) gave.
    pub fn read(cell: &str) -> Option<[f64; 2]> {
        let (chosen, rejected) = cell.split_once(' ')?;
        Some([chosen.parse().ok()?, rejected.parse().ok()?])
    }
}

/// Metrics by name, of the rewards of each pair, the better answer's first: the share of pairs whose better answer has the greater reward, by
/// how much it is greater, and both. Not a number without a pair; the share also where a reward is none.
pub fn of(rewards: &[[f64; 2]]) -> BTreeMap<String, f64> {
    let pairs = rewards.len() as f64;
    let mean = |of: fn(&[f64; 2]) -> f64| rewards.iter().map(of).sum::<f64>() / pairs;
    let right = |[chosen, rejected]: &[f64; 2]| match (chosen - rejected).is_nan() {
        true => f64::NAN,
        false => f64::from(u8::from(chosen > rejected)),
    };
    let values = [mean(right), mean(|pair| pair[0] - pair[1]), mean(|pair| pair[0]), mean(|pair| pair[1])];
    NAMES.map(str::to_owned).into_iter().zip(values).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_pair_is_right_where_its_better_answer_has_the_greater_reward() {
        let found = of(&[[1.0, -1.0], [0.5, 0.75], [0.25, 0.25], [0.0, -3.0]]);
        let expected = [0.5, 1.1875, 0.4375, -0.75];
        assert!(NAMES.iter().zip(expected).all(|(name, value)| found[*name] == value), "{found:?}");
        assert!(of(&[]).values().all(|value| value.is_nan()));
        assert!(of(&[[f64::NAN, 0.0], [1.0, 0.0]])["reward_accuracy"].is_nan());
    }

    #[test]
    fn cells_are_read_back() {
        let pair = Pair { tokens: 3, chosen: -0.1, rejected: 1e-30 };
        assert_eq!(Pair::read(&pair.cell()).unwrap(), [-0.1, 1e-30]);
        assert_eq!(Pair::read("0.5"), None);
        assert_eq!(Pair::read("a b"), None);
    }
}
