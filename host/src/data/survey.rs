//! What is in a data set: its classes, lengths, repeated texts, and what about them is likely to be a mistake.
//!
//! Examples are the same where the model reads the same: of texts after tokenization, as far as the longest length goes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::dataset::Dataset;
use crate::Result;
use crate::report::numbers::{count, percent};
use crate::report::table::Table;
use crate::report::text::{NAME, line_width, shortened};

/// What is in the examples of a task.
#[derive(Clone, Debug, Serialize)]
pub struct Survey {
    /// The task's name.
    pub task: String,
    /// Sentences about what is likely to be a mistake, or to mislead.
    pub suspicious: Vec<String>,
    /// The training, validation and test examples, as far as there are some.
    pub parts: Vec<PartSurvey>,
    /// The classes, in their order; none where targets are values.
    pub classes: Vec<ClassSurvey>,
}

/// What is in a part of the examples.
#[derive(Clone, Debug, Serialize)]
pub struct PartSurvey {
    /// `training`, `validation` or `test`.
    pub part: String,
    /// Examples.
    pub rows: usize,
    /// Tokens of the shortest, the middle and the longest text, as they are read; none of pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<[usize; 3]>,
    /// Texts that are cut to the longest length.
    pub cut: usize,
    /// Words that are cut off with that, where texts come as words.
    pub cut_words: usize,
    /// Texts without a character.
    pub empty: usize,
    /// Examples that are the same as an earlier one of the part.
    pub repeated: usize,
    /// Examples that are the same as a training example; 0 for these.
    pub in_training: usize,
    /// Classes of an example, in the mean, where it may have any number of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes_each: Option<f64>,
    /// Examples of no class, where there may be some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_none: Option<usize>,
    /// The accuracy of always saying the class that is the most frequent in training; of words where each has a class. `None` for values.
    pub majority: Option<f64>,
}

/// A class.
#[derive(Clone, Debug, Serialize)]
pub struct ClassSurvey {
    /// Its name.
    pub name: String,
    /// Its examples in each part, or words where each has a class.
    pub counts: Vec<u64>,
    /// The beginning of its first text in the training file, or its first word.
    pub first: String,
}

impl ClassSurvey {
    /// Its training examples.
    fn trained(&self) -> u64 {
        self.counts.first().copied().unwrap_or_default()
    }
}

/// The part that others are compared with.
const TRAINING: &str = "training";
/// Characters of a text in a table.
const FIRST: usize = 60;
/// Characters of the longest bar, and about what a number and the gap beside it take.
const BAR: usize = 20;
const NUMBER: usize = 12;
/// Fewest examples of a class that no sentence is about.
const FEW: u64 = 8;
/// Share of one class above which accuracy says little.
const MOST: f64 = 0.8;
/// Share of texts that may be cut, repeated or elsewhere without a sentence.
const SOME: f64 = 0.01;
/// Classes that a sentence names, and characters of a name in it.
const NAMED: usize = 3;
const SHORT: usize = 24;

/// A part's texts: how often each occurs, and with which class first.
type Texts = BTreeMap<u64, (usize, Option<u64>)>;

