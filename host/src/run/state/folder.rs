//! The run folder: one per run, never overwritten, written atomically.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fthost_images::Picture;
use serde::Serialize;

use super::log::{Line, Listener, NO_WEIGHT};
use crate::report::tensorboard::EventWriter;
use crate::{Error, Result};

/// A folder by the name that the user gave it, and where that was when the run began: a plugin may change the working directory, and what
/// a run leaves must not follow it. Nothing but what is printed goes by the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As the user reads it.
    pub name: PathBuf,
    /// From the root.
    pub path: PathBuf,
}

impl Place {
    /// Where a name is, from the working directory.
    ///
    /// # Errors
    /// Where there is no working directory.
    pub fn new(name: PathBuf) -> Result<Self> {
        let failed = Error::io(format!("cannot find the working directory, from which {} starts", name.display()));
        let path = std::path::absolute(&name).map_err(failed)?;
        Ok(Self { name, path })
    }

    /// The folder beside it that was made in its stead: one with a number.
    #[must_use]
    pub fn or_numbered(self, made: &Path) -> Self {
        let name =
            if made == self.path { self.name } else { self.name.with_file_name(made.file_name().unwrap_or_default()) };
        Self { name, path: made.to_owned() }
    }

    /// A path in the folder as the user reads it; another as it is.
    pub fn named(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.path) {
            Ok(rest) if rest.as_os_str().is_empty() => self.name.clone(),
            Ok(rest) => self.name.join(rest),
            Err(_) => path.to_owned(),
        }
    }

    /// An error that names paths in the folder as the user reads them.
    pub(crate) fn in_error(&self, error: Error) -> Error {
        let (path, name) = (self.path.display().to_string(), self.name.display().to_string());
        error.in_words(|words| {
            let (mut said, mut rest) = (String::new(), words);
            while let Some(at) = rest.find(&path) {
                let (before, found) = rest.split_at(at);
                // The end of another path is none of it.
                let other = before.ends_with(|c: char| c.is_alphanumeric() || "._-/".contains(c));
                said += before;
                said += if other { &path } else { &name };
                rest = &found[path.len()..];
            }
            said + rest
        })
    }
}

/// A run's folder on disk.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    metrics: BufWriter<fs::File>,
    /// The same figures for TensorBoard; no file before there is something to write.
    events: Option<EventWriter>,
    /// Who hears what is logged.
    listener: Option<Listener>,
    /// Held as long as the run goes on; the system lets go of it however the process ends.
    _lock: fs::File,
}

const METRICS: &str = "metrics.jsonl";
const RUN_FILE: &str = "run.toml";
/// How long a killed process may hold its folder: its memory is given back first.
const ON_ITS_WAY_OUT: Duration = Duration::from_secs(2);

impl RunFolder {
    /// Makes the folder. One that the user named must not exist yet; a default name gets a number where it is taken:
    /// `runs/demo`, `runs/demo-2`, ...
    pub fn create(chosen: Option<&Path>, default: &Path) -> Result<Self> {
        let path = claim(chosen, default)?;
        let lock = lock(&path)?;
        let file = path.join(METRICS);
        let metrics = fs::File::create_new(&file).map_err(Error::io(format!("cannot write {}", file.display())))?;
        Ok(Self { path, metrics: BufWriter::new(metrics), events: None, listener: None, _lock: lock })
    }

    /// Opens the folder of a run that goes on, if no other process is at it. [`rewind`](Self::rewind) takes the log back to where
    /// the checkpoint was.
    pub fn reopen(path: &Path) -> Result<Self> {
        let lock = lock_soon(path)?;
        let file = path.join(METRICS);
        let metrics = fs::OpenOptions::new().append(true).open(&file);
        let metrics = metrics.map_err(Error::io(format!("cannot write {}", file.display())))?;
        Ok(Self { path: path.to_owned(), metrics: BufWriter::new(metrics), events: None, listener: None, _lock: lock })
    }

