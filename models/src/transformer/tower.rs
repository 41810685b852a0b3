//! A tower of blocks: embeddings, blocks, and what stands above them.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use fthost_autograd::{Activation, Layout, Map, Result, Value};

use super::block::Block;
use super::config::{InputConfig, TowerConfig};
use super::embeddings::Embeddings;
use crate::builder::Builder;
use crate::hooks::{Hooks, Pass};
use crate::layers::{LayerNorm, Linear};
use crate::sequences::{Embedded, Rows, pooled};
use crate::{BlockGroup, BlockMemory, FeatureMap, Features, Input, LoadError, Modality, PoolBy, Pooling, Read, Stream};

/// What makes features of texts or images: all of an encoder, or one side of a model with two.
pub(crate) struct Tower {
    embeddings: Embeddings,
    hidden_dropout: f64,
    blocks: Vec<Arc<Block>>,
    final_norm: Option<LayerNorm>,
    /// Whether that norm is of the first row alone, where that is pooled.
    norms_first_row: bool,
    pooler: Option<Linear>,
    causal: bool,
    /// Its sites among those of the model.
    sites: Range<usize>,
}

impl Tower {
    /// Builds it; its groups begin with the builder's, and what stands above its blocks is in the group `head`.
    pub(crate) fn build(
        builder: &mut Builder<'_>,
        config: &TowerConfig,
        head: usize,
    ) -> std::result::Result<Self, LoadError> {
        let (names, first, first_site) = (config.names, builder.group, builder.sites.len());
        builder.init_std = config.stds.around;
        let embeddings = Embeddings::build(builder, config)?;
        let mut blocks = Vec::with_capacity(config.layers);
        for i in 0..config.layers {
            builder.group = first + i + 1;
            blocks.push(Arc::new(Block::build(builder, config, &format!("{}.{i}", names.blocks))?));
        }
        builder.group = head;
        let width = config.width;
        let final_norm = names.final_norm.map(|path| builder.layer_norm(path, width, config.eps)).transpose()?;
        let pooler = match names.pooler {
            Some(path) if builder.has(&format!("{path}.weight")) => Some(builder.linear(path, width, width, true)?),
            // Pooled features are the first token's hidden state then, and the head brings the layer.
            Some(_) | None => None,
        };
        Ok(Self {
            embeddings,
            hidden_dropout: config.hidden_dropout,
            blocks,
            final_norm,
            norms_first_row: names.norms_first_row,
            pooler,
            causal: names.causal,
            sites: first_site..builder.sites.len(),
        })
    }

    /// Whether it has the dense layer over the first row that its architecture may have.
    pub(crate) fn pools(&self) -> bool {
        self.pooler.is_some()
    }

    /// What it is, below `root` in the model and `prefix` in its files.
    pub(crate) fn stream(&self, config: &TowerConfig, root: &str, prefix: &str, pooling: Pooling) -> Stream {
        let modality = match (config.input, &self.embeddings) {
            (InputConfig::Text { vocabulary, .. }, Embeddings::Text(text)) => {
                Modality::Text { max_tokens: text.max_tokens(), vocabulary }
            }
            (InputConfig::Text { vocabulary, positions, .. }, _) => {
                Modality::Text { max_tokens: positions, vocabulary }
            }
            (InputConfig::Images { channels, size, patch }, _) => {
                Modality::Images { channels, size, any_size: false, tokens: 1 + (size / patch) * (size / patch) }
            }
        };
        let (word_embeddings, reads) = match modality {
            Modality::Text { .. } => {
                (Some(format!("{root}{}", config.names.bottom.input)), vec![Read::Pooled, Read::Sequence])
            }
            Modality::Images { .. } => (None, vec![Read::Pooled, Read::Sequence, Read::Spatial]),
        };
        Stream {
            name: modality.name().into(),
            modality,
            prefix: prefix.into(),
            root: root.into(),
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
        }
    }

    /// The groups of a stream, from the bottom up, without what stands above its blocks.
    pub(crate) fn groups(config: &TowerConfig, stream: usize) -> impl Iterator<Item = BlockGroup> {
        let layers = (0..config.layers).map(|layer| format!("layer.{layer}"));
        let names = std::iter::once("embeddings".to_owned()).chain(layers);
        names.map(move |name| BlockGroup { name, stream: Some(stream) })
    }

    /// Refuses a way to pool that is not computed, or of which nothing comes. `model_type` is the model's.
    pub(crate) fn check_pooling(&self, model_type: &str, pooling: Pooling) -> Result<()> {
        match pooling.by {
            PoolBy::First | PoolBy::Pooler if self.causal => candle_core::bail!(
                "the first token of a {model_type} sees nothing of the text after it; pool by last, mean or max"
            ),
            PoolBy::Pooler if self.pooler.is_none() => {
                candle_core::bail!("the weights of this {model_type} hold no pooler; pool by cls, mean, max or last")
            }
            PoolBy::End if !self.ends() => {
                candle_core::bail!("no token ends the texts of a {model_type}; pool by cls, mean, max or last")
            }
            _ => Ok(()),
        }
    }

    /// Whether a token ends a text by the architecture's word.
    fn ends(&self) -> bool {
        matches!(&self.embeddings, Embeddings::Text(text) if text.ends())
    }

