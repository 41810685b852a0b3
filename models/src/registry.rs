//! Models from folders, from bytes or with new weights, by the family that knows their kind.

use std::path::{Path, PathBuf};

use candle_core::Device;
use serde_json::Value as Json;

use crate::family::{CONFIG_FILE, Family, Source, Values};
use crate::towers::pair::{self, Pair};
use crate::weights::{Quantize, Weights};
use crate::{LoadError, Model, Pooling, convnet, decoder, towers, transformer};

/// Every family; a folder of this crate each, with a table of the architectures that it builds.
const FAMILIES: [Family; 4] = [transformer::FAMILY, decoder::FAMILY, convnet::FAMILY, towers::FAMILY];

/// How models are loaded: where to, and how much of them.
#[derive(Clone, Copy, Debug)]
pub struct Loader<'a> {
    device: &'a Device,
    vocabulary: Option<u64>,
    contrastive: bool,
    keeps_statistics: bool,
    quantize: Option<Quantize>,
}

impl<'a> Loader<'a> {
    /// Models without heads.
    pub fn new(device: &'a Device) -> Self {
        Self { device, vocabulary: None, contrastive: false, keeps_statistics: false, quantize: None }
    }

    /// With the layer over the vocabulary that a language model has, as [`ModelInfo::vocabulary`](crate::ModelInfo::vocabulary) says. What
    /// the weights lack of it is new, and follows from the seed. A decoder that is joined with a model of pictures sees then
    /// ([`ModelInfo::sight`](crate::ModelInfo::sight)): what stands between them is that of the folder, or as new.
    #[must_use]
    pub fn with_vocabulary(self, seed: u64) -> Self {
        Self { vocabulary: Some(seed), ..self }
    }

    /// With the head that compares two streams, of an architecture that has one, as
    /// [`ModelInfo::contrastive`](crate::ModelInfo::contrastive) says. Without, it is kept and saved as it is, and what is read of the
    /// model does not depend on it.
    #[must_use]
    pub fn with_contrastive(self) -> Self {
        Self { contrastive: true, ..self }
    }

    /// With batch norms that keep to their running statistics where they train, and do not follow the batches: what an example gives does not
    /// depend on the others of its batch then.
    #[must_use]
    pub fn keeping_statistics(self, keeps_statistics: bool) -> Self {
        Self { keeps_statistics, ..self }
    }

    /// With the matrices of linear layers quantised, whose rows are whole blocks: their values are what that leaves of those of the files.
    #[must_use]
    pub fn quantized(self, quantize: Option<Quantize>) -> Self {
        Self { quantize, ..self }
    }

    /// [`open`], so.
    ///
    /// # Errors
    /// As [`open`], and where a layer over a vocabulary is asked for that the architecture does not have.
    pub fn open(self, folder: &Path) -> Result<Box<dyn Model>, LoadError> {
        if let Some(parts) = pair::parts(folder)? {
            let folders: Vec<PathBuf> = parts.iter().map(|part| folder.join(&part.folder)).collect();
            let streams = parts.iter().zip(&folders).map(|(part, folder)| (part.name.as_str(), folder.as_path()));
            let streams = streams.zip(parts.iter().map(|part| Some(part.pooling())));
            return self.joined(streams, pair::projector_file(folder).as_deref());
        }
        let (file, text) = config_of(folder)?;
        self.build(&file, &text, Values::Folder(folder))
    }

    /// A folder for texts and one for images as the streams `text` and `image` of one model, each loaded as [`open`](Self::open) loads it, and
    /// pooled as its folder says. Paths begin with the stream's name and a dot. What it saves, [`open`](Self::open) opens again.
    ///
    /// # Errors
    /// As [`open`](Self::open), and where these are not two models of one stream each, for texts and for images.
    pub fn join(self, streams: &[(&str, &Path)]) -> Result<Box<dyn Model>, LoadError> {
        let poolings = streams.iter().map(|(_, folder)| Pooling::of_folder(folder)).collect::<Result<Vec<_>, _>>()?;
        self.joined(streams.iter().copied().zip(poolings), None)
    }

