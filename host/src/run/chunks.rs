//! The pieces in which examples are evaluated, each on a tape of its own.

use fthost_models::Modality;

use crate::Result;
use crate::adapted::AdaptedModel;
use crate::data::Dataset;

/// Examples that a tape takes at once on the CPU. Like the other bounds it is fixed: the bits do not depend on the number of threads.
const EXAMPLES: usize = 32;

/// Tokens of the texts that a tape takes at once on the CPU: enough for a product to run at its full speed, and what a block makes of
/// them stays small.
const TOKENS: usize = 1024;

/// Patches of the pictures that a tape takes at once on the CPU: what a network makes of larger pictures fills the memory.
const PATCHES: usize = 2048;

/// Pixels whose classes a tape predicts at once: of each there is a number for every class.
const PIXELS: usize = 1 << 18;

/// What one tape takes at most, unless a single example has more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    examples: usize,
    tokens: usize,
}

/// Some of the rows, in their order, for one tape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk<'a> {
    /// The place of the first among all rows.
    pub(super) first: usize,
    /// The examples.
    pub(super) rows: &'a [u32],
    /// Tokens of them all.
    pub(super) tokens: usize,
}

/// The pieces in which the model takes these rows of the data, where a head predicts `masks` or something else of them.
///
/// # Errors
/// A row that cannot be read.
pub(super) fn chunks<'a>(model: &AdaptedModel, data: &Dataset, masks: bool, rows: &'a [u32]) -> Result<Vec<Chunk<'a>>> {
    let lengths = rows.iter().map(|&row| data.tokens(row)).collect::<Result<Vec<_>>>()?;
    let mut first = 0;
    let chunks = split(&lengths, bounds(model, data, masks)).into_iter().map(|len| {
        let places = first..first + len;
        first = places.end;
        Chunk { first: places.start, rows: &rows[places.clone()], tokens: lengths[places].iter().sum() }
    });
    Ok(chunks.collect())
}

/// Batches on a GPU are bigger: parallelism is inside the op there.
fn bounds(model: &AdaptedModel, data: &Dataset, masks: bool) -> Bounds {
    let scale = if model.device.is_cpu() { 1 } else { 8 };
    let pictures = |most: usize, each: usize| Bounds {
        examples: (most / each.max(1)).clamp(1, scale * EXAMPLES),
        tokens: usize::MAX,
    };
    let of_stream = |modality: Modality| match modality {
        Modality::Text { .. } => Bounds { examples: scale * EXAMPLES, tokens: scale * TOKENS },
        Modality::Images { .. } if scale > 1 => Bounds { examples: scale * EXAMPLES, tokens: usize::MAX },
        Modality::Images { tokens, .. } => pictures(PATCHES, tokens),
    };
    let streams = model.model.info().streams.iter().map(|stream| stream.modality);
    let bounds: Vec<Bounds> = streams.filter(|modality| data.is_for(*modality)).map(of_stream).collect();
    let of_model = match &*bounds {
        [of] => *of,
        // A text's tokens and what its picture counts as are counted together.
        several => Bounds {
            examples: several.iter().map(|of| of.examples).min().unwrap_or(scale * EXAMPLES),
            tokens: scale * (TOKENS + PATCHES),
        },
    };
    match data.transform().filter(|_| masks) {
        None => of_model,
        Some(transform) => {
            let (height, width) = transform.preprocess().size();
            let of_masks = pictures(PIXELS, height * width);
            Bounds { examples: of_model.examples.min(of_masks.examples), ..of_model }
        }
    }
}

/// How many of the examples, whose tokens these are, each piece has.
fn split(lengths: &[usize], bounds: Bounds) -> Vec<usize> {
    let (mut pieces, mut examples, mut tokens) = (Vec::new(), 0, 0usize);
    for &length in lengths {
        if examples == bounds.examples || (examples > 0 && tokens.saturating_add(length) > bounds.tokens) {
            pieces.push(examples);
            (examples, tokens) = (0, 0);
        }
        examples += 1;
        tokens = tokens.saturating_add(length);
    }
    pieces.extend((examples > 0).then_some(examples));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_ends_with_its_examples_or_its_tokens() {
        let check = |lengths: &[usize], expected: &[usize]| {
            assert_eq!(split(lengths, Bounds { examples: 3, tokens: 10 }), expected);
        };
        check(&[], &[]);
        check(&[1, 1, 1, 1], &[3, 1]);
        check(&[5, 5, 1], &[2, 1]);
        check(&[20, 1, 20], &[1, 1, 1]); // An example that is too long for a piece is one.
        check(&[4, 7, 3, 1], &[1, 2, 1]);
    }
}
