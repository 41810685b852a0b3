//! A task of a run: its head and its examples.

use std::sync::Arc;

use fthost_plugin_api::{HeadSpec, LossScope, PredictionKind, TargetKind};

use super::fits;
use super::from_data::{self, FromData};
use super::samples::{ROWS, Samples};
use super::schedule::{BalanceOf, DataFile, Watched};
use super::{methods, model as base};
use crate::Result;
use crate::adapted::AdaptedModel;
use crate::data::{
    self, Asker, Balanced, Dataset, Episodes, Holds, LanguageModel, Measured, Part, Sampler, Shuffled, Source,
    Tokenizer,
};
use crate::plugin::{HeadInstance, Library};
use crate::report::entities::{self, Tags};
use crate::report::metrics;
use crate::report::numbers::percent;
use crate::report::text::{NAME, shortened};
use crate::run::file::{Drawn, HeldOut, RunFile, TaskTable, TrainTable, task_and_metric};
use crate::run::pass::{Decision, episode_shape};

/// A task with its data and its head.
pub struct Task {
    /// Its name in the run file.
    pub name: String,
    /// Its head.
    pub head: Arc<HeadInstance>,
    /// The place of the task whose head it is; its own, where that is no other's.
    pub head_of: usize,
    /// What the head declared.
    pub spec: HeadSpec,
    /// The training examples.
    pub train: Dataset,
    /// What it draws from them, where its head learns by episodes.
    pub episodes: Option<Episodes>,
    /// What an epoch takes of them, where classes are to be equally frequent.
    pub balanced: Option<Balanced>,
    /// The lengths of its training examples, where batches follow from them.
    lengths: Option<Arc<[u32]>>,
    /// The examples that are watched.
    pub validation: Option<Dataset>,
    /// The examples that the result is measured on.
    pub test: Option<Dataset>,
    /// What of the watched examples is continued at each evaluation, where texts are.
    pub samples: Option<Samples>,
    /// The metric on the validation examples that counts for the best model; `None` where another task's does.
    pub monitor: Option<Monitor>,
    /// What its loss is multiplied with.
    pub weight: f64,
    /// Options of its head that its training examples gave.
    pub from_data: Vec<FromData>,
    /// How classes follow from probabilities: once it has trained, by what was fitted on the validation examples.
    pub decision: Decision,
}

/// The metric on a task's validation examples that counts for the best model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// Its name.
    pub metric: String,
    /// Why this one: half a sentence.
    pub why: String,
}

/// A task's examples, before a head says what their labels mean.
pub(in crate::run) struct TaskData {
    pub(in crate::run) train: Dataset,
    validation: Option<Dataset>,
    test: Option<Dataset>,
    /// What reads and writes samples, where there are to be some.
    asker: Option<Asker>,
}

impl TaskData {
    /// Reads them by the model's tokenizer, cut to what fits beside the prompts of the strategies that have attached.
    pub(in crate::run) fn load(
        file: &RunFile,
        table: &TaskTable,
        model: &AdaptedModel,
        tokenizer: Option<&mut Tokenizer>,
    ) -> Result<Self> {
        let tokenizer = match tokenizer {
            Some(tokenizer) => {
                base::fit(tokenizer, file, table, model)?;
                Some(&*tokenizer)
            }
            None => None,
        };
        // What stands beside predictions are the texts of the test examples, or where there are none of the validation examples.
        let shown = table.test.as_ref().or(table.validation.as_ref());
        let transform = base::transform(file, table, model)?;
        let info = model.model.info();
        let modalities = base::modalities(info, &base::of_task(file, table, info)?);
        let of_train = Source {
            files: &table.train,
            part: Part::Train,
            form: &table.form,
            only: table.split.as_ref().map(|split| split.train.as_str()),
            labels: None,
            texts: shown.and_then(HeldOut::drawn).is_some(),
            modalities: &modalities,
            language: file.language,
            transform: transform.as_ref(),
            device: &model.device,
        };
        let train = data::load(&of_train, tokenizer)?;
        let own = Source { part: Part::Test, labels: Some(train.labels()), ..of_train };
        // What has files of its own has them whole.
        let form = table.form.of_whole_files();
        let held_out = |part: Option<&HeldOut>, texts: bool| match part {
            Some(HeldOut::Files(files)) => {
                data::load(&Source { files, form: &form, only: None, texts, ..own }, tokenizer).map(Some)
            }
            Some(HeldOut::Rows(rows)) => data::load(&Source { only: Some(rows), texts, ..own }, tokenizer).map(Some),
            Some(HeldOut::Drawn(_)) | None => Ok(None),
        };
        let (validation, test) =
            (held_out(table.validation.as_ref(), table.test.is_none())?, held_out(table.test.as_ref(), true)?);
        let samples = file.language == Some(LanguageModel::Causal) && table.validation.is_some();
        let asker = tokenizer.filter(|_| samples && table.samples != Some(0));
        let asker = asker.map(|tokenizer| Asker::of_rows(&table.form.language, tokenizer)).transpose()?;
        Ok(Self { train, validation, test, asker })
    }
}

