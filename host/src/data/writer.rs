//! Writes what is kept of examples: token ids, labels, lines, and what a row has besides.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bytes::Limits;
use super::dataset::{Dataset, Targets, Totals};
use super::distinct::{Distinct, UNNUMBERED};
use super::extra::{self, Extra};
use super::form::Learns;
use super::guess::TokensOf;
use super::label_lists::parted;
use super::pictures::Pictures;
use super::row::{Labels, Role, Row, Words, data_error, shortened};
use super::selection::Selection;
use super::source::Source;
use super::store::{NewRow, Store, StoreWriter, UNCOUNTED};
use super::text::{Tokenizer, Tokens};
use crate::Result;

/// How many files were read.
static READ: AtomicU64 = AtomicU64::new(0);

/// What was read.
pub(super) struct Examples {
    store: Store,
    distinct: Distinct,
    totals: Totals,
    of_words: bool,
    lists: bool,
    /// Sentences about what was recognised in its files.
    notes: Vec<String>,
    firsts: Vec<String>,
    weighted: bool,
    grouped: bool,
    cut_left: bool,
    of_tokens: Option<TokensOf>,
    sequences: usize,
    beside: usize,
}

impl Examples {
    /// What their labels mean is open.
    pub(super) fn into_dataset(self, source: &Source<'_>, pictures: Option<Pictures>) -> Dataset {
        let Self { store, distinct, totals, of_words, lists, notes, firsts, weighted, grouped, cut_left, .. } = self;
        let Self { of_tokens, sequences, beside, .. } = self;
        Dataset {
            path: source.files.to_string().into(),
            number: READ.fetch_add(1, Ordering::Relaxed),
            notes,
            firsts: Arc::new(firsts),
            weighted,
            grouped,
            cut_left,
            of_tokens,
            sequences,
            beside,
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
pub(super) struct Writer {
    vocabulary: usize,
    store: StoreWriter,
    pub(super) distinct: Distinct,
    pub(super) totals: Totals,
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
    /// What the tokens are, where rows are for a language model.
    of_tokens: Option<TokensOf>,
    /// Whether the texts of a row pass by themselves.
    apart: bool,
    /// Whether the first of them is all that counts.
    alone: bool,
    /// What the picture beside a text counts as.
    beside: usize,
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
            of_tokens: None,
            apart: false,
            alone: false,
            beside: 0,
        }
    }

    /// A writer of a source's rows.
    pub(super) fn of(
        source: &Source<'_>,
        labels: Labels,
        tokenizer: &Tokenizer,
        vocabulary: usize,
        limits: Limits,
    ) -> Self {
        let roles = source.form.columns.extra(labels).map(|(role, _)| role).collect();
        let separator = source.form.label_separator.clone().filter(|_| labels == Labels::Read);
        let (cut_left, beside) = (tokenizer.cuts_left(), source.images().map_or(0, |images| images.tokens));
        // Of a text and its picture each is a side of its own as it is.
        let apart = beside == 0 && matches!(source.form.learns, Learns::Matches | Learns::Similarity);
        let alone = source.form.learns == Learns::Alone;
        Self { roles, separator, texts: source.texts, cut_left, apart, alone, beside, ..Self::new(vocabulary, limits) }
    }

    /// A writer of a source's pictures.
    pub(super) fn of_pictures(source: &Source<'_>, labels: Labels, limits: Limits) -> Self {
        let roles = source.form.columns.extra(labels).map(|(role, _)| role).collect();
        let separator = source.form.label_separator.clone().filter(|_| labels == Labels::Read);
        Self { roles, separator, ..Self::new(0, limits) }
    }

    /// A writer of rows for a language model, each behind a picture where the source has some.
    pub(super) fn of_language(source: &Source<'_>, tokens: TokensOf, limits: Limits) -> Self {
        let (vocabulary, beside) = (tokens.vocabulary as usize, source.images().map_or(0, |images| images.tokens));
        Self { texts: source.texts, of_tokens: Some(tokens), beside, ..Self::new(vocabulary, limits) }
    }

    /// Takes the next row of a language model, with the marks of its tokens; how many are those of the first sequence of a pair, or 0, and
    /// whether some were cut off.
    pub(super) fn push_language(
        &mut self,
        path: &Path,
        line: u64,
        ids: &[u32],
        marks: &[u32],
        (first, truncated): (usize, bool),
    ) -> Result<()> {
        check_ids(path, line, ids, self.vocabulary)?;
        let record = self.store.push(&NewRow {
            ids,
            marks,
            first,
            tokens: ids.len(),
            line: Some(line),
            truncated,
            label: UNNUMBERED,
            value: f32::NAN,
            ..NewRow::default()
        })?;
        self.totals.add(&record, &[]);
        self.totals.add_targets(marks.iter().filter(|&&mark| mark != UNCOUNTED).count());
        Ok(())
    }

    /// What a row has besides, from its further cells.
    fn extra(&mut self, path: &Path, line: u64, cells: &[String], texts: Vec<String>) -> Result<Extra> {
        let mut extra = Extra { texts: if self.texts { texts } else { Vec::new() }, ..Extra::default() };
        let mut image = None;
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
                Role::Image => image = Some(cell),
                Role::Negative | Role::Part => {}
            }
        }
        // A picture is called by its file's name where no column says otherwise.
        extra.id = extra.id.or_else(|| image.cloned());
        Ok(extra)
    }

    /// Takes the next rows of a file, all of them texts or all of them words.
    pub(super) fn push_rows(&mut self, path: &Path, rows: Vec<Row>, tokenizer: &Tokenizer) -> Result<()> {
        if rows.iter().any(|row| row.words.is_some()) {
            if self.apart || self.beside > 0 {
                let (line, what) = (rows.first().map(|row| row.line), "a text, and not a list of words");
                return Err(data_error(path, line, format!("what stands beside a text or a picture is {what}")));
            }
            return self.push_words(path, rows, tokenizer);
        }
        match self.apart {
            true => self.push_apart(path, rows, tokenizer),
            false => self.push_texts(path, rows, tokenizer),
        }
    }

    /// Takes rows whose texts pass by themselves, one after the other: two, or three where one does not belong to the first.
    fn push_apart(&mut self, path: &Path, rows: Vec<Row>, tokenizer: &Tokenizer) -> Result<()> {
        let negative = self.roles.iter().position(|role| *role == Role::Negative);
        let mut texts: Vec<(&str, Option<&str>)> = Vec::new();
        for row in &rows {
            let Some(pair) = &row.pair else {
                return Err(data_error(path, Some(row.line), "this row has one text, and the head compares two")
                    .with_help("name both columns in the task: columns = { text = \"...\", text_pair = \"...\" }"));
            };
            texts.extend([(row.text.as_str(), None), (pair.as_str(), None)]);
            texts.extend(negative.map(|place| (row.extra[place].as_str(), None)));
        }
        let each = self.sequences();
        let encoded = tokenizer.encode(&texts)?;
        for (mut row, sides) in rows.into_iter().zip(encoded.chunks_exact(each)) {
            sides.iter().try_for_each(|side| check_tokens(path, row.line, side, self.vocabulary))?;
            let (empty, first) = (row.text.is_empty(), row.text.clone());
            let texts =
                [Some(std::mem::take(&mut row.text)), row.pair.take(), negative.map(|at| row.extra[at].clone())];
            let extra = self.extra(path, row.line, &row.extra, texts.into_iter().flatten().collect())?;
            let ids: Vec<u32> = sides.iter().flat_map(|side| &side.ids).copied().collect();
            let new = NewRow {
                ids: &ids,
                tokens: ids.len(),
                first: sides[0].ids.len(),
                second: if each > 2 { sides[1].ids.len() } else { 0 },
                line: Some(row.line),
                truncated: sides.iter().any(|side| side.truncated),
                empty,
                ..NewRow::default()
            };
            self.push_labelled(path, row, &first, extra, new)?;
        }
        Ok(())
    }

    /// Sequences of an example's texts.
    fn sequences(&self) -> usize {
        match (self.apart, self.of_tokens) {
            (true, _) => 2 + usize::from(self.roles.contains(&Role::Negative)),
            (false, Some(of)) if of.pairs => 2,
            (false, _) => 1,
        }
    }

    fn push_texts(&mut self, path: &Path, mut rows: Vec<Row>, tokenizer: &Tokenizer) -> Result<()> {
        if self.alone {
            rows.iter_mut().for_each(|row| row.pair = None);
        }
        let texts: Vec<_> = rows.iter().map(|row| (row.text.as_str(), row.pair.as_deref())).collect();
        let encoded = tokenizer.encode(&texts)?;
        for (mut row, tokens) in rows.into_iter().zip(encoded) {
            check_tokens(path, row.line, &tokens, self.vocabulary)?;
            let (empty, first) = (row.text.is_empty(), row.text.clone());
            let texts = std::iter::once(std::mem::take(&mut row.text)).chain(row.pair.take()).collect();
            let extra = self.extra(path, row.line, &row.extra, texts)?;
            let new = NewRow {
                ids: &tokens.ids,
                segments: &tokens.types,
                tokens: tokens.ids.len(),
                line: Some(row.line),
                truncated: tokens.truncated,
                empty,
                ..NewRow::default()
            };
            self.push_labelled(path, row, &first, extra, new)?;
        }
        Ok(())
    }

    /// Takes the next picture, which counts as so many tokens. A picture is called by its file's name where no column says otherwise.
    pub(super) fn push_picture(&mut self, path: &Path, row: Row, tokens: usize) -> Result<()> {
        let mut extra = self.extra(path, row.line, &row.extra, Vec::new())?;
        extra.id = extra.id.or(Some(row.text.clone()).filter(|name| !name.is_empty()));
        let (line, name) = ((row.line > 0).then_some(row.line), row.text.clone());
        self.push_labelled(path, row, &name, extra, NewRow { tokens, line, ..NewRow::default() })
    }

    /// Takes an example with its label, or its list of labels.
    fn push_labelled(
        &mut self,
        path: &Path,
        mut row: Row,
        first: &str,
        mut extra: Extra,
        new: NewRow<'_>,
    ) -> Result<()> {
        let labels = self.list_of(path, &mut row)?;
        extra.labels = labels.as_ref().map_or_else(Vec::new, |labels| self.numbers(labels, row.line, first));
        let (bytes, numbers) = (extra.to_bytes()?, extra.labels);
        let new = NewRow { extra: &bytes, ..new };
        if labels.is_none() {
            return self.push(row.label, first, new);
        }
        let record = self.store.push(&NewRow { label: UNNUMBERED, value: f32::NAN, ..new })?;
        self.totals.add(&record, &numbers);
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

    pub(super) fn refuse_no_weight(&self, path: &Path) -> Result<()> {
        if self.roles.contains(&Role::Weight) && self.weights == 0.0 {
            return Err(data_error(path, None, "no example has a weight above 0")
                .with_help("an example of weight 0 teaches nothing: give some a weight"));
        }
        Ok(())
    }

    /// Ends the writing; `notes` are sentences about what was recognised.
    pub(super) fn finish(self, notes: Vec<String>) -> Result<Examples> {
        let sequences = self.sequences();
        let Self { store, distinct, totals, of_words, lists, cut_left, of_tokens, firsts, beside, .. } = self;
        let (weighted, grouped) = (self.roles.contains(&Role::Weight), self.roles.contains(&Role::Group));
        Ok(Examples {
            store: store.finish()?,
            distinct,
            totals,
            of_words,
            lists: lists.unwrap_or(false),
            notes,
            firsts,
            weighted,
            grouped,
            cut_left,
            of_tokens,
            sequences,
            beside,
        })
    }
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
    check_ids(path, line, &tokens.ids, vocabulary)
}

fn check_ids(path: &Path, line: u64, ids: &[u32], vocabulary: usize) -> Result<()> {
    let wrong = |message: String, help: &str| Err(data_error(path, Some(line), message).with_help(help));
    if ids.is_empty() {
        return wrong("the tokenizer makes no token of this text".into(), "remove the row");
    }
    if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
        let message = format!("the tokenizer gives token {id}, and the model has {vocabulary} word embeddings");
        return wrong(message, "take the tokenizer.json that belongs to the model");
    }
    Ok(())
}
