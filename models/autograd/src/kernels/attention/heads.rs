//! Attention head by head, keys and values of a block in panels.

use super::super::gemm::{PackedView, Product, Strided};
use super::super::math::exp;
use super::super::multiversion;
use super::geometry::{Block, Geometry, Gradients, Mask, Operands, VECTOR, Wanted};
use super::parts::{Disjoint, packed, softmax, with_parts};
use crate::Precision;

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

fn pack<'a>(b: Strided<'_>, k: usize, n: usize, scratch: &'a mut [f32]) -> PackedView<'a> {
    PackedView::pack(b, k, n, Precision::F32, scratch)
}

/// As [`super::forward`].
pub(super) fn forward(geometry: &Geometry, x: Operands<'_>, mask: Option<&Mask>) -> (Vec<f32>, Vec<f32>) {
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