/// The training examples, and what of them is held out.
struct Parts {
    train: Dataset,
    validation: Option<Dataset>,
    /// Drawn first, and the same with every seed: runs with other seeds are compared on it.
    test: Option<Dataset>,
}

impl Parts {
    fn of(all: &Dataset, table: &TaskTable, seed: u64) -> Result<Self> {
        let (mut train, mut test, mut validation) = (all.clone(), None, None);
        let (tested, watched) = (table.test_drawn(), table.validation.as_ref().and_then(HeldOut::drawn));
        if let Some(drawn) = tested {
            let (rest, held_out) = match drawn {
                Drawn::Share(share) => train.split_test(share)?,
                Drawn::Fold(fold) => train.split_fold(fold)?,
            };
            (train, test) = (rest, Some(held_out));
        }
        if let Some(drawn) = watched {
            // Of all examples, not of those that are left.
            let (rest, held_out) = train.split(drawn.share() / (1.0 - tested.map_or(0.0, Drawn::share)), seed)?;
            (train, validation) = (rest, Some(held_out));
        }
        Ok(Self { train, validation, test })
    }
}

impl Task {
    /// Attaches the task's head and tells the examples what their labels mean. Options of the head that these give are set in the run file.
    pub(in crate::run) fn set_up(
        file: &mut RunFile,
        index: usize,
        data: TaskData,
        above: &[Self],
        library: &mut Library,
        model: &mut AdaptedModel,
    ) -> Result<Self> {
        let TaskData { mut train, mut validation, mut test, asker } = data;
        if asker.is_some() {
            file.tasks[index].samples.get_or_insert(ROWS);
        }
        let (seed, table) = (file.train.seed, file.tasks[index].clone());
        let parts = |train: &Dataset| Parts::of(train, &table, seed);
        let trains = |values: Dataset| Ok(parts(&values)?.train);
        let shared = table.head_of.map(|owner| &above[owner]);
        let from_data = match shared {
            None => from_data::fill(&table.name, &mut file.tasks[index].head, library, &train, trains)?,
            Some(_) => Vec::new(),
        };
        let file = &*file;
        // A head weighs classes by what it trains on. Before it attaches nobody knows whether labels are classes.
        let by_class = parts(&train);
        let trained_on = by_class.as_ref().map_or(&train, |parts| &parts.train);
        fits::every_class_counts(file, index, &train)?;
        let (labels, counts) = (train.labels().to_vec(), (trained_on.class_counts(), trained_on.len() as u64));
        let (head, spec) = match shared {
            Some(owner) => (owner.head.clone(), owner.spec.clone()),
            None => methods::attach_head(file, index, library, model, labels, counts)?,
        };
        fits::fits_the_head(file, index, &spec)?;
        if spec.scope == LossScope::Batch && train.weighted() {
            let path = format!("task[{index}].columns.weight");
            let message = "the task's head has one loss for a whole batch, in which examples have no weights";
            return Err(file.error_at(&path, message, "weights do nothing", Some("take weight out of columns".into())));
        }
        let mixable = matches!(spec.targets, TargetKind::Class | TargetKind::Value) && spec.scope == LossScope::Example;
        if table.augment.mixes() && !mixable {
            let path = format!("task[{index}].augment");
            let message = "pictures that are mixed have two classes or values, and the task's head takes one of each";
            let help = "take mixup and cutmix out of the list";
            return Err(file.error_at(&path, message, "mixes pictures", Some(help.into())));
        }
        for data in std::iter::once(&mut train).chain(&mut validation).chain(&mut test) {
            match spec.masking.filter(|_| spec.targets == TargetKind::MaskedToken) {
                Some(masking) => data.set_masked(masking)?,
                None => data.set_targets(spec.targets)?,
            }
            if spec.reference && spec.targets == TargetKind::Preference {
                data.needs_reference();
            }
        }
        if let Some(owner) = shared {
            fits::same_answers(file, index, train.labels(), owner.train.labels(), owner.episodes.is_some())?;
        }
        // What one label is to a head of several, and what is shared out by it, is known by now alone.
        let again = matches!(
            spec.targets,
            TargetKind::Value
                | TargetKind::MultiLabel
                | TargetKind::NextToken
                | TargetKind::MaskedToken
                | TargetKind::Preference
                | TargetKind::Match
        );
        let parts = if again { parts(&train) } else { by_class }?;
        train = parts.train;
        validation = validation.or(parts.validation);
        test = test.or(parts.test.filter(|_| table.test.is_some()));
        let monitor = monitored(file, &table.name, &spec, &train)?;
        let episodes = episode_shape(&spec).map(|shape| Episodes::new(file.train.seed, &train, shape)).transpose();
        let episodes = episodes.map_err(|error| file.at_method(&table.head, error))?;
        let balanced = balanced(file, index, &spec, &train)?;
        let lengths = lengths(file, &train, episodes.is_some(), balanced.is_some())?;
        let samples = asker.filter(|_| spec.targets == TargetKind::NextToken).zip(validation.as_ref());
        let samples = samples.map(|(asker, data)| Samples::of(file, index, model, asker, data)).transpose()?;
        let (name, weight) = (table.name.clone(), table.weight);
        let task = Self {
            name,
            head,
            head_of: table.head_of.unwrap_or(index),
            spec,
            train,
            episodes,
            balanced,
            lengths,
            validation,
            test,
            samples,
            monitor,
            weight,
            from_data,
            decision: Decision::default(),
        };
        task.decides(file)?;
        Ok(task)
    }

