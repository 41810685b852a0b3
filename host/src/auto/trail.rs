//! What a search came to: `auto.json`, and the tables that a person sees.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::draw::Configuration;
use super::options::{BEST, TRAIL};
use super::search::Search;
use crate::plugin::Search as PluginSearch;
use crate::report::metrics::higher_is_better;
use crate::report::numbers::{count, duration, significant};
use crate::report::table::Table;
use crate::report::text::{NAME, shortened};
use crate::run::results::result;
use crate::run::state::identity::PluginUsed;
use crate::run::state::watch::Watch;
use crate::run::{DeviceChoice, shell_path};
use crate::{Error, Result};

/// Rows of the table that a person sees; all are in `auto.json`.
const ROWS: usize = 10;

/// A search and its runs. Its fields are promised to scripts: new ones may come, none goes.
#[derive(Clone, Debug, Serialize)]
pub struct Trail {
    /// Its folder.
    pub folder: PathBuf,
    /// What it is.
    pub search: Search,
    /// The metric on the validation examples; null before a run has one.
    pub metric: Option<String>,
    /// Its runs, rung by rung, the best of each rung first.
    pub trials: Vec<Trial>,
    /// The best configuration; null before the end.
    pub best: Option<Best>,
}

/// A run of a configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// The configuration.
    pub configuration: String,
    /// The rung, from 1.
    pub rung: usize,
    /// Its optimizer steps.
    pub steps: u64,
    /// The metric on the validation examples, the best in the run.
    pub value: Option<f64>,
    /// Seconds of training.
    pub seconds: Option<f64>,
    /// Why it has no value.
    pub error: Option<String>,
    /// Whether it goes on to the next rung.
    pub kept: bool,
    /// Its run folder.
    pub folder: PathBuf,
}

/// The configuration that did best.
#[derive(Clone, Debug, Serialize)]
pub struct Best {
    /// Its name.
    pub configuration: String,
    /// The metric on the validation examples.
    pub value: f64,
    /// The rung that it did best in: the last where a run of that has a value.
    pub rung: usize,
    /// Its run file, the test examples put back.
    pub file: PathBuf,
    /// The command that runs it.
    pub command: String,
}

/// What a run left, or that it failed.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) metric: Option<String>,
    pub(super) value: Option<f64>,
    pub(super) seconds: Option<f64>,
    pub(super) error: Option<String>,
    /// The plugins that took part; none of a run that failed.
    pub(super) plugins: Vec<PluginUsed>,
}

/// The parts of `result.json` that are needed.
#[derive(Deserialize)]
struct Json {
    tasks: BTreeMap<String, JsonTask>,
    train: JsonTrain,
    plugins: Vec<PluginUsed>,
}

#[derive(Deserialize)]
struct JsonTask {
    watch: Option<Watch>,
}

#[derive(Deserialize)]
struct JsonTrain {
    seconds: f64,
}

impl Left {
    /// Reads what a run, which has one task, left in its folder.
    ///
    /// # Errors
    /// Where something is missing or does not read.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let json: Json = result::read(folder)?;
        let watch = json.tasks.values().next().and_then(|task| task.watch.as_ref());
        let watch = watch.ok_or_else(|| result::unreadable(folder, &"its task was not watched"))?;
        let value = watch.best.map(|best| best.value);
        Ok(Self {
            metric: Some(watch.metric.clone()),
            value,
            seconds: Some(json.train.seconds),
            error: value.is_none().then(|| format!("its validation {} never was a number", watch.metric)),
            plugins: json.plugins,
        })
    }

    /// Of a run that failed.
    pub(super) fn failed(error: String) -> Self {
        Self { metric: None, value: None, seconds: None, error: Some(error), plugins: Vec::new() }
    }
}

impl Trail {
    /// A search of which nothing has run.
    pub(super) fn new(folder: &Path, search: Search) -> Self {
        Self { folder: folder.to_owned(), search, metric: None, trials: Vec::new(), best: None }
    }

