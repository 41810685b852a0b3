//! What a search came to: `auto.json`, and the tables that a person sees.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::draw::Configuration;
use super::options::{BEST, TRAIL};
use super::search::Search;
use crate::plugin::Search as PluginSearch;
use crate::report::metrics::higher_is_better_or_said;
use crate::report::numbers::{count, duration, significant};
use crate::report::table::Table;
use crate::report::text::{NAME, shortened};
use crate::run::results::result;
use crate::run::state::folder::RunFolder;
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
    /// Whether more of it is better, where it is a head's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) higher: Option<bool>,
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
    /// The loss on the validation examples at that evaluation: of equals, the lower one is better.
    pub loss: Option<f64>,
    /// Whether it predicts one class for all of them.
    pub one_class: bool,
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
    /// By how much the worst run of that rung is worse; null where it is alone.
    pub spread: Option<f64>,
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
    /// Whether more of it is better, where it is a head's own.
    pub(super) higher: Option<bool>,
    pub(super) value: Option<f64>,
    pub(super) loss: Option<f64>,
    pub(super) one_class: bool,
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
    #[serde(default)]
    labels: Vec<String>,
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
        let task = json.tasks.values().next();
        let watch = task.and_then(|task| task.watch.as_ref());
        let watch = watch.ok_or_else(|| result::unreadable(folder, &"its task was not watched"))?;
        let value = watch.best.map(|best| best.value);
        let metrics = watch.best.map(|best| RunFolder::evaluation(folder, best.step, "validation")).transpose()?;
        let metrics = metrics.flatten().unwrap_or_default();
        let classes = task.map_or(0, |task| task.labels.len());
        Ok(Self {
            metric: Some(watch.metric.clone()),
            higher: watch.higher,
            value,
            loss: metrics.get("loss").copied(),
            one_class: predicts_one_class(&metrics, classes),
            seconds: Some(json.train.seconds),
            error: value.is_none().then(|| format!("its validation {} never was a number", watch.metric)),
            plugins: json.plugins,
        })
    }

    /// Of a run that failed.
    pub(super) fn failed(error: String) -> Self {
        Self {
            metric: None,
            higher: None,
            value: None,
            loss: None,
            one_class: false,
            seconds: None,
            error: Some(error),
            plugins: Vec::new(),
        }
    }
}

impl Trail {
    /// A search of which nothing has run.
    pub(super) fn new(folder: &Path, search: Search) -> Self {
        Self { folder: folder.to_owned(), search, metric: None, higher: None, trials: Vec::new(), best: None }
    }

    /// Adds the runs of a rung, the best first, those that failed last; the first `next` of those that did not are kept. Of equals the
    /// one with the lower loss goes before, and then the one that was tried first.
    pub(super) fn add(&mut self, mut trials: Vec<Trial>, next: usize) {
        let higher = self.metric.as_deref().is_none_or(|metric| higher_is_better_or_said(metric, self.higher));
        let loss = |trial: &Trial| trial.loss.unwrap_or(f64::INFINITY);
        trials.sort_by(|a, b| match (a.value, b.value) {
            (Some(of_a), Some(of_b)) => {
                let by_value = if higher { of_b.total_cmp(&of_a) } else { of_a.total_cmp(&of_b) };
                by_value.then(loss(a).total_cmp(&loss(b)))
            }
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
        let others = self.trials.iter().filter(|other| other.rung == rung && other.configuration != configuration);
        let spread = others.filter_map(|other| Some((value - other.value?).abs())).reduce(f64::max);
        self.best = Some(Best { configuration, value, spread, rung, file, command });
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
            text += &match best.spread {
                Some(spread) => format!(
                    "; of the runs of rung {}, to choose the worst would have cost {} of {metric}",
                    best.rung,
                    significant(spread)
                ),
                None => {
                    format!("; no other run came to rung {}, so nothing tells what to be wrong would cost", best.rung)
                }
            };
            text += &self.unmoved_text(metric);
            text += &format!("\nall runs are in {}; run the best by\n", self.folder.join(TRAIL).display());
            text += &format!("    {}", best.command);
        }
        text
    }

    /// What to say of runs that predict one class for all examples: their metric tells that class's share and nothing of the run.
    fn unmoved_text(&self, metric: &str) -> String {
        let unmoved: Vec<&Trial> = self.trials.iter().filter(|trial| trial.one_class).collect();
        let Some(first) = unmoved.first() else { return String::new() };
        let best = |trial: &&Trial| self.best.as_ref().is_some_and(|best| best.configuration == trial.configuration);
        let with_best = if unmoved.iter().any(best) { ", the best among them" } else { "" };
        format!(
            "\n{} of {} runs predict one class for every validation example{with_best}: a validation {metric} of {} is that class's, \
             and has not moved; other learning rates (--lr) or more steps (--budget) may move it",
            unmoved.len(),
            self.trials.len(),
            significant(first.value.unwrap_or(f64::NAN))
        )
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

/// Whether metrics are those of one class for all examples: of that one the recall is 1, of the others 0, and all precision is its.
fn predicts_one_class(metrics: &BTreeMap<String, f64>, classes: usize) -> bool {
    let of = |name: &str| metrics.get(name).map(|value| value * classes as f64);
    let (Some(recall), Some(precision), Some(accuracy)) =
        (of("macro_recall"), of("macro_precision"), metrics.get("accuracy"))
    else {
        return false;
    };
    classes > 1 && (recall - 1.0).abs() < 1e-9 && (precision - accuracy).abs() < 1e-9
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
        Trial {
            configuration: configuration.into(),
            rung,
            steps: 9,
            value,
            loss: None,
            one_class: false,
            seconds: None,
            error,
            kept: false,
            folder,
        }
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
    fn of_equals_the_lower_loss_is_better_and_the_spread_and_what_has_not_moved_are_said() {
        let mut trail = trail("accuracy");
        let of = |name: &str, value: f64, loss: f64, one_class| Trial {
            loss: Some(loss),
            one_class,
            ..trial(name, 1, Some(value))
        };
        trail.add(vec![of("a", 0.5, 0.71, true), of("b", 0.5, 0.69, true), of("c", 0.4, 0.1, false)], 0);
        let order: Vec<&str> = trail.trials.iter().map(|trial| trial.configuration.as_str()).collect();
        assert_eq!(order, ["b", "a", "c"]);
        let best = Best {
            configuration: "b".into(),
            value: 0.5,
            spread: Some(0.1),
            rung: 1,
            file: PathBuf::new(),
            command: String::new(),
        };
        trail.best = Some(best);
        let text = trail.to_text();
        assert!(text.contains("to choose the worst would have cost 0.1 of accuracy"), "{text}");
        assert!(
            text.contains("2 of 3 runs predict one class for every validation example, the best among them"),
            "{text}"
        );
    }

    #[test]
    fn one_class_for_all_is_seen_in_the_averages() {
        let metrics = |accuracy: f64, precision: f64, recall: f64| {
            let all = [("accuracy", accuracy), ("macro_precision", precision), ("macro_recall", recall)];
            all.map(|(name, value)| (name.to_owned(), value)).into()
        };
        assert!(predicts_one_class(&metrics(0.6, 0.3, 0.5), 2));
        assert!(!predicts_one_class(&metrics(0.6, 0.55, 0.5), 2));
        assert!(!predicts_one_class(&metrics(0.6, 0.3, 0.45), 2));
        assert!(!predicts_one_class(&metrics(1.0, 1.0, 1.0), 1));
        assert!(!predicts_one_class(&BTreeMap::new(), 2));
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
