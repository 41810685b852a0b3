//! Attention of packed sequences, one block of queries of a sequence and head at a time, in scratch that stays in the cache.
//!
//! Forward keeps the logarithm of each row's sum of exponentials; backward computes the probabilities again from it, which
//! costs one of seven products and saves `heads * queries * keys` floats a layer.

mod few;

use super::gemm::{PackedView, Product, Strided, scratch_len};
use super::math::exp;
use super::softmax::softmax_of;
use super::{multiversion, scratch};
use crate::random::Stream;
use crate::{Layout, Precision, Sees};

use std::ops::Range;

use rayon::prelude::*;

/// Rows of scores lie this many floats apart, or a multiple: a whole vector.
const VECTOR: usize = 16;

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
    fn row(&self) -> usize {
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
    fn kv_head(&self, head: usize) -> usize {
        head / (self.heads / self.kv_heads)
    }

    fn width(&self) -> usize {
        self.heads * self.dim
    }

    fn kv_width(&self) -> usize {
        self.kv_heads * self.dim
    }

    /// Room for the scores of any one block, and its greatest numbers of queries and keys.
    fn room(&self) -> (usize, usize, usize) {
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

    fn each(&self, n: usize, f: impl Fn(usize) + Send + Sync) {
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

/// Memory that heads write to side by side: each its own columns or rows.
struct Disjoint {
    data: *mut f32,
    len: usize,
}

// SAFETY: who writes what is settled where it is used: no two heads touch the same element.
unsafe impl Sync for Disjoint {}

impl Disjoint {
    fn new(data: &mut [f32]) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len() }
    }

    /// Copies the rows of `from`, `width` each, to places `row` apart from `at` on.
    fn put(&self, at: usize, row: usize, from: &[f32], width: usize, add: bool) {
        for (i, from) in from.chunks_exact(width).enumerate() {
            let start = at + i * row;
            assert!(start + width <= self.len);
            // SAFETY: within the memory, and only this head's task touches these columns.
            let into = unsafe { std::slice::from_raw_parts_mut(self.data.add(start), width) };
            if add {
                into.iter_mut().zip(from).for_each(|(into, x)| *into += x);
            } else {
                into.copy_from_slice(from);
            }
        }
    }
}

/// One head's part of rows `[n, width]`.
fn head_of<'a>(rows: &'a [f32], first: usize, head: usize, geometry: &Geometry) -> Strided<'a> {
    let width = geometry.width();
    let start = (first * width + head * geometry.dim).min(rows.len());
    Strided::rows(&rows[start..], width)
}

/// One head's keys or values of a block as contiguous rows, the prefix before the sequence's own, with zeros up to a whole vector.
fn gather(
    rows: &[f32],
    prefix: &[f32],
    s: usize,
    kv_head: usize,
    (block, geometry): (&Block, &Geometry),
    out: &mut [f32],
) {
    let (width, dim) = (geometry.kv_width(), geometry.dim);
    let range = geometry.keys.range(s);
    let own = &rows[range.start * width..range.end * width];
    let source = prefix.chunks_exact(width).chain(own.chunks_exact(width));
    let mut out = out.chunks_exact_mut(dim);
    for (row, out) in source.skip(block.keys.start).take(block.keys.len()).zip(&mut out) {
        out.copy_from_slice(&row[kv_head * dim..][..dim]);
    }
    out.for_each(|out| out.fill(0.0));
}

#[inline(always)]
fn softmax_body<const FMA: bool>(scores: &mut [f32], block: &Block, log_sums: &mut [f32]) {
    for (i, (scores, log_sum)) in scores.chunks_exact_mut(block.row()).zip(log_sums).enumerate() {
        let seen = block.seen(i);
        scores[..seen.start].fill(0.0);
        scores[seen.end..].fill(0.0);
        *log_sum = softmax_of::<FMA>(&mut scores[seen]);
    }
}

multiversion! {
    /// Scores to probabilities, 0 where a query does not see a key.
    fn softmax(scores: &mut [f32], block: &Block, log_sums: &mut [f32]) = softmax_body
}

#[inline(always)]
fn again_body<const FMA: bool>(scores: &mut [f32], block: &Block, log_sums: &[f32]) {
    for (i, (scores, log_sum)) in scores.chunks_exact_mut(block.row()).zip(log_sums).enumerate() {
        let seen = block.seen(i);
        scores[..seen.start].fill(0.0);
        scores[seen.end..].fill(0.0);
        for x in &mut scores[seen] {
            *x = exp::<FMA>(*x - log_sum);
        }
    }
}

multiversion! {
    /// Scores to probabilities, by the sums that are known.
    fn softmax_again(scores: &mut [f32], block: &Block, log_sums: &[f32]) = again_body
}

#[inline(always)]
fn multiply_body<const FMA: bool>(x: &mut [f32], by: &[f32]) {
    for (x, by) in x.iter_mut().zip(by) {
        *x *= by;
    }
}

multiversion! { fn multiply(x: &mut [f32], by: &[f32]) = multiply_body }

