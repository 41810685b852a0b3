//! What the host needs to know of a model, so that it knows no family.

use fthost_autograd::Result;

use crate::Pooling;

/// What a model is, and what can be asked of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// What its files call it; Hugging Face's `model_type`: `bert`.
    pub model_type: String,
    /// What inputs go through: one of a plain model, two of a pair of towers. Never none.
    pub streams: Vec<Stream>,
    /// The groups that parameters belong to, from the bottom up: of each stream the embeddings and the blocks. The last one is of no
    /// stream: what stands above the blocks, and heads, also where the model itself has nothing there.
    pub groups: Vec<BlockGroup>,
    /// Transformers' class of the model without a head: `BertModel`.
    pub base_class: Option<String>,
    /// The architecture's own head for classification, where it has one.
    pub classification: Option<Classification>,
    /// The layer over the vocabulary, where one was asked for.
    pub vocabulary: Option<VocabularyLayer>,
    /// The head that compares two streams, where the architecture has one and it was asked for.
    pub contrastive: Option<Contrastive>,
    /// How its texts see pictures, where they do.
    pub sight: Option<Sight>,
    /// Dropout that the architecture asks for before a head's last layer.
    pub head_dropout: f64,
}

impl ModelInfo {
    /// The stream of a plain model; of several, the first.
    pub fn plain(&self) -> &Stream {
        &self.streams[0]
    }

    /// The group of heads, the last one.
    pub fn head_group(&self) -> usize {
        self.groups.len() - 1
    }

    /// The place of the stream of this name.
    pub fn stream(&self, name: &str) -> Option<usize> {
        self.streams.iter().position(|stream| stream.name == name)
    }

    /// Refuses the number of a stream that is not there.
    pub(crate) fn refuse_stream(&self, stream: usize) -> Result<()> {
        match self.streams.len() {
            streams if stream < streams => Ok(()),
            1 => candle_core::bail!("{} has one stream", self.model_type),
            streams => candle_core::bail!("{} has {streams} streams, counted from 0, got {stream}", self.model_type),
        }
    }

    /// The path of what is part of a stream within it: without what stands before all paths of the stream.
    pub fn within<'a>(&self, stream: Option<usize>, path: &'a str) -> &'a str {
        let root = stream.map_or("", |stream| &self.streams[stream].root);
        path.strip_prefix(root).unwrap_or(path)
    }

    /// What stands before the paths of a stream in Hugging Face's files of the model with a head; nothing before those of no stream.
    pub fn prefix(&self, stream: Option<usize>) -> &str {
        stream.map_or("", |stream| &self.streams[stream].prefix)
    }

    /// Whether Hugging Face's class for classification makes the features of whole examples as this model does.
    pub fn pools_as_its_class(&self) -> bool {
        self.classification.as_ref().is_some_and(|class| class.pooling == self.plain().pooling)
    }

    /// The parameters of its own that train with a head, whatever strategies freeze: what its weights lacked, and the projector of one that
    /// sees, which nothing but its task has taught to say anything.
    pub fn trained_with_heads(&self) -> impl Iterator<Item = &str> {
        let lacked = self.vocabulary.iter().flat_map(|layer| &layer.new);
        lacked.chain(self.sight.iter().flat_map(|sight| &sight.projector)).map(String::as_str)
    }

    /// Whether pictures stand before the texts of a stream.
    pub fn sees(&self, stream: usize) -> bool {
        self.sight.as_ref().is_some_and(|sight| sight.texts == stream)
    }

    /// Whether the head that compares two streams has this parameter.
    pub fn compares_by(&self, parameter: &str) -> bool {
        let own = |head: &Contrastive| head.scale == parameter || head.projections.iter().any(|path| path == parameter);
        self.contrastive.as_ref().is_some_and(own)
    }

    /// The paths of the word embeddings and of the layer over the vocabulary, where both have one matrix.
    pub fn shared_vocabulary(&self) -> Option<[&str; 2]> {
        let (words, layer) = (self.plain().word_embeddings.as_deref()?, self.vocabulary.as_ref()?);
        (layer.weight.strip_suffix(".weight") == Some(words)).then_some([words, layer.output.as_str()])
    }

    /// The dense layer before the last one that the architecture's own head has: its path and activation.
    pub fn hidden_layer(&self) -> Option<(&str, &str)> {
        let (path, activation) = self.classification.as_ref()?.hidden.as_ref()?;
        Some((path, activation))
    }
}

