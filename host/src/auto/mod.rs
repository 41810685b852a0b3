//! `fthost auto`: the strategy, learning rate and options that do best on validation examples, by successive halving.
//!
//! [`execute`] reads top to bottom as a search goes: what is tried, the folder, rung after rung, the best. No run of a search names test
//! examples, so none can be chosen by them.

mod draw;
mod options;
mod rungs;
mod search;
mod strategies;
mod trail;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub use draw::{Configuration, Space};
pub use options::Options;
pub use rungs::Rung;
pub use search::Search;
pub use strategies::candidates;
pub use trail::{Best, Trail, Trial};

use crate::compare::PluginsNow;
use crate::processes::{Job, Runner, has_result};
use crate::report::numbers::{duration, significant};
use crate::run::results::predictions;
use crate::run::resume_arguments;
use crate::run::state::folder::{lock, write_atomically, write_json};
use crate::run::train::interrupt::Interrupt;
use crate::{Error, Result};
use options::TRAIL;
use trail::Left;

/// Runs what has no result yet, rung by rung, and leaves `auto.json` and `best.toml` in the folder.
///
/// # Errors
/// Where the folder is another search's, the budget is not enough for the strategies, the user stops it, or no run has a result.
pub fn execute(options: &Options) -> Result<Trail> {
    let interrupt = Interrupt::listen()?;
    let runner = Runner { program: &options.program, device: options.device, interrupt: &interrupt };
    let (folder, search) = Search::open(options, &runner)?;
    let _lock = lock(&folder)?;
    options.say(&search.to_text());

    let mut trail = Trail::new(&folder, search);
    write_json(&folder.join(TRAIL), &trail)?;
    climb(options, &runner, &mut trail)?;
    trail.choose(options.device)?;
    if let Some(best) = &trail.best {
        let configuration = trail.search.configuration(&best.configuration)?;
        let file = configuration.run_file(trail.search.candidate_of(configuration)?)?;
        write_atomically(&best.file, file.to_toml().as_bytes())?;
    }
    write_json(&folder.join(TRAIL), &trail)?;
    Ok(trail)
}

/// Runs rung after rung, and keeps the best of each for the next.
fn climb(options: &Options, runner: &Runner<'_>, trail: &mut Trail) -> Result<()> {
    let rungs = trail.search.rungs.clone();
    let mut clock =
        Clock { left: rungs.iter().map(|rung| rung.configurations as u64 * rung.steps).sum(), ..Clock::default() };
    let mut climbing = trail.search.configurations.clone();
    let mut plugins_now = PluginsNow::default();
    for (place, &rung) in rungs.iter().enumerate() {
        let mut trials = Vec::new();
        for (number, configuration) in climbing.iter().enumerate() {
            let name = &configuration.name;
            let of = format!("rung {} of {}, run {} of {}: {name}", place + 1, rungs.len(), number + 1, climbing.len());
            let (left, folder) = try_one(options, runner, trail, configuration, place, &of, &mut clock)?;
            // A run that was made before this process was may be of plugins that have been rebuilt since.
            plugins_now.check(&folder, &left.plugins)?;
            let Left { metric, higher, value, loss, one_class, seconds, error, .. } = left;
            match (value, &metric, &error) {
                (Some(value), Some(metric), _) => {
                    options.say(&format!("{name}: validation {metric} {}", significant(value)))
                }
                (.., error) => options.say(&format!("{name} failed: {}", error.as_deref().unwrap_or_default())),
            }
            trail.metric = trail.metric.take().or(metric);
            trail.higher = trail.higher.or(higher);
            let (configuration, rung, steps) = (name.clone(), place + 1, rung.steps);
            let kept = false;
            trials.push(Trial { configuration, rung, steps, value, loss, one_class, seconds, error, kept, folder });
        }
        let next = rungs.get(place + 1).map_or(0, |rung| rung.configurations);
        trail.add(trials, next);
        write_json(&trail.folder.join(TRAIL), &trail)?;
        climbing = trail.kept(place + 1)?;
    }
    Ok(())
}

/// How long steps took, for a guess of how long the rest takes.
#[derive(Debug, Default)]
struct Clock {
    /// Steps that are left.
    left: u64,
    worked: u64,
    seconds: f64,
}

impl Clock {
    fn left(&self) -> String {
        let seconds = self.seconds / self.worked as f64 * self.left as f64;
        if self.worked > 0 { format!("; about {} left", duration(seconds)) } else { String::new() }
    }
}

/// Runs a configuration in a rung, if it has no result yet, and gives what it left and its folder. `of`: the place in the search, in
/// words.
fn try_one(
    options: &Options,
    runner: &Runner<'_>,
    trail: &Trail,
    configuration: &Configuration,
    place: usize,
    of: &str,
    clock: &mut Clock,
) -> Result<(Left, PathBuf)> {
    let rung = trail.search.rungs[place];
    let candidate = trail.search.candidate_of(configuration)?;
    let run = trail.folder.join(&configuration.name).join(format!("rung-{}", place + 1));
    let file = run.with_extension("toml");
    let seed = trail.search.seed;
    let mut outcome = Ok(());
    if has_result(&run) {
        options.say(&format!("{of}: has its result"));
    } else {
        options.say(&format!("{of}, {}{}", configuration.settings_text(), clock.left()));
        write_atomically(&file, configuration.run_file_of(candidate, rung, trail.search.steps)?.to_toml().as_bytes())?;
        let began = Instant::now();
        outcome = runner.run(&Job { file: &file, folder: &run, seed, plugins: &candidate.identity.plugins })?;
        if runner.interrupt.came() {
            let go_on = format!("go on with: fthost auto {}", resume_arguments(&trail.folder, options.device));
            return Err(Error::Interrupted { message: format!("stopped at {of}"), help: Some(go_on) });
        }
        clock.worked += rung.steps;
        clock.seconds += began.elapsed().as_secs_f64();
    }
    clock.left = clock.left.saturating_sub(rung.steps);
    let left = match outcome {
        Ok(()) => {
            forget_weights(&run)?;
            Left::read(&run)?
        }
        Err(error) => Left::failed(error),
    };
    Ok((left, run))
}

/// Removes what a run has learned and predicts: a search keeps what its runs said, and the weights of all of them would fill a disk.
fn forget_weights(run: &Path) -> Result<()> {
    let failed = || Error::io(format!("cannot remove the weights in {}", run.display()));
    for entry in fs::read_dir(run).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if path.is_dir() {
            fs::remove_dir_all(&path).map_err(failed())?;
        } else if path.extension().is_some_and(|extension| extension == "safetensors")
            || path.ends_with(predictions::VALIDATION)
        {
            fs::remove_file(&path).map_err(failed())?;
        }
    }
    Ok(())
}
