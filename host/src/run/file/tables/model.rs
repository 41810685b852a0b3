//! `[model]`: the pretrained model.

use std::path::{Path, PathBuf};

use fthost_models::{ModelInfo, PoolBy, Pooling, Quantize, Stream};
use fthost_plugin_api::schemars::{self, JsonSchema};
use serde::{Deserialize, Serialize};

use crate::hub::Name;

/// How a run file names the embedded model, and the embedded data set for it.
pub(in crate::run::file) const DEMO: &str = "demo";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::run::file) struct ModelKeys {
    /// folder with config.json, model.safetensors and, for texts, tokenizer.json; relative to the run file. Or a model's name on the
    /// Hugging Face Hub, hf:organisation/model@revision: its files come into the cache that Python's libraries use
    #[schemars(length(min = 1))]
    pub(in crate::run::file) path: Option<String>,
    /// in place of path two models as one of two streams, each named as by path: { text = "FOLDER", image = "FOLDER" }
    pub(in crate::run::file) streams: Option<StreamKeys>,
    /// weights to begin with: those of the folder, or random ones
    #[serde(default)]
    pub(in crate::run::file) init: ModelInit,
    /// what is taken of a text's tokens as its features: auto does as modules.json of the folder says, else as Transformers' class for
    /// classification; mean and max are over the text's own tokens, of an image over its patches. Of two streams it is that of the texts
    #[serde(default)]
    pub(in crate::run::file) pooling: PoolingKey,
    /// whether features of whole examples are divided by their length; by default as the folder says where pooling is auto, else not
    pub(in crate::run::file) normalize: Option<bool>,
    /// pictures as the model takes them, where its folder does not say it: { size = 32, mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }
    #[serde(default)]
    pub(in crate::run::file) image: ImageKeys,
    /// keeps the matrices of linear layers in few bits, frozen: nf4 in four and q8_0 in eight, where the files hold 16 or 32. What is
    /// trained beside them, as low-rank matrices, is trained on their quantised values
    pub(in crate::run::file) quantize: Option<QuantizeKey>,
}

/// Two models that are joined.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::run::file) struct StreamKeys {
    /// the model of texts
    #[schemars(length(min = 1))]
    pub(in crate::run::file) text: String,
    /// the model of pictures
    #[schemars(length(min = 1))]
    pub(in crate::run::file) image: String,
}

/// How frozen weights are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuantizeKey {
    /// Four bits, the quantiles of a normal distribution.
    Nf4,
    /// Eight bits.
    Q8_0,
}

impl From<QuantizeKey> for Quantize {
    fn from(key: QuantizeKey) -> Self {
        match key {
            QuantizeKey::Nf4 => Self::Nf4,
            QuantizeKey::Q8_0 => Self::Q8_0,
        }
    }
}

/// How pictures become what a model takes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageKeys {
    /// height and width in pixels, one number where they are the same, or [height, width]; a network of convolutions takes others than it
    /// was made for
    pub size: Option<ImageSize>,
    /// whether a picture is taken whole, brought to the size whatever its proportions; else as the folder says, of most models the middle
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole: bool,
    /// what shows where a picture is transparent: white, black or [red, green, blue] of 0 to 255; without it its colours there, as Pillow has
    /// them
    pub over: Option<ColourKey>,
    /// mean of each channel, where black is 0 and white is 1
    #[schemars(length(min = 1, max = 3))]
    pub mean: Option<Vec<f64>>,
    /// standard deviation of each channel
    #[schemars(length(min = 1, max = 3))]
    pub std: Option<Vec<f64>>,
}

/// A colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ColourKey {
    /// by its name
    Named(ColourName),
    /// red, green and blue
    Levels([u8; 3]),
}

/// A colour by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ColourName {
    /// All light.
    White,
    /// None.
    Black,
}

impl From<ColourKey> for [u8; 3] {
    fn from(key: ColourKey) -> Self {
        match key {
            ColourKey::Named(ColourName::White) => [255; 3],
            ColourKey::Named(ColourName::Black) => [0; 3],
            ColourKey::Levels(levels) => levels,
        }
    }
}

