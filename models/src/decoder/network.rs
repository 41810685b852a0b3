//! The decoder: word embeddings, blocks, and the norm above them.

use std::path::Path;
use std::sync::Arc;

use fthost_autograd::{Angles, Layout, Parameter, Result, Tape, Tensor, Value};

use super::architecture::Architecture;
use super::block::{Block, Norm, Turns};
use super::config::Config;
use super::{gguf, to_gguf};
use crate::builder::{Builder, Origin};
use crate::cache::Cache;
use crate::family::Source;
use crate::folder::InFiles;
use crate::hooks::{Hooks, Pass};
use crate::sequences::{Embedded, Prompted, Rows, check_ids, pooled, prompt_rows};
use crate::weights::Change;
use crate::{
    BaseParameter, BlockGroup, BlockMemory, Classification, Features, FileState, FileTokenizer, GgufType, Hook, Input,
    LoadError, Modality, Model, ModelInfo, PoolBy, Pooling, Read, SavedHead, Site, SiteKind, Stream, TextInput,
    VocabularyLayer, fold, folder,
};

/// The layer over the vocabulary, where it is not the word embeddings.
const OUTPUT: &str = "lm_head";

/// A decoder: Llama, Mistral, Qwen2, Qwen3, Gemma 3 or GPT-2.
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
    /// What is added for each position, `[positions, width]`, where that is learned.
    places: Option<Parameter>,
    dropout: Option<f64>,
    blocks: Vec<(Arc<Block>, usize)>,
    norm: Norm,
    /// The frequencies of each kind of positions, `[dim / 2]`; none where they are learned.
    frequencies: Vec<Vec<f32>>,
    positions: usize,
    sites: Vec<Site>,
    hooks: Arc<Hooks>,
    parameters: Vec<BaseParameter>,
    stored: InFiles,
    files: Vec<FileState>,
}

