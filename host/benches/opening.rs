//! What opening plugins takes: all of a folder listed by their notes, and one opened whose digest is new, known, or open already.
//!
//! `cargo bench -p fthost --bench opening` builds no plugin: build them first (`cargo build --release`), or name their folder by
//! `FTHOST_PLUGIN_PATH`. Each opening is a process of its own, as it is in a run; its time is what the process itself measures, without its start.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a benchmark")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use fthost::plugin::{Plugin, Search, note, trial};

const ROUNDS: usize = 15;
/// The argument of a process that opens one file and prints the nanoseconds it took.
const OPEN: &str = "--open";

fn main() -> ExitCode {
    if let Some(code) = trial::answer() {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [open, path] if open == OPEN => {
            let began = Instant::now();
            Plugin::open(Path::new(path)).unwrap();
            println!("{}", began.elapsed().as_nanos());
        }
        _ => all(),
    }
    ExitCode::SUCCESS
}

fn all() {
    let libraries = Search::from_environment().libraries();
    let list = || libraries.iter().filter(|path| note::list(path).is_ok()).count();
    let cache = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let plugins = list();
    println!("{plugins} plugins listed, first: {:.1?}", began.elapsed());
    println!("{plugins} plugins listed, again: {:.1?}", median((0..ROUNDS).map(|_| timed(list)).collect()));
    let found = libraries.iter().find(|path| note::list(path).is_ok());
    let one = found.expect("a plugin: build one, or set FTHOST_PLUGIN_PATH");
    let megabytes = one.metadata().unwrap().len() as f64 / 1e6;
    println!("{} ({megabytes:.1} MB)", one.display());
    let new = || {
        std::fs::remove_dir_all(cache.path()).unwrap();
        std::fs::create_dir(cache.path()).unwrap();
        opened(one, cache.path())
    };
    println!("opened, new:           {:.1?}", median((0..ROUNDS).map(|_| new()).collect()));
    println!("opened, known:         {:.1?}", median((0..ROUNDS).map(|_| opened(one, cache.path())).collect()));
    println!(
        "checked only:          {:.1?}",
        median((0..ROUNDS).map(|_| timed(|| note::check(one).unwrap())).collect())
    );
}

fn timed<T>(work: impl Fn() -> T) -> Duration {
    let began = Instant::now();
    std::hint::black_box(work());
    began.elapsed()
}

/// How long a process of its own takes to open a file.
fn opened(path: &PathBuf, cache: &Path) -> Duration {
    let mut command = Command::new("/proc/self/exe");
    let output = command.arg(OPEN).arg(path).env("FTHOST_CACHE", cache).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Duration::from_nanos(String::from_utf8(output.stdout).unwrap().trim().parse().unwrap())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
