//! Quantised weights: few bits an element, and for some elements of a row a scale in common.

/// How the elements of a quantised weight are made: `level * scale + offset`, rounded after either, where level is what an element's code
/// stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantization {
    /// Neighbours in a row that have scale and offset in common; a row is a whole number of these.
    pub block: usize,
    /// What codes stand for.
    pub levels: Levels,
    /// Whether blocks have an offset.
    pub has_offsets: bool,
}

/// What the codes of a quantised weight stand for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Levels {
    /// Four bits: the number less this.
    Nibble {
        /// The code of 0.
        zero: u8,
    },
    /// Four bits: one of these.
    Book([f32; 16]),
    /// Eight bits: the number, with its sign.
    Byte,
}

impl Levels {
    /// Bits of a code.
    pub(crate) fn bits(&self) -> usize {
        match self {
            Self::Nibble { .. } | Self::Book(_) => 4,
            Self::Byte => 8,
        }
    }

    /// The code that stands for 0, or for what is nearest to it.
    pub(crate) fn zero(&self) -> u8 {
        match self {
            Self::Nibble { zero } => *zero,
            Self::Book(book) => (0..16).min_by(|i, j| book[*i].abs().total_cmp(&book[*j].abs())).unwrap_or(0) as u8,
            Self::Byte => 0,
        }
    }

    /// What a code stands for.
    pub fn of(&self, code: u8) -> f32 {
        match self {
            Self::Nibble { zero } => f32::from(code) - f32::from(*zero),
            Self::Book(book) => book[usize::from(code & 15)],
            Self::Byte => f32::from(code.cast_signed()),
        }
    }
}

/// Some elements of a quantised weight, whole blocks of them, row after row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Codes {
    /// One for each element.
    pub codes: Vec<u8>,
    /// One for each block.
    pub scales: Vec<f32>,
    /// One for each block, or none.
    pub offsets: Vec<f32>,
}

impl Codes {
    /// Room for so many elements, whatever it held before.
    pub(crate) fn make_room(&mut self, of: &Quantization, elements: usize) {
        let blocks = elements / of.block;
        self.codes.resize(elements, 0);
        self.scales.resize(blocks, 0.0);
        self.offsets.resize(if of.has_offsets { blocks } else { 0 }, 0.0);
    }

    /// The elements that these are.
    pub fn values(&self, of: &Quantization, into: &mut [f32]) {
        let blocks = into.chunks_mut(of.block).zip(self.codes.chunks(of.block)).zip(&self.scales).enumerate();
        for (i, ((values, codes), scale)) in blocks {
            let levels = codes.iter().map(|code| of.levels.of(*code));
            match self.offsets.get(i) {
                Some(offset) => values.iter_mut().zip(levels).for_each(|(x, level)| *x = level * scale + offset),
                None => values.iter_mut().zip(levels).for_each(|(x, level)| *x = level * scale),
            }
        }
    }
}