impl Survey {
    /// Looks at all examples of a task, the training examples first.
    ///
    /// # Errors
    /// Where examples cannot be read back.
    pub fn of(task: &str, parts: &[(&str, &Dataset)]) -> Result<Self> {
        let (mut surveys, mut suspicious, mut training): (Vec<PartSurvey>, Vec<String>, Texts) = Default::default();
        let counts: Vec<Vec<u64>> = parts.iter().map(|(_, data)| data.class_counts()).collect();
        let trained = counts.first().cloned().unwrap_or_default();
        let most = trained.iter().enumerate().max_by_key(|&(class, n)| (*n, std::cmp::Reverse(class)));
        for (i, (name, data)) in parts.iter().enumerate() {
            let (texts, contradicted) = texts(data)?;
            let mut lengths = (0..data.len() as u32).map(|row| data.tokens(row)).collect::<Result<Vec<usize>>>()?;
            lengths.sort_unstable();
            let total: u64 = counts[i].iter().sum();
            let multi = data.is_multi_label();
            let of_none = if multi { Some(none(data)?) } else { None };
            let part = PartSurvey {
                part: (*name).to_owned(),
                rows: data.len(),
                tokens: (!data.of_pictures()).then(|| {
                    [0, lengths.len() / 2, lengths.len().saturating_sub(1)]
                        .map(|place| lengths.get(place).copied().unwrap_or_default())
                }),
                cut: data.truncated(),
                cut_words: data.cut_words(),
                empty: data.empty_texts(),
                repeated: data.len() - texts.len(),
                in_training: texts.iter().filter(|(text, _)| training.contains_key(text)).map(|(_, (n, _))| n).sum(),
                classes_each: multi.then(|| total as f64 / data.len().max(1) as f64),
                of_none,
                majority: most.filter(|_| total > 0 && !multi).map(|(class, _)| counts[i][class] as f64 / total as f64),
            };
            part.suspicions(contradicted, &mut suspicious);
            surveys.push(part);
            if i == 0 {
                training = texts;
            }
        }
        let labels = parts.first().map_or(&[][..], |(_, data)| data.labels());
        let few: Vec<String> = trained
            .iter()
            .zip(labels)
            .filter(|&(&n, _)| n < FEW)
            .map(|(n, label)| format!("{} ({n})", shortened(label, SHORT)))
            .collect();
        if !few.is_empty() {
            let named = few.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
            let more = if few.len() > NAMED { format!(" and {} more", few.len() - NAMED) } else { String::new() };
            let what = if parts.first().is_some_and(|(_, data)| data.of_words()) { "words" } else { "examples" };
            suspicious.push(format!("few training {what} to learn a class from: {named}{more}"));
        }
        if let (Some((class, _)), Some(majority)) = (most, surveys.first().and_then(|part| part.majority))
            && majority > MOST
        {
            let share = 100.0 * majority;
            let (what, by) = match parts.first().is_some_and(|(_, data)| data.of_masks()) {
                true => ("pixels", "mean IoU, not by pixel accuracy"),
                false => ("examples", "macro F1, not by accuracy"),
            };
            suspicious.push(format!(
                "always saying {} is right in {share:.1} % of the training {what}: judge by {by}",
                labels.get(class).map_or("", String::as_str)
            ));
        }
        let classes = labels.iter().enumerate().map(|(class, name)| ClassSurvey {
            name: name.clone(),
            counts: counts.iter().map(|of_part| of_part.get(class).copied().unwrap_or_default()).collect(),
            first: parts.first().and_then(|(_, data)| data.first_text(name)).unwrap_or_default().to_owned(),
        });
        Ok(Self { task: task.to_owned(), suspicious, classes: classes.collect(), parts: surveys })
    }
}

/// Classes that a table shows; the others are few, or many alike.
const SHOWN: usize = 20;

impl Survey {
    /// What is likely to be a mistake, a line each.
    pub fn suspicions(&self) -> String {
        let name = shortened(&self.task, NAME);
        self.suspicious.iter().map(|sentence| format!("{name}: {sentence}\n")).collect()
    }

