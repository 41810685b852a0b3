//! Reading the rows of a language model: what they say becomes tokens, and each token is marked by whether it is to be learned.

use std::collections::VecDeque;
use std::path::Path;

use rayon::prelude::*;
use serde_json::{Map, Value};

use super::beside;
use super::conversation::{RowForm, Said, Wrong};
use super::encode::{Encoded, Encoder};
use super::objects::{Kind, Objects};
use super::preferences::{Pair, PairForm, no_pairs};
use super::template::ChatTemplate;
use crate::data::bytes::Limits;
use crate::data::files::Files;
use crate::data::form::{Format, LanguageForm, LanguageModel, Score};
use crate::data::guess::TokensOf;
use crate::data::lines::Lines;
use crate::data::pictures::Pictures;
use crate::data::recognise::file_name;
use crate::data::row::{Columns, data_error};
use crate::data::source::Source;
use crate::data::store::UNCOUNTED;
use crate::data::text::{Tokenizer, WordSigns};
use crate::data::writer::{Examples, Writer};
use crate::report::numbers::count;
use crate::{Error, Result};

/// The template by which conversations are written.
pub(super) fn chat_template(form: &LanguageForm, tokenizer: &Tokenizer) -> Result<Option<ChatTemplate>> {
    let special = || tokenizer.special_tokens().clone();
    match (&form.template, tokenizer.template()) {
        (Some(name), _) => ChatTemplate::named(name, special()).map(Some),
        (None, Some((text, file))) => ChatTemplate::new(text, file_name(file), special()).map(Some),
        (None, None) => Ok(None),
    }
}

/// The form of a file's rows, as its first row and the columns that the run file names tell.
///
/// # Errors
/// Where it is none that is known.
pub(super) fn row_form(path: &Path, line: u64, first: &Map<String, Value>, columns: &Columns) -> Result<RowForm> {
    let keys = || first.keys().map(String::as_str);
    let found = match (&columns.text, &columns.label) {
        (Some(prompt), Some(completion)) => {
            Some(RowForm::Completion { prompt: prompt.clone(), completion: completion.clone() })
        }
        (text, _) => RowForm::of(keys(), text.as_deref()),
    };
    found.ok_or_else(|| {
        let there = keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        data_error(path, Some(line), format!("this row has {there}, and none of the known forms")).with_help(
            "known are messages; instruction, input and output; prompt and completion; text. Or say it: columns = { text = \"QUESTION\", \
             label = \"ANSWER\" }",
        )
    })
}

/// Rows that are encoded at once.
const BLOCK: usize = 1024;
/// Letters of the beginning and of the end of a row that are shown.
const SEEN: usize = 200;
/// About how much of a text is encoded at once, in bytes.
const PIECE: usize = 1 << 20;

