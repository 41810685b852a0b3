//! The run folder: one per run, never overwritten, written atomically.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::{Error, Result};

/// A run's folder on disk.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    metrics: BufWriter<fs::File>,
}

impl RunFolder {
    /// Makes the folder. One that the user named must not exist yet; a default name gets a number where it is taken:
    /// `runs/demo`, `runs/demo-2`, ...
    pub fn create(chosen: Option<&Path>, default: &Path) -> Result<Self> {
        let path = match chosen {
            Some(path) => {
                Self::make(path).map_err(|source| match source.kind() {
                    std::io::ErrorKind::AlreadyExists => Error::Usage {
                        message: format!("the run folder {} exists already", path.display()),
                        help: Some("a run never overwrites another: name another folder by --out".into()),
                    },
                    _ => cannot_make(path, source),
                })?;
                path.to_owned()
            }
            None => Self::make_numbered(default)?,
        };
        let file = path.join("metrics.jsonl");
        let metrics = fs::File::create_new(&file).map_err(Error::io(format!("cannot write {}", file.display())))?;
        Ok(Self { path, metrics: BufWriter::new(metrics) })
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
            match Self::make(&path) {
                Ok(()) => return Ok(path),
                Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(source) => return Err(cannot_make(&path, source)),
            }
        }
    }

    fn make(path: &Path) -> std::io::Result<()> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent)?;
        }
        // `create_dir` fails where the folder exists, so two runs never share one.
        fs::create_dir(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one line to `metrics.jsonl`.
    pub fn log(&mut self, line: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(line).map_err(|e| Error::run(format!("cannot write a metric: {e}")))?;
        writeln!(self.metrics, "{text}").map_err(Error::io("cannot write metrics.jsonl"))
    }

    /// Brings logged lines to the disk.
    pub fn flush(&mut self) -> Result<()> {
        self.metrics.flush().map_err(Error::io("cannot write metrics.jsonl"))
    }

    /// Writes a file of the folder, whole or not at all. Makes its folder where it is missing.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.path.join(name);
        write_atomically(&path, content)?;
        Ok(path)
    }

    /// Writes a file of the folder as indented JSON.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<PathBuf> {
        let text = serde_json::to_string_pretty(value).map_err(|e| Error::run(format!("cannot write {name}: {e}")))?;
        self.write(name, format!("{text}\n").as_bytes())
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
    let failed = || Error::io(format!("cannot write {}", path.display()));
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed())?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed())?;
    file.write_all(content).map_err(failed())?;
    file.as_file().sync_all().map_err(failed())?;
    // A temporary file is private; what a run leaves is as readable as any file of the user.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode).map_err(failed())?;
    file.persist(path).map_err(|e| e.error).map_err(failed())?;
    Ok(())
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
    fn writing_replaces_a_file_whole() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b.json");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
