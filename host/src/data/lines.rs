//! Lines of a text file.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::input::{Bytes, read_error};
use super::row::data_error;
use crate::{Error, Result};

/// Bytes that a line, or a CSV row of several lines, may have. A file whose line ends are missing, or a quote that is
/// never closed, must not fill the memory.
pub(super) const LONGEST: usize = 64 << 20;

/// Lines without their ends and without the mark that may open a UTF-8 file.
pub(super) struct Lines {
    reader: BufReader<Bytes>,
    buffer: Vec<u8>,
    number: u64,
    longest: usize,
}

impl Lines {
    pub(super) fn new(bytes: Bytes) -> Self {
        let reader = BufReader::with_capacity(1 << 16, bytes);
        Self { reader, buffer: Vec::new(), number: 0, longest: LONGEST }
    }

    /// The next line that is not blank, and its number.
    pub(super) fn next_line(&mut self, path: &Path) -> Result<Option<(u64, &str)>> {
        while self.read(path)? {
            if !self.buffer.is_empty() {
                return Ok(Some((self.number, self.text(path)?)));
            }
        }
        Ok(None)
    }

    /// The next line, blank or not, and its number.
    pub(super) fn any_line(&mut self, path: &Path) -> Result<Option<(u64, &str)>> {
        Ok(if self.read(path)? { Some((self.number, self.text(path)?)) } else { None })
    }

    fn text(&self, path: &Path) -> Result<&str> {
        std::str::from_utf8(&self.buffer).map_err(|_| not_utf8(path, self.number))
    }

    /// Reads a line into the buffer, without its end; false at the end of the file.
    fn read(&mut self, path: &Path) -> Result<bool> {
        self.buffer.clear();
        let mut limited = self.reader.by_ref().take(self.longest as u64 + 1);
        let read = limited.read_until(b'\n', &mut self.buffer);
        if read.map_err(|error| read_error(path, error))? == 0 {
            return Ok(false);
        }
        self.number += 1;
        if self.buffer.len() > self.longest {
            let message = format!("this line is longer than {} MB", self.longest >> 20);
            return Err(
                data_error(path, Some(self.number), message).with_help("an example stands on a line of its own")
            );
        }
        for end in [b'\n', b'\r'] {
            if self.buffer.last() == Some(&end) {
                self.buffer.pop();
            }
        }
        if self.number == 1 && self.buffer.starts_with(b"\xEF\xBB\xBF") {
            self.buffer.drain(..3);
        }
        Ok(true)
    }
}

pub(super) fn not_utf8(path: &Path, line: u64) -> Error {
    data_error(path, Some(line), "this line is not valid UTF-8")
        .with_help("say what it is in the task: encoding = \"latin-1\" or \"windows-1252\"; or convert the file")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn lines(content: &str) -> Lines {
        Lines { longest: 1 << 20, ..Lines::new(Box::new(std::io::Cursor::new(content.to_owned()))) }
    }

    #[test]
    fn a_line_without_end_is_an_error() {
        let path = Path::new("a.tsv");
        let long = "x".repeat((1 << 20) - 1);
        let mut fits = lines(&format!("{long}\n{long}"));
        assert_eq!(fits.next_line(path).unwrap(), Some((1, long.as_str())));
        assert_eq!(fits.next_line(path).unwrap(), Some((2, long.as_str())));
        let mut too_long = lines(&format!("a\n{long}xx\n"));
        too_long.next_line(path).unwrap();
        let error = too_long.next_line(path).unwrap_err();
        assert_eq!(error.to_string(), "a.tsv:2: this line is longer than 1 MB");
    }
}
