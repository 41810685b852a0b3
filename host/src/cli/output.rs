//! Standard output.

use std::io::{self, Write};
use std::path::Path;

use fthost::{Error, Result};

/// Writes a line to standard output. A reader that has left, as `head` does, is no error.
pub(super) fn say(text: &str) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("cannot write to standard output")(error))
        }
        _ => Ok(()),
    }
}

/// Refuses to write a file that is there.
pub(super) fn must_not_exist(path: &Path) -> Result<()> {
    if path.exists() {
        return Err(Error::usage(format!("{} exists already", path.display()))
            .with_help("name a file that does not exist: nothing is overwritten"));
    }
    Ok(())
}