    /// Its batches: the examples of `together` passes, forward and backward, each.
    pub(in crate::run) fn sampler(&self, settings: &TrainTable, together: usize) -> Sampler {
        let examples = self.pass_size(settings) * together;
        match (&self.episodes, &self.balanced, &self.lengths) {
            (Some(episodes), ..) => Sampler::Episodes(episodes.clone(), together),
            (None, Some(balanced), _) => Sampler::Balanced(balanced.clone(), examples),
            (None, None, Some(lengths)) => {
                let tokens = settings.batch_tokens.map(|tokens| Holds::Tokens(tokens * together));
                let holds = tokens.unwrap_or(Holds::Examples(settings.batch_size * together));
                Sampler::Measured(Measured::new(settings.seed, lengths.clone(), holds, settings.group_by_length))
            }
            (None, None, None) => Sampler::Shuffled(Shuffled::new(settings.seed, self.train.len(), examples)),
        }
    }

    /// Examples of an epoch; about, where its head learns by episodes.
    pub(in crate::run) fn examples_per_epoch(&self) -> usize {
        self.balanced.as_ref().map_or(self.train.len(), Balanced::len)
    }

    /// What an epoch takes of the training examples, where classes are to be equally frequent.
    pub(super) fn balance(&self) -> Option<BalanceOf> {
        let balanced = self.balanced.as_ref()?;
        let (classes, each, examples) = (balanced.classes(), balanced.each(), balanced.len());
        Some(BalanceOf { task: self.name.clone(), classes, each, examples })
    }

