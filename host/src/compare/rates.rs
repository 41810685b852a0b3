//! A learning rate for each candidate, by `lr-find` in a process of its own.

use std::path::Path;

use serde::Deserialize;

use super::candidates::Candidate;
use crate::Result;
use crate::processes::Runner;
use crate::report::numbers::significant;
use crate::run::file::{Override, RunFile, TaskTable};

/// What a search for a rate answers.
#[derive(Debug, Deserialize)]
pub(crate) struct Found {
    /// The rate, three digits of it; none where no rate makes the loss fall by more than noise.
    pub(crate) suggestion: Option<f64>,
    /// Why that, or none.
    pub(crate) reason: String,
}

impl Found {
    /// What `lr-find` says of a candidate, or the text of its error.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub(crate) fn of(candidate: &Candidate, runner: &Runner<'_>) -> Result<Result<Self, String>> {
        let mut file = candidate.file()?;
        // It has no use for them, and does not learn from those that are training examples otherwise.
        file.tasks.iter_mut().for_each(TaskTable::hide_test);
        file.train.evaluate_before = false;
        let answer = runner.ask_of("lr-find", &file, &candidate.identity.plugins)?;
        let found = answer.and_then(|answer| serde_json::from_value::<Self>(answer).map_err(|error| error.to_string()));
        Ok(found.map(|found| Self { suggestion: found.suggestion.map(three_digits), ..found }))
    }
}

/// So that it can be copied.
fn three_digits(rate: f64) -> f64 {
    format!("{rate:.2e}").parse().unwrap_or(rate)
}

/// The candidates with rates of their own. One for which none is found keeps its run file's, and that is told.
///
/// # Errors
/// Where no search can be started.
pub(super) fn own_rates(candidates: Vec<Candidate>, runner: &Runner<'_>, say: &dyn Fn(&str)) -> Result<Vec<Candidate>> {
    let one = |candidate: Candidate| {
        let name = candidate.name.clone();
        let file = candidate.file()?;
        let kept = format!("{name} keeps train.lr = {:e}", file.train.lr);
        Ok(match Found::of(&candidate, runner)? {
            Ok(Found { suggestion: Some(lr), .. }) => {
                say(&format!("{name} takes train.lr = {lr:e}, by lr-find"));
                candidate.with_rate(lr)?
            }
            Ok(Found { reason, .. }) => {
                say(&format!("{kept}: {reason}"));
                candidate
            }
            Err(error) => {
                say(&format!("{kept}: {error}"));
                candidate
            }
        })
    };
    candidates.into_iter().map(one).collect()
}

impl Candidate {
    /// The same candidate with another learning rate.
    fn with_rate(mut self, lr: f64) -> Result<Self> {
        let set = Override::set(&format!("train.lr={lr:e}"))?;
        let name = format!("{}.toml", self.name);
        self.identity.run_file = RunFile::parse(&self.identity.run_file, Path::new(&name), &[set])?.to_toml();
        Ok(self)
    }
}

/// What to say of a candidate that predicts one class alone in some runs.
pub(super) fn one_class_text(name: &str, runs: usize, of: usize, lr: f64) -> String {
    format!(
        "{name} predicts one class for every test example in {runs} of {of} runs at train.lr = {}: one rate may not suit all candidates, and \
         --lr-find gives each its own",
        significant(lr)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::run::DeviceChoice;

    #[test]
    fn a_rate_of_its_own_is_all_that_changes() {
        let text = "[model]\npath = \"demo\"\n[[task]]\nhead = { plugin = \"h\" }\ntrain = \"demo\"\n\
                    [[strategy]]\nplugin = \"s\"\n[train]\nlr = 0.1\n";
        let file = RunFile::parse(text, Path::new("a.toml"), &[]).unwrap();
        let candidate = Candidate::of_file(&file, "s".into(), Vec::new(), DeviceChoice::Cpu);
        let changed = candidate.clone().with_rate(three_digits(1.23456e-5)).unwrap();
        assert_eq!(changed.file().unwrap().train.lr, 1.23e-5);
        assert_eq!(changed.with_rate(0.1).unwrap(), candidate);
    }
}
