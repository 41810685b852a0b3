//! `fthost validate`: a conformance suite for plugins.
//!
//! Each test is a process of its own with a time limit, this program again, so that a plugin that hangs or falls loses one test. What a test tries
//! it tries by what a run does: a run file of the method's stage (`stage`), set up, trained and evaluated (`bench`) on a model of a few
//! thousand weights. `suite` is the table of tests; those stand in `families`. What no run does to a plugin, another table, host
//! calls that fail, an account of its handles, is in `plugin::probe`.
//!
//! The process that the user starts reads the plugin's notes and runs none of its code.

mod bench;
mod differences;
mod families;
mod options;
mod outcome;
mod process;
mod stage;
mod subject;
mod suite;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fthost_plugin_api::MethodKind;

use crate::plugin::{Library, Search, note};
use crate::report::table::Table;
use crate::{Error, Result};
pub use outcome::{MethodName, Outcome, Report, Tried};
pub use process::{INSIDE, inside};
use process::{Job, Said};
use subject::{OptionSet, Subject};
use suite::{Of, RUNS, TESTS, Test};

/// What to validate, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The plugin: a file or a name.
    pub plugin: String,
    /// Only tests in whose method's and own name, a space between them, this stands.
    pub only: Option<String>,
    /// Options of methods: `rank=4`, `lora.rank=4`.
    pub sets: Vec<String>,
    /// A run file that shows the method at work, in place of the suite's own.
    pub run: Option<PathBuf>,
    /// How long one test may take.
    pub limit: Duration,
}

/// The tests with what each shows and of which methods, for people.
pub fn listing() -> String {
    let mut table = Table::new();
    for test in TESTS {
        let of = match test.of {
            Of::File => "the file".to_owned(),
            Of::Methods(kinds) if kinds.len() == 5 => "every method".to_owned(),
            Of::Methods(kinds) => kinds.iter().map(MethodKind::to_string).collect::<Vec<_>>().join(", "),
        };
        table.row([test.name, &of, test.shows]);
    }
    table.to_text().trim_end().to_owned()
}

/// Runs the suite on a plugin.
///
/// # Errors
/// Where there is no such file, it is no plugin that this host opens, no test fits, or the methods that runs need beside it are not found.
pub fn validate(options: &Options) -> Result<Report> {
    let file = Search::from_environment().find(&options.plugin)?;
    let checked = note::check(&file)?;
    let file = file.canonicalize().map_err(Error::io(format!("cannot find {}", file.display())))?;
    let run =
        options.run.as_ref().map(|run| run.canonicalize().map_err(Error::io(format!("cannot read {}", run.display()))));
    let subject = Subject {
        file: file.clone(),
        method: None,
        sets: options.sets.iter().map(|set| OptionSet::read(set)).collect::<Result<_>>()?,
        run: run.transpose()?,
        stage: None,
        folder: PathBuf::new(),
    };
    let methods: Vec<MethodName> =
        checked.methods.iter().map(|note| MethodName { kind: note.kind, name: note.name.clone() }).collect();
    needed_beside(&methods)?;
    let program = std::env::current_exe().map_err(Error::io("cannot find this program"))?;
    let suite = Suite { program, subject, limit: options.limit };
    let wanted = |test: &Test, method: Option<&MethodName>| {
        let label = format!("{} {}", method.map_or("", |method| &method.name), test.name);
        options.only.as_ref().is_none_or(|only| label.contains(only))
    };

    let mut tried = Vec::new();
    let of_file: Vec<&Test> = TESTS.iter().filter(|test| test.of == Of::File && wanted(test, None)).collect();
    tried.extend(suite.all(&of_file, None, (None, true))?);
    for method in &methods {
        let fits = |test: &&Test| matches!(test.of, Of::Methods(kinds) if kinds.contains(&method.kind));
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for test in TESTS.iter().filter(fits) {
            if test.name == RUNS {
                first.push(test)
            } else if wanted(test, Some(method)) {
                rest.push(test)
            }
        }
        // Others begin where it has shown that the method runs, and on which stage.
        let wants_first = first.iter().any(|test| wanted(test, Some(method)));
        if rest.is_empty() && !wants_first {
            continue;
        }
        let (stage, runs) = suite.first(first[0], method)?;
        let ran = runs.outcome == Outcome::Passed;
        let (can, cannot): (Vec<&Test>, Vec<&Test>) = rest.into_iter().partition(|test| ran || !test.needs_run);
        let mut of_method = if wants_first { vec![runs] } else { Vec::new() };
        of_method.extend(suite.all(&can, Some(method), (stage, ran))?);
        of_method.extend(cannot.into_iter().map(|test| suite.tried(test, Some(method), does_not_run(), 0.0)));
        of_method.sort_by_key(|tried| TESTS.iter().position(|test| test.name == tried.test));
        tried.extend(of_method);
    }
    if tried.is_empty() {
        let only = options.only.clone().unwrap_or_default();
        return Err(Error::usage(format!("no test and no method is called {only:?}"))
            .with_help("fthost validate --list shows the tests"));
    }
    Ok(Report::new(file.display().to_string(), checked.sha256, tried))
}

