//! Retrieval: of each example's two sides, where among all examples' other sides its own one is, the nearest first.

use std::collections::BTreeMap;

use fthost_autograd::{Result, Tensor};
use rayon::prelude::*;

/// Names of the metrics of both ways together, each the mean of both.
pub const NAMES: [&str; 4] = ["recall_at_1", "recall_at_5", "recall_at_10", "mean_rank"];
/// How many of the nearest a recall is over.
const AT: [f64; 3] = [1.0, 5.0, 10.0];
/// What stands before the name of a metric of one way: from the first side to the second, as of texts to their pictures, and back.
const WAYS: [&str; 2] = ["forward", "backward"];
/// Queries that are compared with all at once.
const AT_ONCE: usize = 64;

/// The ranks of an example's sides, from 1: 1 where nothing is nearer. What is just as near counts as half before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Ranks {
    /// Of its second side, by the first.
    pub forward: f64,
    /// Of its first side, by the second.
    pub backward: f64,
}

impl Ranks {
    /// Both as the cell of a table has them.
    pub fn cell(&self) -> String {
        format!("{} {}", self.forward, self.backward)
    }

    /// Reads what [`cell`](Self::cell) gave.
    pub fn read(cell: &str) -> Option<Self> {
        let (forward, backward) = cell.split_once(' ')?;
        Some(Self { forward: forward.parse().ok()?, backward: backward.parse().ok()? })
    }

    /// Whether they are numbers.
    pub fn are_finite(&self) -> bool {
        self.forward.is_finite() && self.backward.is_finite()
    }
}

/// What is nearest to an example's sides of what does not belong to them: the places of examples. Nothing where there are no others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nearest {
    /// To its first side.
    pub forward: Option<usize>,
    /// To its second side.
    pub backward: Option<usize>,
}

/// What an evaluation finds.
#[derive(Clone, Debug, Default)]
pub struct Matches {
    /// The ranks of each example's sides.
    pub ranks: Vec<Ranks>,
    /// What is nearest to each, where that is known.
    pub nearest: Vec<Nearest>,
    /// What the two sides are: `text` and `image`. Empty where that is not known.
    pub sides: Vec<String>,
}

/// Finds the other sides of examples with these embeddings, `[examples, sides, width]`, each of length 1. Of more sides than two the others
/// stand beside the second as what is wrong.
///
/// # Errors
/// Where they are of another shape.
pub fn find(embeddings: &Tensor) -> Result<Matches> {
    let (examples, sides, _) = embeddings.dims3()?;
    let side = |side: usize| embeddings.narrow(1, side, 1)?.squeeze(1)?.contiguous();
    let (first, second) = (side(0)?, side(1)?); // [examples, width]
    let mut candidates = vec![second.clone()];
    candidates.extend((2..sides).map(side).collect::<Result<Vec<_>>>()?);
    let forward = one_way(&first, &Tensor::cat(&candidates, 0)?, examples)?;
    let backward = one_way(&second, &first, examples)?;
    let ranks = |(forward, backward): (&Place, &Place)| Ranks { forward: forward.rank, backward: backward.rank };
    let nearest = |(forward, backward): (&Place, &Place)| {
        // Third sides stand behind all second ones.
        let of = |place: &Place| place.nearest.map(|nearest| nearest % examples);
        Nearest { forward: of(forward), backward: of(backward) }
    };
    let both = || forward.iter().zip(&backward);
    Ok(Matches { ranks: both().map(ranks).collect(), nearest: both().map(nearest).collect(), sides: Vec::new() })
}

/// Where a query's own candidate is, and the nearest of the others.
struct Place {
    rank: f64,
    nearest: Option<usize>,
}

/// The place of each query's own candidate, that of its number.
fn one_way(queries: &Tensor, candidates: &Tensor, examples: usize) -> Result<Vec<Place>> {
    let candidates = candidates.t()?.contiguous()?; // [width, candidates]
    let block = |start: usize| -> Result<Vec<Place>> {
        let len = AT_ONCE.min(examples - start);
        let near = queries.narrow(0, start, len)?.matmul(&candidates)?.to_vec2::<f32>()?; // [queries, candidates]
        let rank = |(place, row): (usize, Vec<f32>)| {
            let (own, place) = (row[start + place], start + place);
            if row.iter().any(|x| x.is_nan()) {
                return Place { rank: f64::NAN, nearest: None };
            }
            let others = || row.iter().enumerate().filter(|(other, _)| *other != place);
            let before = others().filter(|(_, x)| **x > own).count();
            let beside = others().filter(|(_, x)| **x == own).count();
            let nearest = others().max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(other, _)| other);
            Place { rank: 1.0 + before as f64 + beside as f64 / 2.0, nearest }
        };
        Ok(near.into_iter().enumerate().map(rank).collect())
    };
    let starts: Vec<usize> = (0..examples).step_by(AT_ONCE).collect();
    let blocks = starts.into_par_iter().map(block).collect::<Result<Vec<_>>>()?;
    Ok(blocks.into_iter().flatten().collect())
}

/// The names of all metrics.
pub fn names() -> impl Iterator<Item = String> {
    let both = NAMES.into_iter().map(str::to_owned);
    both.chain(WAYS.into_iter().flat_map(|way| NAMES.map(|name| format!("{way}_{name}"))))
}