    /// Has someone hear what is logged from now on.
    pub fn tell(&mut self, listener: Option<Listener>) {
        self.listener = listener;
    }

    /// Length of `metrics.jsonl` in bytes, everything that was logged included.
    pub fn log_position(&mut self) -> Result<u64> {
        self.flush()?;
        self.metrics.get_ref().metadata().map(|file| file.len()).map_err(self.failed("read"))
    }

    /// Forgets what was logged after a position and from step `step` on: those steps are taken again.
    pub fn rewind(&mut self, position: u64, step: u64) -> Result<()> {
        self.metrics.get_ref().set_len(position).map_err(self.failed("shorten"))?;
        self.events()?.resume_at(step)
    }

    /// The error of the log.
    fn failed(&self, doing: &str) -> impl FnOnce(std::io::Error) -> Error + use<> {
        Error::io(format!("cannot {doing} {}", self.path.join(METRICS).display()))
    }

    fn events(&mut self) -> Result<&mut EventWriter> {
        match &mut self.events {
            Some(events) => Ok(events),
            none => Ok(none.insert(EventWriter::create(&self.path)?)),
        }
    }

    /// The lines of `metrics.jsonl`.
    pub fn logged(&mut self) -> Result<Vec<serde_json::Value>> {
        self.flush()?;
        let text = fs::read_to_string(self.path.join(METRICS)).map_err(self.failed("read"))?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// The metrics of the first evaluation of a kind (`validation`) that a run in a folder has logged at a step.
    pub fn evaluation(path: &Path, step: u64, when: &str) -> Result<Option<BTreeMap<String, f64>>> {
        let file = path.join(METRICS);
        let text = fs::read_to_string(&file).map_err(Error::io(format!("cannot read {}", file.display())))?;
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let found = lines.find(|line| line["when"] == when && line["step"] == step);
        // A metric that is no number is null there.
        let metrics = found.and_then(|line| line["metrics"].as_object().cloned());
        Ok(metrics
            .map(|metrics| metrics.iter().filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect()))
    }

    /// The resolved run file of the run in a folder.
    pub fn run_file(path: &Path) -> Result<PathBuf> {
        let file = path.join(RUN_FILE);
        if file.is_file() {
            return Ok(file);
        }
        Err(Error::usage(format!("{} is no run folder: it has no {RUN_FILE}", path.display()))
            .with_help("name the folder that a run has left, as in runs/NAME"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one line to `metrics.jsonl`, and its figures to TensorBoard's events.
    pub fn log(&mut self, line: &Line<'_>) -> Result<()> {
        let text = serde_json::to_string(line).map_err(|e| Error::run(format!("cannot write a metric: {e}")))?;
        writeln!(self.metrics, "{text}").map_err(self.failed("write"))?;
        if let Some(listener) = &mut self.listener {
            listener.hear(line);
        }
        let events = self.events()?;
        match *line {
            Line::Step {
                step,
                task,
                ref losses,
                loss,
                penalty,
                ref penalties,
                lr,
                ref rates,
                gradient_norm,
                left_out,
                ..
            } => {
                for (task, loss) in losses.iter().flatten() {
                    events.scalar(&format!("train/{task}/loss"), step, *loss)?;
                }
                let of = task.map(|task| format!("/{task}")).unwrap_or_default();
                if left_out != Some(NO_WEIGHT) {
                    events.scalar(&format!("train{of}/loss"), step, loss)?;
                }
                if let Some(penalty) = penalty {
                    events.scalar("train/penalty", step, penalty)?;
                }
                for (name, penalty) in penalties {
                    events.scalar(&format!("train/penalty/{name}"), step, *penalty)?;
                }
                events.scalar("train/lr", step, lr)?;
                for (of, rate) in rates {
                    events.scalar(&format!("train/lr/{of}"), step, *rate)?;
                }
                events.scalar("train/gradient_norm", step, gradient_norm)?;
            }
            Line::Evaluation { step, when, metrics, task } => {
                for (name, value) in metrics {
                    events.scalar(&format!("{task}/{when}/{name}"), step, *value)?;
                }
            }
            Line::Scalar { step, name, value } => events.scalar(name, step, value)?,
            Line::Sample { step, task, row, prompt, text, .. } => {
                events.text(&format!("{task}/samples/{row}"), step, &sample(prompt, text))?;
            }
        }
        Ok(())
    }

    /// Adds a picture to TensorBoard's events.
    pub fn show(&mut self, tag: &str, step: u64, picture: &Picture) -> Result<()> {
        self.events()?.image(tag, step, picture)
    }

    /// Brings logged lines to the disk.
    pub fn flush(&mut self) -> Result<()> {
        self.metrics.flush().map_err(self.failed("write"))?;
        self.events.as_mut().map_or(Ok(()), EventWriter::flush)
    }

    /// Writes a file of the folder, whole or not at all. Makes its folder where it is missing.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.path.join(name);
        write_atomically(&path, content)?;
        Ok(path)
    }

    /// Writes a file of the folder as indented JSON.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<PathBuf> {
        let path = self.path.join(name);
        write_json(&path, value)?;
        Ok(path)
    }
}

/// A prompt and how it goes on as Markdown, which TensorBoard shows: both as they are, by lines that begin with four spaces.
fn sample(prompt: &str, text: &str) -> String {
    let verbatim = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    format!("{}\ngoes on:\n\n{}", verbatim(prompt), verbatim(text))
}

/// Makes a folder that is nobody's yet: the chosen one, or the default one, numbered where it is taken.
pub(crate) fn claim(chosen: Option<&Path>, default: &Path) -> Result<PathBuf> {
    let Some(path) = chosen else { return make_numbered(default) };
    make(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => taken(path),
        _ => cannot_make(path, source),
    })?;
    Ok(path.to_owned())
}

/// Says of a folder that is there already that no run can have it, before there is any work that would be lost.
///
/// # Errors
/// Where it is there.
pub(crate) fn must_be_free(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok() { Err(taken(path)) } else { Ok(()) }
}

fn taken(path: &Path) -> Error {
    Error::Usage {
        message: format!("the run folder {} exists already", path.display()),
        help: Some("a run never overwrites another: name another folder by --out".into()),
    }
}

fn make_numbered(default: &Path) -> Result<PathBuf> {
    let mut number = 1u32;
    loop {
        let path = match number {
            1 => default.to_owned(),
            n => {
                let name = default.file_name().unwrap_or_default().to_string_lossy();
                default.with_file_name(format!("{name}-{n}"))
            }
        };
        match make(&path) {
            Ok(()) => return Ok(path),
            Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(source) => return Err(cannot_make(&path, source)),
        }
    }
}

fn make(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        // Only of the folder itself may it be said that it exists already.
        fs::create_dir_all(parent).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => std::io::ErrorKind::NotADirectory.into(),
            _ => error,
        })?;
    }
    // `create_dir` fails where the folder exists, so two runs never share one.
    fs::create_dir(path)
}

