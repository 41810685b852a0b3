//! The bottom of the encoder: from token ids or pixels to hidden states.

use std::ops::Range;

use fthost_autograd::{Layout, Map, Parameter, Result, Tape, Tensor, Value, Window};

use super::config::{Config, InputConfig};
use crate::builder::Builder;
use crate::hooks::Pass;
use crate::layers::{LayerNorm, Linear};
use crate::{Input, LoadError, Prompt, SiteKind, TextInput};

/// Path of the embeddings' site.
const SITE: &str = "embeddings";
pub(crate) const WORD_EMBEDDINGS: &str = "embeddings.word_embeddings";

/// Hidden states before the first block.
pub(crate) struct Embedded {
    /// `[tokens, width]`, prompts included.
    pub(crate) value: Value,
    /// The layout of `value`.
    pub(crate) layout: Layout,
    /// The layout without prompts.
    pub(crate) own: Layout,
    /// Prompt rows before every sequence.
    pub(crate) prompt: usize,
    /// The row of each sequence that is pooled.
    pub(crate) pooled: usize,
}

#[derive(Debug)]
pub(crate) enum Embeddings {
    Text(TextEmbeddings),
    Images(ImageEmbeddings),
}

#[derive(Debug)]
pub(crate) struct TextEmbeddings {
    site: usize,
    /// `[vocabulary, width]`
    words: Parameter,
    /// `[positions, width]`
    positions: Parameter,
    first_position: usize,
    /// `[types, width]`
    types: Option<Parameter>,
    norm: LayerNorm,
}

#[derive(Debug)]
pub(crate) struct ImageEmbeddings {
    site: usize,
    channels: usize,
    size: usize,
    patch: usize,
    projection: Linear,
    /// `[1, width]`
    class_token: Parameter,
    /// `[1 + patches, width]`
    positions: Parameter,
}

impl Embeddings {
    pub(crate) fn build(builder: &mut Builder<'_>, config: &Config) -> std::result::Result<Self, LoadError> {
        let width = config.width;
        Ok(match config.input {
            InputConfig::Text { vocabulary, positions, first_position, types } => {
                let site = builder.site(SITE, SiteKind::Embeddings, width, width);
                let mut table = |name: &str, rows| builder.rows(&format!("{SITE}.{name}.weight"), 0, rows, width);
                Self::Text(TextEmbeddings {
                    site,
                    words: table("word_embeddings", vocabulary)?,
                    positions: table("position_embeddings", positions)?,
                    first_position,
                    types: (types > 0).then(|| table("token_type_embeddings", types)).transpose()?,
                    norm: builder.layer_norm("embeddings.LayerNorm", width, config.eps)?,
                })
            }
            InputConfig::Images { channels, size, patch } => {
                let side = size / patch;
                Self::Images(ImageEmbeddings {
                    projection: builder.patch_projection(
                        "embeddings.patch_embeddings.projection",
                        channels,
                        patch,
                        width,
                    )?,
                    site: builder.site(SITE, SiteKind::Embeddings, width, width),
                    channels,
                    size,
                    patch,
                    class_token: builder.rows("embeddings.cls_token", 1, 1, width)?,
                    positions: builder.rows("embeddings.position_embeddings", 1, 1 + side * side, width)?,
                })
            }
        })
    }

    /// Sets the tape's layout.
    pub(crate) fn forward(&self, pass: Pass<'_>, input: &Input) -> Result<Embedded> {
        match (self, input) {
            (Self::Text(embeddings), Input::Text(text)) => embeddings.forward(pass, text),
            (Self::Images(embeddings), Input::Images(images)) => embeddings.forward(pass, images),
            (Self::Text(_), Input::Images(_)) => candle_core::bail!("a text model got images; give it token ids"),
            (Self::Images(_), Input::Text(_)) => candle_core::bail!("an image model got text; give it pixels"),
        }
    }
}

impl TextEmbeddings {
    /// The longest sequence.
    pub(crate) fn max_tokens(&self) -> usize {
        self.positions.dims()[0] - self.first_position
    }

    /// The longest sequence beside the prompts and prefixes of a pass: what they take is seen on a sequence of one token.
    pub(crate) fn longest_sequence(&self, pass: Pass<'_>) -> Result<usize> {
        let one = Layout::from_lengths([1]);
        let words = pass.tape.embedding(&pass.tape.parameter(&self.words), &[0])?; // [1, width]
        let Prompted { prompts, .. } = Prompted::new(pass, self.site, words, &one)?;
        let rows = prompts.iter().map(|prompt| prompt.rows.dims().first().copied().unwrap_or(0)).sum::<usize>();
        Ok(self.max_tokens().saturating_sub(rows + pass.position_shift()))
    }

