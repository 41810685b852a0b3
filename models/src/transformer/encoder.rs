//! The encoder: a tower of blocks, and the head that its architecture has.

use std::path::Path;
use std::sync::Arc;

use fthost_autograd::{Parameter, Result, Tape, Tensor};

use super::config::{Config, InputConfig};
use super::tower::Tower;
use crate::builder::Builder;
use crate::family::Source;
use crate::folder::InFiles;
use crate::hooks::{Hooks, Pass};
use crate::{
    BaseParameter, BlockGroup, Classification, Features, FileState, Hook, Input, LoadError, Model, ModelInfo, PoolBy,
    Pooling, Read, SavedHead, Site, VocabularyLayer, VocabularyTransform, fold, folder,
};

/// A transformer encoder: BERT, RoBERTa, XLM-RoBERTa, DistilBERT or ViT.
///
/// Sites and parameters have the paths of Hugging Face's modules. `attention.output` and `output` of a DistilBERT block, which
/// has no such modules, are where BERT has them.
pub(crate) struct Encoder {
    info: ModelInfo,
    tower: Tower,
    sites: Vec<Site>,
    hooks: Arc<Hooks>,
    parameters: Vec<BaseParameter>,
    stored: InFiles,
    files: Vec<FileState>,
}

impl Encoder {
    pub(super) fn build(source: &Source<'_>) -> std::result::Result<Self, LoadError> {
        let config = &Config::parse(source)?;
        let origin = source.origin()?;
        let architecture = config.architecture;
        let mut builder = Builder::new(&origin, architecture.prefix, config.tower.stds.around, source.device)
            .quantized(source.quantize);
        let tower = Tower::build(&mut builder, &config.tower, config.tower.layers + 1)?;
        let vocabulary = vocabulary(source, config, &mut builder)?;

        let Builder { sites, parameters, stored_shapes, new, .. } = builder;
        let vocabulary = vocabulary.map(|layer| VocabularyLayer { new, ..layer });
        let stored = InFiles {
            config: source.config.clone(),
            shapes: stored_shapes,
            counters: Vec::new(),
            transposed: Default::default(),
        };
        Ok(Self {
            info: ModelInfo { vocabulary, ..info(config, &tower) },
            tower,
            hooks: Arc::new(Hooks::none(sites.len())),
            sites,
            parameters,
            stored,
            files: origin.files(source.quantize),
        })
    }

    /// Features of a micro-batch by the layers' hooks.
    fn forward_pass(&self, pass: Pass<'_>, input: &Input, read: Read) -> Result<Features> {
        self.tower.forward(pass, &self.hooks, input, read, self.info.plain().pooling)
    }
}

impl Model for Encoder {
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

    fn set_pooling(&mut self, stream: usize, pooling: Pooling) -> Result<()> {
        self.info.refuse_stream(stream)?;
        self.tower.check_pooling(&self.info.model_type, pooling)?;
        self.info.streams[stream].pooling = pooling;
        Ok(())
    }

    fn set_hook(&mut self, path: &str, hook: Hook) -> Result<()> {
        Arc::make_mut(&mut self.hooks).set(&self.sites, path, hook)
    }

    fn folded(&self, inputs: &[Input]) -> Result<Vec<(Parameter, Tensor)>> {
        let inputs = fold::of_each_stream(&self.info, inputs)?;
        fold::folded(&self.sites, &self.parameters, &self.hooks, |pass| {
            inputs.iter().try_for_each(|input| self.forward_pass(pass, input, Read::Pooled).map(drop))
        })
    }

    fn hooked(&self, path: &str) -> bool {
        self.sites.iter().position(|site| site.path == path).is_some_and(|site| self.hooks.any(site))
    }

    fn clear_hooks(&mut self) {
        self.hooks = Arc::new(Hooks::none(self.sites.len()));
    }

    fn save_folder(&self, folder: &Path, head: &SavedHead<'_>) -> std::result::Result<(), LoadError> {
        folder::write(self, &self.stored, folder, head)
    }