/// One way through a model, from inputs of one modality to features.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    /// Its name: `text`, `image`.
    pub name: String,
    /// What it takes in.
    pub modality: Modality,
    /// What stands before its paths in Hugging Face's files of the model with a head: `bert.`.
    pub prefix: String,
    /// What its paths begin with in a model of several streams, `text_model.` of CLIP, and `text.` where two folders are joined. Nothing
    /// in a plain model. What stands above its blocks may lie elsewhere.
    pub root: String,
    /// Width of its features; channels of a map.
    pub width: usize,
    /// Number of its blocks, where its blocks are alike.
    pub layers: Option<usize>,
    /// Attention heads of a block, where blocks attend.
    pub heads: Option<usize>,
    /// What each of its blocks takes, where they are alike.
    pub block: Option<BlockMemory>,
    /// Path of its word embeddings, where there are any.
    pub word_embeddings: Option<String>,
    /// Which features it gives.
    pub reads: Vec<Read>,
    /// The feature maps that it gives of an image, from the bottom up: those of its stages, where it has stages. The last one is what
    /// [`Read::Spatial`] reads; none where it gives no maps.
    pub maps: Vec<FeatureMap>,
    /// How it pools.
    pub pooling: Pooling,
}

/// About how many numbers a block takes for each token of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockMemory {
    /// What it keeps for its backward pass where its own weights are frozen.
    pub kept: usize,
    /// The same where they train: what its products read is kept too, as far as it is not made again.
    pub kept_to_train: usize,
    /// What its backward pass takes beside that.
    pub backward: usize,
    /// What it takes where nothing is kept.
    pub passing: usize,
}

/// A feature map that a stream gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureMap {
    /// Its channels.
    pub channels: usize,
    /// Pixels of the image from one pixel of the map to the next.
    pub stride: usize,
}

/// Parameters that lie at one height: schedules and rates go by them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockGroup {
    /// Its name: `embeddings`, `layer.3`, `stem`, `stage.2.block.1`, `head`.
    pub name: String,
    /// The stream that it is part of.
    pub stream: Option<usize>,
}

/// Which rows of the last layer are wanted; the others are not computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// One row per example: what the architecture pools, `[examples, width]`.
    Pooled,
    /// Every token, `[tokens, width]`.
    Sequence,
    /// A map of each image, `[examples * height * width, channels]`: pixel (y, x) of an example is row
    /// `(example * height + y) * width + x`.
    Spatial,
    /// As [`Spatial`](Self::Spatial), the map of this number among the stream's [`maps`](Stream::maps). What lies above is not computed.
    Stage(usize),
}

/// What kind of input a stream takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modality {
    /// [`Input::Text`](crate::Input::Text).
    Text {
        /// The longest sequence, special tokens included.
        max_tokens: usize,
        /// Rows of the word embeddings.
        vocabulary: usize,
    },
    /// [`Input::Images`](crate::Input::Images).
    Images {
        /// Channels.
        channels: usize,
        /// Height and width in pixels that the model was made for.
        size: usize,
        /// Whether it takes other sizes as well, as networks of convolutions do.
        any_size: bool,
        /// Rows of an image: its patches and the class token. A convolutional network, which has no such rows, says how many patches of
        /// 16 pixels there are, so that images weigh alike.
        tokens: usize,
    },
}

impl Modality {
    /// The name of a stream that takes it, where a model has one of its kind.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text { .. } => "text",
            Self::Images { .. } => "image",
        }
    }
}

