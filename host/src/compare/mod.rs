//! `fthost compare`: candidates, each with several seeds or on the folds of cross-validation, and whether their differences are more than
//! chance.
//!
//! [`execute`] reads top to bottom as a comparison goes: the folder, the runs, the statistics, what is left.

mod candidates;
mod compared;
mod folds;
mod joined;
mod metric;
mod own;
mod page;
mod rates;
mod record;
mod result;
mod rounds;
mod runs;
mod sample;
mod statistics;
mod t_test;
mod verdict;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub(crate) use candidates::number;
pub use candidates::{Candidate, candidates};
pub(crate) use rates::Found;
pub(crate) use record::{differences, going_on};
pub use result::{CandidateResult, Comparison, Estimate, OutOfFold, PairResult, Paired, RunResult};
pub(crate) use runs::PluginsNow;

use crate::processes::{Job, Runner, has_result};
use crate::report::metrics::higher_is_better;
use crate::report::numbers::duration;
use crate::run::state::folder::{claim, lock, write_atomically, write_json};
use crate::run::train::interrupt::Interrupt;
use crate::run::{DeviceChoice, resume_arguments};
use crate::{Error, Result};
use compared::Compared;
use folds::Folds;
use metric::{ACCURACY, Subject};
use own::Own;
use record::Record;
use result::{CORRECTED, PAIRED};
use rounds::Round;
use runs::Left;
use sample::{Pair, Sample, mean};
use statistics::{Outlook, variance};

/// Seeds where their number is not named.
const SEEDS: u64 = 5;
/// Seeds of each fold where their number is not named.
const SEEDS_OF_FOLDS: u64 = 1;

/// What to compare, and how to report.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program that makes a run: this one.
    pub program: PathBuf,
    /// What is compared; nothing where a comparison goes on as it was begun.
    pub candidates: Vec<Candidate>,
    /// How many seeds, from 0 on.
    pub seeds: Option<u64>,
    /// How many folds the training examples are dealt out in, at least 2, where they are what is tested.
    pub folds: Option<u32>,
    /// The metric, of a task: METRIC or TASK.METRIC.
    pub metric: Option<String>,
    /// Whether each candidate takes the learning rate that `lr-find` suggests for it.
    pub lr_find: bool,
    /// The comparison's folder, where the user named one.
    pub out: Option<PathBuf>,
    /// The folder where they did not.
    pub default_folder: PathBuf,
    /// Goes on with the comparison in that folder.
    pub resume: bool,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Whether progress is told on standard error.
    pub shown: bool,
}

impl Options {
    /// Tells progress.
    fn say(&self, text: &str) {
        if self.shown {
            eprintln!("{text}");
        }
    }
}

/// Runs what has no result yet, compares, and leaves `comparison.json` and `comparison.html` in the folder.
///
/// # Errors
/// Where the folder is another comparison's, the user stops it, or fewer than two candidates have results, or of folds none.
pub fn execute(options: &Options) -> Result<Comparison> {
    let interrupt = Interrupt::listen()?;
    let runner = Runner { program: &options.program, device: options.device, interrupt: &interrupt };
    let (folder, record, subject) = open(options, &runner)?;
    let _lock = lock(&folder)?;
    for (candidate, task) in record.candidates.iter().zip(&subject.tasks) {
        write_atomically(&folder.join(&candidate.name).join("run.toml"), candidate.identity.run_file.as_bytes())?;
        if let Some(folds) = record.folds {
            folds::write_run_files(&folder, candidate, task, folds)?;
        }
    }
    write_json(&folder.join(record::FILE), &record)?;
    let notes = if record.folds.is_some() { folds::notes(&record, &subject)? } else { Vec::new() };
    notes.iter().for_each(|note| options.say(note));

    let (left, errors) = run_all(options, &runner, &folder, &record, &subject)?;
    let mut comparison = compare(&folder, &record, &subject, &left, &errors)?;
    comparison.notes = notes;
    write_json(&folder.join("comparison.json"), &comparison)?;
    write_atomically(&folder.join("comparison.html"), page::page(&comparison).as_bytes())?;
    Ok(comparison)
}

