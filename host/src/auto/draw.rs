//! What is tried: each strategy as it stands, and with learning rates and options that are drawn.

use std::collections::BTreeMap;
use std::path::Path;

use fthost_autograd::random::Stream;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::rungs::Rung;
use crate::Result;
use crate::compare::Candidate;
use crate::run::file::{Override, RunFile, TaskTable};

/// The key of the learning rate.
pub(super) const LR: &str = "train.lr";

/// A strategy with values for its learning rate and options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    /// What it is called, and its folder: its strategy and a number.
    pub name: String,
    /// The candidate that it is of.
    pub strategy: String,
    /// Values by the keys that `--set` takes.
    pub settings: BTreeMap<String, Json>,
}

/// What may be drawn for a strategy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Space {
    /// The candidate.
    pub strategy: String,
    /// Its run file's learning rate.
    pub lr: f64,
    /// The one that `lr-find` suggests, where it was asked and does: rates are drawn around it.
    #[serde(default)]
    pub suggested: Option<f64>,
    /// The values that its plugins declare, by the keys that `--set` takes.
    pub options: BTreeMap<String, Vec<Json>>,
}

/// How far from the suggested learning rate others are drawn, as a factor.
const AROUND: f64 = 3.0;

/// So many configurations, of each strategy in turn. The first of each is its run file as it stands, and the second the same at the
/// suggested learning rate, where there is one. Of the others the learning rate is drawn log-uniformly from around that, or else from `lr`,
/// and each option uniformly from its values. The same seed draws the same.
pub(super) fn configurations(count: usize, seed: u64, spaces: &[Space], lr: (f64, f64)) -> Vec<Configuration> {
    (0..count).map(|i| spaces[i % spaces.len()].configuration(i / spaces.len(), seed, lr)).collect()
}

impl Space {
    /// The rates that are drawn from.
    pub(super) fn range(&self, lr: (f64, f64)) -> (f64, f64) {
        self.suggested.map_or(lr, |suggested| (suggested / AROUND, suggested * AROUND))
    }

    fn configuration(&self, number: usize, seed: u64, lr: (f64, f64)) -> Configuration {
        let stream = Stream::new(seed, &format!("auto/{}", self.strategy)).at(&[number as u64]);
        let mut settings = BTreeMap::from([(LR.to_owned(), self.lr.into())]);
        if let (1, Some(suggested)) = (number, self.suggested) {
            settings.insert(LR.to_owned(), suggested.into());
        } else if number > 0 {
            settings.insert(LR.to_owned(), log_uniform(self.range(lr), stream.uniform(0)).into());
            settings.extend(self.options.iter().zip(1..).map(|((key, values), index)| {
                let place = stream.below(index, values.len() as u64) as usize;
                (key.clone(), values[place].clone())
            }));
        }
        let name = format!("{}-{}", self.strategy, number + 1);
        Configuration { name, strategy: self.strategy.clone(), settings }
    }
}

/// The rate at a share of the way from the least to the greatest, in their logarithms; three digits, so that it can be copied.
fn log_uniform((least, most): (f64, f64), share: f64) -> f64 {
    let rate = (least.ln() + share * (most / least).ln()).exp();
    format!("{rate:.2e}").parse().unwrap_or(rate).clamp(least, most)
}

impl Configuration {
    /// Its run file: that of its candidate with its values. It names the test examples where the candidate's does.
    ///
    /// # Errors
    /// Where a value does not fit.
    pub(super) fn run_file(&self, candidate: &Candidate) -> Result<RunFile> {
        let sets = self.settings.iter().map(|(key, value)| Override::set(&format!("{key}={value}")));
        let sets = sets.collect::<Result<Vec<_>>>()?;
        RunFile::parse(&candidate.identity.run_file, Path::new(&format!("{}.toml", self.name)), &sets)
    }

    /// Its run file in a rung: with as many steps, of the `whole` that a run has, and without the test examples.
    ///
    /// # Errors
    /// As [`run_file`](Self::run_file).
    pub(super) fn run_file_of(&self, candidate: &Candidate, rung: Rung, whole: u64) -> Result<RunFile> {
        let mut file = untested(self.run_file(candidate)?);
        let train = &mut file.train;
        train.steps = Some(rung.steps);
        // A rung that ends before the first evaluation would say nothing.
        train.evaluate_steps = train.evaluate_steps.filter(|every| *every <= rung.steps);
        train.checkpoint_steps = train.checkpoint_steps.filter(|every| *every <= rung.steps);
        if rung.steps < whole {
            // It is short as it is, and often too short for patience to end.
            (train.patience, train.min_delta) = (None, 0.0);
        }
        Ok(file)
    }

    /// `train.lr=0.003 strategy.rank=16`
    pub(super) fn settings_text(&self) -> String {
        let settings: Vec<String> = self.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        settings.join(" ")
    }
}

