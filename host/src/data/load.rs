//! Reading a data set: texts are encoded block by block, and only token ids, labels and lines are kept.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fthost_models::Modality;

use super::bytes::Limits;
use super::dataset::{Dataset, Targets, Totals};
use super::distinct::{Distinct, UNNUMBERED};
use super::extra::{self, Extra};
use super::files::Files;
use super::label_lists::parted;
use super::pictures::Pictures;
use super::pictures::digits;
use super::pictures::list::{Listed, list};
use super::recognise::file_name;
use super::row::{Labels, Role, Row, Words, data_error, shortened};
use super::rows::AllRows;
use super::scheme::{Scheme, Seen};
use super::selection::Selection;
use super::source::Source;
use super::store::{NewRow, Store, StoreWriter, UNCOUNTED};
use super::table::Rows;
use super::text::{Tokenizer, Tokens};
use crate::{Error, Result};

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
    let (examples, pictures) = match (source.modality, tokenizer) {
        (Modality::Text { vocabulary, .. }, Some(tokenizer)) => {
            (read_texts(source, tokenizer, vocabulary, limits)?, None)
        }
        (Modality::Text { .. }, None) => return Err(Error::usage("a model that reads text needs its tokenizer.json")),
        (Modality::Images { .. }, _) => {
            let (examples, pictures) = read_pictures(source, Labels::Read, limits)?;
            (examples, Some(pictures))
        }
    };
    let mut data = examples.into_dataset(source, pictures);
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

/// The examples of a file without their labels, block by block: what a model predicts for. A file of any size takes the memory of
/// one block; but for the last one a block has a multiple of 256 rows.
///
/// # Errors
///
/// As [`load`].
pub fn unlabelled<'a>(
    source: &Source<'a>,
    tokenizer: Option<&'a Tokenizer>,
) -> Result<Box<dyn Iterator<Item = Result<Dataset>> + 'a>> {
    let (Modality::Text { vocabulary, .. }, Some(tokenizer)) = (source.modality, tokenizer) else {
        let read = || {
            let (examples, pictures) = read_pictures(source, Labels::Unread, Limits::from_environment())?;
            Ok(examples.into_dataset(source, Some(pictures)))
        };
        return Ok(Box::new(std::iter::once(read())));
    };
    refuse_images(source.files)?;
    check_unread_header(source)?;
    let source = *source;
    let mut rows = source.rows(Labels::Unread)?;
    Ok(Box::new(std::iter::from_fn(move || {
        let mut read = || {
            let block = next_block(&mut rows)?;
            if block.is_empty() {
                return Ok(None);
            }
            let mut writer = Writer::of(&source, Labels::Unread, tokenizer, vocabulary, Limits::from_environment());
            writer.push_rows(rows.path(), block, tokenizer)?;
            writer.finish().map(|examples| Some(examples.into_dataset(&source, None)))
        };
        let block: Result<Option<Dataset>> = read();
        block.transpose()
    })))
}

/// Reads a file to its end without its labels, so that what is wrong with it is said before anything is made of its first rows.
///
/// # Errors
/// Whatever is wrong with a row, with its line.
pub fn check(source: &Source<'_>) -> Result<()> {
    if let Modality::Images { .. } = source.modality {
        return list(source, Labels::Unread).map(drop);
    }
    check_unread_header(source)?;
    let mut rows = source.rows(Labels::Unread)?;
    loop {
        while rows.next_of_file()?.is_some() {}
        if !rows.next_file()? {
            return Ok(());
        }
    }
}

/// How many files were read.
static READ: AtomicU64 = AtomicU64::new(0);

/// What was read.
struct Examples {
    store: Store,
    distinct: Distinct,
    totals: Totals,
    of_words: bool,
    lists: bool,
    notes: Vec<String>,
    firsts: Vec<String>,
    weighted: bool,
    grouped: bool,
    cut_left: bool,
}

