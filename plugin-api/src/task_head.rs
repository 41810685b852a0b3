//! Task heads: from features to outputs, a loss and predictions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::stream::{FeatureKind, Stream};
use crate::{Error, Model, Result, SavedState, Tensor};

/// Transformers' names of problems, for [`TaskHead::PROBLEM_TYPE`].
pub mod problem_type {
    /// One class of several.
    pub const SINGLE_LABEL: &str = "single_label_classification";
    /// One real value.
    pub const REGRESSION: &str = "regression";
    /// Any number of several classes.
    pub const MULTI_LABEL: &str = "multi_label_classification";
    /// One class of several for each token; Transformers has a class of its own for it, and no name among its problems.
    pub const TOKENS: &str = "token_classification";
    /// The token that comes next; Transformers has classes of its own for it, and no name among its problems. The host gives the model its
    /// layer over the vocabulary then: [`TaskInfo::vocabulary`](crate::TaskInfo::vocabulary).
    pub const CAUSAL_LM: &str = "causal_lm";
    /// The better one of two answers to a prompt, by how probable the model holds each; else as [`CAUSAL_LM`]. Transformers has no name for
    /// it: what is saved is its model of the next token.
    pub const PREFERENCE: &str = "preference";
    /// The token that stands in a masked one's place; else as [`CAUSAL_LM`].
    pub const MASKED_LM: &str = "masked_lm";
    /// What belongs together: the inputs of a row, of two streams or as texts of their own. There are no labels. Transformers has no name for
    /// it.
    pub const CONTRASTIVE: &str = "contrastive";
    /// One real value for how alike the texts of a row are, each of which passes by itself; sentence-transformers' task, of which Transformers
    /// has no name.
    pub const SIMILARITY: &str = "sentence_similarity";
    /// One class of several for each pixel; Transformers has classes of its own for it, and no name among its problems.
    pub const MASKS: &str = "semantic_segmentation";
}

/// What the data's targets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// A class per example: `u32` indices `[examples]`.
    Class,
    /// A real value per example: `f32` `[examples]`.
    Value,
    /// A class per token: `u32` indices `[tokens]`; `u32::MAX` does not count.
    TokenClass,
    /// Any number of classes per example, or none: `f32` `[examples, classes]`, 1 where it has the class and 0 elsewhere.
    MultiLabel,
    /// A class per pixel: `u32` indices `[examples, height, width]`; `u32::MAX` does not count.
    Mask,
    /// The token after each token: `u32` ids `[tokens]`; `u32::MAX` does not count, as for tokens of a prompt, and for the last one.
    NextToken,
    /// The token that was in the place of each masked token: `u32` ids `[tokens]`; `u32::MAX` does not count, as for tokens that were not
    /// chosen. [`HeadSpec::masking`] says how they are chosen.
    MaskedToken,
    /// Which of two answers is the better one, where an example is a pair of sequences, the better one first: the head's own outputs for the
    /// same examples before training, `f32` `[examples, ...]`, where [`HeadSpec::reference`] asks for them, and elsewhere zeros
    /// `[examples, 2]`. What the sequences say comes with their [`Features::next`].
    Preference,
    /// Nothing but the examples themselves: what belongs together is in each of them, as a text and its picture. `u32` `[examples]`, the place of
    /// each in the batch, from 0: of the other side of all examples, the one that belongs to this one. Since 1.1
    Match,
}

/// How tokens are chosen whose place in the input is taken: 80 of 100 by the mask, 10 by a random token, and 10 stay (Devlin et al. 2018,
/// arXiv:1810.04805). Special tokens never are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Masking {
    /// The share of a text's tokens, above 0 and at most 1.
    pub share: f64,
    /// Whether all tokens of a word are chosen together.
    pub whole_words: bool,
}

/// The model's own layer over its vocabulary. Paths are those of [`Model::base_param`](crate::Model::base_param).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vocabulary {
    /// Its tokens.
    pub size: usize,
    /// The matrix, `[size, width]`: that of the word embeddings where both are one.
    pub weight: String,
    /// The bias, `[size]`, where it has one.
    pub bias: Option<String>,
    /// Whether a token's features say what comes next; else what stands in its own place.
    pub causal: bool,
    /// What stands between the features and the matrix, where anything does.
    pub transform: Option<VocabularyTransform>,
}

