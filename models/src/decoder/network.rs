//! The decoder: word embeddings, blocks, and the norm above them.

use std::path::Path;

use fthost_autograd::{Angles, Layout, Parameter, Result, Tape};

use super::architecture::Architecture;
use super::block::{Block, RmsNorm, Turns};
use super::config::Config;
use super::{gguf, to_gguf};
use crate::builder::{Builder, Origin};
use crate::family::Source;
use crate::folder::InFiles;
use crate::hooks::{Hooks, Pass};
use crate::sequences::{Embedded, Prompted, Rows, check_ids, pooled, prompt_rows};
use crate::{
    BaseParameter, BlockGroup, Classification, Features, FileState, FileTokenizer, GgufType, Hook, Input, LoadError,
    Modality, Model, ModelInfo, PoolBy, Pooling, Read, SavedHead, Site, SiteKind, Stream, VocabularyLayer, fold,
    folder,
};

/// Path of the word embeddings, and of their site.
const WORDS: &str = "embed_tokens";
/// The layer over the vocabulary, where it is not the word embeddings.
const OUTPUT: &str = "lm_head";
/// What stands before the paths in the files of a model with a head.
const PREFIX: &str = "model.";

/// A decoder: Llama, Mistral, Qwen2, Qwen3 or Gemma 3.
///
/// Sites and parameters have the paths of Hugging Face's modules; `attention_output` and `output` of a block, which has no such modules,
/// are where the halves' outputs join the residual. A checkpoint's head for the next token is read where
/// it is asked for.
pub(crate) struct Decoder {
    info: ModelInfo,
    site: usize,
    /// `[vocabulary, width]`
    words: Parameter,
    /// What word embeddings are multiplied by.
    words_scale: Option<f64>,
    blocks: Vec<(Block, usize)>,
    norm: RmsNorm,
    /// The frequencies of each kind of positions, `[dim / 2]`.
    frequencies: Vec<Vec<f32>>,
    positions: usize,
    sites: Vec<Site>,
    hooks: Hooks,
    parameters: Vec<BaseParameter>,
    stored: InFiles,
    files: Vec<FileState>,
}

impl Decoder {
    pub(super) fn build(source: &Source<'_>) -> std::result::Result<Self, LoadError> {
        let config = &Config::parse(source)?;
        let origin = match source.origin()? {
            Origin::Checkpoint(weights) => Origin::Checkpoint(gguf::with_names(weights)),
            new @ Origin::New { .. } => new,
        };
        let width = config.width;
        let mut builder = Builder::new(&origin, PREFIX, config.init_std, source.device);
        let site = builder.site(WORDS, SiteKind::Embeddings, width, width);
        let words = builder.rows(&format!("{WORDS}.weight"), 0, config.vocabulary, width)?;
        let mut blocks = Vec::with_capacity(config.layers.len());
        for (i, layer) in config.layers.iter().enumerate() {
            builder.group = i + 1;
            blocks.push((Block::build(&mut builder, config, layer, &format!("layers.{i}"))?, layer.rope));
        }
        builder.group = config.layers.len() + 1;
        let norm = RmsNorm::build(&mut builder, config, "norm", width)?;
        let output = if config.tied { WORDS } else { OUTPUT };
        if source.vocabulary.is_some() && !config.tied {
            (builder.stream, builder.lacking) = (None, source.vocabulary);
            builder.matrix(&format!("{OUTPUT}.weight"), config.vocabulary, width)?;
        }

        let Builder { sites, parameters, stored_shapes, new, .. } = builder;
        let vocabulary = source.vocabulary.map(|_| VocabularyLayer {
            weight: format!("{output}.weight"),
            output: OUTPUT.into(),
            bias: None,
            transform: None,
            causal: true,
            class: format!("{}ForCausalLM", config.architecture.causal),
            new,
        });
        let stored = InFiles { config: source.config.clone(), shapes: stored_shapes, counters: Vec::new() };
        Ok(Self {
            info: ModelInfo { vocabulary, ..info(config) },
            site,
            words,
            words_scale: config.architecture.scaled_embeddings.then(|| (width as f64).sqrt()),
            blocks,
            norm,
            frequencies: config.ropes.iter().map(|rope| rope.frequencies(config.head_dim)).collect(),
            positions: config.positions,
            hooks: Hooks::none(sites.len()),
            sites,
            parameters,
            stored,
            files: origin.files(),
        })
    }

    /// Sets the tape's layout.
    fn embed(&self, pass: Pass<'_>, input: &Input) -> Result<Embedded> {
        let Input::Text(text) = input else { candle_core::bail!("a text model got images; give it token ids") };
        let tape = pass.tape;
        check_ids(text, &self.words)?;
        let words = tape.embedding(&tape.parameter(&self.words), &text.ids)?; // [tokens, width]
        let words = match self.words_scale {
            Some(scale) => tape.affine(&words, scale, 0.0)?,
            None => words,
        };
        let embedded = Prompted::new(pass, self.site, words, &text.layout)?.prepend(tape, text.layout.clone())?;
        let longest = embedded.layout.ranges().map(|range| range.len()).max().unwrap_or(0) + pass.position_shift();
        if longest > self.positions {
            candle_core::bail!(
                "a sequence of {longest} tokens, {} of them prompts or prefixes, is longer than the {} that the model takes; lower the \
                 length that texts are cut to",
                embedded.prompt + pass.position_shift(),
                self.positions
            );
        }
        Ok(embedded)
    }

