//! A data set in memory: inputs ready for the model, and targets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fthost_autograd::{Device, Layout, Tensor};
use fthost_models::{Input, Modality, TextInput};
use fthost_plugin_api::TargetKind;

use super::images::{self, Images, Part};
use super::table::{Columns, Row, Rows};
use super::text::Tokenizer;
use crate::{Error, Result};

/// Where examples come from, and what they become.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// A file, or `demo` or `demo-pretrain` for the embedded digits.
    pub path: &'a Path,
    /// Which half of an embedded data set; a file is read whole.
    pub part: Part,
    /// Which columns of a file.
    pub columns: &'a Columns,
    /// The classes of the training data in index order, for test data. `None` for training data: the classes are then what
    /// its labels name.
    pub labels: Option<&'a [String]>,
    /// What the model takes.
    pub modality: Modality,
    /// Where images go; token ids stay on the host.
    pub device: &'a Device,
}

/// Examples that are encoded at once.
const BLOCK: usize = 4096;

/// Reads and encodes a data set. A model of text needs its tokenizer.
///
/// # Errors
///
/// Whatever is wrong with the file, with its line; a data set that is not what the model takes.
pub fn load(source: &Source<'_>, tokenizer: Option<&Tokenizer>) -> Result<Dataset> {
    let (inputs, rows) = match (source.modality, tokenizer) {
        (Modality::Text { vocabulary, .. }, Some(tokenizer)) => read_texts(source, tokenizer, vocabulary)?,
        (Modality::Text { .. }, None) => return Err(Error::usage("a model that reads text needs its tokenizer.json")),
        (Modality::Images { channels, size, tokens }, _) => read_images(source, [channels, size, size], tokens)?,
    };
    let mut data =
        Dataset { path: source.path.to_owned(), inputs, labels: rows.distinct(), targets: Targets::Open, rows };
    match source.labels {
        // What a head makes of the labels is not known yet: values need not occur in the training data.
        Some(labels) => data.labels = labels.to_vec(),
        None => data.targets = Targets::Classes(data.classes()?),
    }
    if data.rows.empty_texts > 0 {
        tracing::warn!("{}: {} of {} texts are empty", data.path.display(), data.rows.empty_texts, data.len());
    }
    Ok(data)
}

/// Tokenized texts or images with their targets. Example `row` is the `row`th row of the file.
#[derive(Clone, Debug)]
pub struct Dataset {
    path: PathBuf,
    inputs: Inputs,
    rows: Labelled,
    labels: Vec<String>,
    targets: Targets,
}

#[derive(Clone, Debug)]
enum Inputs {
    /// Example `i` has tokens `offsets[i]..offsets[i + 1]`.
    Text {
        ids: Vec<u32>,
        types: Vec<u8>,
        offsets: Vec<usize>,
    },
    Images {
        images: Images,
        tokens: usize,
    },
}

#[derive(Clone, Debug)]
enum Targets {
    /// Test data before `set_targets`.
    Open,
    Classes(Vec<u32>),
    Values(Vec<f32>),
}

/// What is known of the rows besides their inputs.
#[derive(Clone, Debug, Default)]
struct Labelled {
    /// Each distinct label as written, with its number.
    numbers: BTreeMap<String, u32>,
    /// The number of each row's label.
    label: Vec<u32>,
    /// The line of each row; empty where there is no file.
    lines: Vec<u64>,
    truncated: usize,
    empty_texts: usize,
}

impl Labelled {
    fn push(&mut self, label: String) {
        let next = self.numbers.len() as u32;
        self.label.push(*self.numbers.entry(label).or_insert(next));
    }

    /// The distinct labels in the order of their indices: sorted as text, or by value where all are whole numbers.
    fn distinct(&self) -> Vec<String> {
        let mut labels: Vec<String> = self.numbers.keys().cloned().collect(); // sorted as text
        if labels.iter().all(|label| label.parse::<i64>().is_ok()) {
            labels.sort_by_key(|label| label.parse::<i64>().unwrap_or_default());
        }
        labels
    }