/// A dense layer, an activation and a layer norm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VocabularyTransform {
    /// The dense layer's path, with `weight` `[width, width]` and `bias` `[width]`.
    pub dense: String,
    /// The activation, by Transformers' name.
    pub activation: String,
    /// The norm's path, with `weight` and `bias`.
    pub norm: String,
    /// What the norm adds to the variance.
    pub eps: f64,
}

/// The head that compares two streams, as the architecture has one (CLIP): each stream's pooled features are projected without a bias and divided
/// by their length, and their products are multiplied with the exponential of a number. Paths are those of
/// [`Model::base_param`](crate::Model::base_param).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// The matrix of each stream, `[width, width of the stream]`, in the order of [`TaskInfo::streams`].
    pub projections: Vec<String>,
    /// The number, `[1]`.
    pub scale: String,
    /// Width of what is compared.
    pub width: usize,
}

/// Whether a loss is a sum over examples or needs the whole batch at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossScope {
    /// The loss of a batch is the sum of its examples' losses over the sum of their weights. The host may split a batch.
    Example,
    /// The loss needs all rows together (prototypes, contrastive losses). The host gathers the features and calls once.
    Batch,
}

/// How examples come in batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Sampling {
    /// Shuffled batches of `train.batch_size`.
    #[default]
    Shuffled,
    /// Few-shot episodes: each batch holds `ways` classes with `shots` support and `queries` query rows each.
    Episodes {
        /// Classes of an episode.
        ways: u32,
        /// Support examples of each class.
        shots: u32,
        /// Query examples of each class.
        queries: u32,
        /// Training examples of each class, at most, whose outputs [`TaskHead::fit`] gets.
        support: u32,
    },
}

/// What kind of answer [`TaskHead::predict`] gives; the host computes the metrics from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionKind {
    /// Probabilities of classes, `[rows, classes]`: accuracy, report, confusion matrix.
    Classes,
    /// Probabilities of classes that are independent of each other, `[rows, classes]`: F1 by class and averaged, mean average precision.
    MultiLabel,
    /// Real values, `[rows]`: mean squared error, Pearson, Spearman.
    Values,
    /// Probabilities of the classes of each pixel, `[pixels, classes]`, of the pictures' own pixels as
    /// [`ImageInfo::size`] says how many they are: intersection over union, pixel accuracy.
    Masks,
    /// The most probable token for each place, `u32` ids `[tokens]`: perplexity, by the loss, and accuracy.
    Tokens,
    /// Scores of the better and the worse answer, `[examples, 2]`. They are rewards, once those of the model before training are taken away
    /// where [`HeadSpec::reference`] asks for these: how often the better one's is greater, and by how much.
    Preferences,
    /// Vectors of length 1, `[examples, sides, width]`: one of each side of an example, a text's and its picture's, so that the nearest ones of
    /// the other side are found. Of more sides than two the others stand beside the second, as what is wrong. Sides of two streams stand in the
    /// order of [`HeadSpec::streams`]. A side's vector follows from that side alone: the host asks for one side's by features of its own that
    /// stand for the other. Cosines become probabilities of classes by the exponential of the head's parameter `logit_scale`, or of the model's
    /// own ([`Comparison::scale`]). Recall at 1, 5 and 10 both ways, mean rank. Since 1.1
    Embeddings,
}

/// What the host knows of a task when its head is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskInfo {
    /// The task's name in the run file.
    pub name: String,
    /// Names of the classes in index order; empty where targets are no classes.
    pub labels: Vec<String>,
    /// Training examples of each class, in the order of `labels`.
    pub class_counts: Vec<u64>,
    /// Training examples: not the sum of those of the classes where an example may have any number of them. 0 where nobody counted.
    #[serde(default)]
    pub examples: u64,
    /// Width of the features, the last dimension (channels for spatial ones); of several streams, the first one's.
    pub width: usize,
    /// The model's streams.
    #[serde(default)]
    pub streams: Vec<Stream>,
    /// The activation of the extra dense layer that this architecture's own head has (`tanh` for RoBERTa, `relu` for
    /// DistilBERT), or `None` where its head is one linear layer.
    pub hidden_activation: Option<String>,
    /// Whether the last layer of this architecture's own head has a bias where it answers for whole examples (decoders' has none).
    #[serde(default = "yes")]
    pub bias: bool,
    /// Dropout before the last layer that the model's config asks for.
    pub dropout: f64,
    /// How large the task's pictures and their maps are; `None` where examples are no pictures, or the model gives no maps.
    #[serde(default)]
    pub image: Option<ImageInfo>,
    /// The model's own layer over its vocabulary; `None` where the head's [`TaskHead::PROBLEM_TYPE`] asks for none.
    #[serde(default)]
    pub vocabulary: Option<Vocabulary>,
    /// The model's own head that compares its streams, where it has one and the head's [`TaskHead::PROBLEM_TYPE`] is
    /// [`CONTRASTIVE`](problem_type::CONTRASTIVE). Since 1.1
    #[serde(default)]
    pub comparison: Option<Comparison>,
    /// Sequences of an example in a stream of texts: 2 or 3 where the texts of a row pass by themselves, one after the other, as where the head's
    /// [`TaskHead::PROBLEM_TYPE`] is about what belongs together or is alike and the model has one stream. Since 1.1
    #[serde(default = "once")]
    pub sequences: u32,
}

