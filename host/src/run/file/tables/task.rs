//! `[[task]]`: what is learned, and from which examples.

use std::collections::BTreeMap;

use fthost_plugin_api::schemars::{self, JsonSchema};
use serde::{Deserialize, Serialize};

use super::method::{Method, MethodKeys};
use super::share::Share;
use fthost_images::Augment;

use crate::data::{Balance, ClassFolder, Encoding, Files, Fold, Form, Format, OnBadImage, Score};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::run::file) struct TaskKeys {
    /// what the task is called; may be left out where there is one task
    #[schemars(length(min = 1))]
    pub(in crate::run::file) name: Option<String>,
    /// the task head: { plugin = "classification" }, with its options; { task = "NAME" }: the head of a task above, which has the same
    /// classes
    pub(in crate::run::file) head: HeadKeys,
    /// the stream that the task's examples are for, text or image, where the model has two and the head reads one
    #[schemars(length(min = 1))]
    pub(in crate::run::file) stream: Option<String>,
    /// the training examples, relative to the run file: a file, or a folder that datasets.save_to_disk left
    /// { text = "FILE", label = "FILE" }: one text a line beside one label a line
    /// { good = "FILE", bad = "FILE" }: a file for each class
    /// { images = "FOLDER", masks = "FOLDER" }, or a folder that has both: pictures, each with a mask that has its class for each pixel
    pub(in crate::run::file) train: FilesKey,
    /// the examples that the result is measured on: as train, a share of the training examples such as 0.2, or one of their folds as in
    /// { fold = 2, of = 5 }; no seed changes a share or a fold
    pub(in crate::run::file) test: Option<TestKey>,
    /// examples that training watches, to keep the best model: as train, or a share of the training examples such as 0.1
    pub(in crate::run::file) validation: Option<PartKey>,
    /// share or fold of the training examples that the run leaves alone: what fthost auto keeps for the test; drawn as that of test
    pub(in crate::run::file) set_aside: Option<DrawnKey>,
    /// which rows of train are for what, where a column says so: { column = "split", train = "train", validation = "dev", test = "test" }
    pub(in crate::run::file) split: Option<SplitKeys>,
    /// which columns are read: { text = "...", text_pair = "...", label = "..." }; in files without names by number, from 1
    #[serde(default)]
    pub(in crate::run::file) columns: ColumnKeys,
    /// whether the first row of a .tsv or .csv file names its columns; without it a first row that may be both is an error
    pub(in crate::run::file) header: Option<bool>,
    /// what the files are, where neither name nor content tell; conll: a word a line, lines: a text a line
    pub(in crate::run::file) format: Option<Format>,
    /// what stands between cells, a character such as ";" or "\t"; without it what the name and the content tell
    #[schemars(length(min = 1, max = 1))]
    pub(in crate::run::file) separator: Option<String>,
    /// what quoted cells stand between, a character such as "'"; "none" or "" where quotes are ordinary characters
    #[schemars(length(max = 4))]
    pub(in crate::run::file) quote: Option<String>,
    /// what stands between labels, such as ",", where a cell holds any number of them, or none; in JSON, Parquet and Arrow they may be
    /// lists, and need no word here
    #[schemars(length(min = 1))]
    pub(in crate::run::file) label_separator: Option<String>,
    /// how bytes stand for characters
    #[serde(default)]
    pub(in crate::run::file) encoding: Encoding,
    /// longest text in tokens; longer ones are cut
    #[schemars(range(min = 1))]
    #[serde(default = "max_tokens")]
    pub(in crate::run::file) max_tokens: usize,
    /// how conversations are written for a language model: chatml, alpaca, or a file of Jinja relative to the run file; by default as the
    /// model's folder says
    #[schemars(length(min = 1))]
    pub(in crate::run::file) template: Option<String>,
    /// which tokens a language model learns: answers, those of answers and all of a text without a prompt; all
    #[serde(default)]
    pub(in crate::run::file) score: Score,
    /// whether texts for a language model are joined and cut into blocks of max_tokens; by default texts are
    pub(in crate::run::file) blocks: Option<bool>,
    /// validation rows whose prompts a model of next tokens continues at each evaluation, by 48 tokens at most, for a person to read: 3 by
    /// default; 0 for none
    #[schemars(range(max = 1000))]
    pub(in crate::run::file) samples: Option<usize>,
    /// random changes of training pictures, in this order: ["random_resized_crop", "flip", { op = "color_jitter", hue = 0.1 }]
    #[serde(default)]
    pub(in crate::run::file) augment: Augment,
    /// which folder names a picture's class: top, as rose in rose/1.jpg; path, as Latin/character01
    #[serde(default)]
    pub(in crate::run::file) class_folder: ClassFolder,
    /// the folder inside a .tar that holds the classes' folders; by default the deepest that holds all pictures
    #[schemars(length(min = 1))]
    pub(in crate::run::file) archive_folder: Option<String>,
    /// names of the classes of masks, in the order of their indices; without them as many as masks have, called by their indices
    #[serde(default)]
    pub(in crate::run::file) classes: Vec<String>,
    /// what pixels of masks have that have no class; 255 by default
    pub(in crate::run::file) ignore_index: Option<u8>,
    /// what becomes of a file that is no picture: the run stops and names it, or leaves it out and counts it
    #[serde(default)]
    pub(in crate::run::file) on_bad_image: OnBadImage,
    /// the classes whose examples count, in training, validation and test: ["cat", "dog"]; by default all
    #[schemars(length(min = 1))]
    pub(in crate::run::file) only: Option<Vec<ClassKey>>,
    /// a seed by which all pixels of a picture change places, the same way in every picture, after all else; without it they stay
    pub(in crate::run::file) permute_pixels: Option<u64>,
    /// whether each class of pictures, turned by 90, 180 and 270 degrees, is a class of its own: four times as many
    #[serde(default)]
    pub(in crate::run::file) rotate_classes: bool,
    /// classes made equally frequent in training, by which examples an epoch takes: each class as often as the most frequent one, or as
    /// the rarest; without it each example comes once an epoch
    pub(in crate::run::file) balance: Option<Balance>,
    /// what the task's loss is multiplied with, where tasks train jointly; 1 by default
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub(in crate::run::file) weight: Option<f64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::run::file) enum HeadKeys {
    /// a head of its own
    Own(MethodKeys),
    /// that of another task
    Shared(SharedHead),
}

