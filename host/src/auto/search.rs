//! What a search is, as its folder keeps it: everything that its runs follow from.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::draw::{Configuration, Space, configurations};
use super::options::{Options, TRAIL};
use super::rungs::{Rung, least_budget, rungs};
use super::strategies;
use crate::compare::{Candidate, differences, going_on};
use crate::processes::Runner;
use crate::report::numbers::{count, significant};
use crate::report::table::Table;
use crate::run::state::folder::claim;
use crate::{Error, Result};

/// What a search is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Search {
    /// Optimizer steps that may be taken in all, in whole runs.
    pub budget: f64,
    /// Optimizer steps of a whole run.
    pub steps: u64,
    /// The least and the greatest learning rate.
    pub lr: (f64, f64),
    /// What the draws follow from: the runs' own seed.
    pub seed: u64,
    /// The strategies, each with its run file.
    pub candidates: Vec<Candidate>,
    /// What may be drawn for each of them.
    pub spaces: Vec<Space>,
    /// How many train for how long.
    pub rungs: Vec<Rung>,
    /// What is tried.
    pub configurations: Vec<Configuration>,
}

/// What `auto.json` of a search that goes on has to hold.
#[derive(Deserialize)]
struct Begun {
    search: Search,
}

impl Search {
    /// The folder with the search that it holds: a new one, or one that goes on.
    ///
    /// # Errors
    /// Where the folder is in the way or another search's, or the search cannot be made.
    pub(super) fn open(options: &Options, runner: &Runner<'_>) -> Result<(PathBuf, Self)> {
        let Some(folder) = options.out.as_ref().filter(|_| options.resume) else {
            if let Some(path) = options.out.as_deref().filter(|path| path.exists()) {
                return Err(Error::usage(format!("{} exists already", path.display()))
                    .with_help("go on with the search in it by --resume, or name another folder by --out"));
            }
            let search = Self::new(options, runner)?;
            return Ok((claim(options.out.as_deref(), &options.default_folder)?, search));
        };
        let begun = Self::begun(folder)?;
        let differences = begun.differences(options)?;
        if !differences.is_empty() {
            return Err(Error::usage(format!(
                "{} belongs to another search:\n{}",
                folder.display(),
                differences.join("\n")
            ))
            .with_help("go on with what it began with, or begin a new search in another folder"));
        }
        Ok((folder.clone(), begun))
    }

    /// Asks the plugins what may be drawn, and draws.
    fn new(options: &Options, runner: &Runner<'_>) -> Result<Self> {
        let candidates = options.candidates.clone();
        let mut spaces = Vec::new();
        for candidate in &candidates {
            spaces.push(strategies::space(candidate, runner, &|text| options.say(text))?);
        }
        let steps = strategies::whole_steps(&candidates, runner)?;
        let budget = options.budget.unwrap_or(1.0);
        let rungs = rungs(budget, steps);
        let count = rungs[0].configurations;
        if count < candidates.len() {
            let least = least_budget(candidates.len(), steps);
            return Err(Error::usage(format!(
                "the budget of {budget} whole runs is not enough to try each of {} strategies",
                candidates.len()
            ))
            .with_help(format!("give --budget {least} or more, or fewer strategies")));
        }
        // Rates first: with a wrong one no option tells anything. It comes on top of the budget.
        if options.lr.is_none() && count > candidates.len() {
            for (space, candidate) in spaces.iter_mut().zip(&candidates) {
                space.suggested = strategies::suggested(candidate, runner, &|text| options.say(text))?;
            }
        }
        let around = spaces.first().map_or(1.0, |space| space.lr);
        let lr = options.lr.unwrap_or((around / 10.0, around * 10.0));
        let configurations = configurations(count, options.seed, &spaces, lr);
        Ok(Self { budget, steps, lr, seed: options.seed, candidates, spaces, rungs, configurations })
    }

    /// The search that a folder holds.
    fn begun(folder: &Path) -> Result<Self> {
        let path = folder.join(TRAIL);
        let no_search = |error: &dyn std::fmt::Display| {
            Error::usage(format!("{} is no search's folder: {}: {error}", folder.display(), path.display()))
                .with_help("name the folder that fthost auto has made, or leave --resume out")
        };
        let text = std::fs::read_to_string(&path).map_err(|error| no_search(&error))?;
        let begun: Begun = serde_json::from_str(&text).map_err(|error| no_search(&error))?;
        Ok(begun.search)
    }

    /// What differs between this search and the one that would go on with it, one line each.
    fn differences(&self, options: &Options) -> Result<Vec<String>> {
        let now = going_on(&self.candidates, &options.candidates, options.device)?;
        let mut found = differences(&self.candidates, &now);
        if let Some(budget) = options.budget.filter(|budget| *budget != self.budget) {
            found.push(format!("the budget: {} then, {budget} now", self.budget));
        }
        if let Some((least, most)) = options.lr.filter(|lr| *lr != self.lr) {
            let (from, to) = self.lr;
            found.push(format!("the learning rates: {from:e}..{to:e} then, {least:e}..{most:e} now"));
        }
        Ok(found)
    }

    /// The configuration of a name.
    pub(super) fn configuration(&self, name: &str) -> Result<&Configuration> {
        let found = self.configurations.iter().find(|configuration| configuration.name == name);
        found.ok_or_else(|| damaged(&format!("there is no configuration {name}")))
    }

    /// The candidate that a configuration is of.
    pub(super) fn candidate_of(&self, configuration: &Configuration) -> Result<&Candidate> {
        let found = self.candidates.iter().find(|candidate| candidate.name == configuration.strategy);
        found.ok_or_else(|| damaged(&format!("there is no strategy {}", configuration.strategy)))
    }

    /// What will be tried, for how long, and what may be drawn.
    pub(super) fn to_text(&self) -> String {
        let mut table = Table::new().numbers_from(0);
        table.row(["rung", "configurations", "steps", "whole runs"]);
        for (number, rung) in (1..).zip(&self.rungs) {
            let runs = rung.configurations as f64 * rung.steps as f64 / self.steps as f64;
            let steps = count(rung.steps as usize);
            table.row([&number.to_string(), &count(rung.configurations), &steps, &significant(runs)]);
        }
        let mut text = format!("{}\n", table.to_text());
        let (least, most) = self.lr;
        if self.spaces.iter().any(|space| space.suggested.is_none()) {
            text += &format!("train.lr is drawn from {least:e} to {most:e}\n");
        }
        for space in &self.spaces {
            let Space { strategy, options, suggested, .. } = space;
            if let Some(suggested) = suggested {
                let (least, most) = space.range(self.lr);
                text += &format!(
                    "{strategy}: train.lr is drawn from {least:.2e} to {most:.2e}, around {suggested:e} by lr-find\n"
                );
            }
            for (key, values) in options {
                let values: Vec<String> = values.iter().map(ToString::to_string).collect();
                text += &format!("{strategy}: {key} is drawn from {}\n", values.join(", "));
            }
        }
        text
    }
}

fn damaged(what: &str) -> Error {
    Error::usage(format!("{TRAIL} does not fit itself: {what}"))
        .with_help("begin a new search in another folder: this file was changed")
}
