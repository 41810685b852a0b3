//! Reading a data set: texts are encoded block by block, and only token ids, labels and lines are kept.

use std::path::Path;
use std::sync::Arc;

use fthost_autograd::Device;
use fthost_models::Modality;

use super::bytes::Limits;
use super::dataset::{Dataset, Targets, Totals};
use super::distinct::{self, Distinct, UNNUMBERED};
use super::images::{self, Images, Part};
use super::row::{Columns, Labels, Row, Words, data_error, shortened};
use super::selection::Selection;
use super::store::{NewRow, Store, StoreWriter, UNCOUNTED};
use super::table::Rows;
use super::text::{Tokenizer, Tokens};
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
    /// Whether the first row of a TSV or CSV file is a header, where it is said.
    pub header: Option<bool>,
    /// The classes of the training data in index order, for test data. `None` for training data: the classes are then
    /// what its labels name.
    pub labels: Option<&'a [String]>,
    /// What the model takes.
    pub modality: Modality,
    /// Where images go; token ids stay on the host.
    pub device: &'a Device,
}

/// Reads and encodes a data set. A model of text needs its tokenizer. What does not fit into 64 MB is kept in a
/// temporary file, in the folder that the environment variable `FTHOST_CACHE` names or else the system's.
///
/// # Errors
///
/// Whatever is wrong with the file, with its line; a data set that is not what the model takes; a full disk.
pub fn load(source: &Source<'_>, tokenizer: Option<&Tokenizer>) -> Result<Dataset> {
    load_within(source, tokenizer, Limits::from_environment())
}

/// As [`load`], with its own limits.
pub(super) fn load_within(source: &Source<'_>, tokenizer: Option<&Tokenizer>, limits: Limits) -> Result<Dataset> {
    let (examples, images) = match (source.modality, tokenizer) {
        (Modality::Text { vocabulary, .. }, Some(tokenizer)) => {
            (read_texts(source, tokenizer, vocabulary, limits)?, None)
        }
        (Modality::Text { .. }, None) => return Err(Error::usage("a model that reads text needs its tokenizer.json")),
        (Modality::Images { channels, size, tokens }, _) => {
            let (examples, images) = read_images(source, [channels, size, size], tokens, limits)?;
            (examples, Some(Arc::new(images)))
        }
    };
    let mut data = examples.into_dataset(source.path, images);
    match source.labels {
        // What a head makes of the labels is not known yet: values need not occur in the training data.
        Some(labels) => data.labels = labels.to_vec(),
        // A head that learns classes will be refused if they are too many; one that learns values will not.
        None if !data.distinct.all_numbered() => {}
        None => data.targets = data.classes()?,
    }
    if data.empty_texts() > 0 {
        let (path, empty, all) = (data.path.display(), data.empty_texts(), data.len());
        tracing::warn!(
            "{path}: {empty} of {all} texts are empty; the model sees nothing of them but its special tokens"
        );
    }
    if let Some(tokenizer) = tokenizer.filter(|_| data.truncated() > 0) {
        let (path, longest) = (data.path.display(), tokenizer.max_tokens());
        tracing::warn!("{path}: texts of more than {longest} tokens are cut: {} of {}", data.truncated(), data.len());
    }
    Ok(data)
}

/// Rows of a file beside what they became; images have none.
pub struct Block {
    /// As they stand in the file.
    pub rows: Vec<Row>,
    /// What they became.
    pub data: Dataset,
}

/// The examples of a file without their labels, block by block: what a model predicts for. A file of any size takes the memory of
/// one block; but for the last one a block has a multiple of 256 rows.
///
/// # Errors
///
/// As [`load`].
pub fn unlabelled<'a>(
    source: &Source<'a>,
    tokenizer: Option<&'a Tokenizer>,
) -> Result<Box<dyn Iterator<Item = Result<Block>> + 'a>> {
    let (Modality::Text { vocabulary, .. }, Some(tokenizer)) = (source.modality, tokenizer) else {
        let images = load(source, tokenizer).map(|data| Block { rows: Vec::new(), data });
        return Ok(Box::new(std::iter::once(images)));
    };
    refuse_images(source.path)?;
    let path = source.path;
    check_unread_header(source)?;
    let mut file = Rows::open(path, source.columns, source.header, Labels::Unread)?;
    Ok(Box::new(std::iter::from_fn(move || {
        let mut read = || {
            let rows = next_block(&mut file)?;
            if rows.is_empty() {
                return Ok(None);
            }
            let mut writer = Writer::new(vocabulary, Limits::from_environment());
            writer.push_rows(path, rows.clone(), tokenizer)?;
            writer.finish().map(|examples| Some(Block { rows, data: examples.into_dataset(path, None) }))
        };
        let block: Result<Option<Block>> = read();
        block.transpose()
    })))
}