/// That the methods are there that a stage's run file names beside the one that is tried.
fn needed_beside(methods: &[MethodName]) -> Result<()> {
    let library = Library::new(Search::from_environment());
    for method in methods {
        for (kind, name) in stage::of(method.kind).into_iter().flat_map(stage::Stage::methods) {
            let replaced = kind == method.kind;
            let own = methods.iter().any(|method| method.kind == kind && method.name == name);
            if !replaced && !own {
                library.file_of(kind, &name).map_err(|_| {
                    let message =
                        format!("a {} is tried in a run with the {kind} {name:?}, which is not found", method.kind);
                    Error::usage(message).with_help("name the folder of fthost's own plugins in FTHOST_PLUGIN_PATH")
                })?;
            }
        }
    }
    Ok(())
}

/// What is said of tests that a method has to run for.
fn does_not_run() -> Outcome {
    Outcome::skipped(format!("it does not run: see the test {RUNS}"))
}

/// Tests of one plugin.
struct Suite {
    program: PathBuf,
    subject: Subject,
    limit: Duration,
}

impl Suite {
    /// The test that finds out where a method is tried: its stage too.
    fn first(&self, test: &Test, method: &MethodName) -> Result<(Option<String>, Tried)> {
        let began = Instant::now();
        let Said { outcome, stage, .. } = self.one(test, Some(method), None)?;
        Ok((stage, self.tried(test, Some(method), outcome, began.elapsed().as_secs_f64())))
    }

    /// Runs tests, as many at once as there are cores; in their order.
    /// `ran`: whether the method runs; what comes to no answer of its own says the same once more where it does not.
    fn all(
        &self,
        tests: &[&Test],
        method: Option<&MethodName>,
        (stage, ran): (Option<String>, bool),
    ) -> Result<Vec<Tried>> {
        let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(test) = tests.get(place) else { break };
            let began = Instant::now();
            let said = self.one(test, method, stage.clone());
            let outcome = |said: Said| if said.stopped && !ran { does_not_run() } else { said.outcome };
            let tried = said.map(|said| self.tried(test, method, outcome(said), began.elapsed().as_secs_f64()));
            found.lock().unwrap_or_else(PoisonError::into_inner).push((place, tried));
        };
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..at_once.min(tests.len()) {
                scope.spawn(work);
            }
        });
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_by_key(|(place, _)| *place);
        found.into_iter().map(|(_, tried)| tried).collect()
    }

    fn one(&self, test: &Test, method: Option<&MethodName>, stage: Option<String>) -> Result<Said> {
        let folder = tempfile::Builder::new().prefix("fthost-validate-").tempdir();
        let folder = folder.map_err(Error::io("cannot make a temporary folder"))?;
        let subject = Subject {
            method: method.cloned(),
            stage,
            folder: Path::new(folder.path()).to_owned(),
            ..self.subject.clone()
        };
        process::run(&self.program, &Job { test: test.name.to_owned(), subject }, self.limit)
    }

    fn tried(&self, test: &Test, method: Option<&MethodName>, outcome: Outcome, seconds: f64) -> Tried {
        let help = matches!(outcome, Outcome::Failed { .. }).then_some(test.advice);
        Tried { test: test.name, shows: test.shows, method: method.cloned(), outcome, help, seconds }
    }
}
