//! What a model's parameters hashed to before, for files that have not changed since.
//!
//! A weights file is hashed once: its size, times and inode tell whether it is still the same. What is remembered is only ever compared
//! with what the run's end computes anew, so a file that lies about these costs an error, not a false proof.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fthost_models::FileState;
use sha2::{Digest, Sha256};

use crate::data;
use crate::report::numbers::hexadecimal;

/// A file that was written to as lately as this may be written to again within the same tick of the clock.
const SETTLED: Duration = Duration::from_secs(2);

/// By parameter: SHA-256 of its values.
pub(super) type Digests = BTreeMap<String, [u8; 32]>;

/// Where the digests of a model's files are remembered.
pub(super) struct Remembered(Option<PathBuf>);

impl Remembered {
    /// In this user's folder. Nowhere for a model that came from no files or from files that are still being written, and where that
    /// folder is somebody else's.
    pub(super) fn of(files: &[FileState]) -> Self {
        data::own_folder("fthost-digests").map_or(Self(None), |folder| Self::within(&folder, files))
    }

    fn within(folder: &Path, files: &[FileState]) -> Self {
        let settled =
            |file: &FileState| SystemTime::now().duration_since(file.modified).is_ok_and(|since| since > SETTLED);
        if files.is_empty() || !files.iter().all(settled) {
            return Self(None);
        }
        let mut key = Sha256::new();
        files.iter().for_each(|file| key.update(format!("{}\n", file.identity)));
        Self(Some(folder.join(format!("{}.json", hexadecimal(&key.finalize())))))
    }

    /// What was remembered, if it is of exactly these parameters.
    pub(super) fn read(&self, names: &[&str]) -> Option<Digests> {
        let digests: Digests = serde_json::from_slice(&fs::read(self.0.as_ref()?).ok()?).ok()?;
        (digests.len() == names.len() && names.iter().all(|name| digests.contains_key(*name))).then_some(digests)
    }

    /// Remembers. A disk that is full or cannot be written to costs the next run its time and this one nothing.
    pub(super) fn write(&self, digests: &Digests) {
        let Some(path) = &self.0 else { return };
        let write = || -> std::io::Result<()> {
            let folder = path.parent().unwrap_or(path);
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer(&mut file, digests)?;
            file.persist(path)?;
            Ok(())
        };
        if let Err(error) = write() {
            tracing::debug!("{} was not written: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn file(identity: &str, seconds: u64) -> FileState {
        FileState { identity: identity.into(), modified: SystemTime::now() - Duration::from_secs(seconds) }
    }

    #[test]
    fn digests_are_those_of_the_same_files_and_parameters() {
        let folder = tempfile::tempdir().unwrap();
        let of = |files: &[FileState]| Remembered::within(folder.path(), files);
        let digests = Digests::from([("a".to_owned(), [7; 32]), ("b".to_owned(), [9; 32])]);
        let shards = [file("one", 60), file("two", 60)];
        assert_eq!(of(&shards).read(&["a", "b"]), None);
        of(&shards).write(&digests);
        assert_eq!(of(&shards).read(&["b", "a"]), Some(digests.clone()));
        // Another model of the same file, another file, one more file, and no file.
        assert_eq!(of(&shards).read(&["a", "c"]), None);
        assert_eq!(of(&shards).read(&["a"]), None);
        assert_eq!(of(&[file("one", 60), file("two, written to", 60)]).read(&["a", "b"]), None);
        assert_eq!(of(&shards[..1]).read(&["a", "b"]), None);
        of(&[]).write(&digests);
        assert_eq!(of(&[]).read(&["a", "b"]), None);
        // A file that may still be written to within the same tick of the clock.
        of(&[file("new", 0)]).write(&digests);
        assert_eq!(of(&[file("new", 0)]).read(&["a", "b"]), None);
        // One that was cut off.
        let kept = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        fs::write(&kept, &fs::read(&kept).unwrap()[..20]).unwrap();
        assert_eq!(of(&shards).read(&["a", "b"]), None);
    }
}
