//! Standard output.

use std::io::{self, Write};

use super::text::printable;
use crate::{Error, Result};

/// Writes a line to standard output, or several. What would steer a terminal is written out: part of it comes from plugins and files. A reader that has left, as `head` does, is no error.
///
/// # Errors
/// Where it cannot be written, to a full disk for example.
pub fn say(text: &str) -> Result<()> {
    match writeln!(io::stdout(), "{}", printable(text)) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("cannot write to standard output")(error))
        }
        _ => Ok(()),
    }
}