    /// For each label number what `meaning` makes of the label. An error names the first line that has the label.
    fn translate<T: Copy>(&self, path: &Path, meaning: impl Fn(&str) -> Result<T, Wrong>) -> Result<Vec<T>> {
        let mut meanings = BTreeMap::new();
        for (label, &number) in &self.numbers {
            meanings.insert(number, meaning(label));
        }
        self.label
            .iter()
            .enumerate()
            .map(|(row, number)| match &meanings[number] {
                Ok(meaning) => Ok(*meaning),
                Err(Wrong { message, help }) => Err(Error::Data {
                    file: path.to_owned(),
                    line: self.lines.get(row).copied(),
                    message: message.clone(),
                    help: Some(help.clone()),
                }),
            })
            .collect()
    }
}

/// What is wrong with a label.
struct Wrong {
    message: String,
    help: String,
}

impl Dataset {
    /// Number of examples.
    pub fn len(&self) -> usize {
        self.rows.label.len()
    }

    /// Whether there is no example. A data set that was loaded has at least one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of an example, or what an image counts as.
    pub fn tokens(&self, row: u32) -> usize {
        match &self.inputs {
            Inputs::Text { offsets, .. } => offsets[row as usize + 1] - offsets[row as usize],
            Inputs::Images { tokens, .. } => *tokens,
        }
    }

    /// Tokens of all examples.
    pub fn total_tokens(&self) -> usize {
        match &self.inputs {
            Inputs::Text { ids, .. } => ids.len(),
            Inputs::Images { tokens, .. } => tokens * self.len(),
        }
    }

    /// Texts that were cut to the longest length.
    pub fn truncated(&self) -> usize {
        self.rows.truncated
    }

    /// Texts without a character. They are kept: the model sees its special tokens only.
    pub fn empty_texts(&self) -> usize {
        self.rows.empty_texts
    }

    /// Names of the classes in index order; none where targets are values.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Examples of each class, in the order of [`labels`](Self::labels); zeros until targets are classes.
    pub fn class_counts(&self) -> Vec<u64> {
        let mut counts = vec![0; self.labels.len()];
        if let Targets::Classes(classes) = &self.targets {
            for &class in classes {
                counts[class as usize] += 1;
            }
        }
        counts
    }

    /// The class of an example; `None` where targets are values.
    pub fn class(&self, row: u32) -> Option<u32> {
        match &self.targets {
            Targets::Classes(classes) => classes.get(row as usize).copied(),
            Targets::Values(_) | Targets::Open => None,
        }
    }

    /// The file, and the line where an example begins, from 1; no line for embedded data.
    pub fn place(&self, row: u32) -> (&Path, Option<u64>) {
        (&self.path, self.rows.lines.get(row as usize).copied())
    }

    /// Takes the labels as what the task's head learns from: classes, or with [`TargetKind::Value`] real values, and then there
    /// are no class names any more. Training data are classes until then; test data have no targets until then.
    ///
    /// # Errors
    ///
    /// A class that the training data does not have, or a value that is no finite number, with its line; kinds of targets
    /// that have no files yet.
    pub fn set_targets(&mut self, kind: TargetKind) -> Result<()> {
        match kind {
            TargetKind::Class => {
                self.targets = Targets::Classes(self.classes()?);
                Ok(())
            }
            TargetKind::Value => {
                self.targets = Targets::Values(self.rows.translate(&self.path, value)?);
                self.labels.clear();
                Ok(())
            }
            TargetKind::TokenClass | TargetKind::Mask => Err(Error::Data {
                file: self.path.clone(),
                line: None,
                message: "has one label per example, and the task's head wants one per token or pixel".into(),
                help: Some("choose a head that learns classes or values".into()),
            }),
        }
    }

    fn classes(&self) -> Result<Vec<u32>> {
        let known: BTreeMap<&str, u32> = self.labels.iter().map(String::as_str).zip(0..).collect();
        self.rows.translate(&self.path, |label| {
            known.get(label).copied().ok_or_else(|| Wrong {
                message: format!("the label `{label}` does not occur in the training data"),
                help: format!("known are {}", list(&self.labels)),
            })
        })
    }

