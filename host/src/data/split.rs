//! Holding out validation examples.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fthost_autograd::random::Stream;

use super::dataset::{Dataset, Targets, Totals};
use super::label_lists::Strata;
use super::selection::{RowSet, Selection};
use super::store::Record;
use crate::{Error, Result};

/// Examples that are still to be dealt out, of one class.
struct Stratum {
    /// All that are left.
    left: u64,
    /// How many of them are still to be held out.
    held_out: u64,
}

impl Dataset {
    /// Splits the examples at random into those to train on and those to hold out, about `fraction` of all. Both keep
    /// the order of the file, and share its rows with this data set.
    ///
    /// Where targets are classes each is split by `fraction`, rounded, and keeps at least one example on each side. Where an example may
    /// have any number of classes, what is split so are the examples that have a class as their rarest one, and those of none; a single
    /// one of these stays on the side that trains.
    ///
    /// # Errors
    ///
    /// A class, or a data set, with a single example; a fraction that is not between 0 and 1; targets that were never
    /// set.
    pub fn split(self, fraction: f64, seed: u64) -> Result<(Self, Self)> {
        self.hold_out(fraction, &Stream::new(seed, "validation split"), "validation")
    }

    /// As [`split`](Self::split), for test examples: always the same ones.
    ///
    /// # Errors
    ///
    /// As [`split`](Self::split).
    pub fn split_test(self, fraction: f64) -> Result<(Self, Self)> {
        self.hold_out(fraction, &Stream::new(0, "test split"), "test")
    }

    fn hold_out(self, fraction: f64, stream: &Stream, what: &str) -> Result<(Self, Self)> {
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(Error::usage(format!("a {what} share must lie between 0 and 1, and {fraction} does not")));
        }
        if self.grouped() {
            return self.hold_out_groups(fraction, stream, what);
        }
        let of = Strata::of(&self);
        let mut strata = self.strata(&of, fraction, what)?;
        self.split_by(|row, record| {
            let stratum = &mut strata[of.stratum(&self, record)?];
            // Each of the rows left is as likely to be held out: the wanted number of them is, in one pass.
            let held_out = stream.below(u64::from(row), stratum.left) < stratum.held_out;
            stratum.held_out -= u64::from(held_out);
            stratum.left -= 1;
            Ok(held_out)
        })
    }

    /// The examples of which something does not hold, and those of which it does; it is asked of each in their order. Both keep the
    /// order of the file, and share its rows with this data set.
    pub(super) fn split_by(&self, mut held_out: impl FnMut(u32, &Record) -> Result<bool>) -> Result<(Self, Self)> {
        let (mut train, mut part) = (Part::new(self.store.len()), Part::new(self.store.len()));
        self.store.each_record(|row, record| {
            if !self.selection.contains(row) {
                return Ok(());
            }
            let side = if held_out(row, record)? { &mut part } else { &mut train };
            side.add(self, row, record)
        })?;
        Ok((train.of(self.clone()), part.of(self.clone())))
    }

    /// Stands for the group of an example.
    pub(super) fn group_of(&self, record: &Record) -> Result<u64> {
        Ok(self.store.extra(record)?.group.unwrap_or_default())
    }

    /// Splits whole groups: none is in both parts. Groups are taken in a random order, and one is held out where that brings the
    /// examples of each class that are held out nearer to `fraction` of all, by squares, as scikit-learn's StratifiedGroupKFold
    /// weighs them.
    fn hold_out_groups(self, fraction: f64, stream: &Stream, what: &str) -> Result<(Self, Self)> {
        let mut groups: BTreeMap<u64, BTreeMap<usize, f64>> = BTreeMap::new();
        let mut wanted: BTreeMap<usize, f64> = BTreeMap::new();
        let of = Strata::of(&self);
        self.store.each_record(|row, record| {
            if self.selection.contains(row) {
                let stratum = of.stratum(&self, record)?;
                *groups.entry(self.group_of(record)?).or_default().entry(stratum).or_default() += 1.0;
                *wanted.entry(stratum).or_default() += fraction;
            }
            Ok(())
        })?;
        if groups.len() < 2 {
            return Err(Error::Data {
                file: self.path.clone(),
                line: None,
                message: format!("all examples are of one group: none can be held out for {what}"),
                help: Some(format!("name a file of {what} examples, or take group out of columns")),
            });
        }
        let mut order: Vec<(u64, u64)> = groups.keys().map(|&group| (stream.below(group, u64::MAX), group)).collect();
        order.sort_unstable();
        // Large groups first: small ones fill what is left.
        let size = |group: &u64| groups[group].values().sum::<f64>() as u64;
        order.sort_by_key(|(_, group)| std::cmp::Reverse(size(group)));
        let mut held_out = BTreeSet::new();
        for (_, group) in &order {
            let counts = &groups[group];
            // (wanted - n)^2 < wanted^2, summed over the classes of the group
            let nearer: f64 = counts.iter().map(|(class, n)| n * (n - 2.0 * wanted[class])).sum();
            if nearer < 0.0 && held_out.len() + 1 < groups.len() {
                held_out.insert(*group);
                counts.iter().for_each(|(class, n)| *wanted.entry(*class).or_default() -= n);
            }
        }
        if held_out.is_empty() {
            // Every group is larger than the share: the smallest is the nearest to it.
            held_out.extend(order.last().map(|(_, group)| *group));
        }
        self.split_by(|_, record| Ok(held_out.contains(&self.group_of(record)?)))
    }

    /// The classes, or all examples where targets are values or classes of words.
    fn strata(&self, of: &Strata, fraction: f64, what: &str) -> Result<Vec<Stratum>> {
        let counts = of.counts(self)?;
        let single = counts.iter().position(|&count| count == 1).filter(|_| !self.is_multi_label() || self.len() == 1);
        if let Some(class) = single {
            let label = self.labels.get(class).filter(|_| matches!(self.targets, Targets::Classes(_)));
            let single = match label {
                Some(label) => format!("the class `{label}` has a single example"),
                None => "there is a single example".to_owned(),
            };
            return Err(Error::Data {
                file: self.path.clone(),
                line: label.and_then(|label| self.distinct.line(label)),
                message: format!("{single}: it cannot be both trained on and held out for {what}"),
                help: Some(format!(
                    "add examples, remove this one, or name a file of {what} examples: {what} = \"FILE\""
                )),
            });
        }
        let stratum = |&left: &u64| {
            let held_out = (left as f64 * fraction).round() as u64;
            Stratum { left, held_out: held_out.max(1).min(left.saturating_sub(1)) }
        };
        Ok(counts.iter().map(stratum).collect())
    }
}

/// One side of a split.
struct Part {
    /// A bit for each row of the store.
    words: Vec<u64>,
    totals: Totals,
}

impl Part {
    fn new(rows: u32) -> Self {
        Self { words: vec![0; rows.div_ceil(64) as usize], totals: Totals::default() }
    }

    fn add(&mut self, whole: &Dataset, row: u32, record: &Record) -> Result<()> {
        self.words[row as usize / 64] |= 1 << (row % 64);
        self.totals.add(record, &whole.further_labels(record)?);
        Ok(())
    }

    fn of(self, whole: Dataset) -> Dataset {
        Dataset { selection: Selection::Some(Arc::new(RowSet::new(self.words))), totals: self.totals, ..whole }
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
