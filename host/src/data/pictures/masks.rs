//! Masks: the class of each pixel of a picture.

use fthost_images::{MAX_PIXELS, Mask, decode_mask, source};
use rayon::prelude::*;

use super::form::MaskForm;
use crate::Result;
use crate::data::row::data_error;
use crate::data::store::UNCOUNTED;

/// The masks of a data set's pictures, by the numbers of its rows.
#[derive(Clone, Debug)]
pub(in crate::data) struct Masks {
    pub(super) source: source::Source,
    /// What pixels without a class have.
    void: u8,
    /// Of each mask how many pixels each class has that it has.
    counts: Vec<Vec<(u8, u32)>>,
}

impl Masks {
    /// Looks at every mask, so that an index without a class is known before training. Gives the names of the classes with them: those of
    /// the training data, which are `known` of other data, or those of the run file, or the indices that there are.
    ///
    /// # Errors
    /// What is no mask, and an index past the classes, with its file.
    pub(super) fn new(
        source: source::Source,
        form: &MaskForm,
        known: Option<&[String]>,
    ) -> Result<(Self, Vec<String>)> {
        let void = form.void();
        let count = |number: usize| {
            let mut pixels = [0u32; 256];
            let mask = decode_mask(&source.read(number)?, source.name(number), MAX_PIXELS)?;
            mask.bytes().iter().for_each(|&index| pixels[usize::from(index)] += 1);
            let there = (0..=u8::MAX).zip(pixels).filter(|&(index, pixels)| pixels > 0 && index != void);
            Ok(there.collect::<Vec<_>>())
        };
        let counts = (0..source.len()).into_par_iter().map(count).collect::<Result<Vec<_>>>()?;
        let highest = counts.iter().filter_map(|of| of.last()).map(|(index, _)| *index).max();
        let names = match known {
            Some(known) => known.to_vec(),
            None if !form.classes.is_empty() => form.classes.clone(),
            None => (0..=highest.unwrap_or_default()).map(|index| index.to_string()).collect(),
        };
        let past =
            |of: &Vec<(u8, u32)>| of.last().map(|last| last.0).filter(|&index| usize::from(index) >= names.len());
        if let Some((number, index)) = counts.iter().enumerate().find_map(|(i, of)| Some((i, past(of)?))) {
            let classes = names.len();
            let which = if known.is_some() { "the training data have" } else { "the task names" };
            let message = format!("has pixels of class {index}, and {which} {classes} classes, 0 to {}", classes - 1);
            let help = format!(
                "name the class: classes = [...] in the task; or say that such pixels have none: ignore_index = {index}"
            );
            return Err(data_error(source.name(number).as_ref(), None, message).with_help(help));
        }
        if highest.is_none() {
            let message = "no pixel of any mask has a class";
            return Err(data_error(source.name(0).as_ref(), None, message)
                .with_help(format!("{void} says that a pixel has none: is ignore_index right?")));
        }
        Ok((Self { source, void, counts }, names))
    }

    /// Pixels of each class in some masks.
    pub(in crate::data) fn counts(&self, rows: impl Iterator<Item = u32>, classes: usize) -> Vec<u64> {
        let mut all = vec![0; classes];
        for &(index, pixels) in rows.flat_map(|row| &self.counts[row as usize]) {
            all[usize::from(index)] += u64::from(pixels);
        }
        all
    }

    /// What pixels without a class have.
    pub(in crate::data) fn void(&self) -> u8 {
        self.void
    }

    /// A mask as it is.
    pub(in crate::data) fn mask(&self, row: u32) -> Result<Mask> {
        let number = row as usize;
        Ok(decode_mask(&self.source.read(number)?, self.source.name(number), MAX_PIXELS)?)
    }

    /// The classes of a mask's pixels, [`UNCOUNTED`] where one has none.
    pub(in crate::data) fn classes<'a>(&self, mask: &'a Mask) -> impl Iterator<Item = u32> + use<'a> {
        let void = self.void;
        mask.bytes().iter().map(move |&index| if index == void { UNCOUNTED } else { u32::from(index) })
    }
}
