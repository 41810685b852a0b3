//! `fthost compare`: candidates, each with several seeds, and whether their differences are more than chance.
//!
//! [`execute`] reads top to bottom as a comparison goes: the folder, the runs, the statistics, what is left.

mod candidates;
mod metric;
mod page;
mod rates;
mod result;
mod runs;
mod sample;
mod statistics;
mod verdict;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

pub(crate) use candidates::number;
pub use candidates::{Candidate, candidates};
pub(crate) use rates::Found;
pub use result::{CandidateResult, Comparison, PairResult, Paired, RunResult};
pub(crate) use runs::PluginsNow;

use crate::processes::{Job, Runner, has_result};
use crate::report::metrics::higher_is_better;
use crate::report::numbers::duration;
use crate::run::state::folder::{claim, lock, write_atomically, write_json};
use crate::run::train::interrupt::Interrupt;
use crate::run::{DeviceChoice, resume_arguments};
use crate::{Error, Result};
use metric::{ACCURACY, Metric, Subject};
use runs::{Left, run_folder};
use sample::{Pair, Sample, mean};
use statistics::{Outlook, variance};

/// Seeds where their number is not named.
const SEEDS: u64 = 5;
/// What a comparison is, beside its runs.
const RECORD: &str = "candidates.json";

/// What to compare, and how to report.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program that makes a run: this one.
    pub program: PathBuf,
    /// What is compared; nothing where a comparison goes on as it was begun.
    pub candidates: Vec<Candidate>,
    /// How many seeds, from 0 on.
    pub seeds: Option<u64>,
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

/// What a comparison is, as its folder keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    seeds: u64,
    metric: Option<String>,
    candidates: Vec<Candidate>,
}

/// Runs what has no result yet, compares, and leaves `comparison.json` and `comparison.html` in the folder.
///
/// # Errors
/// Where the folder is another comparison's, the user stops it, or fewer than two candidates have results.
pub fn execute(options: &Options) -> Result<Comparison> {
    let interrupt = Interrupt::listen()?;
    let runner = Runner { program: &options.program, device: options.device, interrupt: &interrupt };
    let (folder, record, subject) = open(options, &runner)?;
    let _lock = lock(&folder)?;
    for candidate in &record.candidates {
        write_atomically(&folder.join(&candidate.name).join("run.toml"), candidate.identity.run_file.as_bytes())?;
    }
    write_json(&folder.join(RECORD), &record)?;

    let (left, errors) = run_all(options, &runner, &folder, &record, &subject)?;
    let comparison = compare(&folder, &record, &subject, &left, &errors)?;
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
        let subject = Subject::of(&candidates, metric.as_deref())?;
        if subject.needs_probabilities() {
            candidates = candidates.iter().map(Candidate::with_probabilities).collect::<Result<_>>()?;
        }
        if options.lr_find {
            candidates = rates::own_rates(candidates, runner, &|text| options.say(text))?;
            if runner.interrupt.came() {
                return Err(Error::Interrupted { message: "stopped before the first run".to_owned(), help: None });
            }
        }
        let folder = claim(options.out.as_deref(), &options.default_folder)?;
        return Ok((folder, Record { seeds: seeds.unwrap_or(SEEDS), metric, candidates }, subject));
    };
    let path = folder.join(RECORD);
    let no_comparison = |error: &dyn std::fmt::Display| {
        Error::usage(format!("{} is no comparison's folder: {}: {error}", folder.display(), path.display()))
            .with_help("name the folder that fthost compare has made, or leave --resume out")
    };
    let text = std::fs::read_to_string(&path).map_err(|error| no_comparison(&error))?;
    let begun: Record = serde_json::from_str(&text).map_err(|error| no_comparison(&error))?;
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
    let metric = options.metric.clone().or(begun.metric);
    let subject = Subject::of(&now, metric.as_deref())?;
    // A result that is there tells whether it has such a metric, before the folder says that it is compared.
    let mut runs = now
        .iter()
        .zip(&subject.tasks)
        .flat_map(|(candidate, task)| (0..begun.seeds).map(move |seed| (run_folder(folder, candidate, seed), task)));
    if let Some((run, task)) = runs.find(|(run, _)| has_result(run)) {
        Metric::choose(subject.metric.as_deref(), &Left::read(&run, task)?)?;
    }
    Ok((folder.clone(), Record { seeds: seeds.unwrap_or(begun.seeds), metric, candidates: now }, subject))
}

/// The candidates of what goes on: those that are named, or without any those that it began with, as their plugins are now.
pub(crate) fn going_on(begun: &[Candidate], named: &[Candidate], device: DeviceChoice) -> Result<Vec<Candidate>> {
    if !named.is_empty() {
        return Ok(named.to_vec());
    }
    let mut now = begun.iter().map(Candidate::as_of_now).collect::<Result<Vec<_>>>()?;
    now.iter_mut().for_each(|candidate| candidate.identity.device = device.to_string());
    Ok(now)
}

/// What differs between the candidates of a comparison that was begun and those of now, one line each.
pub(crate) fn differences(begun: &[Candidate], now: &[Candidate]) -> Vec<String> {
    let names = |of: &[Candidate]| of.iter().map(|candidate| candidate.name.clone()).collect::<Vec<_>>().join(", ");
    if names(begun) != names(now) {
        return vec![format!("candidates: {} then, {} now", names(begun), names(now))];
    }
    let of_one = |(then, now): (&Candidate, &Candidate)| {
        let found = then.identity.differences(&now.identity);
        found.into_iter().map(|difference| format!("{}: {difference}", then.name)).collect::<Vec<_>>()
    };
    begun.iter().zip(now).flat_map(of_one).collect()
}