    /// The beginning of the first text of a class, for a table; empty where it has none.
    pub fn first_text(&self, class: &str) -> Option<std::borrow::Cow<'_, str>> {
        self.classes.iter().find(|known| known.name == class).map(|known| shortened(&known.first, FIRST))
    }

    /// What is counted of each part: the name of the number, and the number of each part.
    pub fn numbers(&self) -> Vec<(&'static str, Vec<String>)> {
        let mut rows = Vec::new();
        let mut row = |what, of: &dyn Fn(&PartSurvey) -> String| rows.push((what, self.parts.iter().map(of).collect()));
        row("examples", &|part| count(part.rows));
        let texts = self.parts.iter().any(|part| part.tokens.is_some());
        let tokens = |part: &PartSurvey| part.tokens.unwrap_or_default();
        if texts {
            row("tokens, median", &|part| count(tokens(part)[1]));
            row("tokens, least to most", &|part| format!("{} to {}", tokens(part)[0], tokens(part)[2]));
            row("texts cut", &|part| of_all(part.cut, part.rows));
        }
        if self.parts.iter().any(|part| part.cut_words > 0) {
            row("words cut", &|part| count(part.cut_words));
        }
        if texts {
            row("empty texts", &|part| of_all(part.empty, part.rows));
        }
        row("repeated", &|part| of_all(part.repeated, part.rows));
        row("in training too", &|part| {
            if part.part == TRAINING { String::new() } else { of_all(part.in_training, part.rows) }
        });
        if self.parts.iter().any(|part| part.classes_each.is_some()) {
            row("classes, mean", &|part| part.classes_each.map_or(String::new(), |mean| format!("{mean:.2}")));
            row("of no class", &|part| part.of_none.map_or(String::new(), |none| of_all(none, part.rows)));
        }
        if self.parts.iter().any(|part| part.majority.is_some()) {
            row("most frequent class", &|part| part.majority.map_or(String::new(), percent));
        }
        rows
    }

    /// As a person reads it: what is suspicious first.
    pub fn to_text(&self) -> String {
        let mut text = self.suspicions();
        if !text.is_empty() {
            text.push('\n');
        }
        let mut table = Table::new().numbers_from(1);
        let name = shortened(&self.task, NAME);
        table.cells(std::iter::once(&*name).chain(self.parts.iter().map(|part| part.part.as_str())));
        for (what, numbers) in self.numbers() {
            table.cells(std::iter::once(what).chain(numbers.iter().map(String::as_str)));
        }
        text += &table.to_text();
        if self.classes.is_empty() {
            return text;
        }
        let parts = self.parts.len();
        // Embedded images have none.
        let shows = self.classes.iter().any(|class| !class.first.is_empty());
        let mut table = Table::new();
        let header = std::iter::once("class")
            .chain(self.parts.iter().map(|part| part.part.as_str()))
            .chain([""])
            .chain(shows.then_some("first example"));
        table.cells(header);
        let mut classes: Vec<&ClassSurvey> = self.classes.iter().collect();
        classes.sort_by_key(|class| std::cmp::Reverse(class.trained()));
        let most = classes.first().map_or(0, |class| class.trained());
        // What names, numbers and bars leave of a line.
        let longest = classes.iter().take(SHOWN).map(|class| class.name.chars().count().min(NAME)).max();
        let room =
            line_width().saturating_sub(longest.unwrap_or_default() + NUMBER * parts + BAR + 4).clamp(SHORT, FIRST);
        for class in classes.iter().take(SHOWN) {
            let (name, first) = (shortened(&class.name, NAME), shortened(&class.first, room));
            let counts: Vec<String> = class.counts.iter().take(parts).map(|&n| count(n as usize)).collect();
            let bar = bar(class.trained(), most);
            let cells = std::iter::once(&*name).chain(counts.iter().map(String::as_str)).chain([bar.as_str()]);
            table.cells(cells.chain(shows.then_some(&*first)));
        }
        text += &format!("\n{}", table.to_text());
        if classes.len() > SHOWN {
            text += &format!("the {SHOWN} most frequent of {} classes; --json has all\n", classes.len());
        }
        text
    }
}

/// A bar as long as a class is frequent; of one that has examples it has a character at least.
fn bar(number: u64, most: u64) -> String {
    "█".repeat((number as usize * BAR).div_ceil(most.max(1) as usize))
}

/// A number, and its share of all where it is not 0.
fn of_all(number: usize, all: usize) -> String {
    match number {
        0 => "0".to_owned(),
        _ => format!("{} ({})", count(number), percent(number as f64 / all.max(1) as f64)),
    }
}

