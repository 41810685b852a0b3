//! `predictions.csv` of a run folder: what the saved model predicts for every test example, in their order. Where a task has a class
//! for each word, a row is a word that counts.
//!
//! Columns: `task`, `target` and `prediction`, names for classes, joined where an example has any number of them, and numbers for values; `example`, its number from 1 among the examples of
//! its file; `line`, where it begins there, of examples that are a share or a fold; `id`, where the run file names a column of them; `probability` of the predicted class; for words `word`, its number from 1 in the
//! example; `text`, that of the example or the word, and `text_pair`. With `run.probabilities` a column `p(CLASS)` for each class. A
//! mask's `target` is the number of pixels of each class, in the order of the classes, and its `prediction` of each class how many of them
//! are predicted as it and how many of all are: `60/70 0/0 15/30`. Of a pair of answers `target` is how many of their tokens count, and
//! `prediction` the rewards of the better and of the worse one: `0.5 -0.25`. A word that the longest length cuts off has no probability. Words of one example are not independent of each other: they have the
//! same `example`. CSV, because a class may be named by any text, a tab or a new line in it, and the `.tsv` of data files has no
//! quoting.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use serde::Deserialize;

use super::evaluate::{Evaluation, Outcome};
use super::masks;
use super::worst::{Instead, TEXT, Worst, least_expected};
use crate::data::Dataset;
use crate::report::metrics::Probabilities;
use crate::report::metrics::matches::Matches;
use crate::report::text::shortened;
use crate::run::state::folder::{cannot_write, write_file_atomically};
use crate::{Error, Result};

/// The file's name.
pub const FILE: &str = "predictions.csv";
/// The file's name where the examples are validation examples, because there are no test examples.
pub const VALIDATION: &str = "validation_predictions.csv";

/// One test example, or one of its words, as it is read again.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Row {
    /// The task's name.
    pub task: String,
    /// The true class, or the true value.
    pub target: String,
    /// The predicted one.
    pub prediction: String,
    /// The example's number in its file, from 1.
    pub example: usize,
    /// What it is called in its file, where it is called something.
    pub id: Option<String>,
    /// The probability of the predicted class, where it has one.
    pub probability: Option<f32>,
    /// The word's number in the example, where it is a word.
    pub word: Option<usize>,
    /// Probabilities of the classes, where they are there.
    #[serde(skip)]
    pub probabilities: Vec<f64>,
}

/// A task's predictions beside its examples.
pub struct Predicted<'a> {
    /// The task's name.
    pub task: &'a str,
    /// Names of the classes in index order.
    pub labels: &'a [String],
    /// What stands between the classes of an example, where it has any number of them.
    pub separator: &'a str,
    /// What the model predicts.
    pub evaluation: &'a Evaluation,
    /// The examples; where it has them, with their texts.
    pub data: Option<&'a Dataset>,
}

/// Longer side of a picture on a page, in pixels.
const THUMBNAIL: usize = 200;

/// The column of a class's probability.
fn column(label: &str) -> String {
    format!("p({label})")
}

/// Writes the predictions of tasks to a file, whole or not at all; with `all` the probabilities of all classes. Gives of each task the
/// examples that it is worst at.
///
/// # Errors
/// Where it cannot be written, or examples cannot be read.
pub fn write(path: &Path, tasks: &[Predicted<'_>], all: bool) -> Result<Vec<Vec<Worst>>> {
    let columns = Columns::of(tasks, all)?;
    let mut worst = Vec::new();
    write_file_atomically(path, |file| {
        let mut rows = csv::Writer::from_writer(BufWriter::new(File::create(file).map_err(cannot_write(path))?));
        let failed = |error: csv::Error| cannot_write(path)(error.into());
        rows.write_record(columns.names()).map_err(failed)?;
        for task in tasks {
            let of_task = task.each(|cells| rows.write_record(columns.cells(cells)).map_err(failed))?;
            worst.push(of_task);
        }
        rows.flush().map_err(cannot_write(path))
    })?;
    Ok(worst)
}

/// Which columns a file has.
struct Columns {
    lines: bool,
    ids: bool,
    words: bool,
    texts: bool,
    pairs: bool,
    /// Names of the classes whose probabilities are written.
    classes: Vec<String>,
    probability: bool,
}

/// What a row is made of.
#[derive(Default)]
struct Cells<'a> {
    task: &'a str,
    labels: &'a [String],
    target: String,
    prediction: String,
    example: usize,
    line: Option<u64>,
    id: Option<&'a str>,
    probability: Option<f32>,
    probabilities: &'a [f32],
    word: Option<usize>,
    text: &'a str,
    pair: &'a str,
}