    /// Adds the runs of a rung, the best first, those that failed last; the first `next` of those that did not are kept. Of equals the
    /// one that was tried first goes before.
    pub(super) fn add(&mut self, mut trials: Vec<Trial>, next: usize) {
        let higher = self.metric.as_deref().is_none_or(higher_is_better);
        trials.sort_by(|a, b| match (a.value, b.value) {
            (Some(a), Some(b)) if higher => b.total_cmp(&a),
            (Some(a), Some(b)) => a.total_cmp(&b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        trials.iter_mut().filter(|trial| trial.value.is_some()).take(next).for_each(|trial| trial.kept = true);
        self.trials.extend(trials);
    }

    /// The configurations that go on from a rung, in the order in which they are tried.
    pub(super) fn kept(&self, rung: usize) -> Result<Vec<Configuration>> {
        let kept = self.trials.iter().filter(|trial| trial.rung == rung && trial.kept);
        kept.map(|trial| self.search.configuration(&trial.configuration).cloned()).collect()
    }

    /// The best run of the last rung that has one with a value.
    ///
    /// # Errors
    /// Where no run has a value.
    pub(super) fn choose(&mut self, device: DeviceChoice) -> Result<()> {
        let valued = self.trials.iter().filter_map(|trial| Some((trial, trial.value?)));
        let best = valued.reduce(|best, other| if other.0.rung > best.0.rung { other } else { best });
        let Some((trial, value)) = best else {
            let failed: Vec<String> = self.trials.iter().filter_map(Trial::failure).collect();
            return Err(Error::run(format!("no run of the search has a result:\n{}", failed.join("\n")))
                .with_help(format!("what the runs said is in {}/*/*.log", self.folder.display())));
        };
        let file = self.folder.join(BEST);
        let command = self.command(&trial.configuration, &file, device)?;
        let (configuration, rung) = (trial.configuration.clone(), trial.rung);
        self.best = Some(Best { configuration, value, rung, file, command });
        Ok(())
    }

    /// The command that runs a configuration's run file. A plugin that its name alone finds is not named.
    fn command(&self, configuration: &str, file: &Path, device: DeviceChoice) -> Result<String> {
        let configuration = self.search.configuration(configuration)?;
        let candidate = self.search.candidate_of(configuration)?;
        let strategies = configuration.run_file(candidate)?.strategies;
        let search = PluginSearch::from_environment();
        let found: Vec<_> = strategies.iter().filter_map(|method| search.look_up(&method.plugin)).collect();
        let mut command = format!("fthost {}", shell_path(file));
        for plugin in &candidate.identity.plugins {
            let path = Path::new(&plugin.path);
            if !found.iter().any(|found| same_file(found, path)) {
                command += &format!(" --plugin {}", shell_path(path));
            }
        }
        if device != DeviceChoice::Cpu {
            command += &format!(" --device {device}");
        }
        Ok(command)
    }

    /// The search as a person reads it.
    pub fn to_text(&self) -> String {
        let metric = self.metric.as_deref().unwrap_or("value");
        let mut table = Table::new().numbers_from(1);
        table.row(["configuration", "rung", "steps", &format!("validation {metric}"), "training", "settings"]);
        let last = self.last_of_each();
        for trial in last.iter().take(ROWS) {
            let known = |value: Option<String>| value.unwrap_or_else(|| "failed".to_owned());
            let settings = self.search.configuration(&trial.configuration).map(Configuration::settings_text);
            table.row([
                &shortened(&trial.configuration, NAME),
                &trial.rung.to_string(),
                &count(trial.steps as usize),
                &known(trial.value.map(significant)),
                &trial.seconds.map_or_else(|| "-".to_owned(), duration),
                &settings.unwrap_or_default(),
            ]);
        }
        let mut text = table.to_text();
        if last.len() > ROWS {
            text += &format!("and {} more\n", last.len() - ROWS);
        }
        text += "\n";
        self.trials.iter().filter_map(Trial::failure).for_each(|failed| text += &format!("{failed}\n"));
        if let Some(best) = &self.best {
            text += &format!("{} is the best: validation {metric} {}", best.configuration, significant(best.value));
            text += &format!("\nall runs are in {}; run the best by\n", self.folder.join(TRAIL).display());
            text += &format!("    {}", best.command);
        }
        text
    }

    /// The last run of each configuration: those that came furthest first, the best of a rung before the others.
    fn last_of_each(&self) -> Vec<&Trial> {
        let mut last: Vec<&Trial> = Vec::new();
        let mut trials: Vec<&Trial> = self.trials.iter().collect();
        trials.sort_by_key(|trial| Reverse(trial.rung));
        for trial in trials {
            if !last.iter().any(|known| known.configuration == trial.configuration) {
                last.push(trial);
            }
        }
        last
    }
}

impl Trial {
    fn failure(&self) -> Option<String> {
        let error = self.error.as_ref()?;
        Some(format!("{} failed in rung {}: {error}", self.configuration, self.rung))
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(configuration: &str, rung: usize, value: Option<f64>) -> Trial {
        let error = value.is_none().then(|| "it fell over".to_owned());
        let folder = PathBuf::new();
        Trial { configuration: configuration.into(), rung, steps: 9, value, seconds: None, error, kept: false, folder }
    }

    fn trail(metric: &str) -> Trail {
        let search = Search {
            budget: 1.0,
            steps: 9,
            lr: (0.1, 1.0),
            seed: 0,
            candidates: Vec::new(),
            spaces: Vec::new(),
            rungs: Vec::new(),
            configurations: Vec::new(),
        };
        Trail { metric: Some(metric.into()), ..Trail::new(Path::new("a"), search) }
    }

    #[test]
    fn the_best_are_kept_and_what_failed_is_last() {
        let check = |metric: &str, next: usize, expected: &[(&str, bool)]| {
            let mut trail = trail(metric);
            let values = [("a", Some(0.5)), ("b", None), ("c", Some(0.7)), ("d", Some(0.5)), ("e", None)];
            trail.add(values.map(|(name, value)| trial(name, 1, value)).to_vec(), next);
            let found: Vec<_> = trail.trials.iter().map(|t| (t.configuration.as_str(), t.kept)).collect();
            assert_eq!(found, expected, "{metric}");
        };
        check("accuracy", 1, &[("c", true), ("a", false), ("d", false), ("b", false), ("e", false)]);
        check("loss", 2, &[("a", true), ("d", true), ("c", false), ("b", false), ("e", false)]);
        // What failed goes no further, even where there is room.
        check("accuracy", 4, &[("c", true), ("a", true), ("d", true), ("b", false), ("e", false)]);
        check("accuracy", 0, &[("c", false), ("a", false), ("d", false), ("b", false), ("e", false)]);
    }

    #[test]
    fn each_configuration_is_shown_by_its_last_run() {
        let mut trail = trail("accuracy");
        trail.add(vec![trial("a", 1, Some(0.9)), trial("b", 1, Some(0.8)), trial("c", 1, None)], 2);
        trail.add(vec![trial("a", 2, Some(0.7)), trial("b", 2, Some(0.95))], 1);
        trail.add(vec![trial("b", 3, None)], 0);
        let found: Vec<_> = trail.last_of_each().iter().map(|t| (t.configuration.as_str(), t.rung)).collect();
        assert_eq!(found, [("b", 3), ("a", 2), ("c", 1)]);
    }

    #[test]
    fn where_nothing_has_a_value_every_failure_is_said() {
        let mut trail = trail("accuracy");
        trail.add(vec![trial("a", 1, None), trial("b", 1, None)], 1);
        let error = trail.choose(DeviceChoice::Cpu).unwrap_err().to_string();
        assert!(error.contains("a failed in rung 1: it fell over\nb failed in rung 1"), "{error}");
    }
}
