//! Small data sets for the tests of this module.

use std::path::Path;

use fthost_autograd::Device;
use fthost_models::Modality;

use super::bytes::Limits;
use super::dataset::Dataset;
use super::files::Files;
use super::form::Form;
use super::load::{load, load_within};
use super::part::Part;
use super::row::Columns;
use super::source::Source;
use super::text::Tokenizer;
use super::text::tests::write_tokenizer;
use crate::Result;

/// What the tokenizer of [`write_tokenizer`] needs: texts of the words a, b, c and d.
pub(super) const TEXT: Modality = Modality::Text { max_tokens: 6, vocabulary: 7 };
/// What the embedded digits need.
pub(super) const DIGITS: Modality = Modality::Images { channels: 1, size: 8, any_size: false, tokens: 17 };

/// Loads a file of this name and content, of which `memory` bytes are kept in memory.
pub(super) fn load_file(
    file: (&str, &[u8]),
    labels: Option<&[String]>,
    modality: Modality,
    memory: usize,
) -> Result<Dataset> {
    load_form(file, &Form::default(), labels, modality, memory)
}

fn load_form(
    (name, content): (&str, &[u8]),
    form: &Form,
    labels: Option<&[String]>,
    modality: Modality,
    memory: usize,
) -> Result<Dataset> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    let tokenizer = Tokenizer::load(&write_tokenizer(folder.path(), true), 6).unwrap();
    let files = Files::One(path);
    let source = Source {
        files: &files,
        part: Part::Train,
        form,
        only: None,
        texts: false,
        labels,
        modalities: &[modality],
        language: None,
        transform: None,
        device: &Device::Cpu,
    };
    load_within(&source, Some(&tokenizer), Limits { memory, folder: folder.path().to_owned() })
}

/// Loads a file whose cells hold any number of labels, with this between them.
pub(super) fn load_separated((name, content): (&str, &str), separator: &str) -> Result<Dataset> {
    let form = Form { label_separator: Some(separator.into()), ..Form::default() };
    load_form((name, content.as_bytes()), &form, None, TEXT, usize::MAX)
}

/// Loads a JSONL file whose rows have a group, `author`.
pub(super) fn load_grouped(content: &str) -> Dataset {
    let columns = Columns { group: Some("author".into()), ..Columns::default() };
    let form = Form { columns, ..Form::default() };
    load_form(("a.jsonl", content.as_bytes()), &form, None, TEXT, usize::MAX).unwrap()
}

/// Loads a TSV file.
pub(super) fn load_text(content: &str, labels: Option<&[String]>, memory: usize) -> Result<Dataset> {
    load_file(("a.tsv", content.as_bytes()), labels, TEXT, memory)
}

pub(super) fn load_digits(name: &str, part: Part, modality: Modality) -> Result<Dataset> {
    let (files, form) = (Files::from(Path::new(name)), Form::default());
    let source = Source {
        files: &files,
        part,
        form: &form,
        only: None,
        texts: false,
        labels: None,
        modalities: &[modality],
        language: None,
        transform: None,
        device: &Device::Cpu,
    };
    load(&source, None)
}