/// The folder with what it holds: a new one, or that of a comparison that goes on.
fn open(options: &Options, runner: &Runner<'_>) -> Result<(PathBuf, Record, Subject)> {
    let seeds = options.seeds;
    let Some(folder) = options.out.as_ref().filter(|_| options.resume) else {
        if let Some(path) = options.out.as_deref().filter(|path| path.exists()) {
            return Err(Error::usage(format!("{} exists already", path.display()))
                .with_help("go on with the comparison in it by --resume, or name another folder by --out"));
        }
        let (mut candidates, metric) = (options.candidates.clone(), options.metric.clone());
        let subject = Subject::of(&candidates, metric.as_deref(), options.folds.is_some())?;
        // What folds come to together has metrics of all probabilities.
        if subject.needs_probabilities() || options.folds.is_some() {
            candidates = candidates.iter().map(Candidate::with_probabilities).collect::<Result<_>>()?;
        }
        if options.lr_find {
            candidates = rates::own_rates(candidates, runner, &|text| options.say(text))?;
            if runner.interrupt.came() {
                return Err(Error::Interrupted { message: "stopped before the first run".to_owned(), help: None });
            }
        }
        let folder = claim(options.out.as_deref(), &options.default_folder)?;
        let usual = if options.folds.is_some() { SEEDS_OF_FOLDS } else { SEEDS };
        let record = Record {
            seeds: seeds.unwrap_or(usual),
            folds: options.folds,
            lr_find: options.lr_find,
            metric,
            candidates,
        };
        return Ok((folder, record, subject));
    };
    let path = folder.join(record::FILE);
    let no_comparison = |error: &dyn std::fmt::Display| {
        Error::usage(format!("{} is no comparison's folder: {}: {error}", folder.display(), path.display()))
            .with_help("name the folder that fthost compare has made, or leave --resume out")
    };
    let text = std::fs::read_to_string(&path).map_err(|error| no_comparison(&error))?;
    let begun: Record = serde_json::from_str(&text).map_err(|error| no_comparison(&error))?;
    if options.folds.is_some() && options.folds != begun.folds {
        let words = |folds: Option<u32>| folds.map_or_else(|| "no folds".to_owned(), |folds| format!("{folds} folds"));
        let message =
            format!("{} has {}, and --folds asks for {}", folder.display(), words(begun.folds), words(options.folds));
        return Err(Error::usage(message)
            .with_help("leave --folds out to go on as it began, or begin a new comparison in another folder"));
    }
    let mut now = going_on(&begun.candidates, &options.candidates, options.device)?;
    if let Some(first) = begun.candidates.first()
        && first.file()?.run.probabilities
    {
        now = now.iter().map(Candidate::with_probabilities).collect::<Result<_>>()?;
    }
    let differences = differences(&begun.candidates, &now);
    if !differences.is_empty() {
        return Err(Error::usage(format!(
            "{} belongs to another comparison:\n{}",
            folder.display(),
            differences.join("\n")
        ))
        .with_help("go on with what it began with, or begin a new comparison in another folder"));
    }
    let metric = options.metric.clone().or_else(|| begun.metric.clone());
    let subject = Subject::of(&now, metric.as_deref(), begun.folds.is_some())?;
    let rounds = begun.rounds();
    // A result that is there tells whether it has such a metric, before the folder says that it is compared.
    let mut runs = now
        .iter()
        .zip(&subject.tasks)
        .flat_map(|(candidate, task)| rounds.iter().map(move |round| (round.folder(folder, candidate), task)));
    if let Some((run, task)) = runs.find(|(run, _)| has_result(run)) {
        check_metric(&subject, begun.folds, &Left::read(&run, task)?)?;
    }
    Ok((folder.clone(), Record { seeds: seeds.unwrap_or(begun.seeds), metric, candidates: now, ..begun }, subject))
}

/// Refuses a metric that a run's result does not have. On folds its number is all that is asked for; else its predictions must tell it.
fn check_metric(subject: &Subject, folds: Option<u32>, left: &Left) -> Result<()> {
    match folds {
        Some(_) => subject.name_in(left).map(drop),
        None => subject.own(left).map(drop),
    }
}

/// Errors of runs, by the places of their candidate and their round.
type Errors = BTreeMap<(usize, usize), String>;

