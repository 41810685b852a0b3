//! What is compared: a task of each candidate, and the metric.

use fthost_plugin_api::PredictionKind;

use super::candidates::Candidate;
use super::runs::Left;
use crate::report::entities;
use crate::report::metrics::masks::{self, Overlap};
use crate::report::metrics::multi_label;
use crate::report::metrics::probabilities::{self, most_probable};
use crate::report::metrics::values::{self, Score};
use crate::report::metrics::{self, Probabilities, matches, preferences, tokens};
use crate::run::file::{RunFile, task_and_metric};
use crate::{Error, Result};

/// The metric of classes that is compared where nothing else is asked for.
pub(super) const ACCURACY: &str = "accuracy";
/// The metric of any number of classes that is compared where nothing else is asked for.
const MACRO_F1: &str = "macro_f1";
/// The metric of values that is compared where nothing else is asked for.
const SQUARED_ERROR: &str = "mse";
/// The head's own: predictions do not tell it.
const LOSS: &str = "loss";

/// What is compared of the candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    /// The task of each candidate.
    pub(super) tasks: Vec<String>,
    /// The metric's name; `None` for the usual one of the kind of predictions.
    pub(super) metric: Option<String>,
}

impl Subject {
    /// What the user asks for, METRIC or TASK.METRIC, or what the run files monitor. `folds`: a task's test examples are folds of its
    /// training examples, whatever the run file has.
    ///
    /// # Errors
    /// Where the run files monitor different metrics, nothing says which of several tasks is meant, the task has no test examples, or
    /// predictions cannot tell the metric.
    pub(super) fn of(candidates: &[Candidate], wanted: Option<&str>, folds: bool) -> Result<Self> {
        let (mut tasks, mut named) = (Vec::new(), Vec::new());
        for candidate in candidates {
            let file = candidate.file()?;
            let said = wanted.or(file.train.monitor.as_deref()).map(task_and_metric);
            let (task, metric) = (said.and_then(|(task, _)| task), said.map(|(_, metric)| metric));
            tasks.push(match folds {
                true => folded_task(&candidate.name, &file, task)?,
                false => tested_task(&candidate.name, &file, task)?,
            });
            named.push(metric.map(str::to_owned));
        }
        if named.windows(2).any(|two| two[0] != two[1]) {
            let said = |(candidate, metric): (&Candidate, &Option<String>)| {
                format!("{} {}", candidate.name, metric.as_deref().unwrap_or("none"))
            };
            let each: Vec<String> = candidates.iter().zip(&named).map(said).collect();
            return Err(Error::usage(format!("the run files monitor different metrics: {}", each.join(", ")))
                .with_help("say which they are compared by: --metric NAME"));
        }
        let metric = named.into_iter().next().flatten();
        // A single candidate's loss is compared with nothing.
        if let Some(metric) = metric.as_deref().filter(|metric| candidates.len() > 1 || *metric != LOSS) {
            // What a run file monitors is known to the run, which says so before it trains: it may be the head's own.
            let monitored = |candidate: &Candidate| {
                let named = candidate.file()?.train.monitor;
                Ok(named.is_some_and(|named| task_and_metric(&named).1 == metric))
            };
            let known = candidates.iter().map(monitored).collect::<Result<Vec<bool>>>()?;
            if metric == LOSS || !known.contains(&true) {
                told_by_predictions(metric, wanted.is_none())?;
            }
        }
        Ok(Self { tasks, metric })
    }

    /// The name of the metric in a run's result, where that is all that is asked of it.
    ///
    /// # Errors
    /// Where the result has no such metric.
    pub(super) fn name_in(&self, left: &Left) -> Result<String> {
        let name = self.metric.as_deref().unwrap_or(usual(left.kind));
        let known: Vec<&str> = left.metrics.keys().map(String::as_str).collect();
        if known.contains(&name) { Ok(name.to_owned()) } else { Err(no_metric(name, &known)) }
    }