/// Holds a folder for this process as long as the file lives.
pub(crate) fn lock(path: &Path) -> Result<fs::File> {
    let failed = || Error::io(format!("cannot open the run folder {}", path.display()));
    let file = fs::File::open(path).map_err(failed())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::usage(format!("another run is at work in {}", path.display()))
            .with_help("wait for it to end, or name another folder by --out")),
        Err(fs::TryLockError::Error(error)) => Err(failed()(error)),
    }
}

/// As [`lock`], but a process that was killed a moment ago may still be on its way out: it gets a little time.
fn lock_soon(path: &Path) -> Result<fs::File> {
    let began = Instant::now();
    loop {
        match lock(path) {
            Err(Error::Usage { .. }) if began.elapsed() < ON_ITS_WAY_OUT => std::thread::sleep(ON_ITS_WAY_OUT / 100),
            locked => return locked,
        }
    }
}

fn cannot_make(path: &Path, source: std::io::Error) -> Error {
    Error::Usage {
        message: format!("cannot make the run folder {}: {source}", path.display()),
        help: Some("name a folder that you can write by --out".into()),
    }
}

/// Writes a file whole or not at all: to a temporary file beside it, synced, then renamed over it.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    write_file_atomically(path, |file| fs::write(file, content).map_err(cannot_write(path)))
}