impl Columns {
    fn of(tasks: &[Predicted<'_>], all: bool) -> Result<Self> {
        let classes = |task: &Predicted<'_>| matches!(task.evaluation.outcome, Outcome::Classes(_));
        let named = |task: &Predicted<'_>| matches!(task.evaluation.outcome, Outcome::Classes(_) | Outcome::Labels(_));
        let mut names: Vec<String> = Vec::new();
        for label in tasks.iter().filter(|task| all && named(task)).flat_map(|task| task.labels) {
            if !names.contains(label) {
                names.push(label.clone());
            }
        }
        let (mut lines, mut ids, mut texts, mut pairs) = (false, false, false, false);
        for data in tasks.iter().filter_map(|task| task.data.filter(|data| !data.is_empty())) {
            let first = data.texts(0)?;
            texts |= !first.is_empty();
            pairs |= !data.of_words() && first.len() > 1;
            lines |= data.is_part() && data.place(0)?.1.is_some();
            ids |= data.ids()?.iter().any(Option::is_some);
        }
        let words = tasks.iter().any(|task| task.counted().is_some());
        Ok(Self { lines, ids, words, texts, pairs, classes: names, probability: tasks.iter().any(classes) })
    }

    fn names(&self) -> Vec<String> {
        let some = [
            (true, "task"),
            (true, "target"),
            (true, "prediction"),
            (true, "example"),
            (self.lines, "line"),
            (self.ids, "id"),
            (self.probability, "probability"),
            (self.words, "word"),
            (self.texts, "text"),
            (self.pairs, "text_pair"),
        ];
        let names = some.into_iter().filter(|(there, _)| *there).map(|(_, name)| name.to_owned());
        names.chain(self.classes.iter().map(|label| column(label))).collect()
    }

    fn cells(&self, row: Cells<'_>) -> Vec<String> {
        let said = |value: Option<String>| value.unwrap_or_default();
        let some = [
            (true, row.task.to_owned()),
            (true, row.target),
            (true, row.prediction),
            (true, row.example.to_string()),
            (self.lines, said(row.line.map(|line| line.to_string()))),
            (self.ids, row.id.unwrap_or_default().to_owned()),
            (self.probability, said(row.probability.map(|p| p.to_string()))),
            (self.words, said(row.word.map(|word| word.to_string()))),
            (self.texts, row.text.to_owned()),
            (self.pairs, row.pair.to_owned()),
        ];
        let of = |label: &String| {
            let place = row.labels.iter().position(|known| known == label)?;
            row.probabilities.get(place).map(f32::to_string)
        };
        let cells = some.into_iter().filter(|(there, _)| *there).map(|(_, cell)| cell);
        cells.chain(self.classes.iter().map(|label| said(of(label)))).collect()
    }
}

impl Predicted<'_> {
    fn counted(&self) -> Option<&[usize]> {
        match &self.evaluation.outcome {
            Outcome::Classes(classes) => classes.counted.as_deref(),
            Outcome::Labels(_)
            | Outcome::Masks(_)
            | Outcome::Tokens(_)
            | Outcome::Preferences(_)
            | Outcome::Matches(_)
            | Outcome::Values { .. } => None,
        }
    }