    /// Whether what is read depends on a parameter of the tower.
    pub(crate) fn passes(&self, read: Read, pooling: Pooling, parameter: &str) -> bool {
        let of_pooler = |pooler: &Linear| {
            std::iter::once(&pooler.weight).chain(&pooler.bias).any(|of_pooler| of_pooler.name() == parameter)
        };
        let of_norm = |norm: &LayerNorm| [&norm.weight, &norm.bias].iter().any(|of_norm| of_norm.name() == parameter);
        let through = read == Read::Pooled && pooling.by == PoolBy::Pooler;
        let normed = self.norms(read, pooling);
        (through || !self.pooler.as_ref().is_some_and(of_pooler))
            && (normed || !self.final_norm.as_ref().is_some_and(of_norm))
    }

    /// Whether the final norm stands before what is read.
    fn norms(&self, read: Read, pooling: Pooling) -> bool {
        !self.norms_first_row || read == Read::Pooled && matches!(pooling.by, PoolBy::First | PoolBy::Pooler)
    }

    /// The longest sequence beside what hooks put before it; `None` of images.
    pub(crate) fn longest_sequence(&self, pass: Pass<'_>) -> Result<Option<usize>> {
        match &self.embeddings {
            Embeddings::Text(embeddings) => embeddings.longest_sequence(pass.among(&self.sites)).map(Some),
            Embeddings::Images(_) => Ok(None),
        }
    }

    /// How patches are pixels of a map.
    pub(crate) fn map(&self, images: usize) -> Option<Map> {
        match &self.embeddings {
            Embeddings::Images(embeddings) => Some(Map::new(images, embeddings.side(), embeddings.side())),
            Embeddings::Text(_) => None,
        }
    }

    /// The rows of the last block that are read, `None` for all.
    fn rows(&self, embedded: &Embedded, read: Read, pooling: Pooling) -> Result<Option<Rows>> {
        let Embedded { layout, prompt, pooled, .. } = embedded;
        let without = |skip: usize| Rows::without(layout, skip);
        let of_image = matches!(self.embeddings, Embeddings::Images(_));
        Ok(match (read, &self.embeddings) {
            (Read::Pooled, _) => match pooling.by {
                PoolBy::First | PoolBy::Pooler => Some(Rows::single(layout.first_rows(*pooled))),
                PoolBy::Last | PoolBy::End => Some(Rows::last(layout)),
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

    /// Features of a micro-batch by the layers' hooks. Sets the tape's layout.
    pub(crate) fn forward(
        &self,
        pass: Pass<'_>,
        hooks: &Arc<Hooks>,
        input: &Input,
        read: Read,
        pooling: Pooling,
    ) -> Result<Features> {
        let (tape, pass) = (pass.tape, pass.among(&self.sites));
        let input = match (&self.embeddings, input) {
            (Embeddings::Text(embeddings), Input::Text(text)) if read == Read::Pooled && pooling.by == PoolBy::End => {
                Cow::Owned(Input::Text(embeddings.ended(text)?))
            }
            _ => Cow::Borrowed(input),
        };
        let embedded = self.embeddings.forward(pass, &input)?;
        let rows = self.rows(&embedded, read, pooling)?.map(Arc::new);
        let mut x = tape.dropout(&embedded.value, self.hidden_dropout)?; // [tokens, width]
        for (i, block) in self.blocks.iter().enumerate() {
            let (rows, layout) = (rows.clone().filter(|_| i + 1 == self.blocks.len()), &embedded.layout);
            if !pass.recomputes() {
                x = block.forward(pass, &x, layout, rows.as_deref())?; // the last: [rows, width]
                continue;
            }
            let (block, hooks, layout) = (block.clone(), hooks.clone(), layout.clone());
            x = tape
                .recomputed(&x, move |tape, x| block.forward(Pass::new(tape, &hooks), &x, &layout, rows.as_deref()))?;
        }
        if let Some(norm) = self.final_norm.as_ref().filter(|_| self.norms(read, pooling)) {
            x = norm.forward(tape, &x)?;
        }
        self.read(pass, x, embedded.own, rows.as_deref(), read, pooling)
    }

    /// What is read of the rows of the last block, `[rows, width]`. `own`: the layout without prompts.
    fn read(
        &self,
        pass: Pass<'_>,
        x: Value,
        own: Layout,
        rows: Option<&Rows>,
        read: Read,
        pooling: Pooling,
    ) -> Result<Features> {
        let sequences = own.sequences();
        Ok(match read {
            Read::Sequence => Features { value: x, layout: own, map: None },
            Read::Spatial | Read::Stage(_) => {
                let layout = rows.map_or(own, |rows| rows.layout.clone());
                Features { value: x, layout, map: self.map(sequences) }
            }
            Read::Pooled => {
                let rows = rows.map_or(&own, |rows| &rows.layout);
                let x = match (pooling.by, &self.pooler) {
                    (PoolBy::Pooler, Some(pooler)) => pooler.forward(pass, &x, Activation::Tanh)?,
                    _ => x,
                };
                let value = pooled(pass.tape, x, rows, pooling)?; // [sequences, width]
                Features { value, layout: Layout::single_rows(sequences), map: None }
            }
        })
    }
}

fn memory(&TowerConfig { width, inner, .. }: &TowerConfig) -> BlockMemory {
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
