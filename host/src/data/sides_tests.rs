//! Examples of two sides: a text with its picture, and texts that pass by themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::path::Path;
use std::sync::Arc;

use fthost_autograd::Device;
use fthost_images::{Augment, Preprocess, Transform};
use fthost_models::{Input, Modality};
use fthost_plugin_api::TargetKind;
use miette::Diagnostic;

use super::bytes::Limits;
use super::files::Files;
use super::fixtures::{DIGITS, TEXT};
use super::form::{Form, Learns};
use super::load::load_within;
use super::part::Part;
use super::row::Columns;
use super::source::Source;
use super::text::Tokenizer;
use super::text::tests::write_tokenizer;
use super::*;
use crate::Result;

/// A picture of 8 x 8 pixels of one level of grey, as a bitmap of three bytes a pixel.
fn picture(folder: &Path, name: &str, level: u8) {
    let mut bytes = b"BM".to_vec();
    // Its length and where pixels begin; then the header's length, width, height, planes and bits, and nothing of the rest.
    bytes.extend([54 + 192, 0, 54, 40, 8, 8].iter().flat_map(|number: &u32| number.to_le_bytes()));
    bytes.extend([1, 0, 24, 0]);
    bytes.extend([0; 24]);
    bytes.extend([level; 192]);
    std::fs::write(folder.join(name), bytes).unwrap();
}

/// Examples, and the folder of their pictures, which are read when they are asked for.
type Loaded = (Dataset, tempfile::TempDir);

/// Loads a table for these streams, beside pictures of the levels 0, 60 and 120.
fn load(name: &str, content: &str, form: &Form, modalities: &[Modality]) -> Result<Loaded> {
    let folder = tempfile::tempdir().unwrap();
    for (i, level) in [0, 60, 120].into_iter().enumerate() {
        picture(folder.path(), &format!("{i}.bmp"), level);
    }
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    let tokenizer = Tokenizer::load(&write_tokenizer(folder.path(), true), 6).unwrap();
    let transform = Transform::new(Preprocess::exact((8, 8), &[0.0], &[1.0]).unwrap(), Augment::default()).unwrap();
    let (files, transform) = (Files::One(path), Arc::new(transform));
    let source = Source {
        files: &files,
        part: Part::Train,
        form,
        only: None,
        texts: false,
        labels: None,
        modalities,
        language: None,
        transform: Some(&transform),
        device: &Device::Cpu,
    };
    let data = load_within(&source, Some(&tokenizer), Limits { memory: usize::MAX, folder: folder.path().to_owned() })?;
    Ok((data, folder))
}

fn compared(columns: Columns) -> Form {
    Form { columns, learns: Learns::Matches, ..Form::default() }
}

fn said(outcome: Result<Loaded>) -> String {
    let error = outcome.expect_err("refused");
    format!("{error} ({})", error.help().map(|help| help.to_string()).unwrap_or_default())
}

const BOTH: [Modality; 2] = [TEXT, DIGITS];

#[test]
fn a_row_is_a_text_with_its_picture() {
    let (mut data, _folder) =
        load("a.tsv", "image\ttext\n2.bmp\ta b\n0.bmp\tc\n", &compared(Columns::default()), &BOTH).unwrap();
    data.set_targets(TargetKind::Match).unwrap();
    assert!(data.of_pictures() && data.has_texts() && data.labels().is_empty());
    // Two special tokens and those of the words; a picture counts as its patches beside them.
    assert_eq!([0, 1].map(|row| data.tokens(row).unwrap()), [4 + 17, 3 + 17]);
    assert_eq!((data.total_tokens(), data.longest()), (7 + 34, 21));
    assert_eq!(data.id(0).unwrap().as_deref(), Some("2.bmp"));
    let shown = data.show(&[1, 0]).unwrap();
    let Input::Text(texts) = data.input_for(&shown, TEXT).unwrap() else { panic!("no text") };
    assert_eq!(texts.layout.offsets(), [0, 3, 7]);
    let Input::Images(images) = data.input_for(&shown, DIGITS).unwrap() else { panic!("no picture") };
    let first: Vec<f32> =
        images.flatten_from(1).unwrap().to_vec2::<f32>().unwrap().iter().map(|image| image[0]).collect();
    assert_eq!(images.dims(), [2, 8, 8, 1]);
    assert!((first[0] - 0.0).abs() < 1e-6 && (first[1] - 120.0 / 255.0).abs() < 1e-6, "{first:?}");
    assert_eq!(data.targets(&[1, 0], &Device::Cpu).unwrap().to_vec1::<u32>().unwrap(), [0, 1]);
    assert_eq!(data.keys(&shown, TEXT).unwrap().len(), 2);
    assert_ne!(data.digest(0).unwrap(), data.digest(1).unwrap());
}