    /// Folders by the names of their streams, and how each pools, where that is not the architecture's way. `projector` are the weights of what
    /// stands between them, where they have seen.
    fn joined<'b>(
        self,
        streams: impl Iterator<Item = ((&'b str, &'b Path), Option<Pooling>)>,
        projector: Option<&Path>,
    ) -> Result<Box<dyn Model>, LoadError> {
        let mut opened = Vec::new();
        for ((name, folder), pooling) in streams {
            // A tower of pictures has no vocabulary.
            let vocabulary = self.vocabulary.filter(|_| name != pair::IMAGE);
            let mut model = Self { vocabulary, ..self }.open(folder)?;
            if let Some(pooling) = pooling.filter(|pooling| *pooling != model.info().plain().pooling) {
                model.set_pooling(0, pooling)?;
            }
            opened.push((name, folder, model));
        }
        let pair = Pair::new(opened)?;
        Ok(Box::new(match self.vocabulary {
            Some(seed) => pair.seeing(projector, seed, self.device)?,
            None => pair,
        }))
    }

    /// [`random`], so.
    ///
    /// # Errors
    /// As [`random`], and where a layer over a vocabulary is asked for that the architecture does not have.
    pub fn random(self, config: &str, seed: u64) -> Result<Box<dyn Model>, LoadError> {
        self.build(Path::new(CONFIG_FILE), config, Values::New { seed })
    }

    fn build(self, file: &Path, text: &str, values: Values<'_>) -> Result<Box<dyn Model>, LoadError> {
        let config: Json =
            serde_json::from_str(text).map_err(|source| LoadError::Config { file: file.into(), source })?;
        let named = |key: &str| config.get(key).and_then(Json::as_str);
        let (model_type, architecture) = (named("model_type"), named("architecture"));
        let family = match (model_type, architecture) {
            (Some(name), _) => FAMILIES.iter().find(|family| (family.model_types)().contains(&name)),
            (None, Some(name)) => FAMILIES.iter().find(|family| (family.architectures)().contains(&name)),
            (None, None) => None,
        };
        let Some(family) = family else {
            let of_timm = model_type.is_none() && architecture.is_some();
            return Err(LoadError::UnknownArchitecture {
                file: file.into(),
                key: if of_timm { "architecture" } else { "model_type" },
                name: model_type.or(architecture).map(str::to_owned),
                supported: supported(|family| if of_timm { family.architectures } else { family.model_types }),
            });
        };
        let Self { device, vocabulary, contrastive, keeps_statistics, quantize } = self;
        (family.build)(&Source {
            file,
            text,
            config,
            values,
            device,
            vocabulary,
            contrastive,
            keeps_statistics,
            quantize,
        })
    }
}

/// Loads a folder: config.json, and the weights beside it, or what a model of two joined folders was saved as ([`Loader::join`]). Weights without a config, in a folder or as a file, are known by the names of
/// their tensors, where a family knows these.
///
/// # Errors
/// Where a file is missing or damaged, the architecture is not known, or weights and config do not fit.
pub fn open(folder: &Path, device: &Device) -> Result<Box<dyn Model>, LoadError> {
    Loader::new(device).open(folder)
}

/// What stands in a folder's config.json; of weights that have none, what their tensors' names say.
///
/// # Errors
/// As [`open`].
pub fn config(folder: &Path) -> Result<Json, LoadError> {
    let (file, text) = config_of(folder)?;
    serde_json::from_str(&text).map_err(|source| LoadError::Config { file, source })
}

/// The config and where it is from.
fn config_of(folder: &Path) -> Result<(PathBuf, String), LoadError> {
    let file = folder.join(CONFIG_FILE);
    if !file.exists() && pair::is_joined(folder) {
        let reason = "joins folders, each with a config.json of its own, and is no model of one architecture: open the folders that it names, \
                      or train on all of it"
            .into();
        return Err(LoadError::Refused { file: folder.join(pair::STREAMS), reason });
    }
    if !file.exists()
        && let Some(config) = recognised(folder)?
    {
        return Ok((folder.to_owned(), config.to_string()));
    }
    let text = std::fs::read_to_string(&file).map_err(|source| LoadError::Read { file: file.clone(), source })?;
    Ok((file, text))
}

/// From the text of config.json and the bytes of model.safetensors.
///
/// # Errors
/// As [`open`].
pub fn from_parts(config: &str, weights: &[u8], device: &Device) -> Result<Box<dyn Model>, LoadError> {
    Loader::new(device).build(Path::new(CONFIG_FILE), config, Values::Bytes(weights))
}

/// New weights for the text of a config.json, as the architecture's authors start them.
///
/// # Errors
/// Where the architecture is not known, or its config is wrong.
pub fn random(config: &str, seed: u64, device: &Device) -> Result<Box<dyn Model>, LoadError> {
    Loader::new(device).random(config, seed)
}

/// The config of weights that have none, by the names of their tensors; `None` where it is the lack of a config.json that is to be said.
fn recognised(path: &Path) -> Result<Option<Json>, LoadError> {
    let alone = path.is_file();
    let weights = match Weights::open(path) {
        Ok(weights) => weights,
        Err(error @ (LoadError::Refused { .. } | LoadError::Damaged { .. })) => return Err(error),
        Err(error) if alone => return Err(error),
        Err(_) => return Ok(None),
    };
    let config = FAMILIES.iter().find_map(|family| (family.recognise)(&weights));
    if config.is_none() && alone {
        return Err(LoadError::UnknownTensors {
            file: path.into(),
            supported: supported(|family| family.architectures),
        });
    }
    Ok(config)
}

/// Names that the families know.
fn supported(names: impl Fn(&Family) -> fn() -> Vec<&'static str>) -> String {
    FAMILIES.iter().flat_map(|family| names(family)()).collect::<Vec<_>>().join(", ")
}