/// The head of another task.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::run::file) struct SharedHead {
    /// the task above whose head it is
    #[schemars(length(min = 1))]
    pub(in crate::run::file) task: String,
}

/// A class as its label stands in the data.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::run::file) enum ClassKey {
    /// a name
    Name(#[schemars(length(min = 1))] String),
    /// a number
    Number(i64),
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::run::file) enum FilesKey {
    /// a file; relative to the run file
    File(#[schemars(length(min = 1))] String),
    /// files by what they have: text and label, or a class each
    Table(BTreeMap<String, String>),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::run::file) enum PartKey {
    /// share of the training examples, classes in proportion, drawn by the seed
    Share(Share),
    /// files with the examples; relative to the run file
    Files(FilesKey),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::run::file) enum TestKey {
    /// share of the training examples, classes in proportion, the same with every seed
    Share(Share),
    /// files with the examples; relative to the run file
    Files(FilesKey),
    /// one of the folds of the training examples, classes in proportion, the same with every seed; whole groups where columns.group is
    /// given
    Fold(Fold),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::run::file) enum DrawnKey {
    /// share of the training examples
    Share(Share),
    /// one of their folds
    Fold(Fold),
}

/// Rows of one file for several uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitKeys {
    /// the column that says what a row is for
    #[schemars(length(min = 1))]
    pub column: String,
    /// what stands there in the training examples
    pub train: String,
    /// what stands there in the validation examples
    pub validation: Option<String>,
    /// what stands there in the test examples
    pub test: Option<String>,
}

