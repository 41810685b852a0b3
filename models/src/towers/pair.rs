//! Any two folders joined: each a model of its own, as its family loads it, and one model of two streams together. Where the one is a decoder
//! that is to say tokens, it sees by the other.

use std::borrow::Cow;
use std::path::{Component, Path, PathBuf};

use fthost_autograd::{Device, Error, Parameter, Result, Tape, Tensor, Value};
use serde::{Deserialize, Serialize};

use super::projector::Projector;
use crate::folder::{replace, write_tensors};
use crate::weights::{Weights, closest};
use crate::{
    Answer, BaseParameter, BlockGroup, Cache, Features, FileState, FileTokenizer, GgufType, Hook, Input, LoadError,
    Modality, Model, ModelInfo, PoolBy, Pooling, Read, SavedHead, Sight, Site, Stream, TextInput, VocabularyLayer,
    VocabularyTransform, fold,
};

/// The file that says how folders below its own are joined.
pub(crate) const STREAMS: &str = "streams.json";
/// The file beside it of the heads that stand on both.
const HEAD: &str = "head.safetensors";
/// The file beside it of what stands between the streams of one that sees.
const PROJECTOR: &str = "projector.safetensors";
/// `model_type` of what is joined; no file of its own says it.
const PAIR: &str = "pair";
/// The stream of pictures.
pub(crate) const IMAGE: &str = "image";
/// What streams there are: one of each kind of input.
const NAMES: [&str; 2] = ["text", IMAGE];

/// What [`STREAMS`] says.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Joined {
    streams: Vec<Part>,
}

/// One folder of a joined model.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    /// The stream's name.
    pub(crate) name: String,
    /// The folder, in that of the file.
    pub(crate) folder: PathBuf,
    /// How the stream pools, of which its folder says nothing.
    pooling: PoolBy,
    normalize: bool,
}

impl Part {
    pub(crate) fn pooling(&self) -> Pooling {
        Pooling { by: self.pooling, normalize: self.normalize }
    }
}

/// Two models, each with the stream that it is.
///
/// Paths of both begin with their stream's name and a dot, as if one module held them: without, two BERT-like models would have the same.
/// What the parts are called by is their own matter; each is saved in the form that it was read in.
pub(crate) struct Pair {
    info: ModelInfo,
    parts: Vec<Box<dyn Model>>,
    sites: Vec<Site>,
    parameters: Vec<BaseParameter>,
    files: Vec<FileState>,
    /// What stands between its streams, where it sees.
    projector: Option<Projector>,
}

/// The weights of what stands between the streams of a joined folder, where it has seen.
pub(crate) fn projector_file(folder: &Path) -> Option<PathBuf> {
    Some(folder.join(PROJECTOR)).filter(|file| file.is_file())
}

/// What a folder that a joined model was saved in is made of; `None` where it is none.
pub(crate) fn parts(folder: &Path) -> std::result::Result<Option<Vec<Part>>, LoadError> {
    if !is_joined(folder) {
        return Ok(None);
    }
    let file = folder.join(STREAMS);
    let text = std::fs::read_to_string(&file).map_err(|source| LoadError::Read { file: file.clone(), source })?;
    let joined: Joined =
        serde_json::from_str(&text).map_err(|source| LoadError::Config { file: file.clone(), source })?;
    let below = |part: &&Part| {
        let mut components = part.folder.components();
        matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
    };
    match joined.streams.iter().find(|part| !below(part)) {
        None => Ok(Some(joined.streams)),
        Some(part) => {
            let reason = format!("names {} as a stream's folder, which is none in its own", part.folder.display());
            Err(LoadError::Refused { file, reason })
        }
    }
}