/// Errors of runs, by candidate and seed.
type Errors = BTreeMap<(usize, u64), String>;

/// Runs every candidate with every seed. Seed by seed, so that a comparison that is stopped has as much of each. Gives what the runs
/// left, `[candidates][seeds]`.
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
    let runs = record.seeds as usize * record.candidates.len();
    let say = |text: &str| options.say(text);
    let (mut errors, mut number, mut worked, mut seconds) = (Errors::new(), 0, 0, 0.0);
    let mut all: Vec<Vec<Option<Left>>> = vec![Vec::new(); record.candidates.len()];
    let mut plugins_now = PluginsNow::default();
    for seed in 0..record.seeds {
        for (place, candidate) in record.candidates.iter().enumerate() {
            let left = if worked > 0 {
                format!(", about {} left", duration(seconds / worked as f64 * (runs - number) as f64))
            } else {
                String::new()
            };
            number += 1;
            let run = run_folder(folder, candidate, seed);
            let read = || {
                let left = Left::read(&run, &subject.tasks[place])?;
                Metric::choose(subject.metric.as_deref(), &left)?;
                Ok::<_, Error>(left)
            };
            if has_result(&run) {
                let left = read()?;
                plugins_now.check(&run, &left.plugins)?;
                say(&format!("run {number} of {runs}: {}, seed {seed}: has its result", candidate.name));
                all[place].push(Some(left));
                continue;
            }
            say(&format!("run {number} of {runs}: {}, seed {seed}{left}", candidate.name));
            let began = Instant::now();
            let file = folder.join(&candidate.name).join("run.toml");
            let plugins = &candidate.identity.plugins;
            let outcome = runner.run(&Job { file: &file, folder: &run, seed, plugins })?;
            if runner.interrupt.came() {
                let go_on = format!("go on with: fthost compare {}", resume_arguments(folder, options.device));
                let message = format!("stopped at {}, seed {seed}: run {number} of {runs}", candidate.name);
                return Err(Error::Interrupted { message, help: Some(go_on) });
            }
            (worked, seconds) = (worked + 1, seconds + began.elapsed().as_secs_f64());
            let left = match outcome {
                Ok(()) => Some(read()?),
                Err(error) => {
                    say(&format!("{}, seed {seed} failed: {error}", candidate.name));
                    errors.insert((place, seed), error);
                    None
                }
            };
            all[place].push(left);
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
    let (metric, sample) = Sample::read(&record.candidates, subject.metric.as_deref(), left)?;
    let scores = sample.scores();
    let pairs = sample.pairs();
    let candidates: Vec<CandidateResult> = record
        .candidates
        .iter()
        .enumerate()
        .map(|(place, candidate)| {
            let run = |seed: u64| RunResult {
                seed,
                folder: run_folder(folder, candidate, seed),
                value: Some(scores[place][seed as usize]).filter(|value| value.is_finite()),
                error: errors.get(&(place, seed)).cloned(),
            };
            let task = subject.tasks[place].clone();
            CandidateResult::of(candidate, task, (0..record.seeds).map(run).collect(), &left[place])
        })
        .collect();
    if pairs.is_empty() {
        let failed: Vec<String> = candidates.iter().filter_map(CandidateResult::failures).collect();
        return Err(Error::run(format!("nothing could be compared:\n{}", failed.join("\n")))
            .with_help(format!("what the runs said is in {}/*/*.log", folder.display())));
    }
    Ok(Comparison {
        folder: folder.to_owned(),
        higher_is_better: higher_is_better(&metric),
        seeds: (0..record.seeds).collect(),
        examples: sample.items(),
        paired: Paired {
            order: same_in_each_seed(left, |left| &left.pairing.order),
            head: same_in_each_seed(left, |left| &left.pairing.head),
        },
        pairs: pair_results(&metric, &sample, &pairs, record),
        metric,
        candidates,
    })
}

/// Whether all runs of a seed have something in common.
fn same_in_each_seed(left: &[Vec<Option<Left>>], of: impl Fn(&Left) -> &String) -> bool {
    let seeds = left.first().map_or(0, Vec::len);
    (0..seeds).all(|seed| {
        let mut values = left.iter().filter_map(|runs| runs[seed].as_ref()).map(&of);
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
        let resolved = verdict::resolved(difference, p_holm[i]);
        let outlook = difference.outlook(pair.seeds.len());
        let mut result = PairResult {
            a: record.candidates[pair.a].name.clone(),
            b: record.candidates[pair.b].name.clone(),
            seeds: pair.seeds.iter().map(|&seed| seed as u64).collect(),
            difference: difference.value,
            interval: difference.interval,
            test,
            p: p[i],
            p_holm: p_holm[i],
            resolved,
            more_seeds: match outlook {
                Outlook::Seeds(more) if !resolved => Some(more),
                _ => None,
            },
            verdict: String::new(),
        };
        result.verdict = verdict::words(metric, &result, outlook, sample.equal(pair));
        results.push(result);
    }
    results
}