/// Reads and encodes the rows of a source, and lists the pictures that they stand behind, where it has some.
///
/// # Errors
/// Whatever is wrong with a file, with its line; a file of which no token is left to be learned; pictures where the model says no next token
/// of single texts.
pub(in crate::data) fn read(
    source: &Source<'_>,
    model: LanguageModel,
    tokenizer: &Tokenizer,
    vocabulary: usize,
    limits: Limits,
) -> Result<(Examples, Option<Pictures>)> {
    let Files::One(path) = source.files else {
        return Err(Error::usage(format!("the data `{}` are for classes", source.files))
            .with_help("a language model takes one file of rows or of text"));
    };
    let (form, causal, pairs) =
        (&source.form.language, model != LanguageModel::Masked, model == LanguageModel::Preference);
    if pairs && form.score == Score::All {
        return Err(Error::usage("score = \"all\" counts prompts too, and preferences are of answers")
            .with_help("take score out of the task"));
    }
    let pictured = source.images().is_some();
    if pictured && model != LanguageModel::Causal {
        let learns = if pairs { "from pairs of answers" } else { "what stands in masked places" };
        let message =
            format!("the task learns {learns}, and pictures stand before texts whose next token is learned alone");
        return Err(Error::usage(message)
            .with_help("say stream = \"text\" in the task, for texts alone, or choose the head causal-lm"));
    }
    if pictured && form.blocks == Some(true) {
        return Err(Error::usage("blocks = true joins texts, and here each has a picture of its own")
            .with_help("take blocks out of the task"));
    }
    let listed = pictured.then(|| beside::list(source, path)).transpose()?;
    let template = if causal { chat_template(form, tokenizer)? } else { None };
    let (before, after) = tokenizer.frame()?;
    let start = if pictured { tokenizer.start()? } else { None };
    let end = tokenizer.special_id("eos_token").filter(|_| causal);
    let tokens = TokensOf { mask: tokenizer.special_id("mask_token"), vocabulary: vocabulary as u32, pairs };
    let mut reading = Reading {
        encoder: Encoder { tokenizer, template: template.as_ref(), score: form.score, before, start, end },
        after,
        causal,
        uncut: tokenizer.uncut()?,
        signs: tokenizer.word_signs(),
        writer: Writer::of_language(source, tokens, limits),
        path,
        rest: Vec::new(),
        rest_line: 1,
        no_target: 0,
        equal: 0,
        rows: 0,
        first: None,
        behind: listed.as_ref().map(|listed| listed.rows.iter().map(|row| row.line).collect()),
    };
    let note = match Kind::open(path, source.form)? {
        Kind::Text(_) if pairs => return Err(no_pairs(path, None, "is a text")),
        Kind::Rows(objects) if pairs => reading.pairs(objects, source)?,
        Kind::Text(lines) => reading.text(lines, form.blocks.unwrap_or(source.form.format != Some(Format::Lines)))?,
        Kind::Rows(objects) => reading.objects(objects, source, form.blocks)?,
    };
    let Reading { writer, no_target, equal, rows, encoder, first, .. } = reading;
    if rows == 0 {
        return Err(data_error(path, None, "is empty").with_help("it needs at least one row with a text"));
    }
    if no_target == rows {
        let longest = tokenizer.max_tokens();
        return Err(data_error(
            path,
            None,
            format!("of no row a token that counts is within the longest length, {longest} tokens"),
        )
        .with_help("raise max_tokens in the task: what stands before the answers fills it"));
    }
    let mut notes = vec![format!("{}: {note}", file_name(path))];
    if pictured {
        notes.push(format!(
            "{}: each text stands behind its picture, and what is learned begins with its first token",
            file_name(path)
        ));
    }
    if let Some(template) = encoder.template {
        notes.push(format!("conversations are written by the chat template of {}", template.origin()));
    }
    if equal > 0 && equal + no_target == rows {
        return Err(data_error(path, None, "has no two answers that differ within the longest length")
            .with_help("a pair has a better and a worse answer: see the rows, and max_tokens in the task"));
    }
    if equal > 0 {
        let (equal, rows) = (count(equal), count(rows));
        notes.push(format!("{}: of {equal} of {rows} rows both answers are the same: left out", file_name(path)));
    }
    if let Some(first) = first {
        notes.push(format!("the first row as the model sees it, what is learned between ⟦ and ⟧: {first}"));
    }
    if no_target > 0 {
        let what = if pairs {
            "an answer is cut off: left out"
        } else {
            "all tokens that count are cut off; nothing is learned of them"
        };
        let (cut, rows) = (count(no_target), count(rows));
        notes.push(format!("{}: of {cut} of {rows} rows {what} (max_tokens)", file_name(path)));
    }
    let (pictures, of_pictures) = listed.map(|listed| (listed.pictures, listed.notes)).unzip();
    notes.extend(of_pictures.into_iter().flatten());
    Ok((writer.finish(notes)?, pictures))
}

/// Whether a text may be cut before this line with no other tokens for it: where byte pairs are sought in pieces of it, one begins there. A
/// piece takes one space before a word, and of several spaces and line breaks all but the last.
fn ends_before(text: &str, line: &str) -> bool {
    let spaces = line.len() - line.trim_start().len();
    let word = spaces < line.len();
    word && ((spaces == 1 && line.starts_with(' '))
        || (spaces == 0 && !text.trim_end_matches('\n').ends_with(char::is_whitespace) && !text.ends_with("\n\n")))
}

struct Reading<'a> {
    encoder: Encoder<'a>,
    /// What stands after a text.
    after: Vec<u32>,
    causal: bool,
    /// The tokenizer for texts that are cut into blocks.
    uncut: Tokenizer,
    signs: WordSigns<'a>,
    writer: Writer,
    path: &'a Path,
    /// Tokens that wait for more, to be a block.
    rest: Vec<u32>,
    rest_line: u64,
    no_target: usize,
    /// Pairs whose answers are the same.
    equal: usize,
    rows: usize,
    /// The first row as the model sees it.
    first: Option<String>,
    /// The lines of the rows that count, where each stands behind a picture: those whose pictures are good.
    behind: Option<VecDeque<u64>>,
}