impl Examples {
    /// What their labels mean is open.
    fn into_dataset(self, source: &Source<'_>, pictures: Option<Pictures>) -> Dataset {
        let Self { store, distinct, totals, of_words, lists, notes, firsts, weighted, grouped, cut_left } = self;
        Dataset {
            path: source.files.to_string().into(),
            number: READ.fetch_add(1, Ordering::Relaxed),
            notes,
            firsts: Arc::new(firsts),
            weighted,
            grouped,
            cut_left,
            selection: Selection::All(store.len()),
            store: Arc::new(store),
            pictures: pictures.map(Arc::new),
            device: source.device.clone(),
            labels: distinct.names(),
            distinct: Arc::new(distinct),
            totals,
            of_words,
            lists,
            targets: Targets::Open,
        }
    }
}

/// Characters that are kept of the first text of a label.
const FIRST: usize = 80;

/// Writes examples.
struct Writer {
    vocabulary: usize,
    store: StoreWriter,
    distinct: Distinct,
    totals: Totals,
    /// Whether texts come as words.
    of_words: bool,
    /// What stands between labels in a cell.
    separator: Option<String>,
    /// Whether rows have lists of labels, as the first one has.
    lists: Option<bool>,
    /// What the further cells of rows say.
    roles: Vec<Role>,
    /// Whether texts are kept.
    texts: bool,
    /// By the number of a label the beginning of the first text that has it.
    firsts: Vec<String>,
    /// The sum of the weights so far.
    weights: f64,
    cut_left: bool,
}

impl Writer {
    fn new(vocabulary: usize, limits: Limits) -> Self {
        Self {
            vocabulary,
            store: StoreWriter::new(vocabulary, limits),
            distinct: Distinct::default(),
            totals: Totals::default(),
            of_words: false,
            separator: None,
            lists: None,
            roles: Vec::new(),
            texts: false,
            firsts: Vec::new(),
            weights: 0.0,
            cut_left: false,
        }
    }

    /// A writer of a source's rows.
    fn of(source: &Source<'_>, labels: Labels, tokenizer: &Tokenizer, vocabulary: usize, limits: Limits) -> Self {
        let roles = source.form.columns.extra(labels).map(|(role, _)| role).collect();
        let separator = source.form.label_separator.clone().filter(|_| labels == Labels::Read);
        let cut_left = tokenizer.cuts_left();
        Self { roles, separator, texts: source.texts, cut_left, ..Self::new(vocabulary, limits) }
    }

    /// What a row has besides, from its further cells.
    fn extra(&mut self, path: &Path, line: u64, cells: &[String], texts: Vec<String>) -> Result<Extra> {
        let mut extra = Extra { texts: if self.texts { texts } else { Vec::new() }, ..Extra::default() };
        for (role, cell) in self.roles.iter().zip(cells) {
            match role {
                Role::Id => extra.id = Some(cell.clone()).filter(|id| !id.is_empty()),
                Role::Group if cell.is_empty() => {
                    return Err(data_error(path, Some(line), "this row has no group")
                        .with_help("give it one, or take group out of columns in the run file"));
                }
                Role::Group => extra.group = Some(extra::digest(cell)),
                Role::Weight => {
                    let weight = cell.parse::<f32>().ok().filter(|weight| weight.is_finite() && *weight >= 0.0);
                    let Some(weight) = weight else {
                        let message = format!("the weight `{}` is no number from 0 up", shortened(cell));
                        return Err(data_error(path, Some(line), message).with_help(
                            "an example's loss is multiplied with its weight: 1 for one that counts as any",
                        ));
                    };
                    self.weights += f64::from(weight);
                    extra.weight = Some(weight);
                }
                Role::Part => {}
            }
        }
        Ok(extra)
    }

    /// Takes the next rows of a file, all of them texts or all of them words.
    fn push_rows(&mut self, path: &Path, rows: Vec<Row>, tokenizer: &Tokenizer) -> Result<()> {
        if rows.iter().any(|row| row.words.is_some()) {
            return self.push_words(path, rows, tokenizer);
        }
        self.push_texts(path, rows, tokenizer)
    }