/// Runs every candidate in every round. Gives what the runs left, `[candidates][rounds]`.
///
/// # Errors
/// Beside what a run cannot help: the first run that ends has no such metric, and no other would.
fn run_all(
    options: &Options,
    runner: &Runner<'_>,
    folder: &Path,
    record: &Record,
    subject: &Subject,
) -> Result<(Vec<Vec<Option<Left>>>, Errors)> {
    let rounds = record.rounds();
    let runs = rounds.len() * record.candidates.len();
    let say = |text: &str| options.say(text);
    let (mut errors, mut number, mut worked, mut seconds) = (Errors::new(), 0, 0, 0.0);
    let mut all: Vec<Vec<Option<Left>>> = vec![Vec::new(); record.candidates.len()];
    let mut plugins_now = PluginsNow::default();
    for (round_place, round) in rounds.iter().enumerate() {
        for (place, candidate) in record.candidates.iter().enumerate() {
            let left = if worked > 0 {
                format!(", about {} left", duration(seconds / worked as f64 * (runs - number) as f64))
            } else {
                String::new()
            };
            number += 1;
            let run = round.folder(folder, candidate);
            let read = || {
                let left = Left::read(&run, &subject.tasks[place])?;
                check_metric(subject, record.folds, &left)?;
                Ok::<_, Error>(left)
            };
            if has_result(&run) {
                let left = read()?;
                plugins_now.check(&run, &left.plugins)?;
                say(&format!("run {number} of {runs}: {}, {round}: has its result", candidate.name));
                all[place].push(Some(left));
                continue;
            }
            say(&format!("run {number} of {runs}: {}, {round}{left}", candidate.name));
            let began = Instant::now();
            let file = round.file(folder, candidate);
            let plugins = &candidate.identity.plugins;
            let outcome = runner.run(&Job { file: &file, folder: &run, seed: round.seed, plugins })?;
            if runner.interrupt.came() {
                let go_on = format!("go on with: fthost compare {}", resume_arguments(folder, options.device));
                let message = format!("stopped at {}, {round}: run {number} of {runs}", candidate.name);
                return Err(Error::Interrupted { message, help: Some(go_on) });
            }
            (worked, seconds) = (worked + 1, seconds + began.elapsed().as_secs_f64());
            let left = match outcome {
                Ok(()) => Some(read()?),
                Err(error) => {
                    say(&format!("{}, {round} failed: {error}", candidate.name));
                    errors.insert((place, round_place), error);
                    None
                }
            };
            all[place].push(left);
        }
        // What is wrong with the data, or with their folds, is wrong with each of them.
        if record.folds.is_some() && round_place == 0 && errors.len() == record.candidates.len() {
            all.iter_mut().for_each(|of_candidate| of_candidate.resize_with(rounds.len(), || None));
            break;
        }
    }
    Ok((all, errors))
}

/// The statistics of all runs that have a result.
fn compare(
    folder: &Path,
    record: &Record,
    subject: &Subject,
    left: &[Vec<Option<Left>>],
    errors: &Errors,
) -> Result<Comparison> {
    let nothing = |candidates: &[CandidateResult]| {
        let failed: Vec<String> = candidates.iter().filter_map(CandidateResult::failures).collect();
        Err(Error::run(format!("nothing could be compared:\n{}", failed.join("\n")))
            .with_help(format!("what the runs said is in {}/*/*.log", folder.display())))
    };
    let results = |value: &dyn Fn(usize, usize) -> Option<f64>| -> Vec<CandidateResult> {
        let rounds = record.rounds();
        let of_candidate = |(place, candidate): (usize, &Candidate)| {
            let run = |(number, round): (usize, &Round)| RunResult {
                seed: round.seed,
                fold: round.fold.map(|fold| fold.fold),
                folder: round.folder(folder, candidate),
                value: value(place, number).filter(|value| value.is_finite()),
                error: errors.get(&(place, number)).cloned(),
            };
            let runs = rounds.iter().enumerate().map(run).collect();
            CandidateResult::of(candidate, subject.tasks[place].clone(), runs, &left[place])
        };
        record.candidates.iter().enumerate().map(of_candidate).collect()
    };
    let whole = Comparison {
        folder: folder.to_owned(),
        metric: String::new(),
        higher_is_better: true,
        seeds: (0..record.seeds).collect(),
        folds: record.folds,
        examples: 0,
        intervals: "",
        paired: Paired {
            order: same_in_each_round(left, |left| &left.pairing.order),
            head: same_in_each_round(left, |left| &left.pairing.head),
        },
        candidates: Vec::new(),
        pairs: Vec::new(),
        notes: Vec::new(),
    };
    let Some(first) = left.iter().flatten().flatten().next() else { return nothing(&results(&|_, _| None)) };
    if record.folds.is_some() {
        let metric = subject.name_in(first)?;
        let folds = Folds::new(record, left)?;
        let mut candidates = results(&|place, number| folds.value(place, number, &metric));
        for (place, candidate) in candidates.iter_mut().enumerate() {
            folds.complete(place, &metric, folder, candidate)?;
        }
        let compared = first.compared(&metric);
        let pairs = folds.pairs(compared);
        if pairs.is_empty() && candidates.len() > 1 {
            return nothing(&candidates);
        }
        return Ok(Comparison {
            higher_is_better: compared.higher_is_better,
            examples: folds.examples,
            intervals: CORRECTED,
            candidates,
            pairs,
            metric,
            ..whole
        });
    }
    if let Some(metric) = subject.own(first)? {
        let compared = first.compared(metric);
        let own = Own::new(record, left, compared)?;
        let (candidates, pairs) = (results(&|place, seed| own.value(place, seed)), own.pairs());
        if pairs.is_empty() && candidates.len() > 1 {
            return nothing(&candidates);
        }
        let rows = first.predictions.chunk_by(|a, b| a.example == b.example);
        return Ok(Comparison {
            higher_is_better: compared.higher_is_better,
            examples: rows.count(),
            intervals: PAIRED,
            candidates,
            pairs,
            metric: metric.to_owned(),
            ..whole
        });
    }
    let (metric, sample) = Sample::read(&record.candidates, subject.metric.as_deref(), left)?;
    let scores = sample.scores();
    let pairs = sample.pairs();
    let candidates = results(&|place, seed| Some(scores[place][seed]));
    if pairs.is_empty() {
        return nothing(&candidates);
    }
    Ok(Comparison {
        higher_is_better: higher_is_better(&metric),
        examples: sample.items(),
        intervals: "bootstrap",
        candidates,
        pairs: pair_results(&metric, &sample, &pairs, record),
        metric,
        ..whole
    })
}