    /// Hands over every row, and gives the worst examples.
    fn each(&self, mut row: impl FnMut(Cells<'_>) -> Result<()>) -> Result<Vec<Worst>> {
        let (task, labels, evaluation) = (self.task, self.labels, self.evaluation);
        let mut worst = least_expected(evaluation);
        let mut keep = |place: usize, cells: &Cells<'_>, context: &str| {
            if let Some(worst) = worst.iter_mut().find(|worst| worst.place == place) {
                worst.example = cells.example;
                worst.target.clone_from(&cells.target);
                worst.prediction.clone_from(&cells.prediction);
                let own = if cells.text.is_empty() { cells.id.unwrap_or_default() } else { cells.text };
                worst.set_text(if context.is_empty() { own } else { context }, cells.pair);
                worst.word = cells.word.map(|_| cells.text.to_owned());
            }
        };
        match &evaluation.outcome {
            Outcome::Values { targets, predictions } => {
                for (i, (target, prediction)) in targets.iter().zip(predictions).enumerate() {
                    let found = self.example(i)?;
                    let cells = Cells {
                        task,
                        labels,
                        target: target.to_string(),
                        prediction: prediction.to_string(),
                        ..found.cells()
                    };
                    keep(i, &cells, "");
                    row(cells)?;
                }
            }
            // The number of tokens that count, and the mean loss of one.
            Outcome::Tokens(rows) => {
                for (i, counted) in rows.iter().enumerate() {
                    let example = self.example(i)?;
                    let loss = counted.loss / counted.tokens as f64;
                    let cells = Cells {
                        task,
                        labels,
                        target: counted.tokens.to_string(),
                        prediction: loss.to_string(),
                        ..example.cells()
                    };
                    keep(i, &cells, "");
                    row(cells)?;
                }
            }
            Outcome::Matches(found) => {
                for (i, ranks) in found.ranks.iter().enumerate() {
                    let example = self.example(i)?;
                    let cells = Cells { task, labels, prediction: ranks.cell(), ..example.cells() };
                    keep(i, &cells, "");
                    row(cells)?;
                }
            }
            Outcome::Preferences(rows) => {
                for (i, pair) in rows.iter().enumerate() {
                    let example = self.example(i)?;
                    let (target, prediction) = (pair.tokens.to_string(), pair.cell());
                    let cells = Cells { task, labels, target, prediction, ..example.cells() };
                    keep(i, &cells, "");
                    row(cells)?;
                }
            }
            Outcome::Masks(found) => {
                for (i, classes) in found.examples.iter().enumerate() {
                    let example = self.example(i)?;
                    let cells = Cells {
                        task,
                        labels,
                        target: masks::target(classes),
                        prediction: masks::prediction(classes),
                        ..example.cells()
                    };
                    keep(i, &cells, "");
                    row(cells)?;
                }
            }
            Outcome::Labels(found) => {
                let names = |classes: &[u32]| {
                    let name = |&class: &u32| labels.get(class as usize).map_or("", String::as_str);
                    classes.iter().map(name).collect::<Vec<_>>().join(self.separator)
                };
                let mut all = found.probabilities.iter().flat_map(Probabilities::rows);
                for (i, (target, prediction)) in found.targets.iter().zip(&found.predictions).enumerate() {
                    let example = self.example(i)?;
                    let cells = Cells {
                        task,
                        labels,
                        target: names(target),
                        prediction: names(prediction),
                        probabilities: all.next().unwrap_or_default(),
                        ..example.cells()
                    };
                    keep(i, &cells, "");
                    row(cells)?;
                }
            }
            Outcome::Classes(found) => {
                let name = |class: u32| labels.get(class as usize).cloned().unwrap_or_else(|| class.to_string());
                let mut all = found.probabilities.iter().flat_map(Probabilities::rows);
                let examples = found.counted.as_ref().map_or(found.targets.len(), Vec::len);
                let mut place = 0;
                for i in 0..examples {
                    let example = self.example(i)?;
                    let context = if found.counted.is_some() { example.texts.join(" ") } else { String::new() };
                    let words = match &found.counted {
                        Some(counted) => self.words(i, counted[i])?.into_iter().map(Some).collect(),
                        None => vec![None],
                    };
                    for word in words {
                        let probability = found.confidences.get(place).copied().flatten();
                        let is_cut = found.confidences.get(place) == Some(&None);
                        let mut cells = Cells {
                            task,
                            labels,
                            target: name(found.targets[place]),
                            prediction: name(found.predictions[place]),
                            probability,
                            probabilities: if is_cut { &[] } else { all.next().unwrap_or_default() },
                            ..example.cells()
                        };
                        if let Some(word) = word {
                            let text = example.texts.get(word).map_or("", String::as_str);
                            cells = Cells { word: Some(word + 1), text, pair: "", ..cells };
                        }
                        keep(place, &cells, &context);
                        row(cells)?;
                        place += 1;
                    }
                }
            }
        }
        if let Some(data) = self.data.filter(|data| data.of_pictures()) {
            for worst in &mut worst {
                worst.picture = match &evaluation.outcome {
                    Outcome::Masks(found) => found.overlay(data, worst.place, THUMBNAIL)?,
                    _ => data.picture(worst.place as u32)?.map(|picture| picture.thumbnail(THUMBNAIL)),
                };
            }
        }
        if let Outcome::Matches(found) = &evaluation.outcome {
            for worst in &mut worst {
                worst.instead = self.instead(found, worst.place)?;
            }
        }
        Ok(worst)
    }