/// The folder that the files of a stream lie in, its tokenizer and what is said of its pictures: one below, where folders are joined, else the
/// model's own.
///
/// # Errors
/// Where what says how folders are joined cannot be read.
pub fn stream_folder(folder: &Path, stream: &str) -> std::result::Result<PathBuf, LoadError> {
    let own = parts(folder)?.and_then(|parts| parts.into_iter().find(|part| part.name == stream));
    Ok(own.map_or_else(|| folder.to_owned(), |part| folder.join(part.folder)))
}

/// Whether a folder is what a model of joined folders was saved in.
pub fn is_joined(folder: &Path) -> bool {
    folder.join(STREAMS).is_file()
}

/// The weights that a saved folder's heads lie among: those of its model, or where folders are joined a file of their own, which is not
/// there where heads have none.
///
/// # Errors
/// Where they are damaged, or a single model has none.
pub fn head_weights(folder: &Path) -> std::result::Result<Weights, LoadError> {
    let own = folder.join(HEAD);
    match is_joined(folder) {
        true if own.is_file() => Weights::open(&own),
        true => Ok(Weights::none()),
        false => Weights::open(folder),
    }
}

impl Pair {
    /// The models of folders, by the names of the streams that they become. Texts are the first one, however they are named.
    ///
    /// # Errors
    /// Where these are not two models of one stream each, for texts and for images.
    pub(crate) fn new(mut opened: Vec<(&str, &Path, Box<dyn Model>)>) -> std::result::Result<Self, LoadError> {
        check(&opened)?;
        opened.sort_by_key(|(name, ..)| NAMES.iter().position(|known| known == name));
        let mut streams = Vec::with_capacity(opened.len());
        let (mut sites, mut parameters, mut files) = (Vec::new(), Vec::new(), Vec::new());
        let mut groups = Vec::new();
        let last = opened.iter().map(|(_, _, model)| model.info().head_group()).sum::<usize>();
        for (stream, (name, _, model)) in opened.iter().enumerate() {
            let (info, first, root) = (model.info(), groups.len(), format!("{name}."));
            // Heads are those of both.
            let group = |own: usize| if own == info.head_group() { last } else { first + own };
            sites.extend(model.sites().iter().map(|site| Site {
                path: format!("{root}{}", site.path),
                group: group(site.group),
                stream: Some(stream),
                ..site.clone()
            }));
            parameters.extend(model.parameters().iter().map(|base| BaseParameter {
                parameter: base.parameter.renamed(format!("{root}{}", base.parameter.name())),
                group: group(base.group),
                stream: Some(stream),
                ..base.clone()
            }));
            let named = |of: &BlockGroup| BlockGroup { name: of.name.clone(), stream: Some(stream) };
            groups.extend(info.groups[..info.head_group()].iter().map(named));
            streams.push(of_part(info.plain(), name));
            files.extend_from_slice(model.files());
        }
        // Of files in memory nothing is known, and so of none.
        if opened.iter().any(|(_, _, model)| model.files().is_empty()) {
            files.clear();
        }
        groups.push(BlockGroup { name: "head".into(), stream: None });
        Ok(Self {
            info: ModelInfo {
                model_type: PAIR.into(),
                streams,
                groups,
                base_class: None,
                classification: None,
                vocabulary: None,
                contrastive: None,
                sight: None,
                head_dropout: 0.0,
            },
            parts: opened.into_iter().map(|(_, _, model)| model).collect(),
            sites,
            parameters,
            files,
            projector: None,
        })
    }