    /// TEMPORARY until the real one is merged.
    pub fn split(self, share: f64, seed: u64) -> Result<(Self, Self)> {
        let order = fthost_autograd::random::Stream::new(seed, "validation split").permutation(self.len());
        let counts = self.class_counts();
        let mut left: Vec<usize> = counts.iter().map(|n| ((*n as f64 * share).round() as usize).max(1)).collect();
        let (mut train, mut held) = (Vec::new(), Vec::new());
        for row in order {
            match self.class(row) {
                Some(class) if left[class as usize] > 0 => {
                    left[class as usize] -= 1;
                    held.push(row)
                }
                _ => train.push(row),
            }
        }
        train.sort_unstable();
        held.sort_unstable();
        Ok((self.subset(&train), self.subset(&held)))
    }

    fn subset(&self, rows: &[u32]) -> Self {
        let inputs = match &self.inputs {
            Inputs::Text { ids, types, offsets } => {
                let (mut i, mut t, mut o) = (Vec::new(), Vec::new(), vec![0]);
                for &row in rows {
                    let range = offsets[row as usize]..offsets[row as usize + 1];
                    i.extend_from_slice(&ids[range.clone()]);
                    t.extend_from_slice(&types[range]);
                    o.push(i.len());
                }
                Inputs::Text { ids: i, types: t, offsets: o }
            }
            Inputs::Images { images, tokens } => {
                let size: usize = images.shape.iter().product();
                let mut images2 = images.clone();
                images2.pixels =
                    rows.iter().flat_map(|&row| images.pixels[row as usize * size..][..size].iter().copied()).collect();
                Inputs::Images { images: images2, tokens: *tokens }
            }
        };
        let mut mine = self.clone();
        mine.inputs = inputs;
        mine.rows.label = rows.iter().map(|&row| self.rows.label[row as usize]).collect();
        if !self.rows.lines.is_empty() {
            mine.rows.lines = rows.iter().map(|&row| self.rows.lines[row as usize]).collect();
        }
        mine.targets = match &self.targets {
            Targets::Classes(c) => Targets::Classes(rows.iter().map(|&row| c[row as usize]).collect()),
            Targets::Values(c) => Targets::Values(rows.iter().map(|&row| c[row as usize]).collect()),
            Targets::Open => Targets::Open,
        };
        mine
    }

    /// The examples of these rows, packed in their order. Images are on the data set's device.
    pub fn input(&self, rows: &[u32]) -> Result<Input> {
        match &self.inputs {
            Inputs::Text { ids, types, offsets } => {
                let layout = Layout::from_lengths(rows.iter().map(|&row| self.tokens(row)));
                let mut packed = TextInput {
                    ids: Vec::with_capacity(layout.tokens()),
                    types: Vec::with_capacity(layout.tokens()),
                    layout,
                };
                for &row in rows {
                    let range = offsets[row as usize]..offsets[row as usize + 1];
                    packed.ids.extend_from_slice(&ids[range.clone()]);
                    packed.types.extend(types[range].iter().map(|&segment| u32::from(segment)));
                }
                Ok(Input::Text(packed))
            }
            Inputs::Images { images, .. } => Ok(Input::Images(images.take(rows)?)),
        }
    }

    /// The targets of these rows, `[rows]`: `u32` classes or `f32` values.
    pub fn targets(&self, rows: &[u32], device: &Device) -> Result<Tensor> {
        fn take<T: Copy>(all: &[T], rows: &[u32]) -> Vec<T> {
            rows.iter().map(|&row| all[row as usize]).collect()
        }
        Ok(match &self.targets {
            Targets::Classes(classes) => Tensor::from_vec(take(classes, rows), rows.len(), device)?,
            Targets::Values(values) => Tensor::from_vec(take(values, rows), rows.len(), device)?,
            Targets::Open => {
                return Err(Error::run(format!("{}: what the labels mean was never set", self.path.display())));
            }
        })
    }
}