fn yes() -> bool {
    true
}

/// How large pictures are, as the model takes them, and the map that it makes of each. Sizes are height and width in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// Of a picture, and of its mask: targets of [`TargetKind::Mask`] are `[examples, size[0], size[1]]`.
    pub size: [usize; 2],
    /// Of [`FeatureKind::Spatial`] features: each picture has `map[0] * map[1]` rows, row by row of the map.
    pub map: [usize; 2],
}

/// What a head declares when it attaches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadSpec {
    /// The features it reads.
    pub features: FeatureKind,
    /// The targets it learns from.
    pub targets: TargetKind,
    /// Whether the host may split a batch.
    pub scope: LossScope,
    /// How batches are drawn.
    #[serde(default)]
    pub sampling: Sampling,
    /// What it predicts.
    pub predictions: PredictionKind,
    /// The streams it reads, in the order in which [`TaskHead::forward_streams`] gets them. Empty: the model's one stream, by
    /// [`features`](Self::features).
    #[serde(default)]
    pub streams: Vec<StreamFeatures>,
    /// How tokens are chosen, where targets are masked ones.
    #[serde(default)]
    pub masking: Option<Masking>,
    /// Whether targets are what the head gives for the same examples before training: [`TargetKind::Preference`].
    #[serde(default)]
    pub reference: bool,
    /// How often each row passes through the model in training, each time under dropout masks of its own (R-Drop, SimCSE). `forward` and
    /// `loss` then get all rows of the first pass, then all of the second: `forwards` times as many rows of outputs as of targets.
    /// In evaluation once. Since 1.1
    #[serde(default = "once")]
    pub forwards: u32,
    /// The metrics of its own that [`TaskHead::metrics`] gives. Since 1.1
    #[serde(default)]
    pub metrics: Vec<MetricSpec>,
}

fn once() -> u32 {
    1
}

/// A metric of a head's own: a number of each evaluation, which a run may monitor and a comparison compares. Since 1.1
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricSpec {
    /// Its name: lower case, digits and `_`; none that the host has for such predictions.
    pub name: String,
    /// Whether a greater value is a better one.
    pub higher_is_better: bool,
}

/// Which features of one stream a head reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamFeatures {
    /// The stream's name: `text`, `image`.
    pub stream: String,
    /// The features.
    pub features: FeatureKind,
}

impl StreamFeatures {
    /// Of one of [`TaskInfo::streams`].
    pub fn of(stream: &Stream, features: FeatureKind) -> Self {
        Self { stream: stream.name.clone(), features }
    }
}

impl HeadSpec {
    /// A head of one stream, whose batches are shuffled and may be split: what most are. Others name what is different:
    /// `HeadSpec { scope: LossScope::Batch, ..HeadSpec::new(...) }`.
    pub const fn new(features: FeatureKind, targets: TargetKind, predictions: PredictionKind) -> Self {
        let (scope, sampling) = (LossScope::Example, Sampling::Shuffled);
        Self {
            features,
            targets,
            scope,
            sampling,
            predictions,
            streams: Vec::new(),
            masking: None,
            reference: false,
            forwards: 1,
            metrics: Vec::new(),
        }
    }
}

