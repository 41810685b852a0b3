//! The encoder: embeddings, blocks, and what stands above them.

use std::fmt;
use std::path::Path;

use candle_core::Device;
use fthost_autograd::{Activation, Layout, Parameter, Result, Tape, Value};

use super::block::{Block, Rows};
use super::config::{Config, InputConfig};
use super::embeddings::{Embedded, Embeddings, WORD_EMBEDDINGS};
use crate::builder::{Builder, Origin};
use crate::hooks::{Hooks, Pass};
use crate::layers::{LayerNorm, Linear};
use crate::weights::Weights;
use crate::{
    BaseParameter, Features, HeadStyle, Hook, Input, LoadError, Modality, Model, ModelInfo, Read, SavedHead, Site,
};

/// A transformer encoder: BERT, RoBERTa, XLM-RoBERTa, DistilBERT or ViT.
///
/// Sites and parameters have the paths of Hugging Face's modules. `attention.output` and `output` of a DistilBERT block, which
/// has no such modules, are where BERT has them.
pub struct Encoder {
    info: ModelInfo,
    embeddings: Embeddings,
    hidden_dropout: f64,
    blocks: Vec<Block>,
    final_norm: Option<LayerNorm>,
    pooler: Option<Linear>,
    sites: Vec<Site>,
    hooks: Hooks,
    parameters: Vec<BaseParameter>,
    /// The shape of each parameter in the files.
    pub(super) stored_shapes: Vec<Vec<usize>>,
    /// config.json.
    pub(super) config: serde_json::Value,
    /// The checkpoint, and the names of its tensors that are no part of the encoder.
    pub(super) checkpoint: Option<(Weights, Vec<String>)>,
    pub(super) device: Device,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ModelInfo { model_type, layers, width, .. } = &self.info;
        write!(f, "Encoder({model_type}, {layers} layers, width {width})")
    }
}

impl Encoder {
    pub(super) fn build(
        config: &Config,
        json: serde_json::Value,
        origin: Origin,
        device: &Device,
    ) -> std::result::Result<Self, LoadError> {
        let architecture = config.architecture;
        let mut builder = Builder::new(&origin, architecture.prefix, config.init_std, device);
        let embeddings = Embeddings::build(&mut builder, config)?;
        let mut blocks = Vec::with_capacity(config.layers);
        for i in 0..config.layers {
            builder.group = i + 1;
            blocks.push(Block::build(&mut builder, config, &format!("{}.{i}", architecture.blocks))?);
        }
        builder.group = config.layers + 1;
        let width = config.width;
        let final_norm = architecture.final_norm.map(|path| builder.layer_norm(path, width, config.eps)).transpose()?;
        let pooler = match architecture.pooler {
            Some(path) if builder.has(&format!("{path}.weight")) => Some(builder.linear(path, width, width, true)?),
            // Pooled features are the first token's hidden state then, and the head brings the layer.
            Some(_) | None => None,
        };

        let Builder { sites, parameters, stored_shapes, used, .. } = builder;
        // The last group is the heads' own, also where the model itself has nothing above its blocks.
        let groups = config.layers + 2;
        Ok(Self {
            info: info(config, &embeddings, pooler.is_some(), groups),
            embeddings,
            hidden_dropout: config.hidden_dropout,
            blocks,
            final_norm,
            pooler,
            hooks: Hooks::none(sites.len()),
            sites,
            parameters,
            stored_shapes,
            config: json,
            checkpoint: match origin {
                Origin::Checkpoint(weights) => {
                    let extra = weights.names().filter(|name| !used.contains(*name)).map(str::to_owned).collect();
                    Some((weights, extra))
                }
                Origin::New { .. } => None,
            },
            device: device.clone(),
        })
    }

    /// The rows of the last block that are read, `None` for all.
    fn rows(&self, embedded: &Embedded, read: Read) -> Result<Option<Rows>> {
        let Embedded { layout, own, prompt, pooled, .. } = embedded;
        // Of each sequence, all rows but the first few.
        let without = |skip: usize| Rows {
            ids: layout.ranges().flat_map(|range| range.skip(skip)).map(|row| row as u32).collect(),
            layout: Layout::from_lengths(layout.ranges().map(|range| range.len() - skip)),
        };
        Ok(match (read, &self.embeddings) {
            (Read::Pooled, _) => {
                Some(Rows { ids: layout.first_rows(*pooled), layout: Layout::single_rows(own.sequences()) })
            }
            (Read::Sequence, _) if *prompt == 0 => None,
            (Read::Sequence, _) => Some(without(*prompt)),
            (Read::Spatial, Embeddings::Images(_)) => Some(without(prompt + 1)), // the class token is no part of the map
            (Read::Spatial, Embeddings::Text(_)) => {
                candle_core::bail!("a text model has no spatial features; read pooled or sequence features")
            }
        })
    }

