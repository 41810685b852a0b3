//! What tells whether a data set is still the same.

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use walkdir::{DirEntry, WalkDir};

use super::pictures::digits;
use crate::report::numbers::hexadecimal;
use crate::{Error, Result};

/// Bytes in a folder up to which its files' contents count; beyond, their lengths and the times at which they were written do.
const READ: u64 = 1 << 30;

/// SHA-256 of a file's contents, of the names and contents in a folder, or of an embedded data set's images, in hexadecimal. The file is
/// read piece by piece. What is hidden in a folder does not count, and of one of more than a GiB contents are not read.
pub fn fingerprint(path: &Path) -> Result<String> {
    const PIECE: usize = 1 << 20;
    let mut hash = Sha256::new();
    if path.is_dir() {
        let files = files(path)?;
        let all: u64 = files.iter().map(|(_, known)| known.len()).sum();
        for (file, known) in files {
            hash.update(file.strip_prefix(path).unwrap_or(&file).as_os_str().as_encoded_bytes());
            if all <= READ {
                hash.update(fingerprint(&file)?);
            } else {
                hash.update(known.len().to_le_bytes());
                let written = known.modified().ok().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
                hash.update(written.unwrap_or_default().as_nanos().to_le_bytes());
            }
        }
    } else if digits::embedded_classes(path).is_some() {
        hash.update(digits::DIGITS);
    } else {
        let doing = || Error::io(format!("cannot read {}", path.display()));
        let mut file = File::open(path).map_err(doing())?;
        let mut piece = vec![0; PIECE];
        loop {
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => hash.update(&piece[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(doing()(error)),
            }
        }
    }
    Ok(hexadecimal(&hash.finalize()))
}

/// The files below a folder, however deep, in the order of their paths.
fn files(folder: &Path) -> Result<Vec<(PathBuf, Metadata)>> {
    let hidden = |entry: &DirEntry| entry.depth() > 0 && entry.file_name().to_string_lossy().starts_with('.');
    let walk = WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
    let mut files = Vec::new();
    for entry in walk.filter_entry(|entry| !hidden(entry)) {
        let read = entry.and_then(|entry| Ok((entry.metadata()?, entry.into_path())));
        let (known, path) =
            read.map_err(|error| Error::io(format!("cannot read the folder {}", folder.display()))(error.into()))?;
        if known.is_file() {
            files.push((path, known));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn it_is_the_sha256_of_the_contents() {
        let folder = tempfile::tempdir().unwrap();
        let check = |content: &[u8], expected: &str| {
            let path = folder.path().join("a.tsv");
            std::fs::write(&path, content).unwrap();
            assert_eq!(fingerprint(&path).unwrap(), expected);
        };
        // FIPS 180's examples.
        check(b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        check(&vec![b'a'; 1_000_000], "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
        check(
            &vec![0; 3 << 20],
            &Sha256::digest(vec![0; 3 << 20]).iter().map(|b| format!("{b:02x}")).collect::<String>(),
        );
        let error = fingerprint(&folder.path().join("b.tsv")).unwrap_err();
        assert!(error.to_string().contains("b.tsv"), "{error}");
    }

    #[test]
    fn a_folder_of_texts_has_one_of_its_names_and_contents() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
            fingerprint(folder.path()).unwrap()
        };
        let first = write("pos/a.txt", "x");
        let other = write("neg/b.txt", "y");
        assert_ne!(first, other);
        assert_ne!(write("neg/b.txt", "z"), other);
        assert_eq!(write("neg/b.txt", "y"), other);
    }

    #[test]
    fn embedded_images_have_one() {
        let demo = fingerprint(Path::new("demo")).unwrap();
        assert_eq!(demo.len(), 64);
        assert_eq!(demo, fingerprint(Path::new("demo-pretrain")).unwrap());
    }
}
