//! What tells whether a data set is still the same.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{folder, images};
use crate::report::numbers::hexadecimal;
use crate::{Error, Result};

/// SHA-256 of a file's contents, of the names and contents in a folder of texts, or of an embedded data set's images, in hexadecimal. The file is read piece by piece.
pub fn fingerprint(path: &Path) -> Result<String> {
    const PIECE: usize = 1 << 20;
    let mut hash = Sha256::new();
    if path.is_dir() {
        for (_, file) in folder::files(path)? {
            hash.update(file.strip_prefix(path).unwrap_or(&file).as_os_str().as_encoded_bytes());
            hash.update(fingerprint(&file)?);
        }
    } else if images::embedded_classes(path).is_some() {
        hash.update(images::DIGITS);
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