    /// What stands between the classes of an example in tables.
    pub(in crate::run) fn label_separator<'a>(&self, file: &'a RunFile) -> &'a str {
        let table = file.tasks.iter().find(|table| table.name == self.name);
        table.and_then(|table| table.form.label_separator.as_deref()).unwrap_or(data::SEPARATOR)
    }

    /// Refuses a threshold or a temperature that the task has no use for.
    fn decides(&self, file: &RunFile) -> Result<()> {
        let refuse = |key: &str, why: String, help: &str| {
            Err(file.error_at(&format!("train.{key}"), why, "does nothing", Some(help.into())))
        };
        let (classes, several) = (self.spec.predictions == PredictionKind::Classes, file.tasks.len() > 1);
        let multi = self.spec.predictions == PredictionKind::MultiLabel;
        if file.train.calibrate && !classes && !several {
            let (help, why) = match self.spec.predictions {
                PredictionKind::MultiLabel => (
                    "leave it out: a temperature is for one class of several",
                    "gives each class a probability of its own",
                ),
                PredictionKind::Masks => ("leave it out: it is for classes of examples", "gives each pixel a class"),
                _ => ("leave it out: it is for classes", "predicts values, and they have no probabilities"),
            };
            return refuse("calibrate", format!("the task {} {why}", self.name), help);
        }
        let binary = classes && self.spec.targets == TargetKind::Class && self.train.labels().len() == 2;
        if file.train.threshold.is_some() && !binary && !multi && !several {
            let has = match self.spec.predictions {
                PredictionKind::Values => "predicts values".into(),
                PredictionKind::Masks => "gives each pixel a class".into(),
                _ => format!("has {} classes", self.train.labels().len()),
            };
            let help = "leave it out: it is where the two classes of examples part";
            return refuse(
                "threshold",
                format!("a threshold is for two classes, and the task {} {has}", self.name),
                help,
            );
        }
        Ok(())
    }

    /// The files of its examples.
    pub(super) fn files(&self) -> Vec<DataFile> {
        let parts =
            [("train", Some(&self.train)), ("validation", self.validation.as_ref()), ("test", self.test.as_ref())];
        let file = |(part, data): (&'static str, Option<&Dataset>)| {
            let data = data?;
            Some(DataFile { task: self.name.clone(), part, path: data.path().to_owned(), examples: data.len() })
        };
        parts.into_iter().filter_map(file).collect()
    }

    /// What of it is watched, where something is.
    pub(super) fn watched(&self) -> Option<Watched> {
        let (Monitor { metric, why }, data) = (self.monitor.clone()?, self.validation.as_ref()?);
        Some(Watched { task: self.name.clone(), metric, examples: data.len(), why })
    }

    /// Examples of one pass, forward and backward: a batch, or an episode; where batches hold tokens, about.
    pub(in crate::run) fn pass_size(&self, settings: &TrainTable) -> usize {
        match (&self.episodes, settings.batch_tokens) {
            (Some(episodes), _) => episodes.shape.size(),
            (None, Some(tokens)) => {
                let mean = self.train.total_tokens().div_ceil(self.train.len().max(1));
                tokens.div_ceil(mean.max(1)).min(self.train.len())
            }
            (None, None) => settings.batch_size,
        }
    }

    /// The rows of a step in passes, forward and backward, whose gradients make it.
    pub(in crate::run) fn passes(&self, settings: &TrainTable) -> Passes {
        match settings.batch_tokens {
            Some(_) if self.lengths.is_some() => Passes::Parts(settings.accumulate),
            _ => Passes::Examples(self.pass_size(settings)),
        }
    }
}

/// How the rows of a step are split into passes.
#[derive(Clone, Copy, Debug)]
pub(in crate::run) enum Passes {
    /// So many examples each.
    Examples(usize),
    /// So many, of about as many tokens.
    Parts(usize),
}

impl Passes {
    /// The passes of some rows.
    pub(in crate::run) fn of<'r>(self, data: &Dataset, rows: &'r [u32]) -> Result<Vec<&'r [u32]>> {
        match self {
            Self::Examples(size) => Ok(rows.chunks(size.max(1)).collect()),
            Self::Parts(parts) => {
                let lengths = rows.iter().map(|&row| data.tokens(row)).collect::<Result<Vec<_>>>()?;
                Ok(data::passes(&lengths, parts).into_iter().map(|places| &rows[places]).collect())
            }
        }
    }
}

