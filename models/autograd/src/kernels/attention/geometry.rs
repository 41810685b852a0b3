//! Who attends to whom, block by block, and what goes in and comes out.

use std::ops::Range;

use rayon::prelude::*;

use crate::random::Stream;
use crate::{Layout, Sees};

/// Rows of scores lie this many floats apart, or a multiple: a whole vector.
pub(super) const VECTOR: usize = 16;

/// Queries that are taken at once where each sees another number of keys, so that scores of pairs that do not see each other are few.
const BLOCK: usize = 64;

/// Who attends to whom.
#[derive(Clone, Debug)]
pub(crate) struct Geometry {
    pub(crate) heads: usize,
    /// Heads of the keys and values: each serves as many heads of the queries.
    pub(crate) kv_heads: usize,
    /// Width of a head.
    pub(crate) dim: usize,
    /// What scores are multiplied by.
    pub(crate) scale: f64,
    pub(crate) sees: Sees,
    pub(crate) queries: Layout,
    pub(crate) keys: Layout,
    /// Rows of the prefix, which stand before the keys of each sequence.
    pub(crate) prefix: usize,
    /// Split heads over the threads of the pool.
    pub(crate) parallel: bool,
}

/// Queries of a sequence that are taken at once, and the keys that any of them sees, the prefix counted.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) queries: Range<usize>,
    pub(crate) keys: Range<usize>,
    /// Keys that the first query sees, counted from the block's first; each further query's begin and end one later.
    band: Option<(isize, isize)>,
}

impl Block {
    /// The distance of rows of scores.
    pub(super) fn row(&self) -> usize {
        self.keys.len().next_multiple_of(VECTOR)
    }

    /// The keys that one of its queries sees, counted from the block's first.
    #[inline(always)]
    pub(crate) fn seen(&self, query: usize) -> Range<usize> {
        let keys = self.keys.len();
        let Some((start, end)) = self.band else { return 0..keys };
        let at = |place: isize| (place + query as isize).clamp(0, keys as isize) as usize;
        at(start)..at(end)
    }
}

impl Geometry {
    /// Queries and keys of sequence `s`, the prefix counted.
    pub(crate) fn lengths(&self, s: usize) -> (usize, usize) {
        (self.queries.range(s).len(), self.keys.range(s).len() + self.prefix)
    }

    /// The queries of sequence `s`, block by block; none of a sequence without queries or keys.
    pub(crate) fn blocks(&self, s: usize) -> impl Iterator<Item = Block> + use<> {
        let (queries, keys) = self.lengths(s);
        let sees = self.sees;
        let size = if matches!(sees, Sees::All) { queries } else { BLOCK };
        let starts = (0..if keys == 0 { 0 } else { queries }).step_by(size.max(1));
        starts.map(move |start| {
            let of = start..queries.min(start + size);
            let Sees::Past { window } = sees else { return Block { queries: of, keys: 0..keys, band: None } };
            // The queries are those of the last keys.
            let place = keys - queries + start;
            let first = window.map_or(0, |window| (place + 1).saturating_sub(window));
            let start = window.map_or(isize::MIN / 2, |window| (place + 1) as isize - window as isize - first as isize);
            Block { keys: first..place + of.len(), queries: of, band: Some((start, (place + 1 - first) as isize)) }
        })
    }

    /// The head of keys and values that serves a head of queries.
    pub(super) fn kv_head(&self, head: usize) -> usize {
        head / (self.heads / self.kv_heads)
    }

    pub(super) fn width(&self) -> usize {
        self.heads * self.dim
    }

    pub(super) fn kv_width(&self) -> usize {
        self.kv_heads * self.dim
    }

    /// Room for the scores of any one block, and its greatest numbers of queries and keys.
    pub(super) fn room(&self) -> (usize, usize, usize) {
        let blocks = (0..self.queries.sequences()).flat_map(|s| self.blocks(s));
        blocks.fold((0, 0, 0), |(scores, queries, keys), block| {
            let (of_queries, of_keys) = (block.queries.len(), block.keys.len());
            (scores.max(of_queries * block.row()), queries.max(of_queries), keys.max(of_keys))
        })
    }

    /// The greatest numbers of queries and keys of a sequence.
    pub(crate) fn longest(&self) -> (usize, usize) {
        let (queries, keys): (Vec<_>, Vec<_>) = (0..self.queries.sequences()).map(|s| self.lengths(s)).unzip();
        (queries.into_iter().max().unwrap_or(0), keys.into_iter().max().unwrap_or(0))
    }

    pub(super) fn each(&self, n: usize, f: impl Fn(usize) + Send + Sync) {
        if self.parallel {
            (0..n).into_par_iter().for_each(f);
        } else {
            (0..n).for_each(f);
        }
    }
}

/// Dropout on probabilities. Numbers are counted by example, head, query and key.
#[derive(Clone, Debug)]
pub(crate) struct Mask {
    /// One for each sequence.
    pub(crate) streams: Vec<Stream>,
    pub(crate) p: f64,
}

impl Mask {
    /// 0 where a probability is dropped, else 1 / (1 - p), for all pairs of a block of one sequence and head; rows are `row` apart.
    pub(crate) fn fill(&self, geometry: &Geometry, s: usize, head: usize, block: &Block, row: usize, out: &mut [f32]) {
        let (queries, keys) = geometry.lengths(s);
        let threshold = (self.p * 2f64.powi(32)).round() as u64;
        let scale = if self.p < 1.0 { (1.0 / (1.0 - self.p)) as f32 } else { 0.0 };
        let mut words = [0u32; 64];
        for (i, query) in block.queries.clone().enumerate() {
            let first = ((head * queries + query) * keys + block.keys.start) as u64;
            let out = &mut out[i * row..][..block.keys.len()];
            for (c, out) in out.chunks_mut(words.len()).enumerate() {
                self.streams[s].fill_u32(first + (c * words.len()) as u64, &mut words[..out.len()]);
                for (x, word) in out.iter_mut().zip(&words) {
                    *x = if u64::from(*word) >= threshold { scale } else { 0.0 };
                }
            }
        }
    }
}

/// The operands, `[tokens, width]`; the prefixes `[prefix, width]`, empty where there is none.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) k: &'a [f32],
    pub(crate) v: &'a [f32],
    pub(crate) prefix_k: &'a [f32],
    pub(crate) prefix_v: &'a [f32],
}

/// Which gradients are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) q: bool,
    pub(crate) k: bool,
    pub(crate) v: bool,
}

/// Gradients of the operands; those not wanted are empty.
pub(crate) struct Gradients {
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    pub(crate) prefix_k: Vec<f32>,
    pub(crate) prefix_v: Vec<f32>,
}
