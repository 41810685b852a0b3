//! The encoder: embeddings, blocks, and what stands above them.

use std::path::Path;
use std::sync::Arc;

use fthost_autograd::{Activation, Layout, Map, Result, Tape};

use super::block::Block;
use super::config::{Config, InputConfig};
use super::embeddings::{Embeddings, WORD_EMBEDDINGS};
use crate::builder::Builder;
use crate::family::Source;
use crate::folder::InFiles;
use crate::hooks::{Hooks, Pass};
use crate::layers::{LayerNorm, Linear};
use crate::sequences::{Embedded, Rows, pooled};
use crate::{
    BaseParameter, BlockGroup, BlockMemory, Classification, FeatureMap, Features, FileState, Hook, Input, LoadError,
    Modality, Model, ModelInfo, PoolBy, Pooling, Read, SavedHead, Site, Stream, VocabularyLayer, VocabularyTransform,
    fold, folder,
};

/// A transformer encoder: BERT, RoBERTa, XLM-RoBERTa, DistilBERT or ViT.
///
/// Sites and parameters have the paths of Hugging Face's modules. `attention.output` and `output` of a DistilBERT block, which
/// has no such modules, are where BERT has them.
pub(crate) struct Encoder {
    info: ModelInfo,
    embeddings: Embeddings,
    hidden_dropout: f64,
    blocks: Vec<Arc<Block>>,
    final_norm: Option<LayerNorm>,
    pooler: Option<Linear>,
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
        let mut builder =
            Builder::new(&origin, architecture.prefix, config.init_std, source.device).quantized(source.quantize);
        let embeddings = Embeddings::build(&mut builder, config)?;
        let mut blocks = Vec::with_capacity(config.layers);
        for i in 0..config.layers {
            builder.group = i + 1;
            let block = Block::build(&mut builder, config, &format!("{}.{i}", architecture.blocks))?;
            blocks.push(Arc::new(block));
        }
        builder.group = config.layers + 1;
        let width = config.width;
        let final_norm = architecture.final_norm.map(|path| builder.layer_norm(path, width, config.eps)).transpose()?;
        let pooler = match architecture.pooler {
            Some(path) if builder.has(&format!("{path}.weight")) => Some(builder.linear(path, width, width, true)?),
            // Pooled features are the first token's hidden state then, and the head brings the layer.
            Some(_) | None => None,
        };

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
            info: ModelInfo { vocabulary, ..info(config, &embeddings, pooler.is_some()) },
            embeddings,
            hidden_dropout: config.hidden_dropout,
            blocks,
            final_norm,
            pooler,
            hooks: Arc::new(Hooks::none(sites.len())),
            sites,
            parameters,
            stored,
            files: origin.files(source.quantize),
        })
    }

    /// The rows of the last block that are read, `None` for all.
    fn rows(&self, embedded: &Embedded, read: Read) -> Result<Option<Rows>> {
        let Embedded { layout, prompt, pooled, .. } = embedded;
        let without = |skip: usize| Rows::without(layout, skip);
        let of_image = matches!(self.embeddings, Embeddings::Images(_));
        Ok(match (read, &self.embeddings) {
            (Read::Pooled, _) => match self.info.plain().pooling.by {
                PoolBy::First | PoolBy::Pooler => Some(Rows::single(layout.first_rows(*pooled))),
                PoolBy::Last => Some(Rows::last(layout)),
                PoolBy::Mean | PoolBy::Max if of_image => Some(without(prompt + 1)),
                PoolBy::Mean | PoolBy::Max if *prompt > 0 => Some(without(*prompt)),
                PoolBy::Mean | PoolBy::Max => None,
            },
            (Read::Sequence, _) if *prompt == 0 => None,
            (Read::Sequence, _) => Some(without(*prompt)),
            // The class token is no part of the map.
            (Read::Spatial | Read::Stage(0), Embeddings::Images(_)) => Some(without(prompt + 1)),
            (Read::Spatial | Read::Stage(_), Embeddings::Text(_)) => {
                candle_core::bail!("a text model has no spatial features; read pooled or sequence features")
            }
            (Read::Stage(stage), Embeddings::Images(_)) => {
                candle_core::bail!("there is one map of an image, got a read of map {stage}, counted from 0")
            }
        })
    }

    /// How patches are pixels of a map.
    fn map(&self, images: usize) -> Option<Map> {
        match &self.embeddings {
            Embeddings::Images(embeddings) => Some(Map::new(images, embeddings.side(), embeddings.side())),
            Embeddings::Text(_) => None,
        }
    }
}

