//! SHA-256 of a plugin's file for lists, remembered for files that have not changed since.
//!
//! What is opened is hashed anew each time, so a file that lies about its times and inode is listed under another digest and nothing more.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::data::own_folder;
use crate::report::numbers::hexadecimal;
use crate::{Error, Result};

/// A file that was written to as lately as this may be written to again within the same tick of the clock.
const SETTLED: Duration = Duration::from_secs(2);

/// Bytes that are read at once.
const PIECE: usize = 1 << 18;

/// The digest of a file, in hexadecimal.
pub(super) fn of(path: &Path, mut file: &File) -> Result<String> {
    let place = place(file);
    let known = place.as_ref().and_then(|place| fs::read_to_string(place).ok());
    if let Some(known) = known.filter(|text| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        return Ok(known);
    }
    let failed = || Error::io(format!("cannot read the plugin {}", path.display()));
    let (mut digest, mut piece) = (Sha256::new(), vec![0; PIECE]);
    file.rewind().map_err(failed())?;
    loop {
        match file.read(&mut piece).map_err(failed())? {
            0 => break,
            read => digest.update(&piece[..read]),
        }
    }
    let digest = hexadecimal(&digest.finalize());
    // A disk that is full costs the next list its time and this one nothing.
    if let Some(Err(error)) = place.map(|place| remember(&place, &digest)) {
        tracing::debug!("the digest of {} was not remembered: {error}", path.display());
    }
    Ok(digest)
}

/// Where it is remembered: under what no other file has, and this one no longer once it was written to.
fn place(file: &File) -> Option<PathBuf> {
    let file = file.metadata().ok()?;
    if SystemTime::now().duration_since(file.modified().ok()?).ok()? < SETTLED {
        return None;
    }
    let (modified, changed) = ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
    let identity = format!("{} {} {} {modified:?} {changed:?}", file.dev(), file.ino(), file.len());
    Some(own_folder("fthost-plugins")?.join(format!("{}.digest", hexadecimal(&Sha256::digest(identity)))))
}

fn remember(place: &Path, digest: &str) -> io::Result<()> {
    let folder = place.parent().unwrap_or(place);
    let file = tempfile::NamedTempFile::new_in(folder)?;
    fs::write(file.path(), digest)?;
    file.persist(place)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_digest_is_that_of_the_content() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let content = vec![7; PIECE + 3];
        file.write_all(&content).unwrap();
        let of = || of(file.path(), &File::open(file.path()).unwrap()).unwrap();
        assert_eq!(of(), hexadecimal(&Sha256::digest(&content)));
        assert_eq!(place(file.as_file()), None, "a file that may still be written to is not remembered");
        // One that was last written to a while ago is, and another content is another file.
        let long_ago = SystemTime::now() - Duration::from_secs(60);
        file.as_file().set_modified(long_ago).unwrap();
        let remembered = place(file.as_file()).unwrap();
        assert_eq!(of(), fs::read_to_string(&remembered).unwrap());
        file.as_file().set_len(5).unwrap();
        file.as_file().set_modified(long_ago).unwrap();
        assert_eq!(of(), hexadecimal(&Sha256::digest(&content[..5])));
        for place in [Some(remembered), place(file.as_file())].into_iter().flatten() {
            fs::remove_file(place).unwrap();
        }
    }
}