    /// The name of the metric in a run's result, where it is the head's own.
    ///
    /// # Errors
    /// Where predictions do not tell it, and it is not the head's own either.
    pub(super) fn own<'a>(&'a self, left: &Left) -> Result<Option<&'a str>> {
        let named = self.metric.as_deref().filter(|name| left.own.iter().any(|own| own.name == *name));
        match named {
            Some(name) => Ok(Some(name)),
            None => Metric::choose(self.metric.as_deref(), left).map(|_| None),
        }
    }

    /// Whether the metric is one of the probabilities of all classes.
    pub(super) fn needs_probabilities(&self) -> bool {
        self.metric.as_deref().is_some_and(of_probabilities)
    }
}

/// The task of a run file that is compared: the one that is named, or the only one with test examples.
fn tested_task(candidate: &str, file: &RunFile, named: Option<&str>) -> Result<String> {
    let tested: Vec<&str> =
        file.tasks.iter().filter(|task| task.test.is_some()).map(|task| task.name.as_str()).collect();
    let known = tested.join(", ");
    match (named, tested.as_slice()) {
        (Some(named), tested) if tested.contains(&named) => Ok(named.to_owned()),
        (Some(named), _) => Err(Error::usage(format!("{candidate}: there is no task {named:?} with test data"))
            .with_help(format!("tasks with test data: {}", if known.is_empty() { "none" } else { &known }))),
        (None, [only]) => Ok((*only).to_owned()),
        (None, []) => {
            let tasks: Vec<&str> = file.tasks.iter().map(|task| task.name.as_str()).collect();
            let of = if tasks.len() == 1 { "the task" } else { "none of the tasks" };
            let has = if tasks.len() == 1 { "has no test data" } else { "has test data" };
            let message = format!("{candidate}: there is nothing to compare on: {of} {} {has}", tasks.join(", "));
            Err(Error::usage(message).with_help("give the task test = \"FILE\""))
        }
        (None, [first, ..]) => Err(Error::usage(format!(
            "{candidate}: several tasks have test data, and nothing says which is compared: {known}"
        ))
        .with_help(format!("name the task with the metric: --metric {first}.accuracy"))),
    }
}

/// The task of a run file whose training examples are dealt out in folds: the one that is named, or the only one.
fn folded_task(candidate: &str, file: &RunFile, named: Option<&str>) -> Result<String> {
    let names: Vec<&str> = file.tasks.iter().map(|task| task.name.as_str()).collect();
    let found = match (named, names.as_slice()) {
        (Some(named), names) => names.iter().find(|name| **name == named).ok_or_else(|| {
            let message = format!("{candidate}: there is no task {named:?}");
            Error::usage(message).with_help(format!("the tasks are {}", names.join(", ")))
        })?,
        (None, [only]) => only,
        (None, names) => {
            let message = format!(
                "{candidate}: there are several tasks, and nothing says which is dealt out in folds: {}",
                names.join(", ")
            );
            let first = names.first().copied().unwrap_or("TASK");
            return Err(
                Error::usage(message).with_help(format!("name the task with the metric: --metric {first}.accuracy"))
            );
        }
    };
    if file.tasks.iter().any(|task| task.name == **found && task.set_aside.is_some()) {
        return Err(Error::usage(format!(
            "{candidate}: {found} leaves some of its training examples alone (set_aside), and folds are of all of them"
        ))
        .with_help("take set_aside out of the run file, or leave --folds out"));
    }
    Ok((*found).to_owned())
}

/// Whether predictions of any kind tell a metric of this name; asked before runs are made, when their kind is not known yet. `monitored`:
/// the run files name it, not the user.
fn told_by_predictions(name: &str, monitored: bool) -> Result<()> {
    let names = |kind| metrics::names(kind, usize::MAX);
    let kinds = [
        PredictionKind::Classes,
        PredictionKind::MultiLabel,
        PredictionKind::Masks,
        PredictionKind::Values,
        PredictionKind::Tokens,
        PredictionKind::Preferences,
        PredictionKind::Embeddings,
    ];
    let mut known: Vec<String> = Vec::new();
    for name in kinds.map(names).concat() {
        if !known.contains(&name) {
            known.push(name);
        }
    }
    known.extend(entities::NAMES.map(str::to_owned));
    known.retain(|name| name != LOSS);
    if known.iter().any(|known| known == name) {
        return Ok(());
    }
    let why = if name == LOSS { ": it is the head's own, and predictions do not tell it" } else { "" };
    let known = known.join(", ");
    let help = match monitored {
        true => format!("the run files have train.monitor = {name:?}: name another by --metric, of {known}"),
        false => format!("metrics are {known}"),
    };
    Err(Error::usage(format!("there is no metric {name:?} to compare by{why}")).with_help(help))
}

