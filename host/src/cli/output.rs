//! Standard output.

use std::io::{self, Write};

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
