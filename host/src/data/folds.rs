//! Cross-validation: the examples of one fold held out, those of the others trained on.
//!
//! Folds follow from the file alone, never from a run's seed: runs of several folds together have tested each example once.

use std::collections::BTreeMap;

use fthost_autograd::random::Stream;
use fthost_plugin_api::schemars::{self, JsonSchema};
use serde::{Deserialize, Serialize};

use super::dataset::{Dataset, Targets};
use super::label_lists::Strata;
use super::permutation::Permutation;
use crate::{Error, Result};

/// One of the folds of the training examples
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fold {
    /// which one, from 1
    #[schemars(range(min = 1))]
    pub fold: u32,
    /// how many there are
    #[schemars(range(min = 2))]
    pub of: u32,
}

impl Fold {
    /// All folds, of so many.
    pub fn all(of: u32) -> impl Iterator<Item = Self> {
        (1..=of).map(move |fold| Self { fold, of })
    }
}

impl std::fmt::Display for Fold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "fold {} of {}", self.fold, self.of)
    }
}

impl Dataset {
    /// The examples of all other folds, and those of this one; both keep the order of the file, and share its rows with this data set.
    ///
    /// Of the folds each example is in one. The examples of a class in any two folds, and all examples of any two, differ by at most
    /// one, as with scikit-learn's StratifiedKFold; which examples these are is random, and always the same. Where examples belong to
    /// groups, groups are in one fold whole, dealt out as by scikit-learn's StratifiedGroupKFold, or where targets are no classes by its
    /// GroupKFold. Where an example may have any number of classes, it goes by its rarest one, and one fold may have all of a class.
    ///
    /// # Errors
    ///
    /// A fold beyond the last; fewer examples, examples of a class, or groups than folds; a class whose examples are all of one fold's
    /// groups; targets that were never set.
    pub fn split_fold(self, fold: Fold) -> Result<(Self, Self)> {
        if fold.fold == 0 || fold.fold > fold.of || fold.of < 2 {
            return Err(Error::usage(format!("there is no {fold}")));
        }
        self.enough_for(fold.of)?;
        if self.grouped() {
            let folds = self.folds_of_groups(fold.of)?;
            return self.split_by(|_, record| Ok(folds[&self.group_of(record)?] == fold.fold - 1));
        }
        // Class after class, the examples of each in a random order, are dealt out one by one.
        let stream = Stream::new(0, "folds");
        let mut dealt = 0;
        let mut decks: Vec<Deck> = Vec::new();
        let of = Strata::of(&self);
        for (class, &count) in of.counts(&self)?.iter().enumerate() {
            let order = Permutation::new(stream.at(&[class as u64]), count as u32);
            decks.push(Deck { first: dealt, order, next: 0 });
            dealt += count;
        }
        self.split_by(|_, record| {
            Ok(decks[of.stratum(&self, record)?].deal() % u64::from(fold.of) == u64::from(fold.fold - 1))
        })
    }

    /// Refuses folds of which one would have no example of a class.
    fn enough_for(&self, folds: u32) -> Result<()> {
        let counts = match self.is_multi_label() {
            true => vec![self.len() as u64],
            false => Strata::of(self).counts(self)?,
        };
        let Some(few) = counts.iter().position(|&count| count > 0 && count < u64::from(folds)) else { return Ok(()) };
        let label = self.labels.get(few).filter(|_| matches!(self.targets, Targets::Classes(_)));
        let examples = if counts[few] == 1 { "example" } else { "examples" };
        let (what, line) = match label {
            Some(label) => (format!("the class `{label}` has"), self.distinct.line(label)),
            None => ("there are".to_owned(), None),
        };
        let others = if label.is_some() { ", leave the class out" } else { "" };
        let help = format!("take {} folds at most{others}, or add examples", counts[few]);
        let help = if counts[few] < 2 { format!("add examples{}", others.replace(", ", " or ")) } else { help };
        Err(self.fails(line, format!("{what} {} {examples}, and there are {folds} folds", counts[few]), help))
    }

    fn fails(&self, line: Option<u64>, message: String, help: String) -> Error {
        Error::Data { file: self.path.clone(), line, message, help: Some(help) }
    }