impl Decoder {
    pub(super) fn build(source: &Source<'_>) -> std::result::Result<Self, LoadError> {
        let config = &Config::parse(source)?;
        let architecture = config.architecture;
        let names = architecture.names;
        let layers = [names.together, Some(names.dense), Some(names.inner[0]), Some(names.inner[1])];
        let layers: Vec<&str> = layers.into_iter().flatten().collect();
        let origin = match source.origin()? {
            Origin::Checkpoint(weights) if architecture.transposed => {
                let of_layer = |name: &str| layers.iter().any(|layer| name.ends_with(&format!(".{layer}.weight")));
                Origin::Checkpoint(weights.changed(|name| of_layer(name).then_some(Change::Transposed)))
            }
            Origin::Checkpoint(weights) => Origin::Checkpoint(gguf::with_names(weights)),
            new @ Origin::New { .. } => new,
        };
        let width = config.width;
        let mut builder =
            Builder::new(&origin, names.prefix, config.init_std, source.device).quantized(source.quantize);
        let site = builder.site(names.words, SiteKind::Embeddings, width, width);
        let words = builder.rows(&format!("{}.weight", names.words), 0, config.vocabulary, width)?;
        let places = names.positions.map(|name| builder.rows(&format!("{name}.weight"), 0, config.positions, width));
        let places = places.transpose()?;
        let mut blocks = Vec::with_capacity(config.layers.len());
        for (i, layer) in config.layers.iter().enumerate() {
            builder.group = i + 1;
            let block = Block::build(&mut builder, config, layer, &format!("{}.{i}", names.blocks))?;
            blocks.push((Arc::new(block), layer.rope));
        }
        builder.group = config.layers.len() + 1;
        let norm = Norm::build(&mut builder, config, names.norm)?;
        let output = if config.tied { names.words } else { OUTPUT };
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
            class: architecture.causal.into(),
            new,
        });
        let linear = sites.iter().filter(|site| architecture.transposed && site.kind == SiteKind::Linear);
        let transposed = linear.map(|site| format!("{}.weight", site.path)).collect();
        let stored = InFiles { config: source.config.clone(), shapes: stored_shapes, counters: Vec::new(), transposed };
        Ok(Self {
            info: ModelInfo { vocabulary, ..info(config) },
            site,
            words,
            words_scale: architecture.scaled_embeddings.then(|| (width as f64).sqrt()),
            places,
            dropout: config.embedding_dropout,
            blocks,
            norm,
            frequencies: config.ropes.iter().map(|rope| rope.frequencies(config.head_dim)).collect(),
            positions: config.positions,
            hooks: Arc::new(Hooks::none(sites.len())),
            sites,
            parameters,
            stored,
            files: origin.files(source.quantize),
        })
    }

    /// Sequences that begin, or that go on behind what `seen` has of them. Sets the tape's layout.
    fn embed(&self, pass: Pass<'_>, text: &TextInput, seen: &[usize]) -> Result<Embedded> {
        let tape = pass.tape;
        check_ids(text, &self.words)?;
        let words = tape.embedding(&tape.parameter(&self.words), &text.ids)?; // [tokens, width]
        let words = match self.words_scale {
            Some(scale) => tape.affine(&words, scale, 0.0)?,
            None => words,
        };
        let mut prompted = Prompted::new(pass, self.site, words, &text.layout)?;
        if seen.iter().any(|&rows| rows > 0) {
            prompted.prompts.clear(); // they stand before the first tokens
        }
        if let Some(before) = &text.before {
            if seen.iter().any(|&rows| rows > 0) {
                candle_core::bail!("a text that has begun has nothing put before it");
            }
            prompted = prompted.behind(tape, before, &text.layout)?;
        }
        let embedded = prompted.prepend(tape, text.layout.clone())?;
        let lengths = embedded.layout.ranges().zip(before(seen)).map(|(range, before)| before + range.len());
        let longest = lengths.max().unwrap_or(0) + pass.position_shift();
        if longest > self.positions {
            candle_core::bail!(
                "a sequence of {longest} tokens, {} of them prompts, prefixes or a picture, is longer than the {} that the model takes; lower the \
                 length that texts are cut to",
                embedded.prompt + pass.position_shift(),
                self.positions
            );
        }
        let Some(table) = &self.places else { return Ok(embedded) };
        let places = tape.embedding(&tape.parameter(table), &places(pass, &embedded.layout, seen))?; // [tokens, width]
        let value = tape.add(&embedded.value, &places)?;
        let value = match self.dropout {
            Some(p) => tape.dropout(&value, p)?,
            None => value,
        };
        Ok(Embedded { value, ..embedded })
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

    /// How the tokens of each kind of layers turn. Prefixes stand before a sequence, and so does what was seen of it.
    fn turns(
        &self,
        pass: Pass<'_>,
        Embedded { value, layout, .. }: &Embedded,
        rows: Option<&Rows>,
        seen: &[usize],
    ) -> Result<Vec<Turns>> {
        let places = places(pass, layout, seen);
        let of_rows = rows.map(|rows| rows.ids.iter().map(|&row| places[row as usize]).collect::<Vec<u32>>());
        let (dtype, device) = (value.tensor().dtype(), value.tensor().device());
        let turns = self.frequencies.iter().map(|frequencies| {
            let angles = |places: &[u32]| Angles::new(places, frequencies, 1.0, dtype, device);
            Ok(Turns { keys: angles(&places)?, queries: of_rows.as_deref().map(angles).transpose()? })
        });
        turns.collect()
    }

    /// The blocks and the norm above them: `[rows, width]`.
    fn above(
        &self,
        pass: Pass<'_>,
        embedded: &Embedded,
        rows: Option<Arc<Rows>>,
        mut cache: Option<&mut Cache>,
    ) -> Result<Value> {
        let seen = cache.as_deref().map(Cache::lengths).unwrap_or_default();
        let turns = Arc::new(self.turns(pass, embedded, rows.as_deref(), seen)?);
        let mut x = embedded.value.clone(); // [tokens, width]
        for (i, (block, rope)) in self.blocks.iter().enumerate() {
            let rows = rows.clone().filter(|_| i + 1 == self.blocks.len());
            // Learned positions turn nothing.
            let (rope, layout) = (*rope, &embedded.layout);
            if !pass.recomputes() {
                let seen = cache.as_deref_mut().map(|cache| cache.block(i));
                x = block.forward(pass, &x, layout, rows.as_deref(), turns.get(rope), seen)?; // the last: [rows, width]
                continue;
            }
            let (block, hooks, layout, turns) = (block.clone(), self.hooks.clone(), layout.clone(), turns.clone());
            x = pass.tape.recomputed(&x, move |tape, x| {
                block.forward(Pass::new(tape, &hooks), &x, &layout, rows.as_deref(), turns.get(rope), None)
            })?;
        }
        self.norm.forward(pass.tape, &x)
    }

    /// Features of a micro-batch by the layers' hooks.
    fn forward_pass(&self, pass: Pass<'_>, input: &Input, read: Read) -> Result<Features> {
        let Input::Text(text) = input else { candle_core::bail!("a text model got images; give it token ids") };
        let embedded = self.embed(pass, text, &[])?;
        let rows = self.rows(&embedded, read)?.map(Arc::new);
        let x = self.above(pass, &embedded, rows, None)?;
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

    fn set_pooling(&mut self, stream: usize, pooling: Pooling) -> Result<()> {
        self.info.refuse_stream(stream)?;
        if matches!(pooling.by, PoolBy::First | PoolBy::Pooler) {
            candle_core::bail!(
                "the first token of a {} sees nothing of the text after it; pool by last, mean or max",
                self.info.model_type
            );
        }
        if pooling.by == PoolBy::End {
            candle_core::bail!("no token ends the texts of a {}; pool by last, mean or max", self.info.model_type);
        }
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

    fn recomputes(&self) -> bool {
        true
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
        self.info.refuse_stream(stream)?;
        self.forward_pass(Pass::new(tape, &self.hooks), input, read)
    }

    fn begin(&self, texts: usize) -> Result<Cache> {
        Ok(Cache::new(texts, self.blocks.len()))
    }

    fn extend(&self, tape: &Tape, cache: &mut Cache, ids: &[Vec<u32>], before: Option<&Value>) -> Result<Features> {
        if tape.options().recording {
            candle_core::bail!(
                "a text goes on by what is kept of it, where gradients would end; take a tape that records nothing"
            );
        }
        if ids.len() != cache.texts() {
            candle_core::bail!("{} texts cannot go on with tokens for {}", cache.texts(), ids.len());
        }
        let pass = Pass::new(tape, &self.hooks);
        let layout = Layout::from_lengths(ids.iter().map(Vec::len));
        let text = TextInput { types: vec![0; layout.tokens()], ids: ids.concat(), layout, before: before.cloned() };
        let embedded = self.embed(pass, &text, cache.lengths())?;
        let rows = Arc::new(Rows::last(&embedded.layout));
        let value = self.above(pass, &embedded, Some(rows.clone()), Some(cache))?; // [texts, width]
        cache.count(&embedded.layout);
        Ok(Features { value, layout: rows.layout.clone(), map: None })
    }
}

/// The position of each row: prefixes stand before a sequence, and so does what was seen of it.
fn places(pass: Pass<'_>, layout: &Layout, seen: &[usize]) -> Vec<u32> {
    let places = layout.ranges().zip(before(seen)).flat_map(|(range, before)| before..before + range.len());
    places.map(|place| (place + pass.position_shift()) as u32).collect()
}

/// Rows before the new ones of each sequence: those that were seen, or none of sequences that begin.
fn before(seen: &[usize]) -> impl Iterator<Item = usize> {
    seen.iter().copied().chain(std::iter::repeat(0))
}

fn memory(config: &Config) -> BlockMemory {
    let Config { width, inner, heads, kv_heads, head_dim, .. } = *config;
    let Architecture { norms_after, head_norms, names, .. } = *config.architecture;
    let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
    // Of a gate and what it opens both are there, and what comes of them is made again; else the activation's slope.
    let (halves, made) = if names.gate.is_some() { (2, 0) } else { (1, inner) };
    let normalized = width * if norms_after { 4 } else { 2 } + if head_norms { queries + keys } else { 0 };
    // What attention reads, and what it gives.
    let kept = normalized + 2 * queries + 2 * keys + halves * inner;
    BlockMemory {
        kept,
        kept_to_train: kept + made,
        // Gradients of the feed-forward half before and after its activation, and of the rows around it and attention.
        backward: 2 * halves * inner + 5 * width,
        passing: 2 * width + (2 * halves - 1) * inner,
    }
}

fn info(config: &Config) -> ModelInfo {
    let Architecture { family, tokens, names, .. } = *config.architecture;
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
            prefix: names.prefix.into(),
            root: String::new(),
            width: config.width,
            layers: Some(config.layers.len()),
            heads: Some(config.heads),
            block: Some(memory(config)),
            word_embeddings: Some(names.words.into()),
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
        contrastive: None,
        sight: None,
        head_dropout: config.head_dropout,
    }
}
