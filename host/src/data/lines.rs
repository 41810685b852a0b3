//! Lines of a text file, and CSV rows, which may go on over several.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::row::data_error;
use crate::{Error, Result};

/// Bytes that a line, or a cell of several lines, may have. A file whose line ends are missing, or a quote that is
/// never closed, must not fill the memory.
const LONGEST: usize = 64 << 20;

/// Lines without their ends and without the mark that may open a UTF-8 file.
#[derive(Debug)]
pub(super) struct Lines {
    reader: BufReader<File>,
    buffer: Vec<u8>,
    number: u64,
    longest: usize,
}

impl Lines {
    pub(super) fn new(file: File) -> Self {
        let reader = BufReader::with_capacity(1 << 16, file);
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

    /// The next line, blank or not.
    fn next_any_line(&mut self, path: &Path) -> Result<Option<&str>> {
        if self.read(path)? { self.text(path).map(Some) } else { Ok(None) }
    }

    fn text(&self, path: &Path) -> Result<&str> {
        std::str::from_utf8(&self.buffer).map_err(|_| {
            data_error(path, Some(self.number), "this line is not valid UTF-8")
                .with_help("convert the file, for instance by: iconv -f latin1 -t utf-8 old > new")
        })
    }

    /// Reads a line into the buffer, without its end; false at the end of the file.
    fn read(&mut self, path: &Path) -> Result<bool> {
        self.buffer.clear();
        let mut limited = self.reader.by_ref().take(self.longest as u64 + 1);
        let read = limited.read_until(b'\n', &mut self.buffer);
        if read.map_err(Error::io(format!("cannot read {}", path.display())))? == 0 {
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

/// The cells of a CSV row, which goes on over line ends inside quotes. They become `\n`.
pub(super) fn csv_cells(lines: &mut Lines, path: &Path) -> Result<Option<(u64, Vec<String>)>> {
    let Some((start, mut text)) = lines.next_line(path)? else { return Ok(None) };
    let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    loop {
        let mut line = text.chars().peekable();
        let mut cell_start = !quoted;
        while let Some(c) = line.next() {
            match c {
                '"' if quoted && line.next_if_eq(&'"').is_some() => cell.push('"'),
                '"' if quoted => {
                    quoted = false;
                    if line.peek().is_some_and(|&next| next != ',') {
                        return Err(data_error(path, Some(start), "a quoted cell goes on after its closing quote")
                            .with_help(QUOTES));
                    }
                }
                '"' if cell_start => quoted = true,
                ',' if !quoted => {
                    cells.push(std::mem::take(&mut cell));
                    cell_start = true;
                    continue;
                }
                c => cell.push(c),
            }
            cell_start = false;
        }
        if !quoted {
            cells.push(cell);
            return Ok(Some((start, cells)));
        }
        cell.push('\n');
        if cell.len() > lines.longest {
            let message = format!("a quoted cell that begins in this row is longer than {} MB", lines.longest >> 20);
            return Err(data_error(path, Some(start), message).with_help(QUOTES));
        }
        text = match lines.next_any_line(path)? {
            Some(text) => text,
            None => {
                let message = "a quote that opens in this row is never closed";
                return Err(data_error(path, Some(start), message).with_help(QUOTES));
            }
        };
    }
}

const QUOTES: &str =
    "write a quote inside a quoted cell twice, or save the file as .tsv, where quotes are ordinary characters";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::io::Write;

    use super::*;

    fn lines(content: &str) -> Lines {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        Lines { longest: 1 << 20, ..Lines::new(file) }
    }

    #[test]
    fn a_line_or_a_cell_without_end_is_an_error() {
        let path = Path::new("a.csv");
        let long = "x".repeat((1 << 20) - 1);
        let mut fits = lines(&format!("{long}\n{long}"));
        assert_eq!(fits.next_line(path).unwrap(), Some((1, long.as_str())));
        assert_eq!(fits.next_line(path).unwrap(), Some((2, long.as_str())));
        let mut too_long = lines(&format!("a\n{long}xx\n"));
        too_long.next_line(path).unwrap();
        let error = too_long.next_line(path).unwrap_err();
        assert_eq!(error.to_string(), "a.csv:2: this line is longer than 1 MB");

        let mut open_quote = lines(&format!("a,1\n\"b,2\n{}", "c,3\n".repeat(1 << 19)));
        csv_cells(&mut open_quote, path).unwrap();
        let error = csv_cells(&mut open_quote, path).unwrap_err();
        assert_eq!(error.to_string(), "a.csv:2: a quoted cell that begins in this row is longer than 1 MB");
    }
}
