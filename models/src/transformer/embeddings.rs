//! The bottom of the encoder: from token ids or pixels to hidden states.

use std::ops::Range;

use fthost_autograd::{Layout, Map, Parameter, Result, Tape, Tensor, Value, Window};

use super::config::{End, InputConfig, TowerConfig};
use crate::builder::Builder;
use crate::hooks::Pass;
use crate::layers::{LayerNorm, Linear};
use crate::sequences::{Embedded, Prompted, check_ids, prompt_rows, within};
use crate::{Input, LoadError, SiteKind, TextInput};

/// Path of the embeddings' site.
const SITE: &str = "embeddings";
/// Path of what is added for each segment.
const TYPES: &str = "embeddings.token_type_embeddings";

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
    norm: Option<LayerNorm>,
    end: Option<End>,
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
    norm: Option<LayerNorm>,
}

impl Embeddings {
    pub(crate) fn build(builder: &mut Builder<'_>, config: &TowerConfig) -> std::result::Result<Self, LoadError> {
        let (width, names) = (config.width, &config.names.bottom);
        let norm =
            |builder: &mut Builder<'_>| names.norm.map(|path| builder.layer_norm(path, width, config.eps)).transpose();
        Ok(match config.input {
            InputConfig::Text { vocabulary, positions, first_position, types, end } => {
                let site = builder.site(SITE, SiteKind::Embeddings, width, width);
                let mut table = |name: &str, rows| builder.rows(name, 0, rows, width);
                Self::Text(TextEmbeddings {
                    site,
                    words: table(&format!("{}.weight", names.input), vocabulary)?,
                    positions: table(names.positions, positions)?,
                    first_position,
                    types: (types > 0).then(|| table(&format!("{TYPES}.weight"), types)).transpose()?,
                    norm: norm(builder)?,
                    end,
                })
            }
            InputConfig::Images { channels, size, patch } => {
                let side = size / patch;
                let leading = usize::from(names.stored_as_batch);
                let projection = builder.patch_projection(names.input, channels, patch, width, names.input_bias)?;
                let site = builder.site(SITE, SiteKind::Embeddings, width, width);
                let around = std::mem::replace(&mut builder.init_std, config.stds.class_token);
                let class_token = match names.stored_as_batch {
                    true => builder.rows(names.class_token, leading, 1, width)?,
                    false => builder.row(names.class_token, width)?,
                };
                builder.init_std = around;
                Self::Images(ImageEmbeddings {
                    projection,
                    site,
                    channels,
                    size,
                    patch,
                    class_token,
                    positions: builder.rows(names.positions, leading, 1 + side * side, width)?,
                    norm: norm(builder)?,
                })
            }
        })
    }

    /// Sets the tape's layout.
    pub(crate) fn forward(&self, pass: Pass<'_>, input: &Input) -> Result<Embedded> {
        match (self, input) {
            (Self::Text(_), Input::Text(text)) if text.before.is_some() => {
                candle_core::bail!("nothing but a decoder takes what stands before a text in place of its embeddings")
            }
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
        let rows = prompt_rows(pass, self.site, &self.words)?;
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
        let value = match &self.norm {
            Some(norm) => norm.forward_sum(tape, &sum, &positions)?,
            None => tape.add(&sum, &positions)?,
        };
        Ok(Embedded { value, ..embedded })
    }

    /// Whether a token ends a text by the architecture's word.
    pub(crate) fn ends(&self) -> bool {
        self.end.is_some()
    }

    /// Each text as far as the token that ends it.
    ///
    /// Where no token sees those after it, that is all that the last one's features depend on.
    pub(crate) fn ended(&self, text: &TextInput) -> Result<TextInput> {
        check_ids(text, &self.words)?;
        let of_end = |ids: &[u32]| {
            let greatest = ids.iter().max().copied().unwrap_or_default();
            let wanted = match self.end {
                Some(End::Token(id)) => id,
                Some(End::Greatest) => greatest,
                None => return ids.len(),
            };
            1 + ids.iter().position(|&id| id == wanted).unwrap_or(0)
        };
        let ranges: Vec<Range<usize>> =
            text.layout.ranges().map(|range| range.start..range.start + of_end(&text.ids[range])).collect();
        let kept = |of: &[u32]| ranges.iter().flat_map(|range| of[range.clone()].iter().copied()).collect();
        let layout = Layout::from_lengths(ranges.iter().map(ExactSizeIterator::len));
        Ok(TextInput { ids: kept(&text.ids), types: kept(&text.types), layout, before: text.before.clone() })
    }

    fn check(&self, text: &TextInput) -> Result<()> {
        check_ids(text, &self.words)?;
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
        let embedded = Prompted { value: placed, ..prompted }.prepend(tape, layout)?;
        match &self.norm {
            Some(norm) => Ok(Embedded { value: norm.forward(tape, &embedded.value)?, ..embedded }),
            None => Ok(embedded),
        }
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
