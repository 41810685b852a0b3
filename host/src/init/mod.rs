//! A first run file for a file of examples: what it looks like, what that suggests, and why.

mod columns;
mod common;
mod draft;
mod pictures;

use std::path::Path;

use fthost_plugin_api::{MethodKind, problem_type};
use serde_json::{Value, json};

use crate::data::{Encoding, Naming, PicturesSeen, Tokenizer, peek};
use crate::plugin::{Library, Search};
use crate::report::numbers::percent;
use crate::{Error, Result, hub};
use columns::{Choice, Look, Seen};
use common::{FIRST_RUN, absolute, has_option, held_out_beside, method, stem, told_model};
pub use draft::{Draft, Entry};

/// Rows that are looked at.
const ROWS: usize = 20_000;
/// Where no model is named: small, English, quick to try.
const MODEL: &str = "hf:sentence-transformers/all-MiniLM-L6-v2";
/// Tokens that a word comes to where no tokenizer is here to count.
const TOKENS_A_WORD: f64 = 1.4;

/// Asks a person, who picks one of the choices by its place. Where nobody can be asked the first one is taken.
pub trait Ask {
    /// The place of the answer, and whether anybody gave it.
    ///
    /// # Errors
    /// Where the terminal fails.
    fn ask(&self, question: &str, choices: &[String]) -> Result<(usize, bool)>;
}

/// Writes a run file for the examples of a file. `model` is a folder or a name of the hub.
///
/// # Errors
/// Where the file cannot be read, or has no columns that could be text and label.
pub fn draft(train: &Path, model: Option<&str>, plugins: &[String], ask: &dyn Ask) -> Result<Draft> {
    let mut library = Library::new(Search::from_environment());
    for plugin in plugins {
        library.open(plugin)?;
    }
    if let Some(seen) = PicturesSeen::of(train)? {
        return pictures::draft(train, &seen, model, &mut library);
    }
    let found = peek(train, ROWS)?;
    let mut draft = Draft::new(train, found.rows, found.whole, found.notes.clone());
    let seen = columns::seen(&found);
    let failed = |why: String| {
        let names: Vec<&str> = seen.iter().map(|column| column.name).collect();
        Error::usage(format!("{}: {why}; it has {}", train.display(), names.join(", ")))
            .with_help("name the columns in a run file of your own: columns = { text = \"...\", label = \"...\" }")
    };
    let mut choice = columns::choose(&seen).map_err(failed)?;
    settle(&mut choice, ask)?;

    // [model]
    let (path, why) = told_model(model, MODEL, "no --model was given: a small English one")?;
    draft.section("[model]");
    draft.set("path", path.as_str(), why);

    // [[task]]
    draft.section("[[task]]");
    draft.set("name", stem(train).as_str(), "by the file's name");
    let label = of(&seen, &choice.label.name);
    let (problem, why) = kind(label, found.sentences || of(&seen, &choice.text.name).look == Look::Lists, ask)?;
    let (_, head) = library.serving(MethodKind::TaskHead, problem)?;
    let balance =
        balance(label).filter(|_| problem == problem_type::SINGLE_LABEL && has_option(&head, "class_weights"));
    draft.head(&head.name, &why, balance.as_deref());
    draft.set(
        "train",
        absolute(train)?.as_str(),
        &format!("{}{} rows", if found.whole { "" } else { "more than " }, found.rows),
    );
    if let Some(naming) = found.naming {
        let header = match naming {
            Naming::Yes => true,
            Naming::No => false,
            Naming::Perhaps => {
                let names: Vec<&str> = seen.iter().map(|column| column.name).collect();
                let question =
                    format!("Is the first row of {} ({}) a header or an example?", train.display(), names.join(", "));
                ask.ask(&question, &["a header".into(), "an example".into()])?.0 == 0
            }
        };
        draft.set(
            "header",
            header,
            if header { "its first row names the columns" } else { "its first row is an example" },
        );
    }
    if found.encoding != Encoding::Utf8 {
        draft.set("encoding", json!(found.encoding), "its bytes are no UTF-8");
    }
    draft.columns(&choice, found.sentences);
    held_out(&mut draft, train, &choice)?;
    let texts =
        found.columns.iter().find(|column| column.name == choice.text.name).map_or(&[][..], |column| &column.values);
    let pairs = choice.pair.as_ref().and_then(|pair| found.columns.iter().find(|column| column.name == pair.name));
    let pairs = pairs.map(|column| column.values.as_slice());
    let (longest, why) = longest(texts, pairs, model)?;
    draft.set("max_tokens", longest, &why);

    // How it trains.
    for (kind, section) in [(MethodKind::Strategy, "[[strategy]]"), (MethodKind::Scheduler, "[schedule]")] {
        method(&mut draft, &mut library, kind, section, FIRST_RUN)?;
    }
    draft.section("[train]");
    let batch = if longest > 256 { 8 } else { 16 };
    draft.set("batch_size", batch, &format!("texts of up to {longest} tokens; fthost plan measures the memory"));
    let epochs = match found.rows {
        ..2_000 => 8,
        2_000..10_000 => 4,
        _ => 2,
    };
    draft.set("epochs", epochs, "by the number of rows; the best epoch on the validation examples is kept");
    draft.set("lr", 1e-3, "fthost lr-find looks for a better one");
    Ok(draft)
}