    fn forward(&self, pass: Pass<'_>, text: &TextInput) -> Result<Embedded> {
        let tape = pass.tape;
        self.check(text)?;
        let words = tape.embedding(&tape.parameter(&self.words), &text.ids)?; // [tokens, width]
        let prompted = Prompted::new(pass, self.site, words, &text.layout)?;
        let embedded = prompted.prepend(tape, text.layout.clone())?;
        let Embedded { value, layout, prompt, .. } = &embedded;

        let shift = pass.position_shift();
        let start = self.first_position + shift;
        let longest = layout.ranges().map(|range| range.len()).max().unwrap_or(0);
        let rows = self.positions.dims()[0];
        if start + longest > rows {
            let moved = if shift > 0 { format!(", moved up by {shift} for prefixes,") } else { String::new() };
            candle_core::bail!(
                "a sequence of {longest} tokens, {prompt} of them prompts,{moved} needs position {}, and the model has {rows}; \
                 lower the length that texts are cut to",
                start + longest - 1
            );
        }
        let ids: Vec<u32> = layout.ranges().flat_map(|range| 0..range.len()).map(|i| (start + i) as u32).collect();
        let positions = tape.embedding(&tape.parameter(&self.positions), &ids)?; // [tokens, width]
        let sum = match &self.types {
            Some(types) => {
                // RoBERTa's models have one row, and no second text to tell by it.
                let last = types.tensor().dims()[0] as u32 - 1;
                let own = |range: Range<usize>| text.types[range].iter().map(move |&of| if last == 0 { 0 } else { of });
                let ids: Vec<u32> = (text.layout.ranges())
                    .flat_map(|range| std::iter::repeat_n(0, *prompt).chain(own(range)))
                    .collect();
                tape.add(value, &tape.embedding(&tape.parameter(types), &ids)?)?
            }
            None => value.clone(),
        };
        let value = self.norm.forward_sum(tape, &sum, &positions)?;
        Ok(Embedded { value, ..embedded })
    }

    fn check(&self, text: &TextInput) -> Result<()> {
        let tokens = text.layout.tokens();
        if text.ids.len() != tokens || text.types.len() != tokens {
            let (ids, types) = (text.ids.len(), text.types.len());
            candle_core::bail!("the layout has {tokens} tokens, but there are {ids} ids and {types} token types");
        }
        if let Some(i) = text.layout.ranges().position(|range| range.is_empty()) {
            candle_core::bail!("sequence {i} is empty; even an empty text has its special tokens");
        }
        let within = |ids: &[u32], table: &Parameter, what: &str| match ids.iter().max() {
            Some(&max) if max as usize >= table.dims()[0] => {
                let rows = table.dims()[0];
                candle_core::bail!("{what} {max} is outside {}, which has {rows} rows", table.name())
            }
            _ => Ok(()),
        };
        within(&text.ids, &self.words, "token id")?;
        match &self.types {
            Some(types) if types.tensor().dims()[0] > 1 => within(&text.types, types, "token type"),
            _ => Ok(()),
        }
    }
}

impl ImageEmbeddings {
    /// Patches per side.
    pub(crate) fn side(&self) -> usize {
        self.size / self.patch
    }

    fn forward(&self, pass: Pass<'_>, images: &Tensor) -> Result<Embedded> {
        let tape = pass.tape;
        let (n, patches) = (images.dims().first().copied().unwrap_or(0), self.side() * self.side());
        let grid = Layout::from_lengths(std::iter::repeat_n(patches, n));
        tape.set_layout(grid.clone());
        let unfolded = self.unfold(tape, images)?; // [n * patches, channels * patch * patch]
        let projected = self.projection.forward(pass, &unfolded, Default::default())?; // [n * patches, width]
        let tokens = tape.prepend_rows(&projected, &tape.parameter(&self.class_token), &grid)?;

        let layout = grid.extended(1);
        let prompted = Prompted::new(pass, self.site, tokens, &layout)?;
        // Prompts stand outside the grid and get no position.
        let ids: Vec<u32> = (0..n).flat_map(|_| 0..=patches as u32).collect();
        let positions = tape.embedding(&tape.parameter(&self.positions), &ids)?;
        let placed = tape.add(&prompted.value, &positions)?; // [n * (1 + patches), width]
        Prompted { value: placed, ..prompted }.prepend(tape, layout)
    }

    /// `[n, size, size, channels]` to `[n * patches, channels * patch * patch]`: the rows that the convolution's kernel meets.
    fn unfold(&self, tape: &Tape, images: &Tensor) -> Result<Value> {
        let (c, size) = (self.channels, self.size);
        match *images.dims() {
            [n, height, width, channels] if (height, width, channels) == (size, size, c) => {
                let pixels = Value::constant(images.reshape((n * size * size, c))?);
                let window = Window::square(self.patch).stride(self.patch);
                Ok(tape.unfold(&pixels, Map::new(n, size, size), &window)?.0)
            }
            ref other => candle_core::bail!(
                "images have shape {other:?}, the model takes [images, {size}, {size}, {c}]; resize them"
            ),
        }
    }
}

/// Embeddings after the hooks, with the rows that will stand before every sequence.
struct Prompted {
    value: Value,
    prompts: Vec<Prompt>,
}

impl Prompted {
    /// Runs the hooks. Each sees the sequences' own tokens.
    fn new(pass: Pass<'_>, site: usize, mut value: Value, layout: &Layout) -> Result<Self> {
        pass.tape.set_layout(layout.clone());
        let mut prompts = Vec::new();
        for hook in pass.embedding_hooks(site) {
            let (changed, prompt) = hook.forward(pass.tape, value, layout)?;
            value = changed;
            prompts.extend(prompt);
        }
        Ok(Self { value, prompts })
    }

    /// Puts the prompts before every sequence, each before those of earlier hooks.
    fn prepend(self, tape: &Tape, own: Layout) -> Result<Embedded> {
        let (mut value, mut layout) = (self.value, own.clone());
        let (mut prompt, mut pooled) = (0, 0);
        for Prompt { rows, pool_first_token } in self.prompts {
            let n = rows.dims().first().copied().unwrap_or(0);
            value = tape.prepend_rows(&value, &rows, &layout)?;
            layout = layout.extended(n);
            prompt += n;
            pooled = if pool_first_token { pooled + n } else { 0 };
        }
        tape.set_layout(layout.clone());
        Ok(Embedded { value, layout, own, prompt, pooled })
    }
}
