//! Which column of a file is what.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::data::row::column_number;
use crate::data::{Column, Peek};

/// Names that columns of texts go by, the likeliest first.
const TEXTS: [&str; 18] = [
    "text",
    "sentence",
    "review",
    "content",
    "comment",
    "tweet",
    "message",
    "question",
    "body",
    "title",
    "headline",
    "utterance",
    "document",
    "abstract",
    "description",
    "words",
    "tokens",
    "query",
];
/// Pairs of texts.
const PAIRS: [(&str, &str); 6] = [
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text", "text_pair"),
    ("question", "sentence"),
    ("query", "passage"),
];
/// Names that columns of labels go by, the likeliest first.
const LABELS: [&str; 20] = [
    "label",
    "labels",
    "ner_tags",
    "tags",
    "category",
    "class",
    "target",
    "sentiment",
    "intent",
    "topic",
    "emotion",
    "polarity",
    "gold",
    "stars",
    "rating",
    "score",
    "similarity",
    "v",
    "y",
    "outcome",
];
const IDS: [&str; 8] = ["id", "idx", "guid", "uid", "index", "row_id", "file", "file_name"];
const SPLITS: [&str; 5] = ["split", "part", "partition", "set", "fold"];
/// Words that stand in a column that divides a file.
const TRAIN: [&str; 3] = ["train", "training", "trn"];
const VALIDATION: [&str; 5] = ["validation", "valid", "val", "dev", "development"];
const TEST: [&str; 3] = ["test", "tst", "eval"];

/// What values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Lists, of words, of their labels, or of any number of labels.
    Lists,
    /// Numbers all.
    Numbers,
    /// Few values that come again.
    Classes,
    /// Anything else: texts, names, identifiers.
    Texts,
}

/// A column as it looks.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) name: &'a str,
    pub(super) look: Look,
    /// Mean number of characters.
    pub(super) length: f64,
    /// How often each value stands there, the most frequent first.
    pub(super) counts: Vec<(String, usize)>,
    rows: usize,
}

impl<'a> Seen<'a> {
    fn of(column: &'a Column) -> Self {
        let texts: Vec<String> = column.values.iter().map(text).collect();
        let mut counts = BTreeMap::<&str, usize>::new();
        texts
            .iter()
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
            .for_each(|value| *counts.entry(value).or_default() += 1);
        let mut counts: Vec<(String, usize)> =
            counts.into_iter().map(|(value, count)| (value.to_owned(), count)).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let rows = texts.len();
        let look = if column.values.iter().any(Value::is_array) {
            Look::Lists
        } else if !counts.is_empty() && counts.iter().all(|(value, _)| value.parse::<f64>().is_ok_and(f64::is_finite)) {
            Look::Numbers
        } else if 2 * counts.len() <= rows {
            Look::Classes
        } else {
            Look::Texts
        };
        let length = texts.iter().map(|value| value.chars().count()).sum::<usize>() as f64 / rows.max(1) as f64;
        Self { name: &column.name, look, length, counts, rows }
    }

    /// Whether its values are whole numbers, and few: classes by number.
    pub(super) fn few_whole_numbers(&self) -> bool {
        let whole = |(value, _): &(String, usize)| value.parse::<f64>().is_ok_and(|number| number.fract() == 0.0);
        self.look == Look::Numbers
            && self.counts.len() <= 20
            && 2 * self.counts.len() <= self.rows
            && self.counts.iter().all(whole)
    }

    fn could_be_label(&self) -> bool {
        matches!(self.look, Look::Classes | Look::Numbers) && self.counts.len() > 1
    }

    /// Whether it tells rows apart: by its name, or because it counts them where columns have no names.
    fn is_id(&self) -> bool {
        let whole = |(value, _): &(String, usize)| value.parse::<u64>().is_ok();
        self.counts.len() == self.rows
            && (self.is_named(&IDS) || column_number(self.name).is_some() && self.counts.iter().all(whole))
    }

    fn is_named(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.name.eq_ignore_ascii_case(name))
    }
}

/// A value as text; lists as their number of elements would be no use, so they are empty.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
        other => other.to_string(),
    }
}

/// A column that was chosen, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) name: String,
    pub(super) why: String,
    /// Others that it could be as well; there is none where nothing is in doubt.
    pub(super) others: Vec<String>,
}

/// What the columns of a file are.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) text: Chosen,
    pub(super) pair: Option<Chosen>,
    pub(super) label: Chosen,
    pub(super) id: Option<Chosen>,
    pub(super) split: Option<Split>,
}

/// A column that says which part a row belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) column: String,
    pub(super) train: String,
    pub(super) validation: Option<String>,
    pub(super) test: Option<String>,
}

/// The columns as they look.
pub(super) fn seen(peek: &Peek) -> Vec<Seen<'_>> {
    peek.columns.iter().map(Seen::of).collect()
}