/// Asks about columns that are in doubt.
fn settle(choice: &mut Choice, ask: &dyn Ask) -> Result<()> {
    for (chosen, what) in [(&mut choice.text, "text"), (&mut choice.label, "label")] {
        if chosen.others.is_empty() {
            continue;
        }
        let choices: Vec<String> = std::iter::once(&chosen.name).chain(&chosen.others).cloned().collect();
        let (place, said) = ask.ask(&format!("Which column is the {what}?"), &choices)?;
        chosen.name.clone_from(&choices[place]);
        if said {
            chosen.why = "as you said".into();
        } else {
            chosen.why += &format!("; it could also be {}", choices[1..].join(" or "));
        }
    }
    Ok(())
}

fn of<'a>(columns: &'a [Seen<'a>], name: &str) -> &'a Seen<'a> {
    columns.iter().find(|column| column.name == name).unwrap_or(&columns[0])
}

/// What the labels ask for, and why.
fn kind(label: &Seen<'_>, words: bool, ask: &dyn Ask) -> Result<(&'static str, String)> {
    let count = label.counts.len();
    if words {
        return Ok((problem_type::TOKENS, "each word has a label".into()));
    }
    if label.look == Look::Lists {
        return Ok((problem_type::MULTI_LABEL, format!("`{}` holds lists of labels", label.name)));
    }
    if label.look != Look::Numbers {
        return Ok((problem_type::SINGLE_LABEL, format!("`{}` holds {count} classes", label.name)));
    }
    if !label.few_whole_numbers() {
        return Ok((problem_type::REGRESSION, format!("`{}` holds numbers, {count} different ones", label.name)));
    }
    if count == 2 {
        return Ok((problem_type::SINGLE_LABEL, format!("`{}` holds two whole numbers", label.name)));
    }
    let question = format!("`{}` holds {count} whole numbers. Are they classes, or values on a scale?", label.name);
    let (place, said) = ask.ask(&question, &["classes".into(), "values on a scale".into()])?;
    let why = format!(
        "`{}` holds {count} whole numbers{}",
        label.name,
        if said { ", as you said" } else { "; as values on a scale they would be a head for values'" }
    );
    Ok((if place == 0 { problem_type::SINGLE_LABEL } else { problem_type::REGRESSION }, why))
}

/// Why rare classes should count more, if they should: one class is more than three times as frequent as another.
fn balance(label: &Seen<'_>) -> Option<String> {
    let ((most, many), (least, few)) = (label.counts.first()?, label.counts.last()?);
    (*many > 3 * few && label.counts.len() > 1).then(|| format!("{most:?} stands there {many} times, {least:?} {few}"))
}

/// Where validation and test examples come from: a column, files beside the training file, or shares of it.
fn held_out(draft: &mut Draft, train: &Path, choice: &Choice) -> Result<()> {
    if let Some(split) = &choice.split {
        draft.split(split);
        if split.test.is_none() {
            draft.set("test", 0.2, "no rows are said to be for the test: a share, which training does not see");
        }
        if split.validation.is_none() {
            draft.set("validation", 0.1, "a share, to keep the best model by");
        }
        return Ok(());
    }
    held_out_beside(draft, train)
}

/// The longest length that cuts next to nothing, and why.
fn longest(texts: &[Value], pairs: Option<&[Value]>, model: Option<&str>) -> Result<(usize, String)> {
    const LENGTHS: [usize; 5] = [32, 64, 128, 256, 512];
    let folder = model
        .filter(|model| hub::Name::of_path(Path::new(model)).is_none())
        .map(|model| fthost_models::tokenizer_file(Path::new(model)));
    let tokenizer = folder.filter(|file| file.is_file()).map(|file| Tokenizer::load(&file, usize::MAX)).transpose()?;
    // A few thousand say enough of lengths.
    let some = |values: &[Value]| -> Result<Vec<usize>> {
        values.iter().take(4_000).map(|value| tokens(value, tokenizer.as_ref())).collect()
    };
    let mut lengths = some(texts)?;
    if let Some(pairs) = pairs {
        lengths.iter_mut().zip(some(pairs)?).for_each(|(length, pair)| *length += pair + 1);
    }
    lengths.sort_unstable();
    let at = |share: f64| {
        lengths
            .get(((lengths.len() as f64 * share) as usize).min(lengths.len().saturating_sub(1)))
            .map_or(0, |length| length + 2)
    };
    let how = if tokenizer.is_some() { "" } else { "about " };
    let most = LENGTHS[LENGTHS.len() - 1];
    let Some(long) = LENGTHS.into_iter().find(|&longest| at(0.99) <= longest) else {
        // The tokenizer counts no further than its model reads.
        let cut = lengths.iter().filter(|&&length| length + 2 > most).count();
        let share = percent(cut as f64 / lengths.len().max(1) as f64);
        return Ok((most, format!("{how}{share} of the texts have more than {most} tokens, and are cut to these")));
    };
    Ok((long, format!("99 of 100 texts have up to {how}{} tokens, the longest {how}{}", at(0.99), at(1.0))))
}

fn tokens(value: &Value, tokenizer: Option<&Tokenizer>) -> Result<usize> {
    let words: Vec<&str> = match value {
        Value::Array(words) => words.iter().filter_map(|word| word.as_str()).collect(),
        other => other.as_str().into_iter().collect(),
    };
    match tokenizer {
        Some(tokenizer) => words.into_iter().map(|text| Ok(tokenizer.ids(text)?.len())).sum(),
        None => {
            let words: usize = words.into_iter().map(|text| text.split_whitespace().count()).sum();
            Ok((words as f64 * TOKENS_A_WORD) as usize)
        }
    }
}