    fn push_texts(&mut self, path: &Path, rows: Vec<Row>, tokenizer: &Tokenizer) -> Result<()> {
        let texts: Vec<_> = rows.iter().map(|row| (row.text.as_str(), row.pair.as_deref())).collect();
        let encoded = tokenizer.encode(&texts)?;
        for (mut row, tokens) in rows.into_iter().zip(encoded) {
            check_tokens(path, row.line, &tokens, self.vocabulary)?;
            let labels = self.list_of(path, &mut row)?;
            let (empty, first) = (row.text.is_empty(), row.text.clone());
            let texts = std::iter::once(row.text).chain(row.pair).collect();
            let mut extra = self.extra(path, row.line, &row.extra, texts)?;
            extra.labels = labels.as_ref().map_or_else(Vec::new, |labels| self.numbers(labels, row.line, &first));
            let (bytes, numbers) = (extra.to_bytes()?, extra.labels);
            let new = NewRow {
                extra: &bytes,
                ids: &tokens.ids,
                segments: &tokens.types,
                tokens: tokens.ids.len(),
                line: Some(row.line),
                truncated: tokens.truncated,
                empty,
                ..NewRow::default()
            };
            if labels.is_some() {
                let record = self.store.push(&NewRow { label: UNNUMBERED, value: f32::NAN, ..new })?;
                self.totals.add(&record, &numbers);
            } else {
                self.push(row.label, &first, new)?;
            }
        }
        Ok(())
    }

    /// The labels of a row that may have any number of them: its list, or what its cell holds. All rows have lists, or none.
    fn list_of(&mut self, path: &Path, row: &mut Row) -> Result<Option<Vec<String>>> {
        let labels = match (&self.separator, row.labels.take()) {
            (Some(separator), None) => Some(parted(&row.label, separator)),
            (_, labels) => labels,
        };
        let wrong = |message: String, help| Err(data_error(path, Some(row.line), message).with_help(help));
        if *self.lists.get_or_insert(labels.is_some()) != labels.is_some() {
            let (has, have) =
                if labels.is_some() { ("a list of labels", "one label each") } else { ("one label", "lists") };
            return wrong(
                format!("this row has {has}, and rows before it have {have}"),
                "write each as a list, [\"a\"] for one label and [] for none",
            );
        }
        if let Some(place) = labels.iter().flatten().position(String::is_empty) {
            let help = "give it a name, or take it out of the row";
            return wrong(format!("label {} of this row is empty", place + 1), help);
        }
        Ok(labels)
    }

