//! The tables of a run file and their defaults.
//!
//! `Keys` is what may stand in the file: its JSON Schema checks a file, its doc comments are the help in errors. The public
//! types are what a run reads, with nothing left open.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use fthost_autograd::{Precision as EnginePrecision, optim};
use fthost_models::{PoolBy, Pooling};
use fthost_plugin_api::schemars::{self, JsonSchema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::data::{Encoding, Files, Fold, Form, Format};
use crate::hub::Name;

/// How a run file names the embedded model, and the embedded data set for it.
pub(super) const DEMO: &str = "demo";

/// Everything that a run file may hold.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    /// the pretrained model, as in
    /// [model]
    /// path = "all-MiniLM-L6-v2"
    pub(super) model: ModelKeys,
    /// what is learned, as in
    /// [[task]]
    /// head = { plugin = "classification" }
    /// train = "train.tsv"
    #[schemars(length(min = 1))]
    pub(super) task: Vec<TaskKeys>,
    /// what trains, and what is added to the model; each is a [[strategy]]
    #[serde(default)]
    pub(super) strategy: Vec<MethodKeys>,
    /// what is added to the loss; each is a [[regularizer]]
    #[serde(default)]
    pub(super) regularizer: Vec<RegularizerKeys>,
    /// the learning rate of each step
    pub(super) schedule: Option<MethodKeys>,
    /// how training goes; one [train]
    #[serde(default)]
    pub(super) train: TrainKeys,
    /// the run's name and folder; one [run]
    #[serde(default)]
    pub(super) run: RunKeys,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelKeys {
    /// folder with config.json, model.safetensors and, for texts, tokenizer.json; relative to the run file. Or a model's name on the
    /// Hugging Face Hub, hf:organisation/model@revision: its files come into the cache that Python's libraries use
    #[schemars(length(min = 1))]
    pub(super) path: String,
    /// weights to begin with: those of the folder, or random ones
    #[serde(default)]
    pub(super) init: ModelInit,
    /// what is taken of a text's tokens as its features: auto does as modules.json of the folder says, else as Transformers' class for
    /// classification; mean and max are over the text's own tokens, of an image over its patches
    #[serde(default)]
    pub(super) pooling: PoolingKey,
    /// whether features of whole examples are divided by their length; by default as the folder says where pooling is auto, else not
    pub(super) normalize: Option<bool>,
}

/// How examples are pooled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PoolingKey {
    /// As the folder says.
    #[default]
    Auto,
    /// The first token.
    Cls,
    /// The first token through the model's dense layer and tanh.
    Pooler,
    /// The mean over the tokens.
    Mean,
    /// The greatest of the tokens, column by column.
    Max,
    /// The last token.
    Last,
}

