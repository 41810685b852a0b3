//! What a decoder has seen of texts that go on: the keys and values of their tokens.

use fthost_autograd::{Layout, Result, Tensor, Value};

/// Rows for which there is room at first, and the least that room grows by.
const ROOM: usize = 64;

/// What is kept of several texts, so that a token more asks for no other to be computed again. [`Model::begin`](crate::Model::begin) makes
/// it, and [`Model::extend`](crate::Model::extend) fills it.
#[derive(Debug)]
pub struct Cache {
    /// Rows that each text has, prompts' included.
    lengths: Vec<usize>,
    /// Of each block what it has seen of each text.
    blocks: Vec<Vec<Seen>>,
}

impl Cache {
    /// Of so many texts, which begin, for a model of so many blocks.
    pub(crate) fn new(texts: usize, blocks: usize) -> Self {
        let of_block = || (0..texts).map(|_| Seen::default()).collect();
        Self { lengths: vec![0; texts], blocks: (0..blocks).map(|_| of_block()).collect() }
    }

    /// How many texts there are.
    pub fn texts(&self) -> usize {
        self.lengths.len()
    }

    /// Keeps the texts at these places, each once, in this order, and drops the others.
    pub fn keep(&mut self, places: &[usize]) {
        self.lengths = places.iter().map(|&place| self.lengths[place]).collect();
        for block in &mut self.blocks {
            // A clone is a handle: no row is copied.
            *block = places.iter().map(|&place| block[place].clone()).collect();
        }
    }

    /// Every text forgets its last rows, so many of them, and goes on from those before.
    pub fn forget(&mut self, rows: usize) {
        self.lengths.iter_mut().for_each(|length| *length = length.saturating_sub(rows));
        for seen in self.blocks.iter_mut().flatten() {
            seen.forget(rows);
        }
    }

    /// Rows that each text has, prompts' included.
    pub(crate) fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// What a block has seen of each text.
    pub(crate) fn block(&mut self, block: usize) -> &mut [Seen] {
        &mut self.blocks[block]
    }

    /// Counts the rows that every block has seen now.
    pub(crate) fn count(&mut self, new: &Layout) {
        self.lengths.iter_mut().zip(new.ranges()).for_each(|(length, range)| *length += range.len());
    }
}

/// The keys, turned to their positions, and the values that a block has seen of one text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    keys: Rows,
    values: Rows,
}

impl Seen {
    /// Takes those of new tokens, `[tokens, width]` each, and gives all that there are, `[all, width]`.
    pub(crate) fn extended(&mut self, keys: &Tensor, values: &Tensor) -> Result<(Value, Value)> {
        Ok((Value::constant(self.keys.extended(keys)?), Value::constant(self.values.extended(values)?)))
    }

    fn forget(&mut self, rows: usize) {
        for of in [&mut self.keys, &mut self.values] {
            of.len = of.len.saturating_sub(rows);
        }
    }
}

/// Rows with room for more of them.
#[derive(Clone, Debug, Default)]
struct Rows {
    /// `[room, width]`
    tensor: Option<Tensor>,
    len: usize,
}

impl Rows {
    /// Puts new rows, `[rows, width]`, behind the others in place, and gives a view of all.
    fn extended(&mut self, new: &Tensor) -> Result<Tensor> {
        let (rows, width) = new.dims2()?;
        let len = self.len + rows;
        let roomy = match self.tensor.take() {
            Some(tensor) if tensor.dims()[0] >= len => tensor,
            full => {
                // Twice as much each time: so a row is copied once or twice in all, however long a text becomes.
                let roomy = Tensor::zeros(((2 * len).next_multiple_of(ROOM), width), new.dtype(), new.device())?;
                if let Some(full) = full {
                    roomy.slice_set(&full.narrow(0, 0, self.len)?, 0, 0)?;
                }
                roomy
            }
        };
        roomy.slice_set(&new.contiguous()?, 0, self.len)?;
        self.len = len;
        let all = roomy.narrow(0, 0, len);
        self.tensor = Some(roomy);
        all
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use fthost_autograd::Device;

    use super::*;

    #[test]
    fn rows_stay_where_they_are_while_there_is_room() {
        let rows = |from: usize, n: usize| {
            let numbers: Vec<f32> = (from * 2..(from + n) * 2).map(|i| i as f32).collect();
            Tensor::from_vec(numbers, (n, 2), &Device::Cpu).unwrap()
        };
        let (mut all, mut len, mut moves) = (Rows::default(), 0, 0);
        let mut room = 0;
        for n in [1, 5, 1, 1, 60, 1, 200, 1, 1] {
            let found = all.extended(&rows(len, n)).unwrap();
            len += n;
            assert_eq!(found.to_vec2::<f32>().unwrap(), rows(0, len).to_vec2::<f32>().unwrap());
            let now = all.tensor.as_ref().unwrap().dims()[0];
            moves += usize::from(now != room);
            room = now;
        }
        assert_eq!(moves, 3);
    }

    #[test]
    fn texts_that_have_ended_are_dropped() {
        let mut cache = Cache::new(3, 1);
        for (i, seen) in cache.block(0).iter_mut().enumerate() {
            let rows = Tensor::full(i as f32, (i + 1, 1), &Device::Cpu).unwrap();
            seen.extended(&rows, &rows).unwrap();
        }
        cache.count(&Layout::from_lengths([1, 2, 3]));
        cache.keep(&[2, 0]);
        assert_eq!((cache.texts(), cache.lengths()), (2, [3, 1].as_slice()));
        let one = Tensor::full(9f32, (1, 1), &Device::Cpu).unwrap();
        let (keys, _) = cache.block(0)[0].extended(&one, &one).unwrap();
        assert_eq!(keys.tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap(), [2.0, 2.0, 2.0, 9.0]);
    }
}