/// Whether a metric is one of the probabilities of all classes.
pub(super) fn of_probabilities(metric: &str) -> bool {
    multi_label::OF_PROBABILITIES.contains(&metric) || probabilities::names(usize::MAX).any(|name| name == metric)
}

/// The metric that is compared where nothing else is asked for.
fn usual(kind: PredictionKind) -> &'static str {
    match kind {
        PredictionKind::Classes => ACCURACY,
        PredictionKind::MultiLabel => MACRO_F1,
        PredictionKind::Masks => masks::NAMES[0],
        PredictionKind::Values => SQUARED_ERROR,
        PredictionKind::Tokens => tokens::PERPLEXITY,
        PredictionKind::Preferences => preferences::NAMES[0],
        PredictionKind::Embeddings => matches::NAMES[1],
    }
}

fn no_metric(name: &str, known: &[&str]) -> Error {
    Error::usage(format!("there is no metric {name:?} of these predictions"))
        .with_help(format!("their metrics are {}", known.join(", ")))
}

/// The metric that is compared.
#[derive(Clone, Debug)]
pub(super) enum Metric {
    /// Of classes, of which there are so many.
    Classes { name: String, classes: usize },
    /// Of values.
    Values(Score),
    /// Of the probabilities of so many classes: each prediction is as many numbers.
    Probabilities { name: String, classes: usize },
    /// Of any number of so many classes: an example has a row for each, targets 1 or 0, predictions too or probabilities.
    Labels { name: String, classes: usize },
    /// Of so many classes of pixels: an example has a row for each, targets are its true pixels, and each prediction is two numbers, how
    /// many of them are predicted as the class and how many of all.
    Masks { name: String, classes: usize },
    /// Of preferences: each prediction is two numbers, the rewards of the better and of the worse answer.
    Preferences { name: String },
    /// Of what belongs together: each prediction is two numbers, the ranks of both sides.
    Matches { name: String },
    /// Of entities: targets and predictions say of each whether it is there, 1 or 0.
    Entities { name: String },
}

impl Metric {
    /// The metric that is asked for, or the usual one of the kind of predictions, with its name.
    ///
    /// # Errors
    /// Where a run's result has no such metric that its predictions tell.
    pub(super) fn choose(wanted: Option<&str>, of: &Left) -> Result<(String, Self)> {
        let name = wanted.unwrap_or(usual(of.kind));
        let known: Vec<&str> = of.metrics.keys().map(String::as_str).filter(|metric| *metric != LOSS).collect();
        let found = known.contains(&name).then(|| match of.kind {
            PredictionKind::Values => values::score(name).map(Self::Values),
            PredictionKind::Tokens => tokens::score(name).map(Self::Values),
            PredictionKind::Preferences => Some(Self::Preferences { name: name.to_owned() }),
            PredictionKind::Embeddings => Some(Self::Matches { name: name.to_owned() }),
            PredictionKind::Masks => Some(Self::Masks { name: name.to_owned(), classes: of.labels.len() }),
            PredictionKind::MultiLabel => Some(Self::Labels { name: name.to_owned(), classes: of.labels.len() }),
            PredictionKind::Classes if entities::NAMES.contains(&name) => {
                Some(Self::Entities { name: name.to_owned() })
            }
            PredictionKind::Classes if of_probabilities(name) => {
                Some(Self::Probabilities { name: name.to_owned(), classes: of.labels.len() })
            }
            PredictionKind::Classes => Some(Self::Classes { name: name.to_owned(), classes: of.labels.len() }),
        });
        if matches!(found, Some(Some(Self::Probabilities { .. } | Self::Labels { .. })))
            && of_probabilities(name)
            && of.predictions.iter().all(|row| row.probabilities.is_empty())
        {
            return Err(Error::usage(format!(
                "{name} is of the probabilities of all classes, and the runs have written that of the predicted one alone"
            ))
            .with_help("begin a new comparison by this metric, in another folder"));
        }
        let found = found.flatten().map(|metric| (name.to_owned(), metric));
        found.ok_or_else(|| no_metric(name, &known))
    }