impl PartSurvey {
    /// What of a part is likely to be a mistake. `contradicted`: texts that have two classes.
    fn suspicions(&self, contradicted: usize, found: &mut Vec<String>) {
        let Self { part, rows, .. } = self;
        let share = |number: usize| format!("{} of {} {part} examples", count(number), count(*rows));
        if self.in_training > 0 {
            found.push(format!("{} are training examples too: results on them say too much", share(self.in_training)));
        }
        if contradicted > 0 {
            found.push(format!("{} have another label where they stand first", share(contradicted)));
        }
        if self.empty > 0 {
            found.push(format!("{} are empty texts", share(self.empty)));
        }
        let many = |number: usize| number as f64 > SOME * *rows as f64;
        if many(self.cut) {
            found.push(format!("{} are cut: they are longer than max_tokens or the model allow", share(self.cut)));
        }
        if many(self.repeated) {
            found.push(format!("{} stand there more than once", share(self.repeated)));
        }
    }
}

/// Examples of no class.
fn none(data: &Dataset) -> Result<usize> {
    let mut none = 0;
    for row in 0..data.len() as u32 {
        none += usize::from(data.classes_of(row)?.is_empty());
    }
    Ok(none)
}

/// The texts of a data set, and how many of them have another class than where they stand first.
fn texts(data: &Dataset) -> Result<(Texts, usize)> {
    let (mut texts, mut contradicted) = (Texts::new(), 0);
    for row in 0..data.len() as u32 {
        let class = data.answer(row)?;
        let (times, first) = texts.entry(data.digest(row)?).or_insert((0, class));
        contradicted += usize::from(*times > 0 && *first != class);
        *times += 1;
    }
    Ok((texts, contradicted))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use fthost_plugin_api::TargetKind;

    use super::super::fixtures::{TEXT, load_file};
    use super::*;

    fn load(content: &str, labels: Option<&[String]>) -> Dataset {
        let mut data = load_file(("a.tsv", content.as_bytes()), labels, TEXT, usize::MAX).unwrap();
        data.set_targets(TargetKind::Class).unwrap();
        data
    }

    #[test]
    fn what_is_there_is_counted_and_what_is_odd_is_said() {
        let train = load(&("a b\tx\nb\ty\n\ta\n".to_owned() + &"a b c d a b c d\tx\na b\ty\n".repeat(9)), None);
        let test = load("a b\tx\nc\ty\nd\tx\n", Some(train.labels()));
        let survey = Survey::of("t", &[("training", &train), ("test", &test)]).unwrap();
        let text = survey.to_text();
        let bars: Vec<&str> = text.lines().filter(|line| line.contains('█')).collect();
        let bar = "█".repeat(BAR);
        let expected = [
            format!("x      10        2     {bar}  a b"),
            format!("y      10        1     {bar}  b"),
            "a      1         0     ██".into(),
        ];
        assert_eq!(bars, expected, "{text}");
        let [of_train, of_test] = survey.parts.as_slice() else { panic!("{survey:?}") };
        assert_eq!((of_train.rows, of_train.tokens, of_train.cut, of_train.empty), (21, Some([2, 4, 6]), 9, 1));
        assert_eq!((of_train.repeated, of_train.in_training, of_test.repeated, of_test.in_training), (17, 0, 0, 1));
        assert_eq!((of_train.majority, of_test.majority), (Some(10.0 / 21.0), Some(2.0 / 3.0)));
        let classes: Vec<_> =
            survey.classes.iter().map(|c| (c.name.as_str(), c.counts.as_slice(), c.first.as_str())).collect();
        assert_eq!(classes, [("a", &[1, 0][..], ""), ("x", &[10, 2], "a b"), ("y", &[10, 1], "b")]);
        assert_eq!(
            survey.suspicious,
            [
                "9 of 21 training examples have another label where they stand first",
                "1 of 21 training examples are empty texts",
                "9 of 21 training examples are cut: they are longer than max_tokens or the model allow",
                "17 of 21 training examples stand there more than once",
                "1 of 3 test examples are training examples too: results on them say too much",
                "few training examples to learn a class from: a (1)",
            ]
        );
    }
}