pub(in crate::run::file) fn max_tokens() -> usize {
    128
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::run::file) struct ColumnKeys {
    /// column of the picture's path, relative to the table; by default image, file_name, filename, path or file
    pub(in crate::run::file) image: Option<String>,
    /// column of the text
    pub(in crate::run::file) text: Option<String>,
    /// column of the second text of a pair
    pub(in crate::run::file) text_pair: Option<String>,
    /// column of a third text, for a head that learns what belongs together: it does not belong to the first
    pub(in crate::run::file) text_negative: Option<String>,
    /// column of the label, or of the value to predict
    pub(in crate::run::file) label: Option<String>,
    /// column of what an example is called in predictions
    pub(in crate::run::file) id: Option<String>,
    /// column of weights from 0 up: an example's loss is multiplied with its own
    pub(in crate::run::file) weight: Option<String>,
    /// column of groups, such as authors: no group is in two of training, validation and test examples that are drawn as shares
    pub(in crate::run::file) group: Option<String>,
}

/// One `[[task]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskTable {
    /// Its name; no other task has it.
    pub name: String,
    /// Its head; that of another task, where it has none of its own.
    pub head: Method,
    /// The place of the task whose head it is, where that is another.
    pub head_of: Option<usize>,
    /// The stream that its examples are for, where that is one of several.
    pub stream: Option<String>,
    /// The training examples: absolute paths, or the name of an embedded data set.
    pub train: Files,
    /// The test examples.
    pub test: Option<HeldOut>,
    /// The examples that training watches.
    pub validation: Option<HeldOut>,
    /// What of the training examples the run leaves alone: its test examples are not drawn from them then.
    pub set_aside: Option<Drawn>,
    /// Which rows of `train` are for what, where a column says so.
    pub split: Option<SplitKeys>,
    /// How the files are read.
    pub form: Form,
    /// Validation rows whose prompts are continued at each evaluation, where the run file or its set-up says how many.
    pub samples: Option<usize>,
    /// How training pictures are changed.
    pub augment: Augment,
    /// The seed by which the pixels of its pictures change places.
    pub permute_pixels: Option<u64>,
    /// Longest text in tokens, before the model's own limit.
    pub max_tokens: usize,
    /// How often an epoch takes the examples of each class, where not once each.
    pub balance: Option<Balance>,
    /// What its loss is multiplied with, above 0; 1 where tasks do not train jointly.
    pub weight: f64,
}

impl TaskTable {
    /// Whether its pictures have masks.
    pub fn has_masks(&self) -> bool {
        matches!(self.train, Files::Masks { .. })
    }

    /// What of the training examples is held out for the test, whether this run makes it or another.
    pub fn test_drawn(&self) -> Option<Drawn> {
        self.test.as_ref().and_then(HeldOut::drawn).or(self.set_aside)
    }

    /// Takes the test examples out; what of the training examples is held out for them stays held out.
    pub fn hide_test(&mut self) {
        self.set_aside = self.test_drawn();
        self.set_test(None);
    }

    /// Tests on a fold of the training examples, whatever the test examples were.
    pub fn test_on(&mut self, fold: Fold) {
        self.set_test(Some(HeldOut::Drawn(Drawn::Fold(fold))));
    }

    fn set_test(&mut self, test: Option<HeldOut>) {
        self.test = test;
        if let Some(split) = &mut self.split {
            split.test = None;
        }
    }
}

/// Where examples that are not trained on come from.
#[derive(Clone, Debug, PartialEq)]
pub enum HeldOut {
    /// Files of their own: absolute paths, or the name of an embedded data set.
    Files(Files),
    /// Some of the training examples; validation examples are a share.
    Drawn(Drawn),
    /// The rows of the training examples' files that have this in the column of `split`.
    Rows(String),
}

/// Some of the training examples, classes in proportion.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Drawn {
    /// A share of them, above 0 and below 1.
    Share(f64),
    /// One of their folds.
    Fold(Fold),
}

impl Drawn {
    /// About which share of the training examples it is.
    pub fn share(self) -> f64 {
        match self {
            Self::Share(share) => share,
            Self::Fold(fold) => 1.0 / f64::from(fold.of),
        }
    }
}

impl HeldOut {
    /// The files, where it has some of its own.
    pub fn files(&self) -> Option<&Files> {
        match self {
            Self::Files(files) => Some(files),
            Self::Drawn(_) | Self::Rows(_) => None,
        }
    }

    /// What of the training examples it is, where it is some of them.
    pub fn drawn(&self) -> Option<Drawn> {
        match self {
            Self::Drawn(drawn) => Some(*drawn),
            Self::Files(_) | Self::Rows(_) => None,
        }
    }
}