    /// What is nearer to a side of an example than its other one, in the way in which that is further off.
    fn instead(&self, found: &Matches, place: usize) -> Result<Option<Instead>> {
        let (ranks, Some(nearest)) = (found.ranks[place], found.nearest.get(place)) else { return Ok(None) };
        let forward = ranks.forward >= ranks.backward;
        let (rank, other) = if forward { (ranks.forward, nearest.forward) } else { (ranks.backward, nearest.backward) };
        let Some(other) = other else { return Ok(None) };
        let pictures = self.data.filter(|data| data.of_pictures());
        // Of texts by themselves the second is looked for by the first; a picture is told by the text that belongs to it.
        let column = usize::from(forward && pictures.is_none());
        let text = self.example(other)?.texts.into_iter().nth(column).unwrap_or_default();
        let picture = match pictures.filter(|_| forward) {
            Some(data) => data.picture(other as u32)?.map(|picture| picture.thumbnail(THUMBNAIL)),
            None => None,
        };
        Ok(Some(Instead { forward, rank, text: shortened(&text, TEXT).into_owned(), picture }))
    }

    /// An example by its place.
    fn example(&self, place: usize) -> Result<Example> {
        let row = place as u32;
        let Some(data) = self.data else { return Ok(Example { number: place + 1, ..Example::default() }) };
        let line = if data.is_part() { data.place(row)?.1 } else { None };
        Ok(Example { number: data.number(row) as usize + 1, line, id: data.id(row)?, texts: data.texts(row)? })
    }

    /// The places of the words of an example that are scored, of which there are so many.
    fn words(&self, place: usize, counted: usize) -> Result<Vec<usize>> {
        self.data.map_or_else(|| Ok((0..counted).collect()), |data| data.scored_words(place as u32))
    }
}

/// An example as its file has it.
#[derive(Default)]
struct Example {
    number: usize,
    line: Option<u64>,
    id: Option<String>,
    /// Its text, or both of a pair, or its words.
    texts: Vec<String>,
}

impl Example {
    fn cells(&self) -> Cells<'_> {
        let text = |i: usize| self.texts.get(i).map_or("", String::as_str);
        let (example, line) = (self.number, self.line);
        Cells { example, line, id: self.id.as_deref(), text: text(0), pair: text(1), ..Cells::default() }
    }
}

/// The rows of a task in a file, with the probabilities of these classes where it has them.
///
/// # Errors
/// Where the file is missing or does not read.
pub fn read(path: &Path, task: &str, labels: &[String]) -> Result<Vec<Row>> {
    let unreadable = |error: csv::Error| Error::Data {
        file: path.to_owned(),
        line: error.position().map(csv::Position::line),
        message: error.to_string(),
        help: Some("it is written where a run ends: remove the run's folder and run it again".into()),
    };
    let mut file = csv::Reader::from_path(path).map_err(unreadable)?;
    let header = file.headers().map_err(unreadable)?.clone();
    let place = |label: &String| header.iter().position(|name| name == column(label));
    let places: Vec<usize> = labels.iter().filter_map(place).collect();
    let mut rows = Vec::new();
    for record in file.records() {
        let record = record.map_err(unreadable)?;
        let mut row: Row = record.deserialize(Some(&header)).map_err(unreadable)?;
        if row.task == task {
            let number = |&place: &usize| record.get(place)?.parse().ok();
            if places.len() == labels.len() {
                row.probabilities = places.iter().filter_map(number).collect();
            }
            rows.push(row);
        }
    }
    Ok(rows)
}

#[cfg(test)]
#[path = "predictions_tests.rs"]
mod tests;