/// The lengths of the training examples, where batches are to follow from them.
fn lengths(file: &RunFile, train: &Dataset, episodes: bool, balanced: bool) -> Result<Option<Arc<[u32]>>> {
    let settings = &file.train;
    let key = match (settings.batch_tokens, settings.group_by_length) {
        (Some(_), _) => "train.batch_tokens",
        (None, true) => "train.group_by_length",
        (None, false) => return Ok(None),
    };
    let why = match (episodes, balanced) {
        (true, _) => Some("the head learns by episodes, which have a size of their own"),
        (_, true) => Some("balance draws the examples of a batch by their classes"),
        _ => None,
    };
    if let Some(why) = why {
        let help = format!("take {} out", key.trim_start_matches("train."));
        return Err(file.error_at(key, format!("{key} does nothing: {why}"), "does nothing", Some(help)));
    }
    let rows = 0..train.len() as u32;
    rows.map(|row| Ok(train.tokens(row)? as u32)).collect::<Result<Vec<_>>>().map(|lengths| Some(lengths.into()))
}

/// Epochs of equally frequent classes, where the run file asks for them.
fn balanced(file: &RunFile, index: usize, spec: &HeadSpec, train: &Dataset) -> Result<Option<Balanced>> {
    let table = &file.tasks[index];
    let Some(balance) = table.balance else { return Ok(None) };
    let why = match (spec.targets, episode_shape(spec)) {
        (TargetKind::Class, None) => None,
        (TargetKind::Class, Some(_)) => Some("its head learns by episodes, which have as many examples of each class"),
        (TargetKind::Value, _) => Some("its head predicts values"),
        (TargetKind::MultiLabel, _) => Some("its head learns any number of classes for an example"),
        (TargetKind::TokenClass, _) => Some("its head has a class for each word, and examples are whole texts"),
        (TargetKind::Mask, _) => Some("its head has a class for each pixel, and examples are whole pictures"),
        (TargetKind::NextToken | TargetKind::MaskedToken, _) => Some("its head learns tokens"),
        (TargetKind::Preference, _) => Some("its head learns which of two answers is better"),
        (TargetKind::Match, _) => Some("its head learns what belongs together"),
    };
    if let Some(why) = why {
        let message = format!(
            "task[{index}].balance needs one class for each example, and the task {} has none: {why}",
            table.name
        );
        let path = format!("task[{index}].balance");
        return Err(file.error_at(&path, message, "does nothing", Some("leave it out".into())));
    }
    Balanced::new(file.train.seed, train, balance).map(Some).map_err(|error| file.at_task(table, "balance", error))
}

/// The largest class's share, in those that each would have if all were as frequent, from which classes count as imbalanced.
const IMBALANCED: f64 = 1.5;

/// The metric that is watched where the run file names none, and why.
fn usual(
    joint: bool,
    (targets, predictions): (TargetKind, PredictionKind),
    labels: &[String],
    counts: &[u64],
) -> (&'static str, String) {
    if joint {
        return ("loss", "it is what joint tasks have in common".into());
    }
    if predictions == PredictionKind::Values {
        return ("loss", "the task predicts values".into());
    }
    if predictions == PredictionKind::Masks {
        return (metrics::masks::NAMES[0], "classes of few pixels count as much as those of many".into());
    }
    if predictions == PredictionKind::Tokens {
        return ("loss", "the task predicts tokens".into());
    }
    if predictions == PredictionKind::Embeddings {
        return (
            metrics::matches::NAMES[1],
            "it says how often what belongs together is among the five nearest".into(),
        );
    }
    if predictions == PredictionKind::Preferences {
        return (metrics::preferences::NAMES[0], "it says how often the better answer has the greater reward".into());
    }
    if predictions == PredictionKind::MultiLabel {
        let why = "it needs no threshold, and counts rare classes as much as frequent ones";
        return ("mean_average_precision", why.into());
    }
    if targets == TargetKind::TokenClass {
        return match Tags::of(labels) {
            Some(_) => (entities::NAMES[0], "the labels spell entities, and most words are in none".into()),
            None => ("accuracy", "each word has a class".into()),
        };
    }
    let all: u64 = counts.iter().sum();
    let largest = counts.iter().zip(labels).max_by_key(|(count, _)| **count);
    match largest.map(|(&count, label)| (count as f64 / all.max(1) as f64, label)) {
        Some((share, label)) if share * counts.len() as f64 > IMBALANCED => {
            let label = shortened(label, NAME);
            let why =
                format!("{} of the training examples are {label:?}: accuracy rewards saying so always", percent(share));
            ("macro_f1", why)
        }
        _ => ("accuracy", "no class is much more frequent than the others".into()),
    }
}