/// What each column is; otherwise what is missing.
pub(super) fn choose(columns: &[Seen<'_>]) -> Result<Choice, String> {
    let split = columns.iter().find_map(split);
    let divides = |column: &Seen<'_>| split.as_ref().is_some_and(|split: &Split| split.column == column.name);
    let free: Vec<&Seen<'_>> = columns.iter().filter(|column| !divides(column)).collect();

    let pair = PAIRS.iter().find_map(|(first, second)| {
        let find = |name: &str| free.iter().find(|column| column.is_named(&[name]) && column.look != Look::Lists);
        Some((*find(first)?, *find(second)?))
    });
    let (text, pair) = match pair {
        Some((first, second)) => {
            let chosen = |column: &Seen<'_>| Chosen {
                name: column.name.into(),
                why: "a pair of texts by their names".into(),
                others: Vec::new(),
            };
            (chosen(first), Some(chosen(second)))
        }
        None => (the_text(&free)?, None),
    };
    let taken =
        |column: &&&Seen<'_>| column.name != text.name && pair.as_ref().is_none_or(|pair| pair.name != column.name);
    let rest: Vec<&Seen<'_>> = free.iter().filter(taken).copied().collect();
    let lists = free.iter().any(|column| column.name == text.name && column.look == Look::Lists);
    let label = the_label(&rest, lists)?;
    let id = rest.iter().find(|column| column.is_id() && column.name != label.name);
    let id =
        id.map(|column| Chosen { name: column.name.into(), why: "another in each row".into(), others: Vec::new() });
    Ok(Choice { text, pair, label, id, split })
}

/// By its name; otherwise the column with the longest texts.
fn the_text(columns: &[&Seen<'_>]) -> Result<Chosen, String> {
    let could = |column: &&&Seen<'_>| matches!(column.look, Look::Texts | Look::Classes | Look::Lists);
    let named = TEXTS.iter().find_map(|name| columns.iter().filter(could).find(|column| column.is_named(&[name])));
    if let Some(column) = named {
        return Ok(Chosen { name: column.name.into(), why: "by its name".into(), others: Vec::new() });
    }
    let mut found: Vec<&&Seen<'_>> = columns.iter().filter(could).collect();
    found.sort_by(|a, b| b.length.total_cmp(&a.length));
    let Some(first) = found.first() else { return Err("no column holds texts".into()) };
    let others = found.iter().skip(1).filter(|other| 2.0 * other.length > first.length && other.look == Look::Texts);
    Ok(Chosen {
        name: first.name.into(),
        why: format!("its texts are the longest, {:.0} characters in the mean", first.length),
        others: others.map(|column| column.name.to_owned()).collect(),
    })
}

/// By its name; otherwise the column with the fewest values that come again.
fn the_label(columns: &[&Seen<'_>], lists: bool) -> Result<Chosen, String> {
    // Of whole texts a list may be one of labels, which nothing but its name tells from other lists.
    let could = |column: &&&Seen<'_>| column.look == Look::Lists || !lists && column.could_be_label();
    let named = LABELS.iter().find_map(|name| columns.iter().filter(could).find(|column| column.is_named(&[name])));
    let mut found: Vec<&&Seen<'_>> =
        columns.iter().filter(could).filter(|column| lists || column.look != Look::Lists).collect();
    found.sort_by_key(|column| column.counts.len());
    let others = |chosen: &str| {
        let others = found.iter().filter(|column| column.name != chosen && !column.is_named(&IDS) && !column.is_id());
        others.map(|column| column.name.to_owned()).collect()
    };
    match (named, found.first()) {
        (Some(column), _) => Ok(Chosen { name: column.name.into(), why: "by its name".into(), others: Vec::new() }),
        (None, Some(column)) => {
            let why = format!("{} values that come again", column.counts.len());
            Ok(Chosen { name: column.name.into(), why, others: others(column.name) })
        }
        (None, None) => Err("no column holds labels: few values that come again, or numbers".into()),
    }
}

/// Whether a column divides the file into parts.
fn split(column: &Seen<'_>) -> Option<Split> {
    if !column.is_named(&SPLITS) || column.counts.len() > 4 {
        return None;
    }
    let values: BTreeSet<&str> = column.counts.iter().map(|(value, _)| value.as_str()).collect();
    let of = |words: &[&str]| {
        values
            .iter()
            .find(|value| words.iter().any(|word| value.eq_ignore_ascii_case(word)))
            .map(|value| (*value).to_owned())
    };
    let (validation, test) = (of(&VALIDATION), of(&TEST));
    (validation.is_some() || test.is_some()).then_some(())?;
    Some(Split { column: column.name.into(), train: of(&TRAIN)?, validation, test })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// As the tweets of VADER are published: a number, a value, a text, and no names.
    #[test]
    fn a_column_that_counts_the_rows_is_their_id_and_no_label() {
        let column = |name: &str, of: &dyn Fn(usize) -> String| Column {
            name: name.into(),
            values: (0..40).map(|row| Value::String(of(row))).collect(),
        };
        let columns = [
            column("1", &|row| (row + 1).to_string()),
            column("2", &|row| format!("{:.1}", (row % 25) as f64 / 10.0)),
            column("3", &|row| format!("a text that is number {row}")),
        ];
        let seen: Vec<Seen<'_>> = columns.iter().map(Seen::of).collect();
        let choice = choose(&seen).unwrap();
        assert_eq!(choice.id.unwrap().name, "1");
        assert_eq!((choice.text.name.as_str(), choice.label.name.as_str()), ("3", "2"));
        assert_eq!(choice.label.others, Vec::<String>::new());
    }
}