/// Reads a file to its end without its labels, so that what is wrong with it is said before anything is made of its first rows.
///
/// # Errors
/// Whatever is wrong with a row, with its line.
pub fn check(source: &Source<'_>) -> Result<()> {
    if images::embedded_classes(source.path).is_some() {
        return Ok(());
    }
    check_unread_header(source)?;
    Rows::open(source.path, source.columns, source.header, Labels::Unread)?.try_for_each(|row| row.map(drop))
}

/// What was read.
struct Examples {
    store: Store,
    distinct: Distinct,
    totals: Totals,
    of_words: bool,
}

impl Examples {
    /// What their labels mean is open.
    fn into_dataset(self, path: &Path, images: Option<Arc<Images>>) -> Dataset {
        let Self { store, distinct, totals, of_words } = self;
        Dataset {
            path: path.to_owned(),
            selection: Selection::All(store.len()),
            store: Arc::new(store),
            images,
            labels: distinct.names(),
            distinct: Arc::new(distinct),
            totals,
            of_words,
            targets: Targets::Open,
        }
    }
}

/// Writes examples.
struct Writer {
    vocabulary: usize,
    store: StoreWriter,
    distinct: Distinct,
    totals: Totals,
    /// Whether texts come as words.
    of_words: bool,
}

impl Writer {
    fn new(vocabulary: usize, limits: Limits) -> Self {
        let store = StoreWriter::new(vocabulary, limits);
        Self { vocabulary, store, distinct: Distinct::default(), totals: Totals::default(), of_words: false }
    }

    /// Takes the next rows of a file, all of them texts or all of them words.
    fn push_rows(&mut self, path: &Path, rows: Vec<Row>, tokenizer: &Tokenizer) -> Result<()> {
        if rows.iter().any(|row| row.words.is_some()) {
            let words = rows.into_iter().filter_map(|row| Some((row.line, row.words?)));
            return self.push_words(path, words.collect(), tokenizer);
        }
        self.push_texts(path, rows, tokenizer)
    }

    fn push_texts(&mut self, path: &Path, rows: Vec<Row>, tokenizer: &Tokenizer) -> Result<()> {
        let texts: Vec<_> = rows.iter().map(|row| (row.text.as_str(), row.pair.as_deref())).collect();
        let encoded = tokenizer.encode(&texts)?;
        for (row, tokens) in rows.into_iter().zip(encoded) {
            check_tokens(path, row.line, &tokens, self.vocabulary)?;
            let new = NewRow {
                ids: &tokens.ids,
                segments: &tokens.types,
                tokens: tokens.ids.len(),
                line: Some(row.line),
                truncated: tokens.truncated,
                empty: row.text.is_empty(),
                ..NewRow::default()
            };
            self.push(row.label, new)?;
        }
        Ok(())
    }

    fn push_words(&mut self, path: &Path, rows: Vec<(u64, Words)>, tokenizer: &Tokenizer) -> Result<()> {
        self.of_words = true;
        let words: Vec<&[String]> = rows.iter().map(|(_, row)| row.words.as_slice()).collect();
        let encoded = tokenizer.encode_words(&words)?;
        for ((line, row), tokens) in rows.into_iter().zip(encoded) {
            check_tokens(path, line, &tokens, self.vocabulary)?;
            check_words(path, line, &tokens, &row)?;
            let number = |label: String| self.distinct.add(label, Some(line)).0;
            let numbers: Vec<u32> = row.labels.into_iter().map(number).collect();
            // Labels that are not read have no numbers: the word itself is marked then.
            let mark = |&word: &u32| numbers.get(word as usize).copied().unwrap_or(word);
            let marks: Vec<u32> = tokens.begins.iter().map(mark).collect();
            let record = self.store.push(&NewRow {
                ids: &tokens.ids,
                segments: &tokens.types,
                marks: &marks,
                words: row.words.len(),
                tokens: tokens.ids.len(),
                line: Some(line),
                truncated: tokens.truncated,
                label: UNNUMBERED,
                ..NewRow::default()
            })?;
            self.totals.add(&record, if numbers.is_empty() { &[] } else { &marks });
        }
        Ok(())
    }

    /// Takes the next example; of its label the caller says the text.
    fn push(&mut self, label: String, row: NewRow<'_>) -> Result<()> {
        let (label, value) = self.distinct.add(label, row.line);
        let record = self.store.push(&NewRow { label, value, ..row })?;
        self.totals.add(&record, &[]);
        Ok(())
    }