fn value(label: &str) -> Result<f32, Wrong> {
    label.parse::<f32>().ok().filter(|value| value.is_finite()).ok_or_else(|| Wrong {
        message: format!("the label `{label}` is no number"),
        help: "the task's head predicts values: every label must be a number such as 3.5".into(),
    })
}

/// The first labels, for messages.
fn list(labels: &[String]) -> String {
    const SHOWN: usize = 20;
    let mut text = labels.iter().take(SHOWN).map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
    if labels.len() > SHOWN {
        text += &format!(" and {} more", labels.len() - SHOWN);
    }
    text
}

fn read_texts(source: &Source<'_>, tokenizer: &Tokenizer, vocabulary: usize) -> Result<(Inputs, Labelled)> {
    if embedded_classes(source.path).is_some() {
        return Err(Error::Usage {
            message: format!("the data `{}` are images, and the model reads text", source.path.display()),
            help: Some("name a .tsv, .csv or .jsonl file".into()),
        });
    }
    let (mut ids, mut types, mut offsets) = (Vec::new(), Vec::new(), vec![0]);
    let mut labelled = Labelled::default();
    let mut file = Rows::open(source.path, source.columns)?;
    loop {
        let block: Vec<Row> = file.by_ref().take(BLOCK).collect::<Result<_>>()?;
        if block.is_empty() {
            break;
        }
        let texts: Vec<_> = block.iter().map(|row| (row.text.as_str(), row.pair.as_deref())).collect();
        for (row, tokens) in block.iter().zip(tokenizer.encode(&texts)?) {
            let wrong = |message: String, help: &str| Error::Data {
                file: source.path.to_owned(),
                line: Some(row.line),
                message,
                help: Some(help.into()),
            };
            if tokens.ids.is_empty() {
                return Err(wrong("the tokenizer makes no token of this text".into(), "remove the row"));
            }
            if let Some(id) = tokens.ids.iter().find(|&&id| id as usize >= vocabulary) {
                let message = format!("the tokenizer gives token {id}, and the model has {vocabulary} word embeddings");
                return Err(wrong(message, "take the tokenizer.json that belongs to the model"));
            }
            ids.extend_from_slice(&tokens.ids);
            types.extend(tokens.types.iter().map(|&segment| segment as u8));
            offsets.push(ids.len());
            labelled.truncated += usize::from(tokens.truncated);
            labelled.empty_texts += usize::from(row.text.is_empty());
            labelled.lines.push(row.line);
        }
        block.into_iter().for_each(|row| labelled.push(row.label));
    }
    ids.shrink_to_fit();
    types.shrink_to_fit();
    Ok((Inputs::Text { ids, types, offsets }, labelled))
}

/// How many classes the embedded data set of this name has.
fn embedded_classes(path: &Path) -> Option<u8> {
    match path.to_str() {
        Some("demo") => Some(10),
        Some("demo-pretrain") => Some(5),
        _ => None,
    }
}

fn read_images(source: &Source<'_>, shape: [usize; 3], tokens: usize) -> Result<(Inputs, Labelled)> {
    let Some(classes) = embedded_classes(source.path) else {
        return Err(Error::Usage {
            message: format!("the model takes images, and {} cannot be read as images", source.path.display()),
            help: Some("known are the embedded digits: `demo` (0 to 9) and `demo-pretrain` (0 to 4)".into()),
        });
    };
    let (images, labels) = images::digits(classes, source.part, source.device);
    if images.shape != shape {
        let size = |[channels, height, width]: [usize; 3]| format!("{channels} x {height} x {width}");
        return Err(Error::Usage {
            message: format!("the digits are images of {}, and the model takes {}", size(images.shape), size(shape)),
            help: Some("use the embedded model: path = \"demo\"".into()),
        });
    }
    let mut labelled = Labelled::default();
    labels.iter().for_each(|label| labelled.push(label.to_string()));
    Ok((Inputs::Images { images, tokens }, labelled))
}

#[cfg(test)]
#[path = "dataset_tests.rs"]
mod tests;
