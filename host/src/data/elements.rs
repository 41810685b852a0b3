//! The elements of a JSON array, one after the other: of a file that is an array, or an object with one array of objects in it.

use std::io::{BufRead, BufReader};
use std::path::Path;

use super::input::{Bytes, read_error};
use super::lines::LONGEST;
use super::row::data_error;
use crate::{Error, Result};

/// The elements of a file's array.
pub(super) struct Elements {
    reader: BufReader<Bytes>,
    line: u64,
    /// The key of the array, where the file is an object.
    key: Option<String>,
    begun: bool,
    ended: bool,
}

impl Elements {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { reader: BufReader::with_capacity(1 << 16, bytes), line: 1, key: None, begun: false, ended: false }
    }

    /// The next element as it is written, and the line where it begins.
    pub(super) fn next_element(&mut self, path: &Path) -> Result<Option<(u64, String)>> {
        if !self.begun {
            self.begun = true;
            self.ended = !self.begin(path)?;
        }
        if self.ended {
            return Ok(None);
        }
        let mut next = self.next_mark(path)?;
        if next == Some(b',') {
            self.take(path)?;
            next = self.next_mark(path)?;
        }
        if next == Some(b']') {
            self.take(path)?;
            self.ended = true;
            return self.end(path).map(|()| None);
        }
        let line = self.line;
        let text = String::from_utf8(self.value(path)?).map_err(|_| super::lines::not_utf8(path, line))?;
        Ok(Some((line, text)))
    }

    /// Goes to the first element; false where there is nothing at all.
    fn begin(&mut self, path: &Path) -> Result<bool> {
        if self.peek(path)? == Some(0xef) {
            (0..3).try_for_each(|_| self.take(path).map(drop))?; // the mark that may open a UTF-8 file
        }
        match self.next_mark(path)? {
            None => Ok(false),
            Some(b'[') => self.take(path).map(|_| true),
            Some(b'{') => {
                self.take(path)?;
                match self.find_array(path)? {
                    Some(key) => {
                        self.key = Some(key);
                        Ok(true)
                    }
                    None => Err(self
                        .wrong(path, "this object has no array of objects in it")
                        .with_help("a .json file is an array of objects, [{\"text\": ..., \"label\": ...}], or an object with one in it")),
                }
            }
            Some(_) => Err(self.wrong(path, "this is no JSON array").with_help(
                "say what the file is in the task: format = \"tsv\", \"csv\", \"jsonl\", \"conll\" or \"lines\"",
            )),
        }
    }

    /// Nothing but the rest of the object that the array stands in.
    fn end(&mut self, path: &Path) -> Result<()> {
        if let Some(key) = self.key.clone()
            && let Some(other) = self.find_array(path)?
        {
            return Err(self
                .wrong(path, &format!("there are two arrays of objects, `{key}` and `{other}`"))
                .with_help("save the one that is meant in a file of its own"));
        }
        match self.next_mark(path)? {
            None => Ok(()),
            Some(_) => Err(self.no_json(path, "something follows after the end of the array")),
        }
    }

    /// Goes on in an object up to the first element of the next array of objects; its key. `None` at the end of the object.
    fn find_array(&mut self, path: &Path) -> Result<Option<String>> {
        loop {
            match self.next_mark(path)? {
                Some(b',') => drop(self.take(path)?),
                Some(b'}') => {
                    self.take(path)?;
                    return Ok(None);
                }
                Some(b'"') => {
                    let key: String = serde_json::from_slice(&self.value(path)?)
                        .map_err(|error| self.no_json(path, &format!("this key does not read: {error}")))?;
                    if self.next_mark(path)? != Some(b':') {
                        return Err(self.no_json(path, &format!("there is no colon after the key `{key}`")));
                    }
                    self.take(path)?;
                    if self.next_mark(path)? != Some(b'[') {
                        self.value(path)?;
                        continue;
                    }
                    self.take(path)?;
                    if self.next_mark(path)? == Some(b'{') {
                        return Ok(Some(key));
                    }
                    self.rest_of(path, 1, &mut Vec::new())?;
                }
                _ => return Err(self.no_json(path, "this object ends too early")),
            }
        }
    }

    /// A value as it is written, its beginning being next.
    fn value(&mut self, path: &Path) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.peek(path)? {
            Some(b'{' | b'[') => {
                bytes.extend(self.take(path)?);
                self.rest_of(path, 1, &mut bytes)?;
            }
            Some(b'"') => {
                bytes.extend(self.take(path)?);
                self.string(path, &mut bytes)?;
            }
            _ => {
                while let Some(byte) = self.peek(path)?.filter(|byte| !b",]}: \t\r\n".contains(byte)) {
                    self.take(path)?;
                    self.push(path, byte, &mut bytes)?;
                }
                if bytes.is_empty() {
                    return Err(self.no_json(path, "a value is missing"));
                }
            }
        }
        Ok(bytes)
    }

    /// What is left of arrays and objects, so many in each other.
    fn rest_of(&mut self, path: &Path, mut depth: usize, bytes: &mut Vec<u8>) -> Result<()> {
        while depth > 0 {
            let Some(byte) = self.take(path)? else {
                return Err(self.no_json(path, "the file ends within an array or an object"));
            };
            self.push(path, byte, bytes)?;
            match byte {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                b'"' => self.string(path, bytes)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// What is left of a string, its end with it.
    fn string(&mut self, path: &Path, bytes: &mut Vec<u8>) -> Result<()> {
        let mut escaped = false;
        loop {
            let Some(byte) = self.take(path)? else { return Err(self.no_json(path, "the file ends within a string")) };
            self.push(path, byte, bytes)?;
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => return Ok(()),
                _ => {}
            }
        }
    }

    fn push(&self, path: &Path, byte: u8, bytes: &mut Vec<u8>) -> Result<()> {
        if bytes.len() == LONGEST {
            return Err(self.wrong(path, &format!("this element is longer than {} MB", LONGEST >> 20)));
        }
        bytes.push(byte);
        Ok(())
    }

    /// The next byte that is no white space, which stays.
    fn next_mark(&mut self, path: &Path) -> Result<Option<u8>> {
        while self.peek(path)?.is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.take(path)?;
        }
        self.peek(path)
    }

    fn peek(&mut self, path: &Path) -> Result<Option<u8>> {
        let buffer = self.reader.fill_buf().map_err(|error| read_error(path, error))?;
        Ok(buffer.first().copied())
    }

    fn take(&mut self, path: &Path) -> Result<Option<u8>> {
        let byte = self.peek(path)?;
        self.reader.consume(usize::from(byte.is_some()));
        self.line += u64::from(byte == Some(b'\n'));
        Ok(byte)
    }

    /// An error where the reader is; callers that know better what helps say that instead.
    fn wrong(&self, path: &Path, message: &str) -> Error {
        data_error(path, Some(self.line), message)
    }

    /// An error of a file that is no JSON.
    fn no_json(&self, path: &Path, message: &str) -> Error {
        self.wrong(path, message).with_help("check that it was written completely, and is one JSON array or object")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// Elements as `line text`, the last one an error perhaps.
    fn read(content: &str) -> Vec<String> {
        let mut elements = Elements::new(Box::new(std::io::Cursor::new(content.to_owned())));
        let mut found = Vec::new();
        loop {
            match elements.next_element(Path::new("a.json")) {
                Ok(Some((line, text))) => found.push(format!("{line} {text}")),
                Ok(None) => return found,
                Err(error) => {
                    found.push(error.to_string());
                    return found;
                }
            }
        }
    }

    #[test]
    fn elements_come_as_they_are_written() {
        let two = ["1 {\"a\": \"]}\\\"\", \"b\": [1, {}]}", "2 {\"a\": 1}"];
        assert_eq!(read("\u{feff}[{\"a\": \"]}\\\"\", \"b\": [1, {}]},\n{\"a\": 1}]\n"), two);
        assert_eq!(
            read(
                "{\"version\": \"1\", \"of\": [1, [2]], \"no\": [], \"data\":[{\"a\": \"]}\\\"\", \"b\": [1, {}]},\n{\"a\": 1} ], \"x\": {\"y\": [{}]}}"
            ),
            two
        );
        assert_eq!(read("[1, \"x\"]"), ["1 1", "1 \"x\""]);
        assert_eq!(read(" [ ] "), [""; 0]);
        assert_eq!(read(""), [""; 0]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let last = |content: &str| read(content).pop().unwrap();
        assert_eq!(
            last("{\"train\": [{}],\n\"test\": [{}]}"),
            "a.json:2: there are two arrays of objects, `train` and `test`"
        );
        assert_eq!(last("{\"a\": 1}"), "a.json:1: this object has no array of objects in it");
        assert_eq!(last("text"), "a.json:1: this is no JSON array");
        assert_eq!(last("[{\"a\":\n 1"), "a.json:2: the file ends within an array or an object");
        assert_eq!(last("[{}] x"), "a.json:1: something follows after the end of the array");
        assert_eq!(last("[{\"a"), "a.json:1: the file ends within a string");
    }
}