fn memory(&Config { width, inner, .. }: &Config) -> BlockMemory {
    // The rows that both norms have normalized, queries, keys and values, what attention gives, and the activation's slope.
    let kept = 6 * width + inner;
    BlockMemory {
        kept,
        // What the activation gives.
        kept_to_train: kept + inner,
        // Gradients of the feed-forward half before and after its activation, and of the rows around it and attention.
        backward: 2 * inner + 5 * width,
        passing: 2 * width + inner,
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

    fn set_pooling(&mut self, pooling: Pooling) -> Result<()> {
        if pooling.by == PoolBy::Pooler && self.pooler.is_none() {
            candle_core::bail!(
                "the weights of this {} hold no pooler; pool by cls, mean, max or last",
                self.info.model_type
            );
        }
        self.info.streams[0].pooling = pooling;
        Ok(())
    }

    fn set_hook(&mut self, path: &str, hook: Hook) -> Result<()> {
        Arc::make_mut(&mut self.hooks).set(&self.sites, path, hook)
    }

    fn merge_hooks(&mut self, input: &Input) -> Result<()> {
        fold::into_weights(&self.sites, &self.parameters, &self.hooks, |pass| {
            self.forward_pass(pass, input, Read::Pooled).map(drop)
        })?;
        self.clear_hooks();
        Ok(())
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
        let of_pooler = |pooler: &Linear| {
            std::iter::once(&pooler.weight).chain(&pooler.bias).any(|of_pooler| of_pooler.name() == parameter)
        };
        let through = read == Read::Pooled && self.info.plain().pooling.by == PoolBy::Pooler;
        through || !self.pooler.as_ref().is_some_and(of_pooler)
    }

    fn recomputes(&self) -> bool {
        true
    }

    fn longest_sequence(&self) -> Result<Option<usize>> {
        match &self.embeddings {
            Embeddings::Text(embeddings) => {
                let tape = Tape::evaluation();
                embeddings.longest_sequence(Pass::new(&tape, &self.hooks)).map(Some)
            }
            Embeddings::Images(_) => Ok(None),
        }
    }

    fn map_size(&self, stream: usize, _: [usize; 2]) -> Result<Option<[usize; 2]>> {
        Ok(self.map(1).filter(|_| stream == 0).map(|map| map.size()))
    }

    fn features(&self, tape: &Tape, stream: usize, input: &Input, read: Read) -> Result<Features> {
        if stream != 0 {
            candle_core::bail!("{} has one stream", self.info.model_type);
        }
        self.forward_pass(Pass::new(tape, &self.hooks), input, read)
    }
}

impl Encoder {
    /// Features of a micro-batch by the layers' hooks.
    fn forward_pass(&self, pass: Pass<'_>, input: &Input, read: Read) -> Result<Features> {
        let tape = pass.tape;
        let embedded = self.embeddings.forward(pass, input)?;
        let rows = self.rows(&embedded, read)?.map(Arc::new);
        let mut x = tape.dropout(&embedded.value, self.hidden_dropout)?; // [tokens, width]
        for (i, block) in self.blocks.iter().enumerate() {
            let (rows, layout) = (rows.clone().filter(|_| i + 1 == self.blocks.len()), &embedded.layout);
            if !pass.recomputes() {
                x = block.forward(pass, &x, layout, rows.as_deref())?; // the last: [rows, width]
                continue;
            }
            let (block, hooks, layout) = (block.clone(), self.hooks.clone(), layout.clone());
            x = tape
                .recomputed(&x, move |tape, x| block.forward(Pass::new(tape, &hooks), &x, &layout, rows.as_deref()))?;
        }
        if let Some(norm) = &self.final_norm {
            x = norm.forward(tape, &x)?;
        }
        let sequences = embedded.own.sequences();
        Ok(match read {
            Read::Sequence => Features { value: x, layout: embedded.own, map: None },
            Read::Spatial | Read::Stage(_) => {
                let layout = rows.map_or(embedded.own, |rows| rows.layout.clone());
                Features { value: x, layout, map: self.map(sequences) }
            }
            Read::Pooled => {
                let pooling = self.info.plain().pooling;
                let rows = rows.as_ref().map_or(&embedded.own, |rows| &rows.layout);
                let x = match (pooling.by, &self.pooler) {
                    (PoolBy::Pooler, Some(pooler)) => pooler.forward(pass, &x, Activation::Tanh)?,
                    _ => x,
                };
                let value = pooled(tape, x, rows, pooling)?; // [sequences, width]
                Features { value, layout: Layout::single_rows(sequences), map: None }
            }
        })
    }
}

/// Builds the layer over the vocabulary, where one is asked for; its matrix is that of the word embeddings.
fn vocabulary(
    source: &Source<'_>,
    config: &Config,
    builder: &mut Builder<'_>,
) -> std::result::Result<Option<VocabularyLayer>, LoadError> {
    let (InputConfig::Text { vocabulary, .. }, Some(names)) = (config.input, &config.architecture.vocabulary) else {
        source.refuse_vocabulary()?;
        return Ok(None);
    };
    if source.vocabulary.is_none() {
        return Ok(None);
    }
    (builder.stream, builder.lacking) = (None, source.vocabulary);
    builder.matrix(&format!("{}.weight", names.dense), config.width, config.width)?;
    builder.bias(&format!("{}.bias", names.dense), config.width)?;
    builder.layer_norm(names.norm, config.width, config.eps)?;
    builder.bias(names.bias, vocabulary)?;
    let family = config.architecture.classification_class.split_once("For").map_or("", |(family, _)| family);
    Ok(Some(VocabularyLayer {
        weight: format!("{WORD_EMBEDDINGS}.weight"),
        output: names.output.into(),
        bias: Some(names.bias.into()),
        transform: Some(VocabularyTransform {
            dense: names.dense.into(),
            activation: names.activation.unwrap_or(&config.activation_name).into(),
            norm: names.norm.into(),
            eps: config.eps,
        }),
        causal: false,
        class: format!("{family}ForMaskedLM"),
        new: Vec::new(),
    }))
}

fn info(config: &Config, embeddings: &Embeddings, pools: bool) -> ModelInfo {
    let architecture = config.architecture;
    let new_pooler =
        architecture.pooler.filter(|_| !pools).map(|path| (format!("{}{path}", architecture.prefix), "tanh".into()));
    let modality = match (config.input, embeddings) {
        (InputConfig::Text { vocabulary, .. }, Embeddings::Text(text)) => {
            Modality::Text { max_tokens: text.max_tokens(), vocabulary }
        }
        (InputConfig::Text { vocabulary, positions, .. }, _) => Modality::Text { max_tokens: positions, vocabulary },
        (InputConfig::Images { channels, size, patch }, _) => {
            Modality::Images { channels, size, any_size: false, tokens: 1 + (size / patch) * (size / patch) }
        }
    };
    let (word_embeddings, reads) = match modality {
        Modality::Text { .. } => (Some(WORD_EMBEDDINGS.into()), vec![Read::Pooled, Read::Sequence]),
        Modality::Images { .. } => (None, vec![Read::Pooled, Read::Sequence, Read::Spatial]),
    };
    // Where the weights lack the architecture's pooler, its class takes the first row through a new one, which is the head's.
    let pooling = Pooling { by: if pools { PoolBy::Pooler } else { PoolBy::First }, normalize: false };
    let of_stream = |name: String| BlockGroup { name, stream: Some(0) };
    let mut groups = vec![of_stream("embeddings".into())];
    groups.extend((0..config.layers).map(|layer| of_stream(format!("layer.{layer}"))));
    groups.push(BlockGroup { name: "head".into(), stream: None });
    ModelInfo {
        model_type: architecture.model_type.into(),
        streams: vec![Stream {
            name: modality.name().into(),
            modality,
            prefix: architecture.prefix.into(),
            width: config.width,
            layers: Some(config.layers),
            heads: Some(config.heads),
            block: Some(memory(config)),
            word_embeddings,
            reads,
            maps: match config.input {
                InputConfig::Text { .. } => Vec::new(),
                InputConfig::Images { patch, .. } => vec![FeatureMap { channels: config.width, stride: patch }],
            },
            pooling,
        }],
        groups,
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
        head_dropout: config.head_dropout,
    }
}