/// Features of one micro-batch (of the whole batch where the scope is [`LossScope::Batch`]).
#[derive(Debug)]
pub struct Features<'a> {
    /// Shape by [`FeatureKind`].
    pub tensor: &'a Tensor,
    /// Start of each sequence in a `[tokens, width]` tensor, and the end of the last: `examples + 1` entries, or where examples have several
    /// sequences ([`TaskInfo::sequences`]; pairs of answers have 2) `sequences * examples + 1`.
    pub offsets: &'a [u32],
    /// The token after each token, `u32` ids `[tokens]`, where [`HeadSpec::targets`] is [`TargetKind::Preference`]; `u32::MAX` does not
    /// count, as for tokens of a prompt, and for the last one of a sequence.
    pub next: Option<&'a Tensor>,
}

/// Targets of the rows of one [`Features`].
#[derive(Debug)]
pub struct TaskTargets<'a> {
    /// Type and shape by [`TargetKind`].
    pub tensor: &'a Tensor,
    /// For episodes: 1 for each support row, 0 for each query row. Empty otherwise.
    pub support: &'a [u8],
}

/// A loss as a sum and what it is divided by, so that accumulated and split batches give exactly the full batch's gradient.
#[derive(Debug)]
pub struct Loss {
    /// The sum of the loss terms, a differentiable scalar.
    pub sum: Tensor,
    /// The sum of the terms' weights: the number of rows that count, or of their class weights.
    pub weight: f64,
}

/// A head. `attach` runs on the run's thread; [`forward`](Self::forward), [`loss`](Self::loss) and
/// [`predict`](Self::predict) take `&self` and run on several threads at once.
pub trait TaskHead: Sized + Send + Sync + 'static {
    /// The options of `head = { plugin = "...", ... }`.
    type Config: DeserializeOwned + schemars::JsonSchema;

    /// Transformers' `problem_type` of the models whose head this one computes, with its options' defaults and under the same
    /// names, as [`problem_type`] lists them. It stands in the plugin's note, so that a host finds a head for a folder of PEFT.
    const PROBLEM_TYPE: Option<&'static str> = None;

    /// Makes an instance from checked options.
    fn new(config: Self::Config) -> Result<Self>;

    /// Declares the head's parameters by [`Model::head_param`] and says what it reads. `[run thread]`, once.
    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec>;

    /// From features to outputs (logits, values, embeddings). `[any thread]`
    fn forward(&self, features: &Features<'_>) -> Result<Tensor>;

    /// The same from the features of several streams, for a head whose [`HeadSpec::streams`] names them. `[any thread]`
    fn forward_streams(&self, features: &[Features<'_>]) -> Result<Tensor> {
        match features {
            [features] => self.forward(features),
            more => Err(Error::new(format!("this head reads one stream, and the host passed {}", more.len()))),
        }
    }

    /// The loss of outputs against targets. `[any thread]`
    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss>;

    /// Takes what [`predict`](Self::predict) needs from the outputs of training examples, without gradients: prototypes of classes.
    /// It keeps them in parameters that do not train, by [`Model::set_value`]; these are saved, restored and exported as all others.
    ///
    /// Called before each evaluation where [`HeadSpec::sampling`] draws episodes. A class may be without examples, and then is not
    /// to be predicted. `[run thread]`
    fn fit(&mut self, outputs: &Tensor, targets: &Tensor, model: &mut Model) -> Result<()> {
        let _ = (outputs, targets, model);
        Ok(())
    }

    /// From outputs to the standard form that [`HeadSpec::predictions`] names. `[any thread]`
    fn predict(&self, outputs: &Tensor) -> Result<Tensor>;

    /// The metrics that [`HeadSpec::metrics`] names, of what [`predict`](Self::predict) gave for all examples of an evaluation, at the run's
    /// temperature, and their targets. One that is undefined is no number. Not of masks and of tokens, of which too many would be in memory.
    /// `[run thread]`. Since 1.1
    fn metrics(&self, predictions: &Tensor, targets: &Tensor) -> Result<BTreeMap<String, f64>> {
        let _ = (predictions, targets);
        Err(Error::new("this head has no metric of its own"))
    }

    /// State beyond declared parameters that `eval`, `predict` and a resumed run need.
    fn save(&self) -> Result<SavedState> {
        Ok(SavedState::default())
    }

    /// Takes back what [`save`](Self::save) gave.
    fn load(&mut self, state: SavedState) -> Result<()> {
        let _ = state;
        Ok(())
    }
}
