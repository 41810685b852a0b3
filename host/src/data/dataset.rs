//! A data set: inputs ready for the model, and targets.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fthost_autograd::{Device, Layout, Tensor};
use fthost_images::{Normalised, Picture, Random, Sample, Transform};
use fthost_models::{Input, Modality, TextInput};
use fthost_plugin_api::{Masking, TargetKind};

use super::distinct::{self, Distinct, UNNUMBERED};
use super::guess::{Choosing, Guessed, TokensOf};
use super::pictures::{Draws, Pictures, Shown};
use super::selection::Selection;
use super::store::{Record, Store, UNCOUNTED};
use crate::{Error, Result};

/// Tokenized texts or images with their targets, in the order of their file.
///
/// A small one is in memory; of a large one nearly nothing is, and its rows are read from disk when they are asked for.
/// A clone shares the rows.
#[derive(Clone, Debug)]
pub struct Dataset {
    pub(super) path: PathBuf,
    /// That of its file among those that this process has read.
    pub(super) number: u64,
    /// The rows of the file.
    pub(super) store: Arc<Store>,
    /// The pictures of the store's rows, where they are some.
    pub(super) pictures: Option<Arc<Pictures>>,
    /// Where pictures go; token ids stay on the host.
    pub(super) device: Device,
    /// The labels that the store's records number.
    pub(super) distinct: Arc<Distinct>,
    /// The rows of the store that are examples of this data set.
    pub(super) selection: Selection,
    pub(super) totals: Totals,
    /// Whether texts come as words, with a label for each.
    pub(super) of_words: bool,
    /// Whether examples have lists of labels.
    pub(super) lists: bool,
    pub(super) labels: Vec<String>,
    pub(super) targets: Targets,
    pub(super) notes: Vec<String>,
    /// By the number of a label the beginning of the first text that has it.
    pub(super) firsts: Arc<Vec<String>>,
    /// Whether examples have weights, and groups.
    pub(super) weighted: bool,
    pub(super) grouped: bool,
    /// Whether texts are cut on the left.
    pub(super) cut_left: bool,
    /// What their tokens are, where examples are for a language model.
    pub(super) of_tokens: Option<TokensOf>,
    /// Sequences of an example's texts.
    pub(super) sequences: usize,
    /// What an example's picture counts as, where a text stands beside it; else 0.
    pub(super) beside: usize,
}

/// What a label is to the task's head.
#[derive(Clone, Debug)]
pub(super) enum Targets {
    /// Test data before `set_targets`; training data with too many labels for classes.
    Open,
    /// By its number the class of a label.
    Classes(Arc<[u32]>),
    /// By its number the class of a word's label.
    WordClasses(Arc<[u32]>),
    /// By its number the class of a label, of which an example has any number.
    Sets(Arc<[u32]>),
    Values,
    /// The class of each pixel.
    Masks,
    /// The token after each.
    Next,
    /// Which of two sequences is the better one: the first.
    Pairs(Reference),
    /// The token in the place of each that is chosen.
    Chosen(Choosing),
    /// What belongs together: the sides of an example.
    Matches,
}

/// What a head gives for pairs before training.
#[derive(Clone, Debug)]
pub(super) enum Reference {
    /// It does not ask for that.
    None,
    /// Nobody has computed it yet.
    Open,
    /// `f32` `[examples, ...]`, on the CPU.
    Known(Tensor),
}

/// Sums over the examples of a data set.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    tokens: usize,
    /// Of the longest example.
    longest: usize,
    truncated: usize,
    cut_words: usize,
    empty_texts: usize,
    /// Examples by the number of their label; where texts come as words, tokens that count.
    labels: Vec<u64>,
    /// Tokens that a language model learns, and examples without one.
    targets: usize,
    no_target: usize,
}