impl Reading<'_> {
    /// A file of text: a row for each line, or blocks.
    fn text(&mut self, mut lines: Lines, blocks: bool) -> Result<String> {
        if !blocks {
            while let Some((line, text)) = lines.next_line(self.path)? {
                let said = [(line, Said::Text(text.to_owned()))];
                self.rows_of(&said)?;
            }
            return Ok("a text a line".into());
        }
        let (mut piece, mut first) = (String::new(), 1);
        while let Some((line, text)) = lines.any_line(self.path)? {
            if piece.is_empty() {
                first = line;
            }
            if piece.len() >= PIECE && ends_before(&piece, text) {
                self.join(first, &std::mem::take(&mut piece))?;
                first = line;
            }
            piece.push_str(text);
            piece.push('\n');
        }
        self.join(first, &piece)?;
        self.last_block()?;
        Ok(format!("one text, in blocks of {} tokens", self.encoder.tokenizer.max_tokens()))
    }

    /// Rows, by the form of the first.
    fn objects(&mut self, mut objects: Objects, source: &Source<'_>, blocks: Option<bool>) -> Result<String> {
        let columns = &source.form.columns;
        let (mut form, mut joins) = (None, false);
        loop {
            let mut rows = objects.next_rows(BLOCK)?;
            let Some((line, first)) = rows.first() else { break };
            if form.is_none() {
                let found = row_form(self.path, *line, first, columns)?;
                let is_text = matches!(found, RowForm::Text { .. });
                if !self.causal && !is_text {
                    return Err(data_error(
                        self.path,
                        None,
                        "holds answers, and a model that fills masked places learns texts",
                    )
                    .with_help("name the column of the text: columns = { text = \"...\" }"));
                }
                joins = is_text && blocks.unwrap_or(self.behind.is_none());
                form = Some(found);
            }
            let Some(form) = &form else { break };
            if let Some(behind) = &mut self.behind {
                rows.retain(|(line, _)| {
                    let counts = behind.front() == Some(line);
                    if counts {
                        behind.pop_front();
                    }
                    counts
                });
            }
            let read = |(line, row): &(u64, Map<String, Value>)| match form.read(row) {
                Ok(said) => Ok((*line, said)),
                Err(wrong) => Err(self.wrong(*line, wrong)),
            };
            let said = rows.iter().map(read).collect::<Result<Vec<_>>>()?;
            if joins {
                for (line, said) in &said {
                    if let Said::Text(text) = said {
                        self.join(*line, text)?;
                        // A text ends, and the next begins.
                        self.rest.extend(if self.causal { self.encoder.end } else { None });
                    }
                }
            } else {
                self.rows_of(&said)?;
            }
        }
        if joins {
            self.last_block()?;
        }
        let what = form.map_or_else(String::new, |form| form.describe());
        Ok(if joins { format!("{what}, in blocks of {} tokens", self.encoder.tokenizer.max_tokens()) } else { what })
    }

    /// Pairs of answers, by the form of the first. Those that cannot teach which is the better one are left out.
    fn pairs(&mut self, mut objects: Objects, source: &Source<'_>) -> Result<String> {
        let mut form = None;
        loop {
            let rows = objects.next_rows(BLOCK)?;
            let Some((line, first)) = rows.first() else { break };
            let form = match &mut form {
                Some(form) => form,
                None => {
                    let found = PairForm::of(first.keys().map(String::as_str), &source.form.columns);
                    let there = || first.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
                    let found =
                        found.ok_or_else(|| no_pairs(self.path, Some(*line), &format!("this row has {}", there())))?;
                    form.insert(found)
                }
            };
            let encode = |(_, row): &(u64, Map<String, Value>)| -> std::result::Result<_, Wrong> {
                let Pair { chosen, rejected, shared } = form.read(row)?;
                Ok((self.encoder.encode(&chosen, shared)?, self.encoder.encode(&rejected, shared)?))
            };
            let encoded: Vec<_> = rows.par_iter().with_min_len(16).map(encode).collect();
            for ((line, _), encoded) in rows.iter().zip(encoded) {
                let (chosen, rejected) = encoded.map_err(|wrong| self.wrong(*line, wrong))?;
                self.push_pair(*line, chosen, &rejected)?;
            }
        }
        Ok(form.map_or_else(String::new, |form| form.describe()))
    }

    fn push_pair(&mut self, line: u64, chosen: Encoded, rejected: &Encoded) -> Result<()> {
        self.rows += 1;
        if chosen.no_target || rejected.no_target {
            self.no_target += 1;
            return Ok(());
        }
        if chosen.ids == rejected.ids {
            self.equal += 1;
            return Ok(());
        }
        if self.first.is_none() {
            self.first = Some(format!("{}; and rejected: {}", self.seen(&chosen)?, self.seen(rejected)?));
        }
        let (first, truncated) = (chosen.ids.len(), chosen.truncated || rejected.truncated);
        let Encoded { mut ids, mut marks, .. } = chosen;
        ids.extend(&rejected.ids);
        marks.extend(&rejected.marks);
        self.writer.push_language(self.path, line, &ids, &marks, (first, truncated))
    }

    fn wrong(&self, line: u64, Wrong { message, help }: Wrong) -> Error {
        data_error(self.path, Some(line), message).with_help(help)
    }

    /// Writes rows, each an example.
    fn rows_of(&mut self, said: &[(u64, Said)]) -> Result<()> {
        let encoded: Vec<_> = said.par_iter().with_min_len(16).map(|(_, said)| self.encode(said)).collect();
        for ((line, _), encoded) in said.iter().zip(encoded) {
            let encoded = encoded.map_err(|wrong| self.wrong(*line, wrong))?;
            self.push(*line, &encoded)?;
        }
        Ok(())
    }

    fn encode(&self, said: &Said) -> std::result::Result<Encoded, Wrong> {
        match said {
            Said::Text(text) if !self.causal => {
                let failed = |error: Error| Wrong { message: error.to_string(), help: "take the row out".into() };
                let tokens = self.encoder.tokenizer.encode(&[(text, None)]).map_err(failed)?.pop();
                let (ids, truncated) = tokens.map_or_else(Default::default, |tokens| (tokens.ids, tokens.truncated));
                Ok(self.masked(ids, truncated))
            }
            said => self.encoder.encode(said, 0),
        }
    }

    /// A text of which tokens will be masked: marks are the numbers of words.
    fn masked(&self, ids: Vec<u32>, truncated: bool) -> Encoded {
        let marks = self.signs.numbers(&ids);
        let no_target = marks.iter().all(|&mark| mark == UNCOUNTED);
        Encoded { ids, marks, truncated, no_target }
    }

    /// Takes a text as a part of what is cut into blocks.
    fn join(&mut self, line: u64, text: &str) -> Result<()> {
        let (longest, around) = (
            self.encoder.tokenizer.max_tokens(),
            if self.causal { 0 } else { self.encoder.before.len() + self.after.len() },
        );
        let room = longest.saturating_sub(around).max(1);
        if self.rest.is_empty() {
            self.rest_line = line;
        }
        self.rest.extend(self.uncut.ids(text)?);
        let all = std::mem::take(&mut self.rest);
        let whole = all.len() / room * room;
        for block in all[..whole].chunks(room) {
            self.block(block)?;
            self.rest_line = line;
        }
        self.rest = all[whole..].to_vec();
        Ok(())
    }

    fn block(&mut self, ids: &[u32]) -> Result<()> {
        let encoded = if self.causal {
            let mut marks = vec![0; ids.len()];
            marks[0] = UNCOUNTED;
            Encoded { no_target: ids.len() < 2, ids: ids.to_vec(), marks, truncated: false }
        } else {
            self.masked([&self.encoder.before, ids, &self.after].concat(), false)
        };
        self.push(self.rest_line, &encoded)
    }

    /// What is left at the end, if there is something to learn of it.
    fn last_block(&mut self) -> Result<()> {
        let rest = std::mem::take(&mut self.rest);
        if rest.len() > 1 { self.block(&rest) } else { Ok(()) }
    }

    /// A row's text with marks around what is learned, shortened in the middle.
    fn seen(&self, Encoded { ids, marks, .. }: &Encoded) -> Result<String> {
        let mut text = String::new();
        let mut start = 0;
        while start < ids.len() {
            let learned = marks[start] != UNCOUNTED;
            let len = marks[start..].iter().take_while(|&&mark| (mark != UNCOUNTED) == learned).count();
            let part = self.encoder.tokenizer.text_with_special(&ids[start..start + len])?;
            text += &if learned { format!("⟦{part}⟧") } else { part };
            start += len;
        }
        let text = text.replace('\n', "⏎");
        let letters: Vec<char> = text.chars().collect();
        if letters.len() <= 2 * SEEN {
            return Ok(text);
        }
        let part = |letters: &[char]| letters.iter().collect::<String>();
        Ok(format!("{} … {}", part(&letters[..SEEN]), part(&letters[letters.len() - SEEN..])))
    }

    fn push(&mut self, line: u64, encoded: &Encoded) -> Result<()> {
        self.rows += 1;
        if self.causal && self.first.is_none() {
            self.first = Some(self.seen(encoded)?);
        }
        self.no_target += usize::from(encoded.no_target);
        self.writer.push_language(self.path, line, &encoded.ids, &encoded.marks, (0, encoded.truncated))
    }
}
