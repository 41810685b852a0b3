//! A data set's texts, read once more: of a text that was encoded nothing is kept but its tokens.

use std::iter::Peekable;

use super::dataset::Dataset;
use super::images;
use super::load::Source;
use super::row::{Labels, Row, data_error};
use super::store::UNCOUNTED;
use super::table::Rows;
use super::text::Tokenizer;
use crate::{Error, Result};

/// The rows of a data set's file as they stand there, one for each example and in the same order. None where examples are no texts.
pub struct Again<'a> {
    /// The examples, and their file where they are texts.
    data: Option<&'a Dataset>,
    file: Option<Peekable<Rows>>,
    /// The row of the file that comes next, and the example.
    row: u32,
    example: u32,
}

impl<'a> Again<'a> {
    /// Opens the file that `data` was read from, as `source` says.
    ///
    /// # Errors
    /// Where it cannot be opened any more.
    pub fn open(source: &Source<'_>, data: &'a Dataset) -> Result<Self> {
        let file = match images::embedded_classes(source.path) {
            Some(_) => None,
            None => Some(Rows::open(source.path, source.columns, source.header, Labels::Read)?.peekable()),
        };
        Ok(Self { data: Some(data), file, row: 0, example: 0 })
    }

    /// No texts.
    pub fn nothing() -> Self {
        Self { data: None, file: None, row: 0, example: 0 }
    }

    /// Whether there are texts.
    pub fn are_there(&self) -> bool {
        self.file.is_some()
    }

    /// Whether they come in pairs.
    pub fn have_pairs(&mut self) -> bool {
        let first = self.file.as_mut().and_then(|file| file.peek());
        first.and_then(|row| row.as_ref().ok()).is_some_and(|row| row.pair.is_some())
    }

    fn next_row(&mut self) -> Result<Option<Row>> {
        let (Some(data), Some(file)) = (self.data, &mut self.file) else { return Ok(None) };
        if self.example as usize >= data.len() {
            return Ok(None);
        }
        let wanted = data.selection.row(self.example);
        loop {
            let row = file.next().transpose()?;
            let found = self.row == wanted;
            self.row += 1;
            match row {
                Some(_) if !found => {}
                Some(row) if data.place(self.example)?.1 == Some(row.line) => {
                    self.example += 1;
                    return Ok(Some(row));
                }
                _ => return Err(changed(data)),
            }
        }
    }
}

fn changed(data: &Dataset) -> Error {
    data_error(&data.path, None, "the file has changed since the run read it")
        .with_help("leave data files as they are while a run goes on")
}

impl Iterator for Again<'_> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}

/// The places of the words of a text that count, of which there are so many: all, or where it was cut or a word has no token those that
/// the tokenizer finds.
///
/// # Errors
/// Where the tokenizer fails.
pub fn counted_words(words: &[String], counted: usize, tokenizer: Option<&Tokenizer>) -> Result<Vec<usize>> {
    match tokenizer.filter(|_| counted < words.len()) {
        None => Ok((0..words.len().min(counted)).collect()),
        Some(tokenizer) => {
            let found = tokenizer.encode_words(&[words])?;
            let begins = found.iter().flat_map(|tokens| &tokens.begins);
            Ok(begins.filter(|&&word| word != UNCOUNTED).map(|&word| word as usize).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use fthost_autograd::Device;

    use super::super::fixtures::TEXT;
    use super::super::images::Part;
    use super::super::text::tests::write_tokenizer;
    use super::*;
    use crate::data::{Columns, load};

    #[test]
    fn the_texts_come_in_the_order_of_the_examples() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tsv");
        let expected: Vec<String> = (1..=20).map(|i| vec!["a"; i].join(" ")).collect();
        let content: String = expected.iter().zip([0, 1].iter().cycle()).map(|(a, c)| format!("{a}\tc{c}\n")).collect();
        std::fs::write(&path, &content).unwrap();
        let tokenizer = Tokenizer::load(&write_tokenizer(folder.path(), true), 6).unwrap();
        let (columns, device) = (Columns::default(), Device::Cpu);
        let source = Source {
            path: &path,
            part: Part::Train,
            columns: &columns,
            header: None,
            labels: None,
            modality: TEXT,
            device: &device,
        };
        let data = load(&source, Some(&tokenizer)).unwrap();
        let texts = |data: &Dataset| -> Vec<String> {
            Again::open(&source, data).unwrap().map(|row| row.unwrap().text).collect()
        };
        assert_eq!(texts(&data), expected);
        let (rest, held_out) = data.clone().split(0.3, 1).unwrap();
        let (rest, held_out) = (texts(&rest), texts(&held_out));
        assert_eq!((rest.len(), held_out.len()), (14, 6));
        assert!(rest.iter().all(|text| !held_out.contains(text)) && held_out.is_sorted());
        std::fs::write(&path, &content[..30]).unwrap();
        let error = Again::open(&source, &data).unwrap().find_map(Result::err).unwrap();
        assert!(error.to_string().contains("has changed"), "{error}");
    }

    #[test]
    fn words_that_count_are_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = Tokenizer::load(&write_tokenizer(folder.path(), true), 4).unwrap();
        let words = ["a", "", "b", "c"].map(String::from);
        // Two places are left beside the special tokens, and an empty word has no token.
        assert_eq!(counted_words(&words, 2, Some(&tokenizer)).unwrap(), [0, 2]);
        assert_eq!(counted_words(&words, 4, None).unwrap(), [0, 1, 2, 3]);
    }
}