#[inline(always)]
fn score_gradients_body<const FMA: bool>(p: &[f32], g: &mut [f32], row: usize, keys: usize, scale: f32) {
    for (p, g) in p.chunks_exact(row).zip(g.chunks_exact_mut(row)) {
        let (p, g) = (&p[..keys], &mut g[..keys]);
        let mut lanes = [0f32; VECTOR];
        for (p, g) in p.chunks(VECTOR).zip(g.chunks(VECTOR)) {
            for ((lane, p), g) in lanes.iter_mut().zip(p).zip(g) {
                *lane += p * g;
            }
        }
        let mean: f32 = lanes.iter().sum();
        for (p, g) in p.iter().zip(g) {
            *g = p * (*g - mean) * scale;
        }
    }
}

multiversion! {
    /// From the probabilities and their gradients `g`, the gradients of the scores, in place.
    fn score_gradients(p: &[f32], g: &mut [f32], row: usize, keys: usize, scale: f32) = score_gradients_body
}

/// Floats of scratch for a packed `k` by `n`.
fn packed(k: usize, n: usize) -> usize {
    scratch_len(k, n, Precision::F32)
}

fn pack<'a>(b: Strided<'_>, k: usize, n: usize, scratch: &'a mut [f32]) -> PackedView<'a> {
    PackedView::pack(b, k, n, Precision::F32, scratch)
}

/// Gives the result `[query tokens, width]` and the logarithms of the sums, `[heads, query tokens]`.
pub(crate) fn forward(geometry: &Geometry, x: Operands<'_>, mask: Option<&Mask>) -> (Vec<f32>, Vec<f32>) {
    match mask {
        None if few::suits(geometry) => few::forward(geometry, x),
        _ => by_heads(geometry, x, mask),
    }
}

fn by_heads(geometry: &Geometry, x: Operands<'_>, mask: Option<&Mask>) -> (Vec<f32>, Vec<f32>) {
    let (width, dim, tokens) = (geometry.width(), geometry.dim, geometry.queries.tokens());
    let (most_scores, most_queries, most_keys) = geometry.room();
    let mut out = vec![0.0; tokens * width];
    let mut log_sums = vec![0.0; geometry.heads * tokens];
    let (into, sums) = (Disjoint::new(&mut out), Disjoint::new(&mut log_sums));
    let padded = most_keys.next_multiple_of(VECTOR);
    geometry.each(geometry.heads, |head| {
        let kv_head = geometry.kv_head(head);
        let room = [
            padded * dim,
            packed(dim, padded).max(packed(padded, dim)),
            most_scores,
            if mask.is_some() { most_scores } else { 0 },
            most_queries * dim,
            most_queries,
        ];
        with_parts(room, |[rows, panels, scores, keep, result, sums_of]| {
            for s in 0..geometry.queries.sequences() {
                for block in geometry.blocks(s) {
                    let (queries, keys, row) = (block.queries.len(), block.keys.len(), block.row());
                    let first = geometry.queries.range(s).start + block.queries.start;
                    let (scores, rows) = (&mut scores[..queries * row], &mut rows[..row * dim]);
                    let (result, sums_of) = (&mut result[..queries * dim], &mut sums_of[..queries]);

                    gather(x.k, x.prefix_k, s, kv_head, (&block, geometry), rows);
                    let keys_t = pack(Strided::rows(rows, dim).transposed(), dim, row, panels);
                    let q = head_of(x.q, first, head, geometry);
                    let product = Product { alpha: geometry.scale as f32, ..Product::new(queries, q, keys_t) };
                    product.store(scores, row); // [queries, keys]
                    softmax(scores, &block, sums_of);
                    if let Some(mask) = mask {
                        mask.fill(geometry, s, head, &block, row, keep);
                        multiply(scores, keep);
                    }
                    gather(x.v, x.prefix_v, s, kv_head, (&block, geometry), rows);
                    let values = pack(Strided::rows(rows, dim), keys, dim, panels);
                    Product::new(queries, Strided::rows(scores, row), values).store(result, dim); // [queries, dim]
                    into.put(first * width + head * dim, width, result, dim, false);
                    sums.put(head * tokens + first, queries, sums_of, queries, false);
                }
            }
        });
    });
    (out, log_sums)
}