/// Whether all runs of a round have something in common.
fn same_in_each_round(left: &[Vec<Option<Left>>], of: impl Fn(&Left) -> &String) -> bool {
    let rounds = left.first().map_or(0, Vec::len);
    (0..rounds).all(|round| {
        let mut values = left.iter().filter_map(|runs| runs[round].as_ref()).map(&of);
        let first = values.next();
        values.all(|value| Some(value) == first)
    })
}

impl CandidateResult {
    fn of(candidate: &Candidate, task: String, runs: Vec<RunResult>, left: &[Option<Left>]) -> Self {
        let done: Vec<&Left> = left.iter().flatten().collect();
        let values: Vec<f64> = runs.iter().filter(|run| run.error.is_none()).filter_map(|run| run.value).collect();
        Self {
            name: candidate.name.clone(),
            task,
            mean: mean(&values),
            spread: (values.len() > 1).then(|| variance(&values).sqrt()),
            trainable: done.first().map(|left| left.trainable),
            seconds: mean(&done.iter().map(|left| left.seconds).collect::<Vec<_>>()),
            peak_rss_bytes: done.iter().map(|left| left.peak_rss_bytes).max().unwrap_or(0),
            lr: candidate.file().map_or(f64::NAN, |file| file.train.lr),
            one_class: done.iter().filter(|left| left.one_class).count(),
            metrics: BTreeMap::new(),
            out_of_fold: None,
            runs,
        }
    }
}

fn pair_results(metric: &str, sample: &Sample, pairs: &[Pair], record: &Record) -> Vec<PairResult> {
    let differences = statistics::bootstrap(sample, pairs);
    // McNemar's test takes items for independent of each other, and tokens of one example are not.
    let (test, test_of): (_, fn(&Sample, &Pair) -> f64) = match metric == ACCURACY && sample.has_one_row_each() {
        true => ("mcnemar", statistics::mcnemar),
        false => ("randomization", statistics::randomization),
    };
    let p: Vec<f64> = pairs.iter().map(|pair| test_of(sample, pair)).collect();
    let p_holm = statistics::holm(&p);
    let mut results = Vec::new();
    for (i, (pair, difference)) in pairs.iter().zip(&differences).enumerate() {
        let resolved = verdict::resolved(difference.interval, p_holm[i]);
        let outlook = difference.outlook(pair.seeds.len());
        let mut result = PairResult {
            a: record.candidates[pair.a].name.clone(),
            b: record.candidates[pair.b].name.clone(),
            seeds: pair.seeds.iter().map(|&seed| seed as u64).collect(),
            difference: difference.value,
            interval: difference.interval,
            folds: Vec::new(),
            test,
            t: None,
            p: p[i],
            p_holm: p_holm[i],
            resolved,
            more_seeds: match outlook {
                Outlook::Seeds(more) if !resolved => Some(more),
                _ => None,
            },
            verdict: String::new(),
        };
        let compared = Compared { metric, higher_is_better: higher_is_better(metric) };
        result.verdict = verdict::words(compared, &result, outlook, sample.equal(pair));
        results.push(result);
    }
    results
}