    /// Numbers of one prediction.
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Probabilities { classes, .. } => *classes,
            Self::Masks { .. } | Self::Preferences { .. } | Self::Matches { .. } => 2,
            Self::Classes { .. } | Self::Values(_) | Self::Labels { .. } | Self::Entities { .. } => 1,
        }
    }

    /// Its value. Classes are whole numbers.
    pub(super) fn of(&self, targets: &[f64], predictions: &[f64]) -> f64 {
        let named =
            |all: std::collections::BTreeMap<String, f64>, name: &str| all.get(name).copied().unwrap_or(f64::NAN);
        match self {
            Self::Values(score) => score(targets, predictions),
            Self::Classes { name, .. } if name == ACCURACY => {
                let right = targets.iter().zip(predictions).filter(|(target, predicted)| target == predicted).count();
                right as f64 / targets.len() as f64
            }
            Self::Classes { name, classes } => {
                let whole = |values: &[f64]| values.iter().map(|&class| class as u32).collect::<Vec<_>>();
                named(metrics::classes(&whole(targets), &whole(predictions), *classes).to_map(), name)
            }
            Self::Probabilities { name, classes } => {
                let p = Probabilities::new(*classes, predictions.iter().map(|&p| p as f32).collect());
                let found: Vec<u32> = p.rows().map(most_probable).collect();
                let targets: Vec<u32> = targets.iter().map(|&class| class as u32).collect();
                p.metric(name, &targets, &found).unwrap_or(f64::NAN)
            }
            Self::Labels { name, classes } => {
                let sets = |values: &[f64]| -> Vec<Vec<u32>> {
                    let there =
                        |row: &[f64]| (0..).zip(row).filter(|(_, p)| **p >= 0.5).map(|(class, _)| class).collect();
                    values.chunks_exact(*classes).map(there).collect()
                };
                let p = Probabilities::new(*classes, predictions.iter().map(|&p| p as f32).collect());
                named(multi_label::of(&sets(targets), &sets(predictions), Some(&p), *classes), name)
            }
            Self::Masks { name, classes } => {
                let mut all = vec![Overlap::default(); *classes];
                for (row, (target, found)) in targets.iter().zip(predictions.chunks_exact(2)).enumerate() {
                    let [right, target, predicted] = [found[0], *target, found[1]].map(|pixels| pixels as u64);
                    all[row % classes] += Overlap { right, target, predicted };
                }
                named(masks::of(&all), name)
            }
            Self::Preferences { name } => named(preferences::of(predictions.as_chunks().0), name),
            Self::Matches { name } => {
                let ranks = predictions.as_chunks().0.iter();
                let ranks = ranks.map(|&[forward, backward]| matches::Ranks { forward, backward });
                named(matches::of(&ranks.collect::<Vec<_>>()), name)
            }
            Self::Entities { name } => {
                let there = |values: &[f64]| values.iter().filter(|&&there| there == 1.0).count() as u64;
                let right = targets.iter().zip(predictions).filter(|&(&target, &found)| target + found == 2.0).count();
                named(entities::to_map(&entities::scores(right as u64, there(targets), there(predictions))), name)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::run::DeviceChoice;

    /// Candidates `a`, `b`, ... of run files with these tasks and monitors.
    fn candidates(files: &[(&[&str], &str)]) -> Vec<Candidate> {
        let of = |(name, (tasks, monitor)): (char, &(&[&str], &str))| {
            let task = |task: &&str| {
                let (name, test) =
                    task.strip_suffix(" untested").map_or((*task, "test = \"t.tsv\"\n"), |name| (name, ""));
                format!(
                    "[[task]]\nname = \"{name}\"\nhead = {{ plugin = \"h\" }}\ntrain = \"a.tsv\"\nvalidation = 0.2\n{test}"
                )
            };
            let tasks: String = tasks.iter().map(task).collect();
            let monitor = if monitor.is_empty() { String::new() } else { format!("monitor = \"{monitor}\"\n") };
            let text = format!("[model]\npath = \"m\"\n{tasks}[train]\n{monitor}");
            let file = RunFile::parse(&text, Path::new("a.toml"), &[]).unwrap();
            Candidate::of_file(&file, name.into(), Vec::new(), DeviceChoice::Cpu)
        };
        ('a'..).zip(files).map(of).collect()
    }

    #[test]
    fn what_the_run_files_monitor_is_compared() {
        let check = |files: &[(&[&str], &str)], wanted: Option<&str>, tasks: &[&str], metric: Option<&str>| {
            let found = Subject::of(&candidates(files), wanted, false).unwrap();
            let tasks = tasks.iter().map(|&task| task.to_owned()).collect();
            assert_eq!(found, Subject { tasks, metric: metric.map(str::to_owned) }, "{files:?} {wanted:?}");
        };
        check(&[(&["x"], ""), (&["y"], "")], None, &["x", "y"], None);
        check(&[(&["x"], "macro_f1"), (&["y"], "macro_f1")], None, &["x", "y"], Some("macro_f1"));
        check(&[(&["x"], "macro_f1"), (&["x"], "loss")], Some("entity_f1"), &["x", "x"], Some("entity_f1"));
        check(&[(&["x", "y"], "y.spearman"), (&["y"], "spearman")], None, &["y", "y"], Some("spearman"));
        check(&[(&["x", "y"], ""), (&["x", "y"], "y.mae")], Some("x.matthews"), &["x", "x"], Some("matthews"));
        check(&[(&["x untested", "y"], ""), (&["y"], "")], None, &["y", "y"], None);
    }

    #[test]
    fn what_cannot_be_compared_is_refused_by_its_name() {
        let check = |files: &[(&[&str], &str)], wanted: Option<&str>, expected: &str| {
            let error = Subject::of(&candidates(files), wanted, false).unwrap_err();
            assert!(format!("{error} {:?}", error).contains(expected), "{files:?} {wanted:?}: {error:?}");
        };
        let plain: (&[&str], &str) = (&["x"], "");
        check(&[plain, plain], Some("loss"), "there is no metric \"loss\" to compare by: it is the head's own");
        check(&[(&["x"], "loss"), (&["x"], "loss")], None, "train.monitor = \\\"loss\\\"");
        check(&[plain, plain], Some("x.f1"), "there is no metric \"f1\"");
        check(&[(&["x"], "accuracy"), (&["x"], "macro_f1")], None, "different metrics: a accuracy, b macro_f1");
        check(&[plain, (&["x"], "accuracy")], None, "different metrics: a none, b accuracy");
        check(&[(&["x", "y"], "accuracy"), plain], None, "a: several tasks have test data, and nothing says which");
        check(&[(&["x", "y"], ""), plain], Some("z.accuracy"), "a: there is no task \"z\" with test data");
        check(&[(&["x", "y untested"], ""), plain], Some("y.accuracy"), "no task \"y\" with test data");
        check(&[(&["x untested"], ""), plain], None, "the task x has no test data");
    }
    #[test]
    fn folds_need_no_test_data_and_one_task() {
        let of = |files: &[(&[&str], &str)], wanted| Subject::of(&candidates(files), wanted, true);
        let check = |files: &[(&[&str], &str)], wanted, tasks: &[&str]| {
            assert_eq!(of(files, wanted).unwrap().tasks, tasks, "{files:?} {wanted:?}");
        };
        check(&[(&["x untested"], "")], None, &["x"]);
        check(&[(&["x", "y untested"], ""), (&["y"], "")], Some("y.accuracy"), &["y", "y"]);
        // Nothing is compared with a single candidate's loss.
        check(&[(&["x"], "loss")], None, &["x"]);
        let refused = |files: &[(&[&str], &str)], wanted, expected: &str| {
            let error = of(files, wanted).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        refused(
            &[(&["x", "y"], "")],
            None,
            "a: there are several tasks, and nothing says which is dealt out in folds: x, y",
        );
        refused(&[(&["x"], "")], Some("y.accuracy"), "a: there is no task \"y\"");
        refused(&[(&["x"], "loss"), (&["x"], "loss")], None, "there is no metric \"loss\" to compare by");
    }
}
