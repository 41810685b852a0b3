//! Rows of a CSV file, by the csv crate.
//!
//! The crate takes any bytes for CSV: a quote that is never closed takes what is left of the file into its cell, and what follows a
//! closing quote is joined to the cell. Texts would change in silence, so each row's bytes are kept while it is read, and its cells
//! must be what RFC 4180 writes as these bytes.

use std::io::{self, Read};
use std::path::Path;

use ::csv::{ByteRecord, Reader, ReaderBuilder};

use super::form::Dialect;
use super::input::{Bytes, read_error};
use super::lines::{LONGEST, not_utf8};
use super::row::data_error;
use crate::Result;

/// Bytes that are read at once.
const BUFFER: usize = 1 << 16;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
const QUOTES: &str = "write a quote inside a quoted cell twice; where quotes are ordinary characters, say so in the task: quote = \"none\"";

/// The rows of a CSV file.
pub(super) struct CsvRows {
    reader: Reader<Kept>,
    record: ByteRecord,
    dialect: Dialect,
    longest: usize,
}

impl CsvRows {
    pub(super) fn new(bytes: Bytes, dialect: Dialect) -> Self {
        Self::of_rows_up_to(LONGEST, bytes, dialect)
    }

    fn of_rows_up_to(longest: usize, file: Bytes, dialect: Dialect) -> Self {
        let kept = Kept { file, bytes: Vec::new(), start: 0, row: 0, longest, too_long: false, ended: false };
        // That rows have as many cells as the first is said with more words than the crate has.
        let mut builder = ReaderBuilder::new();
        builder.has_headers(false).flexible(true).buffer_capacity(BUFFER).delimiter(dialect.separator);
        match dialect.quote {
            Some(quote) => builder.quote(quote),
            None => builder.quoting(false),
        };
        Self { reader: builder.from_reader(kept), record: ByteRecord::new(), dialect, longest }
    }

    /// Whether all bytes were read.
    pub(super) fn at_end(&self) -> bool {
        self.reader.is_done() || self.reader.get_ref().ended
    }