/// The weights to begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelInit {
    /// Those of the folder.
    #[default]
    Pretrained,
    /// Random ones, for the architecture of config.json.
    Random,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskKeys {
    /// what the task is called; may be left out where there is one task
    #[schemars(length(min = 1))]
    pub(super) name: Option<String>,
    /// the task head: { plugin = "classification" }, with its options
    pub(super) head: MethodKeys,
    /// the training examples, relative to the run file: a file, or a folder that datasets.save_to_disk left
    /// { text = "FILE", label = "FILE" }: one text a line beside one label a line
    /// { good = "FILE", bad = "FILE" }: a file for each class
    pub(super) train: FilesKey,
    /// the examples that the result is measured on: as train, a share of the training examples such as 0.2, or one of their folds as in
    /// { fold = 2, of = 5 }; no seed changes a share or a fold
    pub(super) test: Option<TestKey>,
    /// examples that training watches, to keep the best model: as train, or a share of the training examples such as 0.1
    pub(super) validation: Option<PartKey>,
    /// share or fold of the training examples that the run leaves alone: what fthost auto keeps for the test; drawn as that of test
    pub(super) set_aside: Option<DrawnKey>,
    /// which rows of train are for what, where a column says so: { column = "split", train = "train", validation = "dev", test = "test" }
    pub(super) split: Option<SplitKeys>,
    /// which columns are read: { text = "...", text_pair = "...", label = "..." }; in files without names by number, from 1
    #[serde(default)]
    pub(super) columns: ColumnKeys,
    /// whether the first row of a .tsv or .csv file names its columns; without it a first row that may be both is an error
    pub(super) header: Option<bool>,
    /// what the files are, where neither name nor content tell; conll: a word a line, lines: a text a line
    pub(super) format: Option<Format>,
    /// what stands between cells, a character such as ";" or "\t"; without it what the name and the content tell
    #[schemars(length(min = 1, max = 1))]
    pub(super) separator: Option<String>,
    /// what quoted cells stand between, a character such as "'"; "none" or "" where quotes are ordinary characters
    #[schemars(length(max = 4))]
    pub(super) quote: Option<String>,
    /// how bytes stand for characters
    #[serde(default)]
    pub(super) encoding: Encoding,
    /// longest text in tokens; longer ones are cut
    #[schemars(range(min = 1))]
    #[serde(default = "max_tokens")]
    pub(super) max_tokens: usize,
    /// what the task's loss is multiplied with, where tasks train jointly; 1 by default
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub(super) weight: Option<f64>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum FilesKey {
    /// a file; relative to the run file
    File(#[schemars(length(min = 1))] String),
    /// files by what they have: text and label, or a class each
    Table(BTreeMap<String, String>),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum PartKey {
    /// share of the training examples, classes in proportion, drawn by the seed
    Share(Share),
    /// files with the examples; relative to the run file
    Files(FilesKey),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum TestKey {
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
pub(super) enum DrawnKey {
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

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum ThresholdKey {
    /// a probability, above 0 and below 1
    At(Share),
    /// "f1": the one with the greatest F1 of the second class on the validation examples
    Best(BestKey),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum BestKey {
    F1,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub(super) struct Share(#[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))] pub(super) f64);

pub(super) fn max_tokens() -> usize {
    128
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ColumnKeys {
    /// column of the text
    pub(super) text: Option<String>,
    /// column of the second text of a pair
    pub(super) text_pair: Option<String>,
    /// column of the label, or of the value to predict
    pub(super) label: Option<String>,
    /// column of what an example is called in predictions
    pub(super) id: Option<String>,
    /// column of weights from 0 up: an example's loss is multiplied with its own
    pub(super) weight: Option<String>,
    /// column of groups, such as authors: no group is in two of training, validation and test examples that are drawn as shares
    pub(super) group: Option<String>,
}

/// A method and its options. Options are checked against the plugin's own schema once it is open.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct MethodKeys {
    /// the method's name, as its plugin registers it
    #[schemars(length(min = 1))]
    pub(super) plugin: String,
    #[serde(flatten)]
    pub(super) options: Map<String, Json>,
}

/// A regularizer: a method that may begin with what an earlier run left of it.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct RegularizerKeys {
    /// folder of an earlier run, whose regularizer of the same name this one goes on from; relative to the run file
    #[schemars(length(min = 1))]
    pub(super) state: Option<String>,
    #[serde(flatten)]
    pub(super) method: MethodKeys,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TrainKeys {
    /// passes over the training examples: 3, or where steps are given as many as they take
    #[schemars(range(min = 1))]
    pub(super) epochs: Option<u64>,
    /// optimizer steps to take, or fewer where epochs are given too and end before; of each task, where they train in sequence
    #[schemars(range(min = 1))]
    pub(super) steps: Option<u64>,
    /// whether several tasks train jointly, each step on a batch of one of them, or in sequence
    pub(super) tasks: TaskOrder,
    /// how often each of several joint tasks has its turn: in proportion to its size, to the root of it, or each as often
    pub(super) sampling: Sampling,
    /// examples in a batch
    #[schemars(range(min = 1))]
    pub(super) batch_size: usize,
    /// batches whose gradients make one optimizer step
    #[schemars(range(min = 1))]
    pub(super) accumulate: usize,
    /// learning rate that the schedule scales
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub(super) lr: f64,
    /// update rule
    pub(super) optimizer: OptimizerName,
    /// weight decay; 0.01 with adamw, else 0
    #[schemars(range(min = 0))]
    pub(super) weight_decay: Option<f64>,
    /// whether weight decay applies to biases and norms too
    pub(super) decay_biases_and_norms: bool,
    /// momentum of sgd
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub(super) momentum: Option<f64>,
    /// Nesterov's form of sgd's momentum
    pub(super) nesterov: Option<bool>,
    /// decay of the two moments of adamw and adam
    pub(super) betas: Option<[f64; 2]>,
    /// what adamw and adam add to the denominator
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub(super) eps: Option<f64>,
    /// largest global norm of a step's gradients; without it they are not clipped
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub(super) clip_norm: Option<f64>,
    /// largest magnitude of a gradient's elements; without it they are not clipped
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub(super) clip_value: Option<f64>,
    /// float type of matrix products
    pub(super) precision: Precision,
    /// what every random number follows from
    pub(super) seed: u64,
    /// whether the model's own dropout is active
    pub(super) dropout: bool,
    /// whether the test examples are also evaluated before training
    pub(super) evaluate_before: bool,
    /// optimizer steps between evaluations on the validation examples; without it at the end of each epoch
    #[schemars(range(min = 1))]
    pub(super) evaluate_steps: Option<u64>,
    /// metric on the validation examples; the model that is best by it is kept. Without it accuracy for classes, macro_f1 where one is
    /// much more frequent than the others (1.5 times an equal share), entity_f1 where words' labels spell entities, loss for values and
    /// for joint tasks. Of one of several tasks: TASK.METRIC
    #[schemars(length(min = 1))]
    pub(super) monitor: Option<String>,
    /// whether a temperature is fitted on the validation examples, by which probabilities mean what they say. What is saved has it in its
    /// last layer
    pub(super) calibrate: bool,
    /// of two classes of examples the probability of the second from which on it is predicted, where that is not the more probable one's:
    /// a number, or "f1" for the one with the greatest F1 on the validation examples
    pub(super) threshold: Option<ThresholdKey>,
    /// evaluations without a better one, by more than min_delta, after which training stops
    #[schemars(range(min = 1))]
    pub(super) patience: Option<u64>,
    /// by how much the monitored metric must be better for patience to begin anew; the best model is the best seen, whatever it is
    #[schemars(range(min = 0))]
    pub(super) min_delta: f64,
    /// optimizer steps between checkpoints; one is also written at the end of each epoch
    #[schemars(range(min = 1))]
    pub(super) checkpoint_steps: Option<u64>,
    /// newest checkpoints that are kept
    #[schemars(range(min = 1))]
    pub(super) keep_checkpoints: usize,
    /// CPU threads; without it one for each core
    #[schemars(range(min = 1, max = 1024))]
    pub(super) threads: Option<usize>,
}

impl Default for TrainKeys {
    fn default() -> Self {
        Self {
            epochs: None,
            steps: None,
            tasks: TaskOrder::Joint,
            sampling: Sampling::Proportional,
            batch_size: 16,
            accumulate: 1,
            lr: 5e-4,
            optimizer: OptimizerName::Adamw,
            weight_decay: None,
            decay_biases_and_norms: false,
            momentum: None,
            nesterov: None,
            betas: None,
            eps: None,
            clip_norm: None,
            clip_value: None,
            precision: Precision::F32,
            seed: 0,
            dropout: true,
            evaluate_before: false,
            evaluate_steps: None,
            monitor: None,
            calibrate: false,
            threshold: None,
            patience: None,
            min_delta: 0.0,
            checkpoint_steps: None,
            keep_checkpoints: 2,
            threads: None,
        }
    }
}

/// How several tasks train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskOrder {
    /// Together: each step on a batch of one of them.
    Joint,
    /// One after the other, in the order of the run file.
    Sequence,
}

/// How often each of several joint tasks has its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// In proportion to its number of batches: an epoch passes once through every task.
    Proportional,
    /// In proportion to the root of it.
    Sqrt,
    /// Each as often.
    Uniform,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OptimizerName {
    Adamw,
    Adam,
    Sgd,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RunKeys {
    /// the run's name; without it the run file's
    #[schemars(length(min = 1))]
    pub(super) name: Option<String>,
    /// folder that the run leaves; without it runs/NAME, relative to the working directory
    #[schemars(length(min = 1))]
    pub(super) out: Option<String>,
    /// whether predictions.csv has the probabilities of all classes, and not of the predicted one alone
    #[serde(default)]
    pub(super) probabilities: bool,
}

/// `[model]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelTable {
    /// A Hugging Face folder, absolute; or the name of the embedded model.
    pub path: PathBuf,
    /// Its name on the hub, where the file says that: `path` is its folder once it is fetched, and the revision then the commit.
    pub named: Option<Name>,
    /// The weights to begin with.
    pub init: ModelInit,
    /// How examples are pooled.
    pub pooling: PoolingKey,
    /// Whether the result is divided by its length, where the file says it.
    pub normalize: Option<bool>,
}

impl ModelTable {
    /// Says how examples are pooled, where that was left open: what is written of the run then holds it.
    pub fn pools(&mut self, pooling: Pooling) {
        self.pooling = match pooling.by {
            PoolBy::First => PoolingKey::Cls,
            PoolBy::Pooler => PoolingKey::Pooler,
            PoolBy::Mean => PoolingKey::Mean,
            PoolBy::Max => PoolingKey::Max,
            PoolBy::Last => PoolingKey::Last,
        };
        self.normalize = Some(pooling.normalize);
    }

    /// Is it the embedded model?
    pub fn is_demo(&self) -> bool {
        self.path.as_os_str() == DEMO
    }

    /// Does it begin with random weights?
    pub fn random(&self) -> bool {
        self.init == ModelInit::Random
    }

    /// How others refer to it: the folder, the name of the embedded model, or on the hub `org/name`.
    pub fn name(&self) -> String {
        self.named.as_ref().map_or_else(|| self.path.display().to_string(), |name| name.id.clone())
    }
}

/// One `[[task]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskTable {
    /// Its name; no other task has it.
    pub name: String,
    /// Its head.
    pub head: Method,
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
    /// Longest text in tokens, before the model's own limit.
    pub max_tokens: usize,
    /// What its loss is multiplied with, above 0; 1 where tasks do not train jointly.
    pub weight: f64,
}

impl TaskTable {
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

/// A method with its options.
#[derive(Clone, Debug, PartialEq)]
pub struct Method {
    /// Its name.
    pub plugin: String,
    /// Its options: a JSON object.
    pub config: Json,
    /// Where it stands in the run file: `strategy[0]`, `task[0].head`.
    pub path: String,
}

/// One `[[regularizer]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RegularizerTable {
    /// The method.
    pub method: Method,
    /// The folder of an earlier run, absolute, whose state it begins with.
    pub state: Option<PathBuf>,
}

/// `[train]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainTable {
    /// Passes over the training examples, at least 1; `None`: as many as the steps take.
    pub epochs: Option<u64>,
    /// Most optimizer steps to take; of each task, where they train in sequence. There are epochs or steps.
    pub steps: Option<u64>,
    /// How several tasks train.
    pub tasks: TaskOrder,
    /// How often each of several joint tasks has its turn.
    pub sampling: Sampling,
    /// Examples in a batch, at least 1.
    pub batch_size: usize,
    /// Batches whose gradients make one optimizer step, at least 1.
    pub accumulate: usize,
    /// Learning rate that the schedule scales, above 0.
    pub lr: f64,
    /// Update rule.
    pub optimizer: Optimizer,
    /// Weight decay: decoupled with AdamW, else an L2 penalty.
    pub weight_decay: f64,
    /// Does weight decay apply to biases and norms too?
    pub decay_biases_and_norms: bool,
    /// Largest global norm of a step's gradients.
    pub clip_norm: Option<f64>,
    /// Largest magnitude of a gradient's elements.
    pub clip_value: Option<f64>,
    /// Float type of matrix products.
    pub precision: Precision,
    /// What every random number follows from.
    pub seed: u64,
    /// Is the model's own dropout active?
    pub dropout: bool,
    /// Are the test examples also evaluated before training?
    pub evaluate_before: bool,
    /// Optimizer steps between evaluations on the validation examples; `None`: at the end of each epoch.
    pub evaluate_steps: Option<u64>,
    /// The metric by which the best model is kept, where the run file names one.
    pub monitor: Option<String>,
    /// Is a temperature fitted on the validation examples?
    pub calibrate: bool,
    /// Where two classes part.
    pub threshold: Option<Threshold>,
    /// Evaluations without a better one, by more than `min_delta`, after which training stops.
    pub patience: Option<u64>,
    /// By how much the monitored metric must be better for patience to begin anew.
    pub min_delta: f64,
    /// Optimizer steps between checkpoints, besides those at the ends of epochs.
    pub checkpoint_steps: Option<u64>,
    /// Newest checkpoints that are kept, at least 1.
    pub keep_checkpoints: usize,
    /// CPU threads.
    pub threads: Option<usize>,
}

impl TrainTable {
    /// Examples that one optimizer step learns from.
    pub fn examples_per_step(&self) -> usize {
        self.batch_size * self.accumulate
    }

    /// The momentum that schedules may cycle: SGD's, or beta1.
    pub fn momentum(&self) -> f64 {
        match self.optimizer {
            Optimizer::AdamW { betas, .. } | Optimizer::Adam { betas, .. } => betas[0],
            Optimizer::Sgd { momentum, .. } => momentum,
        }
    }
}

/// The probability of the second of two classes from which on it is predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// This one, above 0 and below 1.
    At(f64),
    /// The one with the greatest F1 on the validation examples.
    BestF1,
}

/// An update rule with torch's defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimizer {
    /// Adam with decoupled weight decay.
    AdamW {
        /// Decay of the two moments.
        betas: [f64; 2],
        /// Added to the denominator.
        eps: f64,
    },
    /// Adam.
    Adam {
        /// Decay of the two moments.
        betas: [f64; 2],
        /// Added to the denominator.
        eps: f64,
    },
    /// Stochastic gradient descent.
    Sgd {
        /// Momentum; 0 is none.
        momentum: f64,
        /// Nesterov's form of it.
        nesterov: bool,
    },
}

impl Optimizer {
    /// The engine's update rule.
    pub fn algorithm(self) -> optim::Method {
        match self {
            Self::AdamW { betas, eps } => optim::Method::AdamW { beta2: betas[1], eps },
            Self::Adam { betas, eps } => optim::Method::Adam { beta2: betas[1], eps },
            Self::Sgd { nesterov, .. } => optim::Method::Sgd { nesterov },
        }
    }

    /// Floats that it keeps for each trainable one.
    pub fn moments(self) -> usize {
        match self {
            Self::AdamW { .. } | Self::Adam { .. } => 2,
            Self::Sgd { .. } => 1,
        }
    }
}

/// The float type of matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32 bits.
    F32,
    /// bfloat16.
    Bf16,
    /// Half.
    F16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

impl From<Precision> for EnginePrecision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
            Precision::F16 => Self::F16,
        }
    }
}

/// `[run]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunTable {
    /// The run's name.
    pub name: String,
    /// The folder that it leaves, relative to the working directory.
    pub out: PathBuf,
    /// Does predictions.csv have the probabilities of all classes?
    pub probabilities: bool,
}