    /// The fold of each group, from 0. The groups whose examples are spread least evenly over the classes come first, and each goes where
    /// it leaves every class most evenly spread over the folds: of the same, where fewest examples are.
    fn folds_of_groups(&self, folds: u32) -> Result<BTreeMap<u64, u32>> {
        let of = Strata::of(self);
        let classes = of.counts(self)?;
        let mut places: BTreeMap<u64, usize> = BTreeMap::new();
        let mut groups: Vec<(u64, BTreeMap<usize, u64>)> = Vec::new();
        self.store.each_record(|row, record| {
            if self.selection.contains(row) {
                let group = self.group_of(record)?;
                let place = *places.entry(group).or_insert_with(|| {
                    groups.push((group, BTreeMap::new()));
                    groups.len() - 1
                });
                *groups[place].1.entry(of.stratum(self, record)?).or_default() += 1;
            }
            Ok(())
        })?;
        if groups.len() < folds as usize {
            let (number, noun) = (groups.len(), if groups.len() == 1 { "group" } else { "groups" });
            let help = match number {
                1 => "take group out of columns, or add examples of other groups".to_owned(),
                _ => format!("take {number} folds at most, or take group out of columns"),
            };
            let message = format!("the examples are of {number} {noun}, and there are {folds} folds");
            return Err(self.fails(None, message, help));
        }
        // In the order of the file where the rest is equal.
        let size = |counts: &BTreeMap<usize, u64>| counts.values().sum::<u64>();
        let unevenness = |counts: &BTreeMap<usize, u64>| {
            let squares: u64 = counts.values().map(|n| n * n).sum();
            (classes.len() as u64 * squares).saturating_sub(size(counts).pow(2))
        };
        groups.sort_by_key(|(_, counts)| std::cmp::Reverse((unevenness(counts), size(counts))));
        let mut dealt = vec![vec![0u64; classes.len()]; folds as usize];
        let mut found = BTreeMap::new();
        for (group, counts) in &groups {
            let best = best_fold(&dealt, counts, &classes);
            counts.iter().for_each(|(&class, n)| dealt[best][class] += n);
            found.insert(*group, best as u32);
        }
        let alone = |class: &usize| dealt.iter().any(|fold| classes[*class] > 0 && fold[*class] == classes[*class]);
        let alone = (0..classes.len()).find(alone).filter(|_| !self.is_multi_label());
        if let Some(label) = alone.and_then(|class| self.labels.get(class)) {
            let message = format!(
                "all examples of the class `{label}` are of groups in one fold: nothing is left to learn it from"
            );
            let help = "take fewer folds, leave the class out, or take group out of columns";
            return Err(self.fails(self.distinct.line(label), message, help.into()));
        }
        Ok(found)
    }
}

/// The examples of a class as they are dealt out.
struct Deck {
    /// Those of the classes before it.
    first: u64,
    order: Permutation,
    next: u32,
}

impl Deck {
    /// The place of the next example, of all.
    fn deal(&mut self) -> u64 {
        self.next += 1;
        self.first + u64::from(self.order.at(self.next - 1))
    }
}

/// Where a group goes: `dealt` are the examples of each class, `[folds][classes]`.
fn best_fold(dealt: &[Vec<u64>], group: &BTreeMap<usize, u64>, classes: &[u64]) -> usize {
    let deviation = |fold: usize, class: usize, more: u64| {
        let share = |(i, counts): (usize, &Vec<u64>)| {
            (counts[class] + if i == fold { more } else { 0 }) as f64 / classes[class].max(1) as f64
        };
        let shares: Vec<f64> = dealt.iter().enumerate().map(share).collect();
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        (shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / shares.len() as f64).sqrt()
    };
    // What a group adds to the deviation of its own classes: the others stay as they are.
    let adds = |fold: usize| -> f64 {
        group.iter().map(|(&class, &n)| deviation(fold, class, n) - deviation(fold, class, 0)).sum()
    };
    let size = |fold: usize| dealt[fold].iter().sum::<u64>();
    let mut best = (0, adds(0));
    for fold in 1..dealt.len() {
        let adds = adds(fold);
        if adds < best.1 - 1e-9 || (adds < best.1 + 1e-9 && size(fold) < size(best.0)) {
            best = (fold, adds);
        }
    }
    best.0
}

#[cfg(test)]
#[path = "folds_tests.rs"]
mod tests;