/// Height and width of pictures as a model takes them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ImageSize {
    /// of both sides
    Side(#[schemars(range(min = 1, max = 4096))] usize),
    /// height and width
    Sides(#[schemars(inner(range(min = 1, max = 4096)))] [usize; 2]),
}

impl From<ImageSize> for (usize, usize) {
    fn from(size: ImageSize) -> Self {
        match size {
            ImageSize::Side(side) => (side, side),
            ImageSize::Sides([height, width]) => (height, width),
        }
    }
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

/// `[model]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelTable {
    /// A Hugging Face folder, absolute; or the name of the embedded model. Of joined models the first one's.
    pub path: PathBuf,
    /// Its name on the hub, where the file says that: `path` is its folder once it is fetched, and the revision then the commit.
    pub named: Option<Name>,
    /// The models that are joined, each as a stream; empty of one folder.
    pub streams: Vec<StreamTable>,
    /// The weights to begin with.
    pub init: ModelInit,
    /// How examples are pooled.
    pub pooling: PoolingKey,
    /// Whether the result is divided by its length, where the file says it.
    pub normalize: Option<bool>,
    /// How pictures become what it takes, as far as the file says it.
    pub image: ImageKeys,
    /// How frozen weights are kept, where otherwise than in the files.
    pub quantize: Option<QuantizeKey>,
}

/// A model that is a stream of a joined one.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamTable {
    /// The stream's name.
    pub name: String,
    /// As [`ModelTable::path`].
    pub path: PathBuf,
    /// As [`ModelTable::named`].
    pub named: Option<Name>,
}

impl StreamTable {
    /// How others refer to it.
    pub fn refer(&self) -> String {
        self.named.as_ref().map_or_else(|| self.path.display().to_string(), |name| name.id.clone())
    }
}

impl ModelTable {
    /// Takes a folder in place of what the file names.
    pub fn set_folder(&mut self, folder: PathBuf) {
        (self.path, self.named, self.streams) = (folder, None, Vec::new());
    }

    /// Where it is: its folder, or those of the models that are joined.
    pub fn folders(&self) -> Vec<&Path> {
        match self.streams.as_slice() {
            [] => vec![&self.path],
            streams => streams.iter().map(|own| own.path.as_path()).collect(),
        }
    }

    /// The models that are joined, also where they lie in the one folder that such a model was saved in; none of a single model.
    ///
    /// # Errors
    /// As [`folder_of`](Self::folder_of).
    pub fn joined(&self, info: &ModelInfo) -> crate::Result<Vec<StreamTable>> {
        if !self.streams.is_empty() || !fthost_models::is_joined(&self.path) {
            return Ok(self.streams.clone());
        }
        let of_stream = |stream: &Stream| {
            Ok(StreamTable { name: stream.name.clone(), path: self.folder_of(&stream.name)?, named: None })
        };
        info.streams.iter().map(of_stream).collect()
    }

    /// The folder that a stream's files lie in: its tokenizer, and what is said of its pictures.
    ///
    /// # Errors
    /// Where what says how folders are joined cannot be read.
    pub fn folder_of(&self, stream: &str) -> crate::Result<PathBuf> {
        match self.streams.iter().find(|own| own.name == stream) {
            Some(own) => Ok(own.path.clone()),
            None if self.is_demo() => Ok(self.path.clone()),
            None => Ok(fthost_models::stream_folder(&self.path, stream)?),
        }
    }

    /// Says how examples are pooled, where that was left open: what is written of the run then holds it.
    pub fn pools(&mut self, pooling: Pooling) {
        self.pooling = match pooling.by {
            PoolBy::First => PoolingKey::Cls,
            PoolBy::Pooler => PoolingKey::Pooler,
            PoolBy::Mean => PoolingKey::Mean,
            PoolBy::Max => PoolingKey::Max,
            PoolBy::Last => PoolingKey::Last,
            // No key asks for it: it is the architecture's own way.
            PoolBy::End => PoolingKey::Auto,
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

    /// How others refer to it: the folder, the name of the embedded model, or on the hub `org/name`; both of two that are joined.
    pub fn name(&self) -> String {
        if !self.streams.is_empty() {
            return self.streams.iter().map(StreamTable::refer).collect::<Vec<_>>().join(" and ");
        }
        self.named.as_ref().map_or_else(|| self.path.display().to_string(), |name| name.id.clone())
    }
}