/// As [`write_atomically`], a value as indented JSON.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text =
        serde_json::to_string_pretty(value).map_err(|e| Error::run(format!("cannot write {}: {e}", path.display())))?;
    write_atomically(path, format!("{text}\n").as_bytes())
}

/// As [`write_atomically`], by a function that writes to a path.
pub fn write_file_atomically(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let failed = || cannot_write(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed())?;
    let file = tempfile::NamedTempFile::new_in(folder).map_err(failed())?;
    write(file.path())?;
    // A writer may have put another file in its place.
    let written = fs::File::open(file.path()).map_err(failed())?;
    written.sync_all().map_err(failed())?;
    // A temporary file is private; what a run leaves is as readable as any file of the user.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    written.set_permissions(mode).map_err(failed())?;
    file.persist(path).map_err(|e| e.error).map_err(failed())?;
    // The new name, too, has to survive a power cut.
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed())
}

/// The error where a file cannot be written.
pub fn cannot_write(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    Error::io(format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_name_is_numbered_and_a_chosen_one_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let default = home.path().join("runs/demo");
        assert_eq!(RunFolder::create(None, &default).unwrap().path(), default);
        assert_eq!(RunFolder::create(None, &default).unwrap().path(), home.path().join("runs/demo-2"));
        assert_eq!(RunFolder::create(None, &default).unwrap().path(), home.path().join("runs/demo-3"));
        let error = RunFolder::create(Some(&default), &default).unwrap_err();
        assert!(error.to_string().contains("exists already"), "{error}");
    }

    #[test]
    fn a_folder_serves_one_run_at_a_time_and_its_log_goes_back() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run");
        let mut run = RunFolder::create(Some(&path), &path).unwrap();
        let error = RunFolder::reopen(&path).unwrap_err();
        assert!(error.to_string().contains("another run is at work"), "{error}");
        let metrics = std::collections::BTreeMap::new();
        let log = |run: &mut RunFolder, step| {
            run.log(&Line::Evaluation { step, task: "t", when: "after", metrics: &metrics }).unwrap();
        };
        log(&mut run, 1);
        let position = run.log_position().unwrap();
        log(&mut run, 2);
        run.flush().unwrap();
        drop(run);
        let mut run = RunFolder::reopen(&path).unwrap();
        run.rewind(position, 2).unwrap();
        log(&mut run, 3);
        let steps: Vec<u64> = run.logged().unwrap().iter().filter_map(|line| line["step"].as_u64()).collect();
        assert_eq!(steps, [1, 3]);
    }

    #[test]
    fn errors_name_the_folder_as_the_user_does() {
        let place = Place { name: "runs/demo".into(), path: "/home/u/runs/demo".into() }
            .or_numbered(Path::new("/home/u/runs/demo-2"));
        assert_eq!(place.named(Path::new("/home/u/runs/demo-2/adapter")), Path::new("runs/demo-2/adapter"));
        assert_eq!(place.named(Path::new("/home/u")), Path::new("/home/u"));
        let error = Error::usage(
            "no checkpoint in /home/u/runs/demo-2 is whole: '/home/u/runs/demo-2/a', /x/home/u/runs/demo-2",
        )
        .with_help("--out /home/u/runs/demo-2");
        let Error::Usage { message, help } = place.in_error(error) else { panic!("another kind") };
        assert_eq!(message, "no checkpoint in runs/demo-2 is whole: 'runs/demo-2/a', /x/home/u/runs/demo-2");
        assert_eq!(help.as_deref(), Some("--out runs/demo-2"));
    }

    #[test]
    fn writing_replaces_a_file_whole() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b.json");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