    /// The same with sight: the decoder says tokens, and what a projector makes of the pixels of a picture's map stands before its texts. The
    /// projector's weights are those of a file, or as new by `seed`.
    ///
    /// # Errors
    /// Where the texts are no decoder's, the pictures' stream gives no map, or the file does not fit.
    pub(crate) fn seeing(
        mut self,
        file: Option<&Path>,
        seed: u64,
        device: &Device,
    ) -> std::result::Result<Self, LoadError> {
        let [text, image] = self.info.streams.as_slice() else { return Ok(self) };
        let Some(layer) = self.parts[0].info().vocabulary.clone().filter(|layer| layer.causal) else {
            let reason = format!(
                "is the stream {:?} of a pair, and fills masked places: pictures stand before the texts of a decoder, such as a Llama or a Qwen",
                text.name
            );
            return Err(LoadError::Refused { file: self.parts[0].info().model_type.clone().into(), reason });
        };
        let Some(map) = image.maps.last() else {
            let reason = format!("is the stream {:?} of a pair, and gives no map that a decoder could see", image.name);
            return Err(LoadError::Refused { file: self.parts[1].info().model_type.clone().into(), reason });
        };
        let (widths, root) = ([map.channels, text.width], text.root.clone());
        let head = self.info.head_group();
        let projector = Projector::build(file, widths, (seed, head), device)?;
        self.info.vocabulary = Some(of_text(layer, &root));
        self.info.sight = Some(Sight { pictures: 1, texts: 0, projector: projector.names(), new: file.is_none() });
        self.sites.extend_from_slice(projector.sites());
        self.parameters.extend_from_slice(projector.parameters());
        match projector.files() {
            [] => self.files.clear(),
            own if !self.files.is_empty() => self.files.extend_from_slice(own),
            _ => {}
        }
        self.projector = Some(projector);
        Ok(self)
    }

    /// A text's input for the part that it is of: what stands before it comes from the projector.
    fn seen<'a>(&self, tape: &Tape, stream: usize, input: &'a Input) -> Result<Cow<'a, Input>> {
        let Input::Text(text) = input else { return Ok(Cow::Borrowed(input)) };
        let Some(maps) = &text.before else { return Ok(Cow::Borrowed(input)) };
        let before = Some(self.project(tape, stream, maps, text.layout.sequences())?);
        Ok(Cow::Owned(Input::Text(TextInput { before, ..text.clone() })))
    }

    /// What the projector makes of the maps of so many pictures.
    fn project(&self, tape: &Tape, stream: usize, maps: &Value, pictures: usize) -> Result<Value> {
        match (&self.projector, &self.info.sight) {
            (Some(projector), Some(sight)) if sight.texts == stream => projector.forward(tape, maps, pictures),
            _ => candle_core::bail!("the texts of this {PAIR} see no pictures: its task does not say tokens"),
        }
    }

    /// The stream that a path begins with, and what it is there.
    fn within<'a>(&self, path: &'a str) -> Option<(usize, &'a str)> {
        let (name, own) = path.split_once('.')?;
        Some((self.info.stream(name)?, own))
    }

    /// What went wrong in a part, which knows nothing of its name.
    fn named(&self, stream: usize, error: Error) -> Error {
        match error {
            Error::WithBacktrace { inner, .. } => self.named(stream, *inner),
            error => Error::Msg(format!("in the stream {:?}: {error}", self.info.streams[stream].name)),
        }
    }

    /// The stream of this kind of input.
    fn taking(&self, images: bool) -> Option<&dyn Model> {
        let takes = |of: &Stream| matches!(of.modality, Modality::Images { .. }) == images;
        Some(&*self.parts[self.info.streams.iter().position(takes)?])
    }
}

/// A part's layer over its vocabulary as that of the pair.
fn of_text(own: VocabularyLayer, root: &str) -> VocabularyLayer {
    let of_pair = |path: String| format!("{root}{path}");
    VocabularyLayer {
        weight: of_pair(own.weight),
        output: of_pair(own.output),
        bias: own.bias.map(of_pair),
        transform: own.transform.map(|own| VocabularyTransform {
            dense: of_pair(own.dense),
            norm: of_pair(own.norm),
            ..own
        }),
        new: own.new.into_iter().map(of_pair).collect(),
        ..own
    }
}

/// A model's stream as a stream of the pair.
fn of_part(own: &Stream, name: &str) -> Stream {
    let root = format!("{name}.");
    Stream {
        name: name.into(),
        prefix: String::new(),
        word_embeddings: own.word_embeddings.as_ref().map(|path| format!("{root}{path}")),
        root,
        ..own.clone()
    }
}