/// A run file whose run cannot see test examples.
pub(super) fn untested(mut file: RunFile) -> RunFile {
    file.tasks.iter_mut().for_each(TaskTable::hide_test);
    file.train.evaluate_before = false;
    file
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn space(strategy: &str) -> Space {
        let options = BTreeMap::from([
            ("strategy.a".to_owned(), vec![json!(1), json!(2), json!(3)]),
            ("strategy.b".to_owned(), vec![json!("x"), json!(true)]),
        ]);
        Space { strategy: strategy.into(), lr: 0.02, suggested: None, options }
    }

    #[test]
    fn draws_are_of_the_declared_values_and_each_comes() {
        let spaces = [space("s")];
        let drawn = configurations(200, 7, &spaces, (1e-3, 1e-1));
        assert_eq!(drawn[0].settings, BTreeMap::from([(LR.to_owned(), json!(0.02))]));
        let (mut below, mut seen) = (0, Vec::new());
        for configuration in &drawn[1..] {
            let lr = configuration.settings[LR].as_f64().unwrap();
            assert!((1e-3..=1e-1).contains(&lr), "{lr}");
            below += usize::from(lr < 1e-2);
            for (key, values) in &spaces[0].options {
                let value = &configuration.settings[key];
                assert!(values.contains(value), "{key} = {value}");
                seen.push((key, value.to_string()));
            }
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 5, "every declared value is drawn: {seen:?}");
        // Half of the logarithm's range lies below 0.01; of the range itself a tenth does.
        assert!((70..130).contains(&below), "{below} of 199");
    }

    #[test]
    fn rates_are_drawn_around_a_suggested_one_which_is_tried_alone_first() {
        let found = Space { suggested: Some(3e-4), ..space("s") };
        let drawn = configurations(50, 7, &[found], (1e-2, 1e-1));
        assert_eq!(drawn[0].settings, BTreeMap::from([(LR.to_owned(), json!(0.02))]));
        assert_eq!(drawn[1].settings, BTreeMap::from([(LR.to_owned(), json!(3e-4))]));
        let rates: Vec<f64> = drawn[2..].iter().map(|one| one.settings[LR].as_f64().unwrap()).collect();
        assert!(rates.iter().all(|rate| (1e-4..=9e-4).contains(rate)), "{rates:?}");
    }

    #[test]
    fn draws_follow_from_the_seed_and_the_strategy_alone() {
        let draw = |count, seed, spaces: &[Space]| configurations(count, seed, spaces, (1e-3, 1e-1));
        let (a, b) = (space("a"), space("b"));
        let both = draw(9, 0, &[a.clone(), b.clone()]);
        let names: Vec<&str> = both.iter().map(|configuration| configuration.name.as_str()).collect();
        assert_eq!(names, ["a-1", "b-1", "a-2", "b-2", "a-3", "b-3", "a-4", "b-4", "a-5"]);
        let alone: Vec<_> = both.iter().filter(|configuration| configuration.strategy == "a").cloned().collect();
        assert_eq!(draw(5, 0, std::slice::from_ref(&a)), alone, "what else is searched, and how much, changes no draw");
        assert_ne!(both[2].settings, both[3].settings);
        assert_ne!(draw(5, 1, &[a])[1..], alone[1..]);
    }

    #[test]
    fn rates_have_three_digits_and_stay_within() {
        for (share, expected) in [(0.0, 1e-4), (0.5, 1e-3), (1.0, 1e-2), (0.25, 3.16e-4)] {
            assert_eq!(log_uniform((1e-4, 1e-2), share), expected);
        }
        assert_eq!(log_uniform((1.2345e-4, 1e-2), 0.0), 1.2345e-4);
    }

    #[test]
    fn a_rungs_run_file_has_its_steps_and_no_test_examples() {
        let text = "[model]\npath = \"demo\"\n[[task]]\nhead = { plugin = \"h\" }\ntrain = \"demo\"\ntest = \"demo\"\n\
                    validation = 0.2\n[[strategy]]\nplugin = \"s\"\n[train]\nevaluate_steps = 50\n\
                    evaluate_before = true\npatience = 2\nmin_delta = 0.1\ncheckpoint_steps = 70\n";
        let base = RunFile::parse(text, Path::new("a.toml"), &[]).unwrap();
        let candidate = Candidate::of_file(&base, "s".into(), Vec::new(), crate::run::DeviceChoice::Cpu);
        let settings = BTreeMap::from([(LR.to_owned(), json!(0.003)), ("strategy.b".to_owned(), json!("x"))]);
        let configuration = Configuration { name: "s-2".into(), strategy: "s".into(), settings };
        let check = |steps, evaluate_steps, patience| {
            let file = configuration.run_file_of(&candidate, Rung { configurations: 1, steps }, 100).unwrap();
            assert_eq!((file.train.steps, file.train.evaluate_steps), (Some(steps), evaluate_steps));
            assert_eq!((file.train.lr, &file.strategies[0].config), (0.003, &json!({ "b": "x" })));
            // It reads again: nothing in it does nothing.
            let again = RunFile::parse(&file.to_toml(), Path::new("b.toml"), &[]).unwrap();
            assert_eq!((again.train.patience, again.train.evaluate_before), (patience, false));
            assert!(file.tasks[0].test.is_none() && !file.to_toml().contains("test ="), "{}", file.to_toml());
        };
        check(49, None, None);
        check(50, Some(50), None);
        check(100, Some(50), Some(2));
        assert_eq!(configuration.run_file(&candidate).unwrap().tasks[0].test, base.tasks[0].test);
    }
}