    /// The rows of the last block that are read, `None` for all.
    fn rows(&self, Embedded { layout, prompt, .. }: &Embedded, read: Read) -> Result<Option<Rows>> {
        let without = || (*prompt > 0).then(|| Rows::without(layout, *prompt));
        Ok(match read {
            Read::Pooled => match self.info.plain().pooling.by {
                PoolBy::Last => Some(Rows::last(layout)),
                _ => without(),
            },
            Read::Sequence => without(),
            Read::Spatial | Read::Stage(_) => {
                candle_core::bail!("a text model has no spatial features; read pooled or sequence features")
            }
        })
    }

    /// How the tokens of each kind of layers turn. Prefixes stand before a sequence.
    fn turns(
        &self,
        pass: Pass<'_>,
        Embedded { value, layout, .. }: &Embedded,
        rows: Option<&Rows>,
    ) -> Result<Vec<Turns>> {
        let shift = pass.position_shift() as u32;
        let places: Vec<u32> = layout.ranges().flat_map(|range| 0..range.len() as u32).map(|i| i + shift).collect();
        let of_rows = rows.map(|rows| rows.ids.iter().map(|&row| places[row as usize]).collect::<Vec<u32>>());
        let (dtype, device) = (value.tensor().dtype(), value.tensor().device());
        let turns = self.frequencies.iter().map(|frequencies| {
            let angles = |places: &[u32]| Angles::new(places, frequencies, 1.0, dtype, device);
            Ok(Turns { keys: angles(&places)?, queries: of_rows.as_deref().map(angles).transpose()? })
        });
        turns.collect()
    }

    /// Features of a micro-batch by the layers' hooks.
    fn forward_pass(&self, pass: Pass<'_>, input: &Input, read: Read) -> Result<Features> {
        let embedded = self.embed(pass, input)?;
        let rows = self.rows(&embedded, read)?;
        let layout = &embedded.layout;
        let turns = self.turns(pass, &embedded, rows.as_ref())?;
        let mut x = embedded.value.clone(); // [tokens, width]
        for (i, (block, rope)) in self.blocks.iter().enumerate() {
            let rows = rows.as_ref().filter(|_| i + 1 == self.blocks.len());
            x = block.forward(pass, &x, layout, rows, &turns[*rope])?; // the last: [rows, width]
        }
        let x = self.norm.forward(pass.tape, &x)?;
        let own = embedded.own;
        if read == Read::Sequence {
            return Ok(Features { value: x, layout: own, map: None });
        }
        let value = pooled(pass.tape, x, &own, self.info.plain().pooling)?; // [sequences, width]
        Ok(Features { value, layout: Layout::single_rows(own.sequences()), map: None })
    }
}

impl Model for Decoder {
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
        if matches!(pooling.by, PoolBy::First | PoolBy::Pooler) {
            candle_core::bail!(
                "the first token of a {} sees nothing of the text after it; pool by last, mean or max",
                self.info.model_type
            );
        }
        self.info.streams[0].pooling = pooling;
        Ok(())
    }

    fn set_hook(&mut self, path: &str, hook: Hook) -> Result<()> {
        self.hooks.set(&self.sites, path, hook)
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
        self.hooks = Hooks::none(self.sites.len());
    }

    fn save_folder(&self, folder: &Path, head: &SavedHead<'_>) -> std::result::Result<(), LoadError> {
        folder::write(self, &self.stored, folder, head)
    }

    fn save_gguf(&self, file: &Path, tokenizer: &FileTokenizer, of: GgufType) -> std::result::Result<(), LoadError> {
        to_gguf::write(&self.parameters, &self.stored.config, file, tokenizer, of)
    }

    fn longest_sequence(&self) -> Result<Option<usize>> {
        let tape = Tape::evaluation();
        let pass = Pass::new(&tape, &self.hooks);
        let taken = prompt_rows(pass, self.site, &self.words)? + pass.position_shift();
        Ok(Some(self.positions.saturating_sub(taken)))
    }

    fn features(&self, tape: &Tape, stream: usize, input: &Input, read: Read) -> Result<Features> {
        if stream != 0 {
            candle_core::bail!("{} has one stream", self.info.model_type);
        }
        self.forward_pass(Pass::new(tape, &self.hooks), input, read)
    }
}

fn info(config: &Config) -> ModelInfo {
    let Architecture { family, tokens, .. } = *config.architecture;
    // The only token that has seen all others.
    let pooling = Pooling { by: PoolBy::Last, normalize: false };
    let modality = Modality::Text { max_tokens: config.positions, vocabulary: config.vocabulary };
    let of_stream = |name: String| BlockGroup { name, stream: Some(0) };
    let mut groups = vec![of_stream("embeddings".into())];
    groups.extend((0..config.layers.len()).map(|layer| of_stream(format!("layer.{layer}"))));
    groups.push(BlockGroup { name: "head".into(), stream: None });
    ModelInfo {
        model_type: config.architecture.model_type.into(),
        streams: vec![Stream {
            name: modality.name().into(),
            modality,
            prefix: PREFIX.into(),
            width: config.width,
            layers: Some(config.layers.len()),
            heads: Some(config.heads),
            word_embeddings: Some(WORDS.into()),
            reads: vec![Read::Pooled, Read::Sequence],
            maps: Vec::new(),
            pooling,
        }],
        groups,
        base_class: Some(format!("{family}Model")),
        classification: Some(Classification {
            class: Some(format!("{family}ForSequenceClassification")),
            output: "score".into(),
            bias: false,
            tokens,
            hidden: None,
            // The class that answers for each token reads it.
            dropout_key: Some("classifier_dropout".into()),
            pooling,
        }),
        vocabulary: None,
        head_dropout: config.head_dropout,
    }
}