/// Whether a metric of this name is of one way alone.
pub fn is_of_one_way(name: &str) -> bool {
    WAYS.iter().any(|way| name.starts_with(way))
}

/// Metrics by name, of the ranks of each example: the share of examples whose own other side is among the nearest 1, 5 and 10, and the mean
/// rank, each way and the mean of both. Not a number without an example.
pub fn of(ranks: &[Ranks]) -> BTreeMap<String, f64> {
    let of_way = |rank: fn(&Ranks) -> f64| -> [f64; 4] {
        let mean =
            |of: &dyn Fn(f64) -> f64| ranks.iter().map(|ranks| of(rank(ranks))).sum::<f64>() / ranks.len() as f64;
        let within = |at: f64| mean(&|rank| if rank.is_nan() { f64::NAN } else { f64::from(u8::from(rank <= at)) });
        let [first, five, ten] = AT.map(within);
        [first, five, ten, mean(&|rank| rank)]
    };
    let ways = [of_way(|ranks| ranks.forward), of_way(|ranks| ranks.backward)];
    let both = |i: usize| (ways[0][i] + ways[1][i]) / 2.0;
    let mut all: BTreeMap<String, f64> =
        NAMES.iter().enumerate().map(|(i, name)| ((*name).to_owned(), both(i))).collect();
    for (way, values) in WAYS.iter().zip(ways) {
        all.extend(NAMES.iter().zip(values).map(|(name, value)| (format!("{way}_{name}"), value)));
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use fthost_autograd::Device;

    use super::*;

    fn embeddings(rows: &[[[f32; 2]; 2]]) -> Tensor {
        let values: Vec<f32> = rows.iter().flatten().flatten().copied().collect();
        Tensor::from_vec(values, (rows.len(), 2, 2), &Device::Cpu).unwrap()
    }

    #[test]
    fn ranks_are_those_of_the_own_other_side() {
        // Of the first example everything is right; the second's text is nearest to the first's picture, then to its own.
        let found = find(&embeddings(&[[[1.0, 0.0], [1.0, 0.0]], [[0.8, 0.6], [0.0, 1.0]]])).unwrap();
        let other = |place: usize| Nearest { forward: Some(place), backward: Some(place) };
        assert_eq!(found.nearest, [other(1), other(0)]);
        let found = found.ranks;
        assert_eq!(found, [Ranks { forward: 1.0, backward: 1.0 }, Ranks { forward: 2.0, backward: 1.0 }]);
        let metrics = of(&found);
        assert_eq!((metrics["forward_recall_at_1"], metrics["backward_recall_at_1"]), (0.5, 1.0));
        assert_eq!((metrics["recall_at_1"], metrics["recall_at_5"], metrics["forward_mean_rank"]), (0.75, 1.0, 1.5));
        assert_eq!(metrics.keys().cloned().collect::<Vec<_>>(), {
            let mut names: Vec<String> = names().collect();
            names.sort();
            names
        });
    }

    /// A model that gives the same for everything has found nothing.
    #[test]
    fn what_is_all_the_same_is_not_found() {
        let found = find(&embeddings(&[[[1.0, 0.0], [1.0, 0.0]]; 21])).unwrap().ranks;
        assert!(found.iter().all(|ranks| *ranks == Ranks { forward: 11.0, backward: 11.0 }), "{found:?}");
        assert_eq!(of(&found)["recall_at_10"], 0.0);
    }

    #[test]
    fn what_does_not_belong_stands_beside_what_does() {
        let values = vec![1.0f32, 0.0, 0.6, 0.8, 0.8, 0.6];
        let found = find(&Tensor::from_vec(values, (1, 3, 2), &Device::Cpu).unwrap()).unwrap();
        assert_eq!(found.ranks, [Ranks { forward: 2.0, backward: 1.0 }]);
        // The nearest is the example's own third side, and no other example has a first one.
        assert_eq!(found.nearest, [Nearest { forward: Some(0), backward: None }]);
    }

    #[test]
    fn ranks_of_more_than_a_block_are_those_of_one_by_one() {
        let values: Vec<f32> = (0..150 * 2 * 3).map(|i| (1.7 * i as f32).sin()).collect();
        let all = Tensor::from_vec(values.clone(), (150, 2, 3), &Device::Cpu).unwrap();
        let dot = |a: usize, b: usize| (0..3).map(|i| values[a * 3 + i] * values[b * 3 + i]).sum::<f32>();
        let found = find(&all).unwrap().ranks;
        for (i, ranks) in found.iter().enumerate() {
            let before = (0..150).filter(|&j| dot(2 * i, 2 * j + 1) > dot(2 * i, 2 * i + 1) + 1e-6).count();
            assert!((ranks.forward - 1.0 - before as f64).abs() < 0.6, "{i}: {ranks:?} {before}");
        }
        assert!(of(&[]).values().all(|value| value.is_nan()));
    }

    #[test]
    fn cells_are_read_back() {
        let ranks = Ranks { forward: 3.5, backward: 1.0 };
        assert_eq!(Ranks::read(&ranks.cell()), Some(ranks));
        assert_eq!(Ranks::read("3"), None);
    }
}