    fn finish(self) -> Result<Examples> {
        let Self { store, distinct, totals, of_words, .. } = self;
        Ok(Examples { store: store.finish()?, distinct, totals, of_words })
    }
}

/// Texts that are encoded at once, and about how many bytes they may have.
pub(super) const BLOCK: usize = 4096;
const BLOCK_BYTES: usize = 4 << 20;
/// Blocks end at multiples of this many rows, so that a file in blocks falls into the same chunks as a whole one.
const BLOCK_UNIT: usize = 256;

fn read_texts(source: &Source<'_>, tokenizer: &Tokenizer, vocabulary: usize, limits: Limits) -> Result<Examples> {
    refuse_images(source.path)?;
    let mut writer = Writer::new(vocabulary, limits);
    let mut file = Rows::open(source.path, source.columns, source.header, Labels::Read)?;
    loop {
        let block = next_block(&mut file)?;
        if block.is_empty() {
            break;
        }
        writer.push_rows(source.path, block, tokenizer)?;
    }
    if let Some(first) = file.first() {
        let count = |label: &str| writer.distinct.number(label).map_or(0, |number| writer.totals.with_label(number));
        first.check_label(source.path, count, |label| source.knows(label))?;
    }
    writer.finish()
}

impl Source<'_> {
    /// Whether the training data have a label.
    fn knows(&self, label: &str) -> bool {
        self.labels.into_iter().flatten().any(|known| distinct::name(known) == distinct::name(label))
    }
}

/// Refuses a file that is read without its labels, and has some that say that its first row is a header: the second row's is one of
/// the training data, or a number where the first's is none.
fn check_unread_header(source: &Source<'_>) -> Result<()> {
    if source.header.is_some() {
        return Ok(());
    }
    let Ok(mut file) = Rows::open(source.path, source.columns, None, Labels::Read) else { return Ok(()) };
    let (Some(Ok(first)), Some(Ok(second))) = (file.next(), file.next()) else { return Ok(()) };
    let like_training = |label: &str| source.knows(label) || label.parse::<f32>().is_ok_and(f32::is_finite);
    match file.first() {
        Some(row) if !row.is_header && !like_training(&first.label) && like_training(&second.label) => {
            Err(row
                .in_doubt(source.path, &format!("its label `{}` is none that training saw", shortened(&first.label))))
        }
        _ => Ok(()),
    }
}

/// The embedded data are images; a model that reads texts cannot take them.
fn refuse_images(path: &Path) -> Result<()> {
    match images::embedded_classes(path) {
        None => Ok(()),
        Some(_) => Err(Error::Usage {
            message: format!("the data `{}` are images, and the model reads text", path.display()),
            help: Some("name a .tsv, .csv, .jsonl or .parquet file".into()),
        }),
    }
}

/// Rows for one call of the tokenizer; none at the end of the file.
fn next_block(file: &mut Rows) -> Result<Vec<Row>> {
    let (mut block, mut bytes) = (Vec::new(), 0);
    while block.len() < BLOCK && (bytes < BLOCK_BYTES || !block.len().is_multiple_of(BLOCK_UNIT)) {
        let Some(row) = file.next().transpose()? else { break };
        bytes += row.bytes();
        block.push(row);
    }
    Ok(block)
}

/// A row without a counted token has nothing to learn from, and no mean loss.
fn check_words(path: &Path, line: u64, tokens: &Tokens, row: &Words) -> Result<()> {
    if row.labels.is_empty() || tokens.begins.iter().any(|&word| word != UNCOUNTED) {
        return Ok(());
    }
    Err(data_error(path, Some(line), "the tokenizer makes no token of any word of this row")
        .with_help("remove the row"))
}

fn check_tokens(path: &Path, line: u64, tokens: &Tokens, vocabulary: usize) -> Result<()> {
    let wrong = |message: String, help: &str| Err(data_error(path, Some(line), message).with_help(help));
    if tokens.ids.is_empty() {
        return wrong("the tokenizer makes no token of this text".into(), "remove the row");
    }
    if let Some(id) = tokens.ids.iter().find(|&&id| id as usize >= vocabulary) {
        let message = format!("the tokenizer gives token {id}, and the model has {vocabulary} word embeddings");
        return wrong(message, "take the tokenizer.json that belongs to the model");
    }
    Ok(())
}

fn read_images(source: &Source<'_>, shape: [usize; 3], tokens: usize, limits: Limits) -> Result<(Examples, Images)> {
    let Some(classes) = images::embedded_classes(source.path) else {
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
    let mut writer = Writer::new(0, limits);
    for label in labels {
        writer.push(label.to_string(), NewRow { tokens, ..NewRow::default() })?;
    }
    Ok((writer.finish()?, images))
}