    /// The cells of the next row that is not blank, and the line where it begins. Line ends inside quotes become `\n`.
    pub(super) fn next_row(&mut self, path: &Path) -> Result<Option<(u64, Vec<String>)>> {
        let begin = self.reader.position().clone();
        self.reader.get_mut().row = begin.byte();
        let read = self.reader.read_byte_record(&mut self.record);
        let (kept, end) = (self.reader.get_ref(), self.reader.position().byte());
        let raw = kept.between(begin.byte(), end);
        let raw = if begin.byte() == 0 { raw.strip_prefix(BYTE_ORDER_MARK).unwrap_or(raw) } else { raw };
        // The end of the row before, and blank lines.
        let blank = raw.iter().position(|&byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(raw.len());
        let line = begin.line() + newlines(&raw[..blank]);
        let raw = &raw[blank..];
        let wrong = |message: String| data_error(path, Some(line), message).with_help(QUOTES);
        if kept.too_long {
            return Err(wrong(format!("this row, with its quoted cells, is longer than {} MB", self.longest >> 20)));
        }
        match read {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => return Err(read_error(path, error.into())),
        }
        if let Err(error) = std::str::from_utf8(raw) {
            return Err(not_utf8(path, line + newlines(&raw[..error.valid_up_to()])));
        }
        if let Some(quote) = self.dialect.quote
            && raw.contains(&quote)
        {
            check_quotes(raw, &self.record, self.dialect.separator, quote).map_err(|message| wrong(message.into()))?;
        }
        // Cells are whole characters: they are divided at quotes, separators and line ends.
        let text = |cell: &[u8]| String::from_utf8_lossy(cell).replace("\r\n", "\n");
        Ok(Some((line, self.record.iter().map(text).collect())))
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// Whether cells are what a row's bytes stand for; what is wrong where they are not.
fn check_quotes(row: &[u8], cells: &ByteRecord, separator: u8, quote: u8) -> Result<(), &'static str> {
    const GOES_ON: &str = "a quoted cell goes on after its closing quote";
    let mut rest = row;
    for (i, cell) in cells.iter().enumerate() {
        if i > 0 {
            rest = rest.strip_prefix(&[separator]).ok_or(GOES_ON)?;
        }
        let Some(quoted) = rest.strip_prefix(&[quote]) else {
            rest = rest.strip_prefix(cell).ok_or(GOES_ON)?;
            continue;
        };
        rest = quoted;
        for part in cell.split_inclusive(|&byte| byte == quote) {
            rest = rest.strip_prefix(part).ok_or(GOES_ON)?;
            if part.ends_with(&[quote]) {
                rest = rest.strip_prefix(&[quote]).ok_or(GOES_ON)?;
            }
        }
        if rest.is_empty() {
            return Err("a quote that opens in this row is never closed");
        }
        rest = rest.strip_prefix(&[quote]).ok_or(GOES_ON)?;
    }
    if rest.iter().all(|byte| matches!(byte, b'\r' | b'\n')) { Ok(()) } else { Err(GOES_ON) }
}

/// A file whose bytes are kept from the beginning of the row that is being read.
struct Kept {
    file: Bytes,
    bytes: Vec<u8>,
    /// Where `bytes` begin in the file.
    start: u64,
    /// Where the row begins.
    row: u64,
    longest: usize,
    too_long: bool,
    ended: bool,
}

impl Kept {
    fn between(&self, begin: u64, end: u64) -> &[u8] {
        let place = |at: u64| (at.saturating_sub(self.start) as usize).min(self.bytes.len());
        &self.bytes[place(begin)..place(end).max(place(begin))]
    }
}

impl Read for Kept {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let before = (self.row - self.start) as usize;
        if self.bytes.len() - before > self.longest {
            self.too_long = true;
            return Err(io::Error::other("a row is too long"));
        }
        self.bytes.drain(..before);
        self.start = self.row;
        let read = self.file.read(buffer)?;
        self.ended = read == 0;
        self.bytes.extend(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const PATH: &str = "a.csv";

    fn rows(content: &[u8]) -> CsvRows {
        CsvRows::of_rows_up_to(1 << 20, Box::new(io::Cursor::new(content.to_owned())), Dialect::CSV)
    }

    /// Each row as `line cell|cell`; the last one may be an error.
    fn read(content: &str) -> Vec<String> {
        all(rows(content.as_bytes()))
    }

    fn all(mut rows: CsvRows) -> Vec<String> {
        let mut found = Vec::new();
        loop {
            match rows.next_row(Path::new(PATH)) {
                Ok(Some((line, cells))) => found.push(format!("{line} {}", cells.join("|"))),
                Ok(None) => return found,
                Err(error) => {
                    found.push(error.to_string());
                    return found;
                }
            }
        }
    }

    #[test]
    fn lines_are_those_of_the_file() {
        assert_eq!(read("a,1\n\n\nb,2\n"), ["1 a|1", "4 b|2"]);
        assert_eq!(read("\r\n\r\na,1\r\n\r\nb,2"), ["3 a|1", "5 b|2"]);
        assert_eq!(read("\"a\nb\r\nc\",1\r\n\r\nd,2\r\n"), ["1 a\nb\nc|1", "5 d|2"]);
        assert_eq!(read("\u{feff}\"a\",1\nb,2\n"), ["1 a|1", "2 b|2"]);
        assert_eq!(read("\u{feff}\n\"a\",1"), ["2 a|1"]);
        assert_eq!(read(""), [""; 0]);
        // More than is read at once.
        let many: String = (0..40_000).map(|i| format!("\"row \"\"{i}\"\"\",x\r\n\r\n")).collect();
        let expected: Vec<String> = (0..40_000).map(|i| format!("{} row \"{i}\"|x", 2 * i + 1)).collect();
        assert_eq!(read(&many), expected);
    }

    #[test]
    fn what_is_no_csv_is_said_with_its_line() {
        let goes_on = |line: u64| format!("a.csv:{line}: a quoted cell goes on after its closing quote");
        let open = |line: u64| format!("a.csv:{line}: a quote that opens in this row is never closed");
        assert_eq!(read("a,1\n\"b\" c,2\n"), ["1 a|1".to_owned(), goes_on(2)]);
        assert_eq!(read("a,1\n\"b\"c\",2\n"), ["1 a|1".to_owned(), goes_on(2)]);
        assert_eq!(read("a,1\n1,\"b\" \n"), ["1 a|1".to_owned(), goes_on(2)]);
        assert_eq!(read("\"he said \"hi\" to me\",1\n"), [goes_on(1)]);
        assert_eq!(read("a,1\n\n\"b,2\nc,3\n"), ["1 a|1".to_owned(), open(3)]);
        assert_eq!(read("a,\""), [open(1)]);
        assert_eq!(read("a,\"\"\"\n"), [open(1)]);
        // These are as they look.
        assert_eq!(read("5\" disk,1\na \"b\" c,2\n,\"\"\n"), ["1 5\" disk|1", "2 a \"b\" c|2", "3 |"]);
        let mut latin = rows(b"a,1\n\"b\nna\xefve\",2\n");
        latin.next_row(Path::new(PATH)).unwrap();
        let error = latin.next_row(Path::new(PATH)).unwrap_err();
        assert_eq!(error.to_string(), "a.csv:3: this line is not valid UTF-8");
    }

    /// As 10kGNAD's articles.
    #[test]
    fn separators_and_quotes_are_what_is_said() {
        let of = |content: &str, separator, quote| {
            all(CsvRows::new(Box::new(io::Cursor::new(content.to_owned())), Dialect { separator, quote }))
        };
        let single = "Sport;'Er sagte; ''ja, \"gut\"'''\nWeb;kurz, \"laut\"\n";
        assert_eq!(of(single, b';', Some(b'\'')), ["1 Sport|Er sagte; 'ja, \"gut\"'", "2 Web|kurz, \"laut\""]);
        assert_eq!(of("a|'b\n\"c|\"\"\n", b'|', None), ["1 a|'b", "2 \"c|\"\""]);
        assert_eq!(of("a;'b' c\n", b';', Some(b'\'')), ["a.csv:1: a quoted cell goes on after its closing quote"]);
    }

    #[test]
    fn a_row_without_end_is_an_error() {
        let mut endless = rows(format!("a,1\n\"b,2\n{}", "c,3\n".repeat(1 << 19)).as_bytes());
        endless.next_row(Path::new(PATH)).unwrap();
        let error = endless.next_row(Path::new(PATH)).unwrap_err();
        assert_eq!(error.to_string(), "a.csv:2: this row, with its quoted cells, is longer than 1 MB");
        assert!(endless.reader.get_ref().bytes.len() < 2 << 20);
        let long = format!("{},1\n", "x".repeat((1 << 20) - BUFFER));
        assert_eq!(read(&long.repeat(3)).len(), 3);
    }
}
