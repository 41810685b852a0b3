//! From bytes to the numbers that a model takes.

use crate::plane::Picture;

/// A picture as a model takes it: `f32`, `[height, width, channels]`.
#[derive(Clone, PartialEq)]
pub struct Normalised {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 3, or 1 of a grey model.
    pub channels: usize,
    /// The values, row by row, the channels of a pixel together.
    pub values: Vec<f32>,
}

impl std::fmt::Debug for Normalised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Normalised({} x {} x {})", self.height, self.width, self.channels)
    }
}

/// What each of the 256 levels of each channel becomes: `(level * factor + offset - mean) / std`.
#[derive(Clone, PartialEq)]
pub struct Normalise {
    channels: Vec<[f32; 256]>,
}

impl std::fmt::Debug for Normalise {
    /// A line for each channel, as slope and value at 0.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.channels.iter().map(|t| ((t[255] - t[0]) / 255.0, t[0]))).finish()
    }
}

impl Normalise {
    /// From what a level becomes in each channel. There are one or three.
    pub(crate) fn new(channels: usize, value: impl Fn(usize, f64) -> f64) -> Self {
        let table = |channel| std::array::from_fn(|level| value(channel, level as f64) as f32);
        Self { channels: (0..channels).map(table).collect() }
    }

    /// 3, or 1 of a grey model.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// The same for a grey model, where all channels' levels become the same.
    pub fn of_grey(&self) -> Option<Self> {
        let (first, others) = self.channels.split_first()?;
        others.iter().all(|other| other == first).then(|| Self { channels: vec![*first] })
    }

    /// The picture's numbers. Of a grey model's picture (see [`grey`](crate::grey())) all channels are equal.
    pub fn apply(&self, picture: &Picture) -> Normalised {
        let values = match self.channels.as_slice() {
            [red, green, blue] => {
                let mut values = Vec::with_capacity(picture.pixels().len() * 3);
                for [r, g, b] in picture.pixels() {
                    values.extend_from_slice(&[red[usize::from(*r)], green[usize::from(*g)], blue[usize::from(*b)]]);
                }
                values
            }
            channels => {
                let light = &channels[0];
                picture.pixels().iter().map(|[level, ..]| light[usize::from(*level)]).collect()
            }
        };
        Normalised { height: picture.height(), width: picture.width(), channels: self.channels.len(), values }
    }

    /// The picture that numbers stand for, to be looked at: the nearest levels.
    pub fn undo(&self, input: &Normalised) -> Option<Picture> {
        let level = |channel: usize, value: f32| {
            let table = &self.channels[channel.min(self.channels.len() - 1)];
            let (black, white) = (table[0], table[255]);
            ((value - black) / (white - black) * 255.0).round().clamp(0.0, 255.0) as u8
        };
        let pixel = |values: &[f32]| std::array::from_fn(|c| level(c, values[c.min(values.len() - 1)]));
        Picture::new(input.height, input.width, input.values.chunks_exact(input.channels).map(pixel).collect())
    }
}