/// Refuses what is no pair of a model for texts and one for images.
fn check(opened: &[(&str, &Path, Box<dyn Model>)]) -> std::result::Result<(), LoadError> {
    let known = || NAMES.join(" and ");
    if opened.len() != 2 {
        let file = opened.first().map_or_else(|| STREAMS.into(), |(_, folder, _)| PathBuf::from(folder));
        let reason = format!("is one of {} streams; two are joined, {}", opened.len(), known());
        return Err(LoadError::Refused { file, reason });
    }
    for (i, (name, folder, model)) in opened.iter().enumerate() {
        let refused = |reason: String| Err(LoadError::Refused { file: folder.into(), reason });
        let info = model.info();
        if !NAMES.contains(name) {
            let hint =
                closest(name, NAMES.into_iter()).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            return refused(format!("is no stream {name:?}: there are {}{hint}", known()));
        }
        if info.streams.len() > 1 {
            return refused(format!("is a {} model of two streams already: open it by itself", info.model_type));
        }
        let takes = info.plain().modality.name();
        if takes != *name {
            return refused(format!("takes {takes}s, and is to be the stream {name:?}"));
        }
        if opened[..i].iter().any(|(other, ..)| other == name) {
            return refused(format!("is the stream {name:?} a second time"));
        }
    }
    Ok(())
}

impl Model for Pair {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn sites(&self) -> &[Site] {
        &self.sites
    }

    fn parameters(&self) -> &[BaseParameter] {
        &self.parameters
    }

    fn files(&self) -> &[FileState] {
        &self.files
    }

    fn batch_statistics(&self) -> bool {
        self.parts.iter().any(|part| part.batch_statistics())
    }

    fn set_pooling(&mut self, stream: usize, pooling: Pooling) -> Result<()> {
        self.info.refuse_stream(stream)?;
        self.parts[stream].set_pooling(0, pooling).map_err(|error| self.named(stream, error))?;
        self.info.streams[stream].pooling = pooling;
        Ok(())
    }

    fn set_hook(&mut self, path: &str, hook: Hook) -> Result<()> {
        if let Some(projector) = self.projector.as_mut().filter(|own| own.has(path)) {
            return projector.set_hook(path, hook);
        }
        match self.within(path) {
            Some((stream, own)) if self.sites.iter().any(|site| site.path == path) => {
                self.parts[stream].set_hook(own, hook).map_err(|error| self.named(stream, error))
            }
            _ => {
                let closest = closest(path, self.sites.iter().map(|site| site.path.as_str()));
                let hint = closest.map(|name| format!("; the closest is {name}")).unwrap_or_default();
                candle_core::bail!("the model has no site {path}{hint}")
            }
        }
    }

    fn hooked(&self, path: &str) -> bool {
        let between = self.projector.as_ref().is_some_and(|own| own.hooked(path));
        between || self.within(path).is_some_and(|(stream, own)| self.parts[stream].hooked(own))
    }

    fn folded(&self, inputs: &[Input]) -> Result<Vec<(Parameter, Tensor)>> {
        let mut all = Vec::new();
        let inputs = fold::of_each_stream(&self.info, inputs)?;
        for (stream, (part, input)) in self.parts.iter().zip(inputs).enumerate() {
            let folded = part.folded(std::slice::from_ref(input));
            all.extend(folded.map_err(|error| self.named(stream, error))?);
        }
        if let (Some(projector), Some(sight)) = (&self.projector, &self.info.sight) {
            let maps = self.features(&Tape::evaluation(), sight.pictures, &inputs[sight.pictures], Read::Spatial)?;
            all.extend(projector.folded(&maps.value)?);
        }
        Ok(all)
    }

    fn clear_hooks(&mut self) {
        self.parts.iter_mut().for_each(|part| part.clear_hooks());
        self.projector.iter_mut().for_each(Projector::clear_hooks);
    }