    fn passes(&self, _: usize, read: Read, parameter: &str) -> bool {
        self.tower.passes(read, self.info.plain().pooling, parameter)
    }

    fn recomputes(&self) -> bool {
        true
    }

    fn longest_sequence(&self) -> Result<Option<usize>> {
        let tape = Tape::evaluation();
        self.tower.longest_sequence(Pass::new(&tape, &self.hooks))
    }

    fn map_size(&self, stream: usize, _: [usize; 2]) -> Result<Option<[usize; 2]>> {
        Ok(self.tower.map(1).filter(|_| stream == 0).map(|map| map.size()))
    }

    fn features(&self, tape: &Tape, stream: usize, input: &Input, read: Read) -> Result<Features> {
        self.info.refuse_stream(stream)?;
        self.forward_pass(Pass::new(tape, &self.hooks), input, read)
    }
}

/// Builds the layer over the vocabulary, where one is asked for; its matrix is that of the word embeddings.
fn vocabulary(
    source: &Source<'_>,
    config: &Config,
    builder: &mut Builder<'_>,
) -> std::result::Result<Option<VocabularyLayer>, LoadError> {
    let (InputConfig::Text { vocabulary, .. }, Some(names)) = (config.tower.input, &config.architecture.vocabulary)
    else {
        source.refuse_vocabulary()?;
        return Ok(None);
    };
    if source.vocabulary.is_none() {
        return Ok(None);
    }
    (builder.stream, builder.lacking) = (None, source.vocabulary);
    builder.matrix(&format!("{}.weight", names.dense), config.tower.width, config.tower.width)?;
    builder.bias(&format!("{}.bias", names.dense), config.tower.width)?;
    builder.layer_norm(names.norm, config.tower.width, config.tower.eps)?;
    builder.bias(names.bias, vocabulary)?;
    let family = config.architecture.classification_class.split_once("For").map_or("", |(family, _)| family);
    Ok(Some(VocabularyLayer {
        weight: format!("{}.weight", config.architecture.tower.bottom.input),
        output: names.output.into(),
        bias: Some(names.bias.into()),
        transform: Some(VocabularyTransform {
            dense: names.dense.into(),
            activation: names.activation.unwrap_or(&config.tower.activation_name).into(),
            norm: names.norm.into(),
            eps: config.tower.eps,
        }),
        causal: false,
        class: format!("{family}ForMaskedLM"),
        new: Vec::new(),
    }))
}

fn info(config: &Config, tower: &Tower) -> ModelInfo {
    let architecture = config.architecture;
    let pools = tower.pools();
    let new_pooler = architecture
        .tower
        .pooler
        .filter(|_| !pools)
        .map(|path| (format!("{}{path}", architecture.prefix), "tanh".into()));
    // Where the weights lack the architecture's pooler, its class takes the first row through a new one, which is the head's.
    let pooling = Pooling { by: if pools { PoolBy::Pooler } else { PoolBy::First }, normalize: false };
    let groups = Tower::groups(&config.tower, 0).chain([BlockGroup { name: "head".into(), stream: None }]);
    ModelInfo {
        model_type: architecture.model_type.into(),
        streams: vec![tower.stream(&config.tower, "", architecture.prefix, pooling)],
        groups: groups.collect(),
        base_class: architecture.classification_class.split_once("For").map(|(family, _)| format!("{family}Model")),
        classification: Some(Classification {
            class: Some(architecture.classification_class.into()),
            output: architecture.head.into(),
            bias: true,
            tokens: true,
            hidden: new_pooler.or(architecture.head_hidden.map(|(path, activation)| (path.into(), activation.into()))),
            dropout_key: architecture.head_dropout.map(str::to_owned),
            pooling,
        }),
        vocabulary: None,
        contrastive: None,
        sight: None,
        head_dropout: config.head_dropout,
    }
}
