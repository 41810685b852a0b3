//! Reading a data set: texts are encoded block by block, and only token ids, labels and lines are kept.

use super::bytes::Limits;
use super::dataset::{Dataset, Targets};
use super::files::Files;
use super::language;
use super::pictures::digits;
use super::pictures::list::{Listed, form_beside, list, list_beside};
use super::recognise::file_name;
use super::row::{Labels, Row, shortened};
use super::rows::AllRows;
use super::scheme::{Scheme, Seen};
use super::source::{Images, Source};
use super::table::Rows;
use super::text::Tokenizer;
use super::writer::{Examples, Writer};
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
    let labels = source.form.labels();
    let (mut data, classes) = match (source.vocabulary(), source.images(), tokenizer) {
        (Some(_), _, None) => return Err(Error::usage("a model that reads text needs its tokenizer.json")),
        (Some(vocabulary), images, Some(tokenizer)) => {
            let data = match (source.language, images) {
                (Some(model), _) => {
                    let (examples, pictures) = language::read(source, model, tokenizer, vocabulary, limits)?;
                    examples.into_dataset(source, pictures)
                }
                (None, None) => read_texts(source, tokenizer, vocabulary, limits)?.into_dataset(source, None),
                (None, Some(_)) => read_both(source, labels, tokenizer, vocabulary, limits)?,
            };
            (data, Vec::new())
        }
        (None, Some(images), _) => read_pictures(source, images, labels, limits)?,
        (None, None, _) => return Err(Error::run("examples for a model that takes nothing")),
    };
    match source.labels {
        _ if data.of_masks() => (data.labels, data.targets) = (classes, Targets::Masks),
        _ if labels == Labels::None => data.labels.clear(),
        // What a head makes of the labels is not known yet: values need not occur in the training data.
        Some(labels) => data.labels = labels.to_vec(),
        None if data.of_tokens.is_some() => {}
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
    let limits = Limits::from_environment;
    let (vocabulary, tokenizer) = match (source.vocabulary(), source.images(), tokenizer) {
        (Some(vocabulary), None, Some(tokenizer)) => (vocabulary, tokenizer),
        (Some(vocabulary), Some(_), Some(tokenizer)) => {
            let read = read_both(source, Labels::Unread, tokenizer, vocabulary, limits());
            return Ok(Box::new(std::iter::once(read)));
        }
        (None, Some(images), _) => {
            let read = read_pictures(source, images, Labels::Unread, limits());
            return Ok(Box::new(std::iter::once(read.map(|(data, _)| data))));
        }
        _ => return Err(Error::usage("a model that reads text needs its tokenizer.json")),
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
            writer.finish(Vec::new()).map(|examples| Some(examples.into_dataset(&source, None)))
        };
        let block: Result<Option<Dataset>> = read();
        block.transpose()
    })))
}

/// Texts that stand in no file, as examples without labels; errors name `source`'s file and their number.
///
/// # Errors
///
/// Where the tokenizer fails on one, or the model has no such token.
pub fn of_texts(source: &Source<'_>, texts: &[String], tokenizer: &Tokenizer) -> Result<Dataset> {
    let Some(vocabulary) = source.vocabulary() else { return Err(Error::run("texts for a model that takes none")) };
    let mut writer = Writer::of(source, Labels::Unread, tokenizer, vocabulary, Limits::from_environment());
    let row = |(line, text): (u64, &String)| Row { line, text: text.clone(), ..Row::default() };
    let rows: Vec<Row> = (1..).zip(texts).map(row).collect();
    writer.push_rows(source.files.first(), rows, tokenizer)?;
    let data = writer.finish(Vec::new())?.into_dataset(source, None);
    if data.truncated() > 0 {
        let (what, longest) = (source.files, tokenizer.max_tokens());
        tracing::warn!("{what}: texts of more than {longest} tokens are cut: {} of {}", data.truncated(), data.len());
    }
    Ok(data)
}

/// Reads a file to its end without its labels, so that what is wrong with it is said before anything is made of its first rows.
///
/// # Errors
/// Whatever is wrong with a row, with its line.
pub fn check(source: &Source<'_>) -> Result<()> {
    match (source.vocabulary(), source.images()) {
        (Some(_), Some(_)) => {
            let form = form_beside(source, Labels::Unread)?;
            return list_beside(&Source { form: &form, ..*source }, Labels::Unread).map(drop);
        }
        (None, _) => return list(source, Labels::Unread).map(drop),
        (Some(_), None) => {}
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

/// Texts that are encoded at once, and about how many bytes they may have.
pub(super) const BLOCK: usize = 4096;
const BLOCK_BYTES: usize = 4 << 20;
/// Blocks end at multiples of this many rows, so that a file in blocks falls into the same chunks as a whole one.
const BLOCK_UNIT: usize = 256;

fn read_texts(source: &Source<'_>, tokenizer: &Tokenizer, vocabulary: usize, limits: Limits) -> Result<Examples> {
    refuse_images(source.files)?;
    let labels = source.form.labels();
    let mut writer = Writer::of(source, labels, tokenizer, vocabulary, limits);
    let mut rows = source.rows(labels)?;
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
    if let Some(first) = rows.file().first().filter(|_| labels == Labels::Read) {
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
    writer.finish(notes)
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

/// Texts with the picture of each.
fn read_both(
    source: &Source<'_>,
    labels: Labels,
    tokenizer: &Tokenizer,
    vocabulary: usize,
    limits: Limits,
) -> Result<Dataset> {
    let form = form_beside(source, labels)?;
    let source = &Source { form: &form, ..*source };
    let Listed { pictures, rows, table, notes, .. } = list_beside(source, labels)?;
    let mut writer = Writer::of(source, labels, tokenizer, vocabulary, limits);
    let path = table.as_deref().unwrap_or(source.files.first());
    let mut rows = rows.into_iter();
    while rows.len() > 0 {
        writer.push_rows(path, rows.by_ref().take(BLOCK).collect(), tokenizer)?;
    }
    writer.refuse_no_weight(path)?;
    Ok(writer.finish(notes)?.into_dataset(source, Some(pictures)))
}

/// Pictures, and the names of the classes of their masks.
fn read_pictures(
    source: &Source<'_>,
    Images { channels, size, tokens }: Images,
    labels: Labels,
    limits: Limits,
) -> Result<(Dataset, Vec<String>)> {
    let embedded = digits::embedded_classes(source.files.first()).is_some();
    if embedded && (channels, size) != (1, digits::SIDE) {
        let (side, own) = (digits::SIDE, format!("{channels} x {size} x {size}"));
        return Err(Error::Usage {
            message: format!("the digits are images of 1 x {side} x {side}, and the model takes {own}"),
            help: Some("use the embedded model: path = \"demo\"".into()),
        });
    }
    let Listed { pictures, rows, table, notes, classes } = list(source, labels)?;
    let mut writer = Writer::of_pictures(source, labels, limits);
    let path = table.as_deref().unwrap_or(source.files.first());
    for row in rows {
        writer.push_picture(path, row, tokens)?;
    }
    writer.refuse_no_weight(path)?;
    Ok((writer.finish(notes)?.into_dataset(source, Some(pictures)), classes))
}