/// The gradients of the operands from that of the result, `g`.
pub(crate) fn backward(
    geometry: &Geometry,
    x: Operands<'_>,
    g: &[f32],
    log_sums: &[f32],
    mask: Option<&Mask>,
    wanted: Wanted,
) -> Gradients {
    let (width, dim) = (geometry.width(), geometry.dim);
    let tokens = geometry.queries.tokens();
    let zeros = |rows: usize, width: usize, wanted: bool| vec![0f32; if wanted { rows * width } else { 0 }];
    let kv = |rows: usize, wanted: bool| zeros(rows, geometry.kv_width(), wanted);
    let mut gradients = Gradients {
        q: zeros(tokens, width, wanted.q),
        k: kv(geometry.keys.tokens(), wanted.k),
        v: kv(geometry.keys.tokens(), wanted.v),
        prefix_k: kv(geometry.prefix, wanted.k),
        prefix_v: kv(geometry.prefix, wanted.v),
    };
    let dq = Disjoint::new(&mut gradients.q);
    let [dk, dv] = [&mut gradients.k, &mut gradients.v].map(|x| Disjoint::new(x));
    let [dpk, dpv] = [&mut gradients.prefix_k, &mut gradients.prefix_v].map(|x| Disjoint::new(x));
    // Adds what a block's keys or values get: a head of them is one task's alone.
    let give = |(own, prefix): (&Disjoint, &Disjoint), s: usize, kv_head: usize, block: &Block, rows: &[f32]| {
        let (width, start) = (geometry.kv_width(), block.keys.start);
        let of_prefix = geometry.prefix.saturating_sub(start).min(block.keys.len());
        let (of_prefix, rest) = rows.split_at(of_prefix * dim);
        prefix.put(start * width + kv_head * dim, width, of_prefix, dim, true);
        let first = geometry.keys.range(s).start + start.saturating_sub(geometry.prefix);
        own.put(first * width + kv_head * dim, width, rest, dim, true);
    };
    let (most_scores, most_queries, most_keys) = geometry.room();
    let padded = most_keys.next_multiple_of(VECTOR);
    let group = geometry.heads / geometry.kv_heads;
    geometry.each(geometry.kv_heads, |kv_head| {
        let room = [
            padded * dim,
            packed(dim, padded).max(packed(padded, dim)).max(packed(most_queries, dim)),
            most_scores,
            most_scores,
            if mask.is_some() { most_scores } else { 0 },
            most_queries.max(most_keys) * dim,
        ];
        with_parts(room, |[rows, panels, p, dp, keep, result]| {
            for (head, s) in (0..group).flat_map(|i| (0..geometry.queries.sequences()).map(move |s| (i, s))) {
                let head = kv_head * group + head;
                for block in geometry.blocks(s) {
                    let (queries, keys, row) = (block.queries.len(), block.keys.len(), block.row());
                    let first = geometry.queries.range(s).start + block.queries.start;
                    let (p, dp, rows) = (&mut p[..queries * row], &mut dp[..queries * row], &mut rows[..row * dim]);
                    let q = head_of(x.q, first, head, geometry);
                    let g = head_of(g, first, head, geometry);
                    let scale = geometry.scale as f32;

                    gather(x.k, x.prefix_k, s, kv_head, (&block, geometry), rows);
                    let keys_t = pack(Strided::rows(rows, dim).transposed(), dim, row, panels);
                    Product { alpha: scale, ..Product::new(queries, q, keys_t) }.store(p, row);
                    softmax_again(p, &block, &log_sums[head * tokens + first..][..queries]); // [queries, keys]
                    if let Some(mask) = mask {
                        mask.fill(geometry, s, head, &block, row, keep);
                    }
                    if wanted.q || wanted.k {
                        gather(x.v, x.prefix_v, s, kv_head, (&block, geometry), rows);
                        let values_t = pack(Strided::rows(rows, dim).transposed(), dim, row, panels);
                        Product::new(queries, g, values_t).store(dp, row); // [queries, keys]
                        if mask.is_some() {
                            multiply(dp, keep);
                        }
                        score_gradients(p, dp, row, keys, scale);
                    }
                    if wanted.v {
                        if mask.is_some() {
                            multiply(p, keep);
                        }
                        let g = pack(g, queries, dim, panels);
                        let result = &mut result[..keys * dim];
                        Product::new(keys, Strided::rows(p, row).transposed(), g).store(result, dim); // [keys, dim]
                        give((&dv, &dpv), s, kv_head, &block, result);
                    }
                    if wanted.q {
                        gather(x.k, x.prefix_k, s, kv_head, (&block, geometry), rows);
                        let keys_rows = pack(Strided::rows(rows, dim), keys, dim, panels);
                        let result = &mut result[..queries * dim];
                        Product::new(queries, Strided::rows(dp, row), keys_rows).store(result, dim); // [queries, dim]
                        dq.put(first * width + head * dim, width, result, dim, false);
                    }
                    if wanted.k {
                        let q = pack(q, queries, dim, panels);
                        let result = &mut result[..keys * dim];
                        Product::new(keys, Strided::rows(dp, row).transposed(), q).store(result, dim); // [keys, dim]
                        give((&dk, &dpk), s, kv_head, &block, result);
                    }
                }
            }
        });
    });
    gradients
}

/// Runs `f` with several parts of scratch, each aligned to a vector.
fn with_parts<const N: usize>(sizes: [usize; N], f: impl FnOnce([&mut [f32]; N])) {
    let padded = sizes.map(|size| size.next_multiple_of(VECTOR));
    scratch::with(padded.iter().sum(), |all| {
        let mut rest = all;
        f(std::array::from_fn(|i| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(padded[i]);
            rest = tail;
            &mut part[..sizes[i]]
        }));
    });
}