    /// Each stream's folder below this one, under its name, what joins them, and heads in a file beside it: no class of another library's
    /// stands on both, so they are in no part's weights, and each part opens by itself. So is what stands between the streams of one that sees,
    /// whose decoder is saved as one that says tokens.
    fn save_folder(&self, folder: &Path, head: &SavedHead<'_>) -> std::result::Result<(), LoadError> {
        let mut joined = Joined { streams: Vec::with_capacity(self.parts.len()) };
        for (part, Stream { name, pooling, .. }) in self.parts.iter().zip(&self.info.streams) {
            let answer = if part.info().vocabulary.is_some() { Answer::Token } else { Answer::None };
            part.save_folder(&folder.join(name), &SavedHead { answer, ..SavedHead::default() })?;
            joined.streams.push(Part {
                name: name.clone(),
                folder: name.into(),
                pooling: pooling.by,
                normalize: pooling.normalize,
            });
        }
        if !head.tensors.is_empty() {
            write_tensors(&folder.join(HEAD), &head.tensors.iter().cloned().collect())?;
        }
        self.projector.as_ref().map_or(Ok(()), |projector| projector.save(&folder.join(PROJECTOR)))?;
        let file = folder.join(STREAMS);
        let text = serde_json::to_string_pretty(&joined);
        let text = text.map_err(|source| LoadError::Config { file: file.clone(), source })?;
        replace(file, |file| std::fs::write(file, format!("{text}\n")))
    }

    fn save_gguf(&self, file: &Path, _: &FileTokenizer, _: GgufType) -> std::result::Result<(), LoadError> {
        let reason = "cannot hold a model that sees: files of llama.cpp's are written of decoders alone. Merge the run, and export the decoder in \
                      the folder's text/ by itself"
            .into();
        Err(LoadError::Refused { file: file.into(), reason })
    }

    /// The projector stands on the map of the pictures' stream, which nothing else reads in a model that sees.
    fn passes(&self, stream: usize, read: Read, parameter: &str) -> bool {
        if self.projector.as_ref().is_some_and(|projector| projector.is_of(parameter)) {
            let pictures = self.info.sight.as_ref().map(|sight| sight.pictures);
            return pictures == Some(stream) && read == Read::Spatial;
        }
        let own = self.within(parameter).filter(|(of, _)| *of == stream);
        own.is_some_and(|(_, own)| self.parts[stream].passes(0, read, own))
    }

    fn longest_sequence(&self) -> Result<Option<usize>> {
        self.taking(false).map_or(Ok(None), |part| part.longest_sequence())
    }

    fn held(&self, images: usize, size: [usize; 2], training: bool) -> Result<Option<usize>> {
        self.taking(true).map_or(Ok(None), |part| part.held(images, size, training))
    }

    fn map_size(&self, stream: usize, size: [usize; 2]) -> Result<Option<[usize; 2]>> {
        self.parts.get(stream).map_or(Ok(None), |part| part.map_size(0, size))
    }

    fn recomputes(&self) -> bool {
        self.parts.iter().any(|part| part.recomputes())
    }

    fn features(&self, tape: &Tape, stream: usize, input: &Input, read: Read) -> Result<Features> {
        self.info.refuse_stream(stream)?;
        let input = self.seen(tape, stream, input)?;
        self.parts[stream].features(tape, 0, &input, read).map_err(|error| self.named(stream, error))
    }

    fn begin(&self, texts: usize) -> Result<Cache> {
        self.parts[0].begin(texts).map_err(|error| self.named(0, error))
    }

    fn extend(&self, tape: &Tape, cache: &mut Cache, ids: &[Vec<u32>], before: Option<&Value>) -> Result<Features> {
        let before = before.map(|maps| self.project(tape, 0, maps, ids.len())).transpose()?;
        self.parts[0].extend(tape, cache, ids, before.as_ref()).map_err(|error| self.named(0, error))
    }
}
