//! Examples as a model sees them this time.

use fthost_autograd::{Device, Tensor};
use fthost_images::{Augment, Mask, Normalised, Sample};

use super::draws::Draws;
use crate::data::guess::Guessed;
use crate::{Error, Result};

/// Rows of a data set, and where they are pictures, what is seen of them this time.
#[derive(Clone, Debug)]
pub struct Shown {
    rows: Vec<u32>,
    pictures: Option<Block>,
    /// What is seen of texts of which tokens are to be guessed.
    guessed: Vec<Guessed>,
    /// Whether they look as they do in evaluation.
    plain: bool,
}

/// What is seen of some pictures.
#[derive(Clone, Debug)]
struct Block {
    /// Height, width and channels.
    size: [usize; 3],
    /// `[pictures, height, width, channels]`.
    values: Vec<f32>,
    /// The mask of each, `[height, width]`; none where there are no masks.
    masks: Vec<Mask>,
    mixed: Option<Mixed>,
}

/// How pictures were mixed.
#[derive(Clone, Debug)]
struct Mixed {
    /// A picture's share of what is seen.
    own: f64,
    /// The row of what each was mixed with.
    partners: Vec<u32>,
}

impl From<&[u32]> for Shown {
    /// Rows of which nothing has to be seen.
    fn from(rows: &[u32]) -> Self {
        Self { rows: rows.to_vec(), pictures: None, guessed: Vec::new(), plain: true }
    }
}

impl Shown {
    /// Rows with what is seen of each.
    pub(in crate::data) fn new(rows: &[u32], samples: Vec<Sample>) -> Result<Self> {
        let size = samples.first().map_or([0; 3], |sample| {
            let input = &sample.input;
            [input.height, input.width, input.channels]
        });
        let mut block = Block {
            size,
            values: Vec::with_capacity(rows.len() * size.iter().product::<usize>()),
            masks: Vec::new(),
            mixed: None,
        };
        for Sample { input, mask } in samples {
            if [input.height, input.width, input.channels] != size {
                return Err(Error::run("pictures of one batch have several sizes"));
            }
            block.values.extend(input.values);
            block.masks.extend(mask);
        }
        Ok(Self { rows: rows.to_vec(), pictures: Some(block), guessed: Vec::new(), plain: true })
    }

    /// Rows of texts with what is seen of each, and is to be guessed.
    pub(in crate::data) fn of_guessed(rows: &[u32], guessed: Vec<Guessed>) -> Self {
        Self { rows: rows.to_vec(), pictures: None, guessed, plain: false }
    }

    /// What is to be guessed of each text; nothing where that is nothing.
    pub(in crate::data) fn guessed(&self) -> &[Guessed] {
        &self.guessed
    }

    /// Says that they were changed at random, and mixes them with each other where the list asks for it. `first` is the place of the first
    /// in its step.
    pub(in crate::data) fn change(&mut self, augment: &Augment, draws: &Draws, step: u64, first: u64) {
        self.plain = false;
        let Some(block) = &mut self.pictures else { return };
        let [height, width, channels] = block.size;
        let shape = [self.rows.len(), height, width, channels];
        if let Some(mixed) = augment.mix(&mut block.values, shape, &mut draws.of_batch(step, first)) {
            let partners = mixed.partners.iter().map(|&place| self.rows[place]).collect();
            block.mixed = Some(Mixed { own: f64::from(mixed.lambda), partners });
        }
    }

    /// Whether they look as they always do.
    pub(in crate::data) fn is_plain(&self) -> bool {
        self.plain
    }

    /// Whether pictures were looked at.
    pub(in crate::data) fn was_seen(&self) -> bool {
        self.pictures.is_some()
    }

    /// What is seen of their masks; nothing where there are none, or nothing was looked at.
    pub(in crate::data) fn masks(&self) -> &[Mask] {
        self.pictures.as_ref().map_or(&[], |block| &block.masks)
    }

    /// The rows.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// What is seen of the rows at some places.
    #[must_use]
    pub fn select(&self, places: &[usize]) -> Self {
        let rows = places.iter().map(|&place| self.rows[place]).collect();
        let guessed = if self.guessed.is_empty() { &[] } else { places };
        let guessed = guessed.iter().map(|&place| self.guessed[place].clone()).collect();
        let pictures = self.pictures.as_ref().map(|block| {
            let len = block.size.iter().product::<usize>();
            let mut values = Vec::with_capacity(places.len() * len);
            places.iter().for_each(|&place| values.extend_from_slice(&block.values[place * len..][..len]));
            let masks = if block.masks.is_empty() { &[] } else { places };
            let masks = masks.iter().map(|&place| block.masks[place].clone()).collect();
            let mixed = block.mixed.as_ref().map(|mixed| Mixed {
                own: mixed.own,
                partners: places.iter().map(|&place| mixed.partners[place]).collect(),
            });
            Block { size: block.size, values, masks, mixed }
        });
        Self { rows, pictures, guessed, plain: self.plain }
    }

    /// What the model takes of each picture; nothing where there are none.
    pub fn pictures(&self) -> impl Iterator<Item = Normalised> {
        self.pictures.iter().flat_map(|block| {
            let [height, width, channels] = block.size;
            let one = move |values: &[f32]| Normalised { height, width, channels, values: values.to_vec() };
            block.values.chunks_exact((height * width * channels).max(1)).map(one)
        })
    }

    /// The pictures, `[rows, height, width, channels]`.
    pub(in crate::data) fn tensor(&self, device: &Device) -> Result<Tensor> {
        let block = self.pictures.as_ref().ok_or_else(|| Error::run("these pictures were not looked at"))?;
        let [height, width, channels] = block.size;
        Ok(Tensor::from_slice(&block.values, (self.rows.len(), height, width, channels), device)?)
    }

    /// A picture's share of what is seen of it, and the rows that the others' shares are of, where pictures are mixed.
    pub fn mixed(&self) -> Option<(f64, &[u32])> {
        let Mixed { own, partners } = self.pictures.as_ref()?.mixed.as_ref()?;
        Some((*own, partners))
    }
}
