//! Standard output.

use std::io::{self, Write};

use crate::{Error, Result};

/// Writes a line to standard output. A reader that has left, as `head` does, is no error.
///
/// # Errors
/// Where it cannot be written, to a full disk for example.
pub fn say(text: &str) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("cannot write to standard output")(error))
        }
        _ => Ok(()),
    }
}
