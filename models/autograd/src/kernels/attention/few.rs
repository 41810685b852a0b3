//! Attention of few queries, as each token asks for that a text goes on by: keys and values are read where they lie, once for all heads that
//! share them. Rows of their own and panels would cost more than the products do.
//!
//! Both products are turned around, with the queries as columns: an element's steps are the same, in the same order, and so its bits.

use rayon::prelude::*;

use super::super::gemm::{PackedView, Product, Strided};
use super::geometry::{Geometry, Operands};
use super::parts::{Disjoint, packed, softmax, with_parts};
use crate::Precision;

/// Queries of all heads that share keys, up to which this pays.
const COLUMNS: usize = 16;
/// Elements of keys below which one thread does it.
const PARALLEL: usize = 1 << 13;

/// Whether all sequences ask few queries of keys that lie in one place.
pub(super) fn suits(geometry: &Geometry) -> bool {
    let group = geometry.heads / geometry.kv_heads;
    geometry.prefix == 0 && group * geometry.longest().0 <= COLUMNS
}

/// As [`super::forward`], without dropout.
pub(super) fn forward(geometry: &Geometry, x: Operands<'_>) -> (Vec<f32>, Vec<f32>) {
    let (width, kv_width, dim) = (geometry.width(), geometry.kv_width(), geometry.dim);
    let (tokens, group) = (geometry.queries.tokens(), geometry.heads / geometry.kv_heads);
    let (most_scores, most_queries, most_keys) = geometry.room();
    let mut out = vec![0.0; tokens * width];
    let mut log_sums = vec![0.0; geometry.heads * tokens];
    let (into, sums) = (Disjoint::new(&mut out), Disjoint::new(&mut log_sums));
    let columns = group * most_queries;
    let of_head = |kv_head: usize| {
        let room = [
            columns * dim,
            packed(dim, columns).max(packed(most_keys, columns)),
            most_keys * columns,
            group * most_scores,
            dim * columns,
            most_queries,
        ];
        with_parts(room, |[asked, panels, turned, scores, result, sums_of]| {
            for s in 0..geometry.queries.sequences() {
                for block in geometry.blocks(s) {
                    let (queries, keys, row) = (block.queries.len(), block.keys.len(), block.row());
                    let columns = group * queries;
                    let first = geometry.queries.range(s).start + block.queries.start;
                    let (turned, scores) = (&mut turned[..keys * columns], &mut scores[..columns * row]);
                    let (asked, result) = (&mut asked[..columns * dim], &mut result[..dim * columns]);
                    // One head's keys or values of the block.
                    let own = (geometry.keys.range(s).start + block.keys.start) * kv_width + kv_head * dim;

                    // The queries of each head after the other.
                    for (c, asked) in asked.chunks_exact_mut(dim).enumerate() {
                        let at = (first + c % queries) * width + (kv_head * group + c / queries) * dim;
                        asked.copy_from_slice(&x.q[at..][..dim]);
                    }
                    let b = Strided::rows(asked, dim).transposed();
                    let b = PackedView::pack(b, dim, columns, Precision::F32, panels);
                    let k = Strided::rows(&x.k[own..], kv_width);
                    Product { alpha: geometry.scale as f32, ..Product::new(keys, k, b) }.store(turned, columns); // [keys, columns]
                    for (c, scores) in scores.chunks_exact_mut(row).enumerate() {
                        scores.iter_mut().zip(turned[c..].iter().step_by(columns)).for_each(|(to, from)| *to = *from);
                    }
                    for (i, scores) in scores.chunks_exact_mut(queries * row).enumerate() {
                        let sums_of = &mut sums_of[..queries];
                        softmax(scores, &block, sums_of);
                        sums.put((kv_head * group + i) * tokens + first, queries, sums_of, queries, false);
                    }

                    let b = Strided::rows(scores, row).transposed();
                    let b = PackedView::pack(b, keys, columns, Precision::F32, panels);
                    let v = Strided::rows(&x.v[own..], kv_width).transposed();
                    Product::new(dim, v, b).store(result, columns); // [dim, columns]
                    for (c, asked) in asked.chunks_exact_mut(dim).enumerate() {
                        asked.iter_mut().zip(result[c..].iter().step_by(columns)).for_each(|(to, from)| *to = *from);
                        let at = (first + c % queries) * width + (kv_head * group + c / queries) * dim;
                        into.put(at, width, asked, dim, false);
                    }
                }
            }
        });
    };
    // Tasks pay where there is much to read.
    if geometry.parallel && geometry.keys.tokens() * kv_width >= PARALLEL {
        (0..geometry.kv_heads).into_par_iter().for_each(of_head);
    } else {
        (0..geometry.kv_heads).for_each(of_head);
    }
    (out, log_sums)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::heads;
    use super::*;
    use crate::random::Stream;
    use crate::{Layout, Sees};

    fn random(seed: u64, len: usize) -> Vec<f32> {
        let mut data = vec![0.0; len];
        Stream::keyed(seed, &[len as u64]).fill_uniform(&mut data, -1.0, 1.0);
        data
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn few_queries_give_the_same_bits(
            lengths in prop::collection::vec((1usize..4, 0usize..900), 1..4), kv_heads in 1usize..4, group in 1usize..5,
            dim in 1usize..70, sees in 0usize..3, parallel: bool,
        ) {
            let queries: Vec<usize> = lengths.iter().map(|(queries, _)| *queries).collect();
            let keys: Vec<usize> = lengths.iter().map(|(queries, more)| queries + more).collect();
            let geometry = Geometry {
                heads: kv_heads * group,
                kv_heads,
                dim,
                scale: 0.3,
                sees: [Sees::All, Sees::Past { window: None }, Sees::Past { window: Some(50) }][sees],
                queries: Layout::from_lengths(queries),
                keys: Layout::from_lengths(keys),
                prefix: 0,
                parallel,
            };
            let of = |seed, tokens: usize, width: usize| random(seed, tokens * width);
            let q = of(1, geometry.queries.tokens(), geometry.width());
            let (k, v) = (of(2, geometry.keys.tokens(), geometry.kv_width()), of(3, geometry.keys.tokens(), geometry.kv_width()));
            let x = Operands { q: &q, k: &k, v: &v, prefix_k: &[], prefix_v: &[] };
            let bits = |(out, sums): (Vec<f32>, Vec<f32>)| out.iter().chain(&sums).map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert!(bits(forward(&geometry, x)) == bits(heads::forward(&geometry, x, None)));
        }
    }
}