/// The metric of a task that is watched, if it is one of those that count.
fn monitored(file: &RunFile, task: &str, spec: &HeadSpec, train: &Dataset) -> Result<Option<Monitor>> {
    let labels = train.labels();
    let Some(wanted) = &file.train.monitor else {
        let (metric, why) = usual(file.joint(), (spec.targets, spec.predictions), labels, &train.class_counts());
        return Ok(Some(Monitor { metric: metric.into(), why }));
    };
    let (of_task, metric) = task_and_metric(wanted);
    let mut known = metrics::names(spec.predictions, labels.len());
    known.extend(spec.metrics.iter().map(|own| own.name.clone()));
    if spec.targets == TargetKind::TokenClass && Tags::of(labels).is_some() {
        known.extend(entities::NAMES.map(str::to_owned));
    }
    let help = match of_task {
        Some(name) if name != task && file.tasks.iter().any(|table| table.name == name) => return Ok(None),
        Some(name) if name != task => {
            let names: Vec<&str> = file.tasks.iter().map(|table| table.name.as_str()).collect();
            format!("there is no task {name:?}; the tasks are {}", names.join(", "))
        }
        _ if known.iter().any(|name| name == metric) => {
            return Ok(Some(Monitor { metric: metric.to_owned(), why: "train.monitor names it".into() }));
        }
        _ => format!("the metrics of the task {task} are {}", known.join(", ")),
    };
    Err(file.error_at("train.monitor", format!("there is no metric {wanted:?}"), "unknown metric", Some(help)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_watched_follows_from_the_task_and_its_balance() {
        let check = |joint: bool, kind, counts: &[(&str, u64)], expected: &str, why: &str| {
            let labels: Vec<String> = counts.iter().map(|(label, _)| (*label).to_owned()).collect();
            let counts: Vec<u64> = counts.iter().map(|(_, count)| *count).collect();
            let (metric, reason) = usual(joint, kind, &labels, &counts);
            assert!(metric == expected && reason.contains(why), "{metric}: {reason}");
        };
        let classes = (TargetKind::Class, PredictionKind::Classes);
        check(
            false,
            classes,
            &[("ham", 4825), ("spam", 747)],
            "macro_f1",
            "86.59 % of the training examples are \"ham\"",
        );
        check(false, classes, &[("no", 3310), ("yes", 3610)], "accuracy", "no class");
        check(false, classes, &[("a", 74), ("b", 26)], "accuracy", "no class");
        check(false, classes, &[("a", 60), ("b", 20), ("c", 20)], "macro_f1", "60 %");
        check(true, classes, &[("ham", 4825), ("spam", 747)], "loss", "joint");
        let words = (TargetKind::TokenClass, PredictionKind::Classes);
        check(false, words, &[("B-X", 5), ("O", 95)], "entity_f1", "entities");
        check(false, words, &[("NOUN", 5), ("VERB", 95)], "accuracy", "each word");
        let labels = (TargetKind::MultiLabel, PredictionKind::MultiLabel);
        check(false, labels, &[("joy", 90), ("anger", 10)], "mean_average_precision", "rare classes");
        let pairs = (TargetKind::Preference, PredictionKind::Preferences);
        check(false, pairs, &[], "reward_accuracy", "the better answer");
        let values = (TargetKind::Value, PredictionKind::Values);
        check(false, values, &[], "loss", "values");
    }
}