/// The layer over the vocabulary that a language model has, by the paths of its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct VocabularyLayer {
    /// The matrix, `[vocabulary, width]`: that of the word embeddings where both are one.
    pub weight: String,
    /// Transformers' path of the layer: `lm_head`, also where its matrix is that of the word embeddings.
    pub output: String,
    /// The bias, `[vocabulary]`, where it has one.
    pub bias: Option<String>,
    /// What stands between the model and the matrix.
    pub transform: Option<VocabularyTransform>,
    /// Whether a token's features say what comes next; else what stands in its own place.
    pub causal: bool,
    /// Transformers' class of the model with this layer: `LlamaForCausalLM`, `BertForMaskedLM`.
    pub class: String,
    /// The parameters that the weights lacked, and that are new.
    pub new: Vec<String>,
}

/// The head that compares the features of two streams, as CLIP has one: each is projected without a bias and divided by its length, and
/// their products are multiplied with the exponential of a number that is learned.
#[derive(Clone, Debug, PartialEq)]
pub struct Contrastive {
    /// The matrix of each stream, `[width, width of the stream]`, by its parameter's path, in the order of the streams.
    pub projections: Vec<String>,
    /// Path of the number, `[1]`.
    pub scale: String,
    /// Width of what is compared.
    pub width: usize,
}

/// How a decoder sees (Liu et al. 2023, arXiv:2310.03744, LLaVA 1.5): the pixels of a picture's map pass through two linear layers with GELU
/// between them, and stand before the text as if they were embeddings of words.
#[derive(Clone, Debug, PartialEq)]
pub struct Sight {
    /// The stream that pictures pass through. [`Read::Spatial`] is what is read of it.
    pub pictures: usize,
    /// The stream of the texts that they stand before: their rows are given as [`TextInput::before`](crate::TextInput::before).
    pub texts: usize,
    /// Paths of the parameters between the two, which are of neither stream.
    pub projector: Vec<String>,
    /// Whether these are as new: of no folder, so that pictures say nothing yet.
    pub new: bool,
}

/// A dense layer, its activation and a layer norm.
#[derive(Clone, Debug, PartialEq)]
pub struct VocabularyTransform {
    /// Path of the dense layer, `[width, width]`.
    pub dense: String,
    /// Its activation, by Transformers' name.
    pub activation: String,
    /// Path of the norm.
    pub norm: String,
    /// What the norm adds to the variance.
    pub eps: f64,
}

/// How the architecture's own classification head looks in its files.
#[derive(Clone, Debug, PartialEq)]
pub struct Classification {
    /// Hugging Face's class for sequence or image classification, `BertForSequenceClassification`; none of a model that comes from
    /// timm, from torchvision or from here.
    pub class: Option<String>,
    /// Path of the last linear layer: `classifier`, RoBERTa's `classifier.out_proj`, torchvision's `fc`.
    pub output: String,
    /// Whether that layer has a bias where it answers for whole examples.
    pub bias: bool,
    /// Whether there is also a class of the architecture that answers for each token.
    pub tokens: bool,
    /// Path and activation of the dense layer before it, where there is one: `("classifier.dense", "tanh")`, or
    /// `("bert.pooler.dense", "tanh")` where a checkpoint lacks the pooler of its architecture. Transformers makes a new one there,
    /// so it is trained and saved with the head.
    pub hidden: Option<(String, String)>,
    /// Key of the dropout before the last layer in config.json, where Hugging Face's class reads one.
    pub dropout_key: Option<String>,
    /// How Hugging Face's class pools.
    pub pooling: Pooling,
}

impl Classification {
    /// Path of the last layer, or of that of Hugging Face's class that answers for each token: one layer, under the first part of the path.
    pub fn last_layer(&self, per_token: bool) -> &str {
        if per_token { self.output.split('.').next().unwrap_or_default() } else { &self.output }
    }
}