    /// The numbers of a list's labels, ascending, each once.
    fn numbers(&mut self, labels: &[String], line: u64, text: &str) -> Vec<u32> {
        let mut numbers = Vec::with_capacity(labels.len());
        for label in labels {
            let number = self.distinct.add(label.clone(), Some(line)).0;
            self.keep_first(number, text);
            numbers.push(number);
        }
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    fn push_words(&mut self, path: &Path, rows: Vec<Row>, tokenizer: &Tokenizer) -> Result<()> {
        self.of_words = true;
        let rows: Vec<(u64, Words, Vec<String>)> =
            rows.into_iter().filter_map(|row| Some((row.line, row.words?, row.extra))).collect();
        let words: Vec<&[String]> = rows.iter().map(|(_, row, _)| row.words.as_slice()).collect();
        let encoded = tokenizer.encode_words(&words)?;
        for ((line, row, cells), tokens) in rows.into_iter().zip(encoded) {
            check_tokens(path, line, &tokens, self.vocabulary)?;
            check_words(path, line, &tokens, &row)?;
            let mut numbers = Vec::with_capacity(row.labels.len());
            for (label, word) in row.labels.into_iter().zip(&row.words) {
                let number = self.distinct.add(label, Some(line)).0;
                self.keep_first(number, word);
                numbers.push(number);
            }
            // Labels that are not read have no numbers: the word itself is marked then.
            let mark = |&word: &u32| numbers.get(word as usize).copied().unwrap_or(word);
            let marks: Vec<u32> = tokens.begins.iter().map(mark).collect();
            let (count, cut) = (row.words.len(), tokens.cut.len());
            let mut extra = self.extra(path, line, &cells, row.words)?;
            extra.cut = tokens.cut.iter().filter_map(|&word| numbers.get(word as usize).copied()).collect();
            extra.silent = tokens.silent(count);
            let record = self.store.push(&NewRow {
                extra: &extra.to_bytes()?,
                cut,
                ids: &tokens.ids,
                segments: &tokens.types,
                marks: &marks,
                words: count,
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

    /// Keeps the beginning of a text whose label is new.
    fn keep_first(&mut self, number: u32, text: &str) {
        if number as usize == self.firsts.len() {
            let end = text.char_indices().nth(FIRST).map_or(text.len(), |(end, _)| end);
            self.firsts.push(text[..end].to_owned());
        }
    }

    /// Takes the next example; of its label the caller says the text.
    fn push(&mut self, label: String, text: &str, row: NewRow<'_>) -> Result<()> {
        let (label, value) = self.distinct.add(label, row.line);
        self.keep_first(label, text);
        let record = self.store.push(&NewRow { label, value, ..row })?;
        self.totals.add(&record, &[]);
        Ok(())
    }

    fn refuse_no_weight(&self, path: &Path) -> Result<()> {
        if self.roles.contains(&Role::Weight) && self.weights == 0.0 {
            return Err(data_error(path, None, "no example has a weight above 0")
                .with_help("an example of weight 0 teaches nothing: give some a weight"));
        }
        Ok(())
    }

    fn finish(self) -> Result<Examples> {
        let Self { store, distinct, totals, of_words, lists, cut_left, firsts, .. } = self;
        let (weighted, grouped) = (self.roles.contains(&Role::Weight), self.roles.contains(&Role::Group));
        Ok(Examples {
            store: store.finish()?,
            distinct,
            totals,
            of_words,
            lists: lists.unwrap_or(false),
            notes: Vec::new(),
            firsts,
            weighted,
            grouped,
            cut_left,
        })
    }
}

/// Texts that are encoded at once, and about how many bytes they may have.
pub(super) const BLOCK: usize = 4096;
const BLOCK_BYTES: usize = 4 << 20;
/// Blocks end at multiples of this many rows, so that a file in blocks falls into the same chunks as a whole one.
const BLOCK_UNIT: usize = 256;

fn read_texts(source: &Source<'_>, tokenizer: &Tokenizer, vocabulary: usize, limits: Limits) -> Result<Examples> {
    refuse_images(source.files)?;
    let mut writer = Writer::of(source, Labels::Read, tokenizer, vocabulary, limits);
    let mut rows = source.rows(Labels::Read)?;
    let mut scheme = None;
    loop {
        let mut block = next_block(&mut rows)?;
        if block.is_empty() {
            break;
        }
        if block.iter().any(|row| row.words.is_some()) {
            // A file's labels tell together how they spell entities.
            let scheme = match scheme {
                Some(scheme) => scheme,
                None => *scheme.insert(scheme_of(source)?),
            };
            if let Some(scheme) = scheme {
                block.iter_mut().filter_map(|row| row.words.as_mut()).for_each(|row| scheme.to_iob2(&mut row.labels));
            }
        }
        writer.push_rows(rows.path(), block, tokenizer)?;
    }
    if let Some(first) = rows.file().first() {
        let count = |label: &String| writer.distinct.number(label).map_or(0, |number| writer.totals.with_label(number));
        let count = |cell: &str| source.labels_of(cell).iter().map(count).max().unwrap_or_default();
        first.check_label(rows.path(), count, |cell| source.knows(cell))?;
    }
    writer.refuse_no_weight(rows.path())?;
    let mut notes = rows.notes();
    if let Some(scheme) = scheme.flatten().filter(|scheme| *scheme != Scheme::Iob2) {
        let names: Vec<String> = source.files.named().into_iter().map(file_name).collect();
        notes.push(format!("{}: labels in {scheme} are read as IOB2", names.join(", ")));
    }
    Ok(Examples { notes, ..writer.finish()? })
}

/// How the labels of words spell entities, where they do.
fn scheme_of(source: &Source<'_>) -> Result<Option<Scheme>> {
    let (mut rows, mut seen) = (source.rows(Labels::Read)?, Seen::default());
    loop {
        while let Some(row) = rows.next_of_file()? {
            row.words.iter().for_each(|row| seen.add(&row.labels));
        }
        if !rows.next_file()? {
            return Ok(seen.scheme());
        }
    }
}

/// Refuses a file that is read without its labels, and has some that say that its first row is a header: the second row's is one of
/// the training data, or a number where the first's is none.
fn check_unread_header(source: &Source<'_>) -> Result<()> {
    let Files::One(path) = source.files else { return Ok(()) };
    if source.form.header.is_some() {
        return Ok(());
    }
    let Ok(mut file) = Rows::open(path, source.form, Labels::Read, source.labels) else { return Ok(()) };
    let (Some(Ok(first)), Some(Ok(second))) = (file.next(), file.next()) else { return Ok(()) };
    let like_training = |label: &str| source.knows(label) || label.parse::<f32>().is_ok_and(f32::is_finite);
    match file.first() {
        Some(row) if !row.is_header && !like_training(&first.label) && like_training(&second.label) => {
            Err(row.in_doubt(path, &format!("its label `{}` is none that training saw", shortened(&first.label))))
        }
        _ => Ok(()),
    }
}

/// The embedded data are images; a model that reads texts cannot take them.
fn refuse_images(files: &Files) -> Result<()> {
    match digits::embedded_classes(files.first()) {
        None => Ok(()),
        Some(_) => Err(Error::Usage {
            message: format!("the data `{files}` are images, and the model reads text"),
            help: Some("name a .tsv, .csv, .jsonl or .parquet file".into()),
        }),
    }
}

/// Rows of one file for one call of the tokenizer; none at the end of the last file.
fn next_block(rows: &mut AllRows<'_>) -> Result<Vec<Row>> {
    let (mut block, mut bytes) = (Vec::new(), 0);
    while block.len() < BLOCK && (bytes < BLOCK_BYTES || !block.len().is_multiple_of(BLOCK_UNIT)) {
        match rows.next_of_file()? {
            Some(row) => {
                bytes += row.bytes();
                block.push(row);
            }
            None if !block.is_empty() || !rows.next_file()? => break,
            None => {}
        }
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

fn read_pictures(source: &Source<'_>, labels: Labels, limits: Limits) -> Result<(Examples, Pictures)> {
    let Modality::Images { channels, size, tokens, .. } = source.modality else {
        return Err(Error::run("pictures for a model of texts"));
    };
    let embedded = digits::embedded_classes(source.files.first()).is_some();
    if embedded && (channels, size) != (1, digits::SIDE) {
        let (side, own) = (digits::SIDE, format!("{channels} x {size} x {size}"));
        return Err(Error::Usage {
            message: format!("the digits are images of 1 x {side} x {side}, and the model takes {own}"),
            help: Some("use the embedded model: path = \"demo\"".into()),
        });
    }
    let Listed { pictures, rows, table, notes } = list(source, labels)?;
    let roles = source.form.columns.extra(labels).map(|(role, _)| role).collect();
    let mut writer = Writer { roles, ..Writer::new(0, limits) };
    let path = table.as_deref().unwrap_or(source.files.first());
    for row in rows {
        let line = (row.line > 0).then_some(row.line);
        let mut extra = writer.extra(path, row.line, &row.extra, Vec::new())?;
        // A picture is called by its file's name.
        extra.id = extra.id.or(Some(row.text.clone()).filter(|name| !name.is_empty()));
        let extra = extra.to_bytes()?;
        writer.push(row.label, &row.text, NewRow { tokens, line, extra: &extra, ..NewRow::default() })?;
    }
    writer.refuse_no_weight(path)?;
    Ok((Examples { notes, ..writer.finish()? }, pictures))
}