#[test]
fn labels_of_pairs_are_read_for_a_head_that_learns_them() {
    let rows = "image\ttext\tlabel\n2.bmp\ta\tyes\n0.bmp\tc\tno\n";
    let (mut data, _folder) = load("a.tsv", rows, &Form::default(), &BOTH).unwrap();
    assert_eq!(data.labels(), ["no", "yes"]);
    data.set_targets(TargetKind::Class).unwrap();
    assert_eq!(data.targets(&[0, 1], &Device::Cpu).unwrap().to_vec1::<u32>().unwrap(), [1, 0]);
    assert!(said(load("a.tsv", "image\ttext\n2.bmp\ta\n", &Form::default(), &BOTH)).contains("label"));
}

#[test]
fn a_row_without_its_picture_is_named() {
    let form = compared(Columns::default());
    let check = |content: &str, expected: &str| {
        let said = said(load("a.tsv", content, &form, &BOTH));
        assert!(said.contains(expected), "{said}");
    };
    check("image\ttext\n2.bmp\ta\n\tb\n", "a.tsv:3: this row has no picture: `image` is empty");
    check("image\ttext\n2.bmp\ta\n9.bmp\tb\n", "a.tsv:3: 9.bmp");
    check("picture\ttext\n2.bmp\ta\n", "`image`");
    let named = compared(Columns { image: Some("photo".into()), ..Columns::default() });
    let error = said(load("a.tsv", "image\ttext\n2.bmp\ta\n", &named, &BOTH));
    assert!(error.contains("`photo`"), "{error}");
}

#[test]
fn texts_of_a_row_pass_by_themselves() {
    let rows = "text\ttext_pair\tother\na b\tc\td\na\tb c d\tc\n";
    let (two, _folder) = load("a.tsv", rows, &compared(Columns::default()), &[TEXT]).unwrap();
    assert_eq!(two.sequences(), 2);
    let offsets = |data: &Dataset| match data.input(&[1, 0]).unwrap() {
        Input::Text(texts) => texts.layout.offsets().to_vec(),
        Input::Images(_) => panic!("no text"),
    };
    assert_eq!(offsets(&two), [0, 3, 8, 12, 15]);
    let three = compared(Columns { text_negative: Some("other".into()), ..Columns::default() });
    let (three, _folder) = load("a.tsv", rows, &three, &[TEXT]).unwrap();
    assert_eq!((three.sequences(), offsets(&three)), (3, vec![0, 3, 8, 11, 15, 18, 21]));
    assert!(three.keys(&three.show(&[0]).unwrap(), TEXT).is_none());

    let alike = Form { learns: Learns::Similarity, ..Form::default() };
    let (mut alike, _folder) = load("a.tsv", "text\ttext_pair\tlabel\na\tb\t2.5\nc\td\t5\n", &alike, &[TEXT]).unwrap();
    alike.set_targets(TargetKind::Value).unwrap();
    assert_eq!(alike.targets(&[0, 1], &Device::Cpu).unwrap().to_vec1::<f32>().unwrap(), [2.5, 5.0]);
    let one = said(load("a.jsonl", "{\"text\": \"a\"}\n", &compared(Columns::default()), &[TEXT]));
    assert!(one.contains("a.jsonl:1: this row has one text, and the head compares two"), "{one}");
}

#[test]
fn a_head_that_compares_needs_two_sides() {
    let (mut one, _folder) = load("a.tsv", "text\tlabel\na\tyes\nb\tno\n", &Form::default(), &[TEXT]).unwrap();
    let error = one.set_targets(TargetKind::Match).unwrap_err().to_string();
    assert!(error.contains("has examples of one side"), "{error}");
}
