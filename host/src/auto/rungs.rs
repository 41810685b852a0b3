//! How a budget becomes rungs: how many configurations train for how many steps.
//!
//! Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943), which keeps the best third as Li et al. 2018 (Hyperband,
//! arXiv:1603.06560) do: each rung has a third of the configurations and three times the steps of the one before, so all cost as
//! much, and the last one trains whole runs.

use serde::{Deserialize, Serialize};

/// Of so many configurations one is kept.
const ETA: u64 = 3;
/// Most rungs before the last: less than a 27th of a run tells little of it.
const MOST: u32 = 3;
/// Fewest optimizer steps that tell anything.
const LEAST_STEPS: u64 = 10;

/// Configurations that train for as many steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    /// How many configurations, where none fails.
    pub configurations: usize,
    /// Optimizer steps of each.
    pub steps: u64,
}

/// The rungs that a budget is enough for. `budget`: optimizer steps in whole runs, at least 1; `whole`: the steps of one.
pub(super) fn rungs(budget: f64, whole: u64) -> Vec<Rung> {
    let fits = |rung: &u32| f64::from(rung + 1) <= budget && whole / ETA.pow(*rung) >= LEAST_STEPS;
    let last = (0..=MOST).rev().find(fits).unwrap_or(0);
    // Every rung costs the first one's steps: configurations / 3^last whole runs.
    let first = (budget * ETA.pow(last) as f64 / f64::from(last + 1)) as u64;
    let rung = |number| Rung {
        configurations: (first / ETA.pow(number)) as usize,
        steps: (whole / ETA.pow(last - number)).max(1),
    };
    (0..=last).map(rung).collect()
}

/// The least whole budget that is enough for so many configurations.
pub(super) fn least_budget(configurations: usize, whole: u64) -> u64 {
    (1..).find(|&budget| rungs(budget as f64, whole)[0].configurations >= configurations).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_become_rungs() {
        let check = |budget: f64, whole: u64, expected: &[(usize, u64)]| {
            let found: Vec<_> = rungs(budget, whole).iter().map(|rung| (rung.configurations, rung.steps)).collect();
            assert_eq!(found, expected, "{budget} runs of {whole} steps");
        };
        check(1.0, 2730, &[(1, 2730)]);
        check(1.9, 2730, &[(1, 2730)]);
        check(2.0, 2730, &[(3, 910), (1, 2730)]);
        check(3.0, 2730, &[(9, 303), (3, 910), (1, 2730)]);
        check(4.0, 2730, &[(27, 101), (9, 303), (3, 910), (1, 2730)]);
        check(6.0, 2730, &[(40, 101), (13, 303), (4, 910), (1, 2730)]);
        check(20.0, 2730, &[(135, 101), (45, 303), (15, 910), (5, 2730)]);
        // Short runs have fewer rungs: a rung of a step or two tells nothing.
        check(6.0, 90, &[(18, 10), (6, 30), (2, 90)]);
        check(6.0, 12, &[(6, 12)]);
        check(3.0, 1, &[(3, 1)]);
    }

    #[test]
    fn no_budget_is_exceeded_and_little_is_left() {
        for whole in [1, 9, 31, 100, 2731, 1_000_000] {
            for tenths in 10..300 {
                let budget = f64::from(tenths) / 10.0;
                let rungs = rungs(budget, whole);
                let spent: u64 = rungs.iter().map(|rung| rung.configurations as u64 * rung.steps).sum();
                let share = spent as f64 / whole as f64 / budget;
                assert!(share <= 1.0 && share > 0.5, "{share} of {budget} runs of {whole} steps");
                assert!(rungs.iter().all(|rung| rung.configurations > 0));
                assert_eq!(rungs.last().map(|rung| rung.steps), Some(whole));
            }
        }
    }

    #[test]
    fn the_least_budget_is_enough_and_one_less_is_not() {
        for (configurations, whole, expected) in [(1, 2730, 1), (2, 2730, 2), (3, 2730, 2), (4, 2730, 3), (5, 12, 5)] {
            assert_eq!(least_budget(configurations, whole), expected, "{configurations} of {whole} steps");
        }
    }
}