impl Totals {
    /// Takes an example; `marks` are its tokens' numbers of labels where its text comes as words, or its own where it has a list of them.
    pub(super) fn add(&mut self, record: &Record, marks: &[u32]) {
        self.tokens += record.tokens as usize;
        self.longest = self.longest.max(record.tokens as usize);
        self.truncated += usize::from(record.truncated);
        self.cut_words += record.cut as usize;
        self.empty_texts += usize::from(record.empty);
        // A label without a number looks like a token that does not count: neither is one of a class.
        for &number in std::iter::once(&record.label).chain(marks).filter(|&&number| number != UNNUMBERED) {
            let number = number as usize;
            self.labels.resize(self.labels.len().max(number + 1), 0);
            self.labels[number] += 1;
        }
    }

    /// Takes an example of a language model with so many tokens to learn.
    pub(super) fn add_targets(&mut self, targets: usize) {
        self.targets += targets;
        self.no_target += usize::from(targets == 0);
    }

    /// Examples whose label has this number.
    pub(super) fn with_label(&self, number: u32) -> u64 {
        self.labels.get(number as usize).copied().unwrap_or(0)
    }
}

impl Dataset {
    /// The file that they are from, or the name of embedded data.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.selection.len() as usize
    }

    /// Whether there is no example. A data set that was loaded has at least one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of an example, or what an image counts as, or both together. Fails where the disk does, as all that reads examples.
    pub fn tokens(&self, row: u32) -> Result<usize> {
        Ok(self.text_tokens(row)? + self.beside)
    }

    /// Tokens of an example's text, whatever stands beside it: what a head reads that answers for each token.
    ///
    /// # Errors
    /// As [`tokens`](Self::tokens).
    pub fn text_tokens(&self, row: u32) -> Result<usize> {
        Ok(self.record(row)?.tokens as usize)
    }

    /// Tokens of all examples.
    pub fn total_tokens(&self) -> usize {
        self.totals.tokens + self.len() * self.beside
    }

    /// Tokens of the longest example.
    pub fn longest(&self) -> usize {
        self.totals.longest + self.beside
    }

    /// Texts that were cut to the longest length.
    pub fn truncated(&self) -> usize {
        self.totals.truncated
    }

    /// Words that the longest length cuts off, where texts come as words.
    pub fn cut_words(&self) -> usize {
        self.totals.cut_words
    }

    /// The classes of an example's words that are cut off, in their order, and whether they stand before those that are left. None
    /// where no class says that a word is of no kind: there is nothing that could be predicted for them.
    pub fn missed(&self, row: u32) -> Result<(Vec<u32>, bool)> {
        let record = self.record(row)?;
        let Targets::WordClasses(classes) = &self.targets else { return Ok((Vec::new(), false)) };
        if record.cut == 0 || self.outside().is_none() {
            return Ok((Vec::new(), false));
        }
        let numbers = self.store.extra(&record)?.cut;
        let known = numbers.iter().filter_map(|&number| classes.get(number as usize).copied());
        Ok((known.collect(), self.cut_left))
    }

    /// The places of an example's words that are scored, in their order, where its text comes as words: those that have a token, and
    /// those that [`missed`](Self::missed) gives.
    pub fn scored_words(&self, row: u32) -> Result<Vec<usize>> {
        let record = self.record(row)?;
        let silent = self.store.extra(&record)?.silent;
        let has_tokens = |&place: &usize| silent.binary_search(&(place as u32)).is_err();
        let mut places: Vec<usize> = (0..record.words as usize).filter(has_tokens).collect();
        if self.outside().is_none() {
            let kept = places.len() - (record.cut as usize).min(places.len());
            if self.cut_left {
                places.drain(..places.len() - kept);
            } else {
                places.truncate(kept);
            }
        }
        Ok(places)
    }

    /// The class of words that are of no kind.
    pub fn outside(&self) -> Option<u32> {
        let place = self.labels.iter().position(|label| label == "O")?;
        self.of_words.then_some(place as u32)
    }

    /// Stands for what the model reads of an example, its tokens or its pixels: examples that are the same to it have the same.
    pub fn digest(&self, row: u32) -> Result<u64> {
        let mut hash = DefaultHasher::new();
        if let Some(pictures) = &self.pictures {
            pictures.sketch(self.selection.row(row))?.hash(&mut hash);
        }
        if self.has_texts() {
            let (mut ids, mut segments) = (Vec::new(), Vec::new());
            self.store.append(&self.record(row)?, &mut ids, &mut segments)?;
            (ids, segments).hash(&mut hash);
        }
        Ok(hash.finish())
    }

    /// The beginning of the first text that has a label, or the first word, in the file.
    pub fn first_text(&self, label: &str) -> Option<&str> {
        Some(self.firsts.get(self.distinct.number(label)? as usize)?.as_str())
    }

    /// What an example is called in its file's column of ids.
    pub fn id(&self, row: u32) -> Result<Option<String>> {
        Ok(self.store.extra(&self.record(row)?)?.id)
    }

    /// What each example is called.
    pub fn ids(&self) -> Result<Vec<Option<String>>> {
        (0..self.len() as u32).map(|row| self.id(row)).collect()
    }

    /// An example's text, or both of a pair, or its words; none where they were not kept ([`Source`](super::Source)).
    pub fn texts(&self, row: u32) -> Result<Vec<String>> {
        Ok(self.store.extra(&self.record(row)?)?.texts)
    }

    /// A number for the group that an example belongs to; none where there are no groups.
    pub fn group(&self, row: u32) -> Result<Option<u64>> {
        if self.grouped { Ok(self.store.extra(&self.record(row)?)?.group) } else { Ok(None) }
    }

    /// Whether examples belong to groups.
    pub fn grouped(&self) -> bool {
        self.grouped
    }

    /// What the losses of these rows are multiplied with; none where all count as one.
    pub fn weights(&self, rows: &[u32]) -> Result<Option<Vec<f32>>> {
        if !self.weighted {
            return Ok(None);
        }
        let one = |&row: &u32| Ok(self.store.extra(&self.record(row)?)?.weight.unwrap_or(1.0));
        rows.iter().map(one).collect::<Result<_>>().map(Some)
    }

    /// Whether examples have weights.
    pub fn weighted(&self) -> bool {
        self.weighted
    }

    /// Texts without a character. They are kept: the model sees its special tokens only.
    pub fn empty_texts(&self) -> usize {
        self.totals.empty_texts
    }

    /// Sentences about what was recognised in its files.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Bytes of examples in memory.
    pub fn in_memory(&self) -> usize {
        let pixels = self.pictures.as_ref().map_or(0, |pictures| pictures.in_memory());
        self.store.in_memory() + self.selection.in_memory() + pixels
    }

    /// Names of the classes in index order; none where targets are values.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Whether an example of the file has this label.
    pub fn has_label(&self, label: &str) -> bool {
        self.distinct.number(&distinct::name(label)).is_some()
    }

    /// Whether texts come as words, with a label for each.
    pub fn of_words(&self) -> bool {
        self.of_words
    }

    /// Examples of each class, or where texts come as words the tokens of each that count, or of masks its pixels, in the order of
    /// [`labels`](Self::labels); zeros until targets are classes.
    pub fn class_counts(&self) -> Vec<u64> {
        if let (Targets::Masks, Some(masks)) = (&self.targets, self.masks()) {
            return self.pixel_counts(masks);
        }
        let mut counts = vec![0; self.labels.len()];
        if let Targets::Classes(classes) | Targets::WordClasses(classes) | Targets::Sets(classes) = &self.targets {
            for (&class, count) in classes.iter().zip(&self.totals.labels) {
                counts[class as usize] += count;
            }
        }
        counts
    }

    /// The class of an example; `None` where targets are no classes, or any number of them.
    pub fn class(&self, row: u32) -> Result<Option<u32>> {
        match &self.targets {
            Targets::Classes(classes) => Ok(Some(classes[self.record(row)?.label as usize])),
            Targets::WordClasses(_)
            | Targets::Sets(_)
            | Targets::Values
            | Targets::Masks
            | Targets::Next
            | Targets::Pairs(_)
            | Targets::Chosen(_)
            | Targets::Matches
            | Targets::Open => Ok(None),
        }
    }

    /// The file, and the line where an example begins, from 1; no line for embedded data.
    pub fn place(&self, row: u32) -> Result<(&Path, Option<u64>)> {
        Ok((&self.path, self.record(row)?.line))
    }

    /// The number of an example among those of its file, from 0.
    pub fn number(&self, row: u32) -> u32 {
        self.selection.row(row)
    }

    /// Whether it has some of its file's examples, and not all.
    pub fn is_part(&self) -> bool {
        matches!(self.selection, Selection::Some(_))
    }

    /// Takes the labels as what the task's head learns from: classes, or with [`TargetKind::Value`] real values, and
    /// then there are no class names any more. Training data are classes until then; test data have no targets until
    /// then.
    ///
    /// # Errors
    ///
    /// A class that the training data does not have, or a value that is no finite number, with its line; more labels
    /// than there can be classes; labels for words where the head wants one for each example, or the other way round; kinds of
    /// targets that have no files yet.
    pub fn set_targets(&mut self, kind: TargetKind) -> Result<()> {
        self.check_kind(kind)?;
        match kind {
            TargetKind::Value => {
                self.distinct.check_values(&self.path)?;
                self.targets = Targets::Values;
                self.labels.clear();
            }
            TargetKind::MultiLabel => {
                self.check_parted()?;
                self.targets = Targets::Sets(self.distinct.classes(&self.path, &self.labels)?.into());
            }
            TargetKind::Mask => self.targets = Targets::Masks,
            TargetKind::NextToken => self.targets = Targets::Next,
            TargetKind::Preference => self.targets = Targets::Pairs(Reference::None),
            TargetKind::Match => self.targets = Targets::Matches,
            TargetKind::MaskedToken => {
                return Err(Error::run("how tokens are chosen was never said"));
            }
            TargetKind::Class | TargetKind::TokenClass => self.targets = self.classes()?,
        }
        Ok(())
    }

    /// Labels as classes.
    pub(super) fn classes(&self) -> Result<Targets> {
        let classes = self.distinct.classes(&self.path, &self.labels)?.into();
        Ok(match (self.of_words, self.lists) {
            (true, _) => Targets::WordClasses(classes),
            (false, true) => Targets::Sets(classes),
            (false, false) => Targets::Classes(classes),
        })
    }

    /// Whether examples are of the kind that a head with these targets learns from.
    ///
    /// # Errors
    ///
    /// Where they are not.
    pub fn check_kind(&self, kind: TargetKind) -> Result<()> {
        let (message, help) = match (kind, self.of_words) {
            (TargetKind::NextToken | TargetKind::MaskedToken | TargetKind::Preference, _)
                if self.of_tokens.is_some() =>
            {
                if self.of_pairs() == (kind == TargetKind::Preference) {
                    return Ok(());
                }
                let help = "a run has heads of either: train them in runs of their own, the second from what the first has saved";
                match self.of_pairs() {
                    true => ("was read as pairs of answers, and the task's head learns single tokens", help),
                    false => ("was read as texts, and the task's head learns from pairs of answers", help),
                }
            }
            (TargetKind::NextToken | TargetKind::MaskedToken | TargetKind::Preference, _) => (
                "was read for a head of classes or values, and the task's head learns tokens",
                "a head over a vocabulary says so in its plugin's note, by its PROBLEM_TYPE",
            ),
            _ if self.of_tokens.is_some() => (
                "was read for a language model, and the task's head learns something else",
                "choose a head that is over a vocabulary",
            ),
            (TargetKind::Mask, _) if self.of_masks() => return Ok(()),
            (TargetKind::Match, _) if self.sides() > 1 => return Ok(()),
            (TargetKind::Match, _) => (
                "has examples of one side, and the task's head learns what belongs together",
                "a head that compares says so in its plugin's note, by its PROBLEM_TYPE",
            ),
            (TargetKind::Class | TargetKind::Value | TargetKind::MultiLabel | TargetKind::TokenClass, _)
                if self.of_masks() =>
            {
                (
                    "has a mask for each picture, and the task's head does not learn the classes of pixels",
                    "choose a head that does, or name a table of the pictures with their labels",
                )
            }
            (TargetKind::Class | TargetKind::Value, false) if self.lists => (
                "has any number of labels for an example, and the task's head wants one",
                "choose a head that learns any number of classes for an example",
            ),
            (TargetKind::Class | TargetKind::Value | TargetKind::MultiLabel, false)
            | (TargetKind::TokenClass, true) => {
                return Ok(());
            }
            (TargetKind::Class | TargetKind::Value | TargetKind::MultiLabel, true) => (
                "has texts that are lists of words, and the task's head wants one text and one label per example",
                "choose a head that learns a class for each token",
            ),
            (TargetKind::TokenClass, false) => (
                "has one label per example, and the task's head wants one per token",
                "write words with the label of each, {\"text\": [\"EU\", \"rejects\"], \"label\": [\"B-ORG\", \"O\"]} in .jsonl, or choose a head that learns classes or values",
            ),
            (TargetKind::Mask, _) => (
                "has no class for each pixel, and the task's head wants them",
                "name pictures with their masks, { images = \"FOLDER\", masks = \"FOLDER\" }, or choose a head that learns classes or values",
            ),
        };
        Err(Error::Data { file: self.path.clone(), line: None, message: message.into(), help: Some(help.into()) })
    }

    /// As [`set_targets`](Self::set_targets), where the classes' names were made by no one who saw the labels: where the labels are
    /// not these names but the numbers of classes, from 0, those count; and where pictures have as many other names, these in their
    /// order, as torchvision numbers the classes of folders.
    ///
    /// # Errors
    ///
    /// As [`set_targets`](Self::set_targets).
    pub fn set_named_or_numbered_targets(&mut self, kind: TargetKind) -> Result<()> {
        self.set_targets(kind).or_else(|error| {
            let numbers: Vec<String> = (0..self.labels.len()).map(|number| number.to_string()).collect();
            let names = self.distinct.names();
            if self.of_pictures() && kind == TargetKind::Class && names.len() == numbers.len() && names != numbers {
                self.labels = names;
                return self.set_targets(kind);
            }
            match self.distinct.classes(&self.path, &numbers) {
                Ok(classes) if kind == TargetKind::Class && !self.of_words && !self.lists => {
                    self.targets = Targets::Classes(classes.into());
                    Ok(())
                }
                Ok(classes) if kind == TargetKind::MultiLabel && !self.of_words => {
                    self.targets = Targets::Sets(classes.into());
                    Ok(())
                }
                _ => Err(error),
            }
        })
    }

    /// Whether examples are pictures, or have one beside a text.
    pub fn of_pictures(&self) -> bool {
        self.pictures.is_some()
    }

    /// Whether the text of an example is one of a language model that stands behind its picture.
    pub fn stands_behind_pictures(&self) -> bool {
        self.of_pictures() && self.of_tokens.is_some()
    }

    /// Whether examples have texts.
    pub fn has_texts(&self) -> bool {
        self.pictures.is_none() || self.beside > 0
    }

    /// Whether examples have what a stream takes that takes this.
    pub fn is_for(&self, modality: Modality) -> bool {
        match modality {
            Modality::Images { .. } => self.of_pictures(),
            Modality::Text { .. } => self.has_texts(),
        }
    }

    /// What an example's picture counts as, where a text stands beside it; else 0.
    pub fn beside(&self) -> usize {
        self.beside
    }

    /// Sequences of an example's texts: 2 or 3 where they pass by themselves.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// Sides of an example: a text and its picture, or texts that pass by themselves.
    fn sides(&self) -> usize {
        if self.pictures.is_some() && self.has_texts() { 2 } else { self.sequences }
    }

    /// What no other examples of this process have, for each of those that look as they always do to a stream that takes this; `None` where they
    /// are changed at random.
    pub fn keys(&self, shown: &Shown, modality: Modality) -> Option<Vec<(u64, u32)>> {
        let plain = match modality {
            Modality::Images { .. } => shown.is_plain(),
            Modality::Text { .. } => shown.guessed().is_empty(),
        };
        // Features of several sequences are kept for none of them.
        let kept = plain && self.sequences == 1;
        let key = |&row: &u32| (self.number, self.selection.row(row));
        kept.then(|| shown.rows().iter().map(key).collect())
    }

    /// The key of an example that always looks the same.
    pub fn key(&self, row: u32) -> Option<(u64, u32)> {
        (!self.changes_at_random()).then(|| (self.number, self.selection.row(row)))
    }

    /// Whether it takes work to see an example, so that it is best done ahead: pictures are read and decoded.
    pub fn takes_work(&self) -> bool {
        self.pictures.as_ref().is_some_and(|pictures| pictures.take_work())
    }

    /// What becomes of its pictures, where they are read from files.
    pub fn transform(&self) -> Option<&Transform> {
        self.pictures
            .as_ref()
            .filter(|pictures| pictures.take_work())
            .and_then(|pictures| pictures.transform().ok())
            .map(|of| &**of)
    }

    /// Whether training pictures differ from one time to the next.
    fn changes_at_random(&self) -> bool {
        self.transform().is_some_and(|transform| transform.augment().is_random())
    }

    /// A picture as it is; none where it is embedded, or no picture.
    pub fn picture(&self, row: u32) -> Result<Option<Picture>> {
        self.pictures.as_ref().map_or(Ok(None), |pictures| pictures.picture(self.selection.row(row)))
    }

    /// What a model takes of a picture, as a person sees it.
    pub fn seen(&self, input: &Normalised) -> Result<Option<Picture>> {
        self.pictures.as_ref().map_or(Ok(None), |pictures| pictures.seen(input))
    }

    /// The class of an example by name, or its value.
    pub fn label(&self, row: u32) -> Result<String> {
        Ok(match self.class(row)? {
            Some(class) => self.labels.get(class as usize).cloned().unwrap_or_default(),
            None if matches!(self.targets, Targets::Matches) => String::new(),
            None => self.record(row)?.value.to_string(),
        })
    }

    /// What is seen of these rows in evaluation.
    pub fn show(&self, rows: &[u32]) -> Result<Shown> {
        let Some(pictures) = &self.pictures else {
            return self.guess(rows, |choosing, row, ids, words| choosing.of_row(self.selection.row(row), ids, words));
        };
        let samples = rows.iter().map(|&row| pictures.sample(self.selection.row(row), None));
        Shown::new(rows, samples.collect::<Result<_>>()?)
    }

    /// What is seen of a row in training, at a place of a step; none where there is nothing to see.
    pub fn sample(&self, row: u32, draws: &Draws, step: u64, place: u64) -> Result<Option<Sample>> {
        let Some(pictures) = &self.pictures else { return Ok(None) };
        let mut random = draws.of_picture(step, place);
        let random: Option<&mut dyn Random> = if self.changes_at_random() { Some(&mut random) } else { None };
        pictures.sample(self.selection.row(row), random).map(Some)
    }

    /// What is seen of these rows in training: the [`sample`](Self::sample)s of all, mixed where the task asks for it. `first` is the
    /// place of the first in its step.
    pub fn gather(
        &self,
        rows: &[u32],
        samples: Vec<Option<Sample>>,
        draws: &Draws,
        step: u64,
        first: u64,
    ) -> Result<Shown> {
        let Some(pictures) = &self.pictures else {
            let mut place = first;
            return self.guess(rows, |choosing, _, ids, words| {
                place += 1;
                choosing.choose(&draws.of_text(step, place - 1), ids, words)
            });
        };
        // What is kept of examples needs no look at them.
        if samples.iter().any(Option::is_none) {
            return Ok(Shown::from(rows));
        }
        let mut shown = Shown::new(rows, samples.into_iter().flatten().collect())?;
        if self.changes_at_random() {
            shown.change(pictures.transform()?.augment(), draws, step, first);
        }
        Ok(shown)
    }

    /// Texts as they are, or with other tokens where some are to be guessed.
    fn guess(&self, rows: &[u32], mut choose: impl FnMut(&Choosing, u32, &[u32], &[u32]) -> Guessed) -> Result<Shown> {
        let Targets::Chosen(choosing) = &self.targets else { return Ok(Shown::from(rows)) };
        let one = |&row: &u32| {
            let (record, mut ids) = (self.record(row)?, Vec::new());
            self.store.append(&record, &mut ids, &mut Vec::new())?;
            Ok(choose(choosing, row, &ids, &self.store.marks(&record)?))
        };
        Ok(Shown::of_guessed(rows, rows.iter().map(one).collect::<Result<_>>()?))
    }

    /// Takes the tokens of texts as what the task's head learns, chosen so.
    ///
    /// # Errors
    /// As [`set_targets`](Self::set_targets), and where the tokenizer has no mask.
    pub fn set_masked(&mut self, masking: Masking) -> Result<()> {
        self.check_kind(TargetKind::MaskedToken)?;
        let Some(TokensOf { mask: Some(mask), vocabulary, .. }) = self.of_tokens else {
            return Err(Error::usage("the tokenizer has no mask, and the task's head learns what stands in its place")
                .with_help("say it as mask_token in tokenizer_config.json, or choose a model that was made so"));
        };
        // Evaluations are the same with every seed of a run.
        self.targets = Targets::Chosen(Choosing { masking, mask, vocabulary, seed: 0 });
        Ok(())
    }

    /// The examples of these rows as they are evaluated, packed in their order. Pictures are on the data set's device.
    pub fn input(&self, rows: &[u32]) -> Result<Input> {
        self.input_of(&self.show(rows)?)
    }

    /// What is seen of examples, packed in their order: of those that have both the pictures. Pictures are on the data set's device.
    pub fn input_of(&self, shown: &Shown) -> Result<Input> {
        if self.pictures.is_some() { self.pictures_of(shown) } else { self.texts_of(shown) }
    }

    /// The same for a stream that takes this.
    pub fn input_for(&self, shown: &Shown, modality: Modality) -> Result<Input> {
        match modality {
            Modality::Images { .. } if self.of_pictures() => self.pictures_of(shown),
            Modality::Text { .. } if self.has_texts() => self.texts_of(shown),
            other => Err(Error::run(format!("{}: no example has a {}", self.path.display(), other.name()))),
        }
    }

    /// The pictures of examples that have some, whatever stands beside them.
    ///
    /// # Errors
    /// Where one cannot be read.
    pub fn pictures_of(&self, shown: &Shown) -> Result<Input> {
        let images = match shown.was_seen() {
            true => shown.tensor(&self.device),
            false => self.show(shown.rows())?.tensor(&self.device),
        };
        images.map(Input::Images)
    }

    fn texts_of(&self, shown: &Shown) -> Result<Input> {
        let records = shown.rows().iter().map(|&row| self.record(row)).collect::<Result<Vec<_>>>()?;
        let lengths = |record: &Record| {
            let (first, second) = (record.first as usize, record.second as usize);
            let rest = record.tokens as usize - first - second;
            let all = match self.sequences {
                1 => [Some(record.tokens as usize), None, None],
                2 => [Some(first), Some(rest), None],
                _ => [Some(first), Some(second), Some(rest)],
            };
            all.into_iter().flatten()
        };
        let layout = Layout::from_lengths(records.iter().flat_map(lengths));
        let mut packed = TextInput {
            ids: Vec::with_capacity(layout.tokens()),
            types: Vec::with_capacity(layout.tokens()),
            layout,
            before: None,
        };
        for record in &records {
            self.store.append(record, &mut packed.ids, &mut packed.types)?;
        }
        if !shown.guessed().is_empty() {
            packed.ids = shown.guessed().iter().flat_map(|of| of.ids.iter().copied()).collect();
        }
        Ok(Input::Text(packed))
    }

    /// The targets of these rows, `[rows]`: `u32` classes or `f32` values. Where texts come as words, the classes of their tokens,
    /// `[tokens]`: [`UNCOUNTED`] where none begins a word. Of any number of classes `f32` `[rows, classes]`: 1 where a row has the class. Of
    /// masks `u32` `[rows, height, width]` the classes of their pixels, [`UNCOUNTED`] where one has none. Of pairs what the head gives for them
    /// before training, or zeros `[rows, 2]`.
    pub fn targets(&self, rows: &[u32], device: &Device) -> Result<Tensor> {
        let records = rows.iter().map(|&row| self.record(row));
        Ok(match &self.targets {
            Targets::Classes(classes) => {
                let classes =
                    records.map(|record| Ok(classes[record?.label as usize])).collect::<Result<Vec<u32>>>()?;
                Tensor::from_vec(classes, rows.len(), device)?
            }
            Targets::WordClasses(classes) => {
                let mut tokens = Vec::new();
                for record in records {
                    let marks = self.store.marks(&record?)?;
                    tokens.extend(marks.iter().map(|&mark| classes.get(mark as usize).copied().unwrap_or(UNCOUNTED)));
                }
                let len = tokens.len();
                Tensor::from_vec(tokens, len, device)?
            }
            Targets::Sets(_) => self.indicators(rows, device)?,
            Targets::Masks => self.mask_targets(rows, device)?,
            Targets::Values => {
                let values = records.map(|record| Ok(record?.value)).collect::<Result<Vec<f32>>>()?;
                Tensor::from_vec(values, rows.len(), device)?
            }
            Targets::Next => self.next_tokens(rows, device)?,
            Targets::Pairs(reference) => self.references(reference, rows, device)?,
            Targets::Chosen(_) => return Err(Error::run("masked tokens are those of what is shown")),
            Targets::Matches => Tensor::arange(0, rows.len() as u32, device)?,
            Targets::Open => return Err(self.never_set()),
        })
    }

    /// Tokens that a language model learns.
    pub fn target_tokens(&self) -> usize {
        self.totals.targets
    }

    /// Examples of which a language model learns nothing: all tokens that count are cut off.
    pub fn without_target(&self) -> usize {
        self.totals.no_target
    }

    /// The words of an example that was read without labels: how many there are, and of each token the place of the word that it
    /// begins, or [`UNCOUNTED`].
    pub fn words(&self, row: u32) -> Result<(usize, Vec<u32>)> {
        let record = self.record(row)?;
        Ok((record.words as usize, self.store.marks(&record)?))
    }

    pub(super) fn record(&self, row: u32) -> Result<Record> {
        self.store.record(self.selection.row(row))
    }

    pub(super) fn never_set(&self) -> Error {
        Error::run(format!("{}: what the labels mean was never set", self.path.display()))
    }
}

#[cfg(test)]
#[path = "dataset_tests.rs"]
mod tests;