    /// `[images * patches, width]` to `[images, width, side, side]`.
    fn spatial(&self, tape: &Tape, x: &Value, images: usize) -> Result<Value> {
        let Embeddings::Images(embeddings) = &self.embeddings else { return Ok(x.clone()) };
        let (side, width) = (embeddings.side(), self.info.width);
        let x = tape.reshape(x, &[images, side * side, width])?;
        tape.reshape(&tape.transpose(&x, 1, 2)?, &[images, width, side, side])
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

    fn set_hook(&mut self, path: &str, hook: Hook) -> Result<()> {
        self.hooks.set(&self.sites, path, hook)
    }

    fn merge_hooks(&mut self) -> Result<()> {
        let tape = Tape::evaluation();
        let mut merged: Vec<(Parameter, Value)> = Vec::new();
        for (i, site) in self.sites.iter().enumerate() {
            if self.hooks.beside_weights(i) {
                candle_core::bail!("what is added at {} is no change of a weight", site.path);
            }
            let find = |name: &str| {
                let path = format!("{}.{name}", site.path);
                self.parameters.iter().map(|base| &base.parameter).find(|parameter| parameter.name() == path)
            };
            let (weight, bias) = (find("weight"), find("bias"));
            let mut folded = [weight, bias].map(|parameter| parameter.map(|parameter| tape.parameter(parameter)));
            for hook in Pass::new(&tape, &self.hooks).linear_hooks(i) {
                let [Some(weight), bias] = &mut folded else { candle_core::bail!("{} has no weight", site.path) };
                match hook.merge(&tape, weight)? {
                    Some(merged) => *weight = merged,
                    None => candle_core::bail!("what is added at {} cannot be folded into its weight", site.path),
                }
                if let Some(bias) = bias
                    && let Some(merged) = hook.merge_bias(&tape, bias)?
                {
                    *bias = merged;
                }
            }
            let changed =
                [weight, bias].into_iter().zip(folded).filter_map(|(parameter, value)| Some((parameter?, value?)));
            merged.extend(changed.map(|(parameter, value)| (parameter.clone(), value)));
        }
        for (parameter, value) in merged {
            // What no hook has changed is still the parameter itself.
            if value.parameter().is_none() {
                parameter.set(value.tensor())?;
            }
        }
        self.clear_hooks();
        Ok(())
    }

    fn clear_hooks(&mut self) {
        self.hooks = Hooks::none(self.sites.len());
    }

    fn save_folder(&self, folder: &Path, head: &SavedHead<'_>) -> std::result::Result<(), LoadError> {
        self.write_folder(folder, head)
    }

    fn passes(&self, read: Read, parameter: &str) -> bool {
        let of_pooler = |pooler: &Linear| {
            std::iter::once(&pooler.weight).chain(&pooler.bias).any(|of_pooler| of_pooler.name() == parameter)
        };
        read == Read::Pooled || !self.pooler.as_ref().is_some_and(of_pooler)
    }

    fn forward(&self, tape: &Tape, input: &Input, read: Read) -> Result<Features> {
        let pass = Pass::new(tape, &self.hooks);
        let embedded = self.embeddings.forward(pass, input)?;
        let rows = self.rows(&embedded, read)?;
        let layout = &embedded.layout;
        let mut x = tape.dropout(&embedded.value, self.hidden_dropout)?; // [tokens, width]
        for (i, block) in self.blocks.iter().enumerate() {
            let rows = rows.as_ref().filter(|_| i + 1 == self.blocks.len());
            x = block.forward(pass, &x, layout, rows)?; // the last: [rows, width]
        }
        if let Some(norm) = &self.final_norm {
            x = norm.forward(tape, &x)?;
        }
        let sequences = embedded.own.sequences();
        Ok(match read {
            Read::Sequence => Features { value: x, layout: embedded.own },
            Read::Spatial => {
                Features { value: self.spatial(tape, &x, sequences)?, layout: Layout::single_rows(sequences) }
            }
            Read::Pooled => {
                let value = match &self.pooler {
                    Some(pooler) => pooler.forward(pass, &x, Activation::Tanh)?, // [sequences, width]
                    None => x,
                };
                Features { value, layout: Layout::single_rows(sequences) }
            }
        })
    }
}

fn info(config: &Config, embeddings: &Embeddings, pools: bool, groups: usize) -> ModelInfo {
    let architecture = config.architecture;
    let new_pooler =
        architecture.pooler.filter(|_| !pools).map(|path| (format!("{}{path}", architecture.prefix), "tanh".into()));
    let modality = match (config.input, embeddings) {
        (InputConfig::Text { vocabulary, .. }, Embeddings::Text(text)) => {
            Modality::Text { max_tokens: text.max_tokens(), vocabulary }
        }
        (InputConfig::Text { vocabulary, positions, .. }, _) => Modality::Text { max_tokens: positions, vocabulary },
        (InputConfig::Images { channels, size, patch }, _) => {
            Modality::Images { channels, size, tokens: 1 + (size / patch) * (size / patch) }
        }
    };
    ModelInfo {
        model_type: architecture.model_type.into(),
        prefix: architecture.prefix.into(),
        classification_class: architecture.classification_class.into(),
        width: config.width,
        layers: config.layers,
        heads: config.heads,
        groups,
        word_embeddings: matches!(modality, Modality::Text { .. }).then(|| WORD_EMBEDDINGS.into()),
        modality,
        head: HeadStyle {
            output: architecture.head.into(),
            hidden: new_pooler.or(architecture.head_hidden.map(|(path, activation)| (path.into(), activation.into()))),
            dropout_permille: (config.head_dropout * 1000.0).round() as u32,
        },
    }
}
