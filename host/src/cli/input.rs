//! A file of examples that a command reads, or standard input.

use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use fthost::{Error, Result};
use tempfile::NamedTempFile;

/// How standard input is named.
const STANDARD_INPUT: &str = "-";

/// A file, or what came from standard input as one.
pub(super) struct Input {
    path: PathBuf,
    standard: Option<NamedTempFile>,
}

impl Input {
    /// The file of this name; `-` is standard input, read to its end.
    ///
    /// # Errors
    /// Where that cannot be read, or the temporary folder takes no more.
    pub(super) fn open(name: &Path) -> Result<Self> {
        if name.as_os_str() != STANDARD_INPUT {
            return Ok(Self { path: name.to_owned(), standard: None });
        }
        let failed = || Error::io("cannot read standard input");
        let mut begin = vec![0; 1 << 16];
        let mut input = io::stdin().lock();
        let mut read = 0;
        while read < begin.len() {
            match input.read(&mut begin[read..]).map_err(failed())? {
                0 => break,
                more => read += more,
            }
        }
        begin.truncate(read);
        let file = tempfile::Builder::new().suffix(extension_of(&begin)).tempfile();
        let mut file = file.map_err(failed())?;
        file.write_all(&begin).map_err(failed())?;
        io::copy(&mut input, &mut file).map_err(failed())?;
        file.rewind().map_err(failed())?;
        Ok(Self { path: file.path().to_owned(), standard: Some(file) })
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An error that names standard input and not the file that holds it.
    pub(super) fn named(&self, error: Error) -> Error {
        match error {
            Error::Data { file, line, message, help } if self.standard.is_some() && file == self.path => {
                Error::Data { file: "standard input".into(), line, message, help }
            }
            error => error,
        }
    }
}

/// How begins what its content alone tells: an array of objects, what is compressed, and Arrow.
const TELLING: [&[u8]; 6] = [b"PAR1", b"[", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"ARROW1", b"\xff\xff\xff\xff"];

/// The extension of what begins so: objects line by line, cells between tabs, or cells between commas under a header that names the
/// text; else a text on each line. None where content tells what a file is.
fn extension_of(begin: &[u8]) -> &'static str {
    let first = begin.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let header = String::from_utf8_lossy(first).to_lowercase();
    let start = begin.trim_ascii_start();
    if TELLING.iter().any(|telling| start.starts_with(telling)) {
        ""
    } else if start.starts_with(b"{") {
        if first.trim_ascii_end().ends_with(b"}") { ".jsonl" } else { "" }
    } else if !first.contains(&b'\t')
        && header.split(',').any(|name| name.trim().trim_matches('"') == "text")
        && header.contains(',')
    {
        ".csv"
    } else {
        ".tsv"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_told_by_its_beginning() {
        let check = |begin: &str, expected: &str| assert_eq!(extension_of(begin.as_bytes()), expected, "{begin}");
        check("PAR1\u{15}", "");
        check("[{\"text\": \"a\"}]", "");
        check("{\n  \"data\": [", "");
        check(" {\"text\": \"a\"}\n", ".jsonl");
        check("id,text\n1,a\n", ".csv");
        check("Text,Label\r\n", ".csv");
        check("text\nso, so\n", ".tsv");
        check("good, but long\n", ".tsv");
        check("text,\tlabel\n", ".tsv");
        check("", ".tsv");
    }
}
