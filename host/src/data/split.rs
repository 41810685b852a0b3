//! Holding out validation examples.

use std::sync::Arc;

use fthost_autograd::random::Stream;

use super::dataset::{Dataset, Targets, Totals};
use super::selection::{RowSet, Selection};
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
    /// Where targets are classes each is split by `fraction`, rounded, and keeps at least one example on each side.
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
        let mut strata = self.strata(fraction, what)?;
        let mut train = Part::new(self.store.len());
        let mut validation = Part::new(self.store.len());
        self.store.each_record(|row, record| {
            if !self.selection.contains(row) {
                return Ok(());
            }
            let stratum = match &self.targets {
                Targets::Classes(classes) => &mut strata[classes[record.label as usize] as usize],
                Targets::WordClasses(_) | Targets::Values | Targets::Open => &mut strata[0],
            };
            // Each of the rows left is as likely to be held out: the wanted number of them is, in one pass.
            let part = if stream.below(u64::from(row), stratum.left) < stratum.held_out {
                stratum.held_out -= 1;
                &mut validation
            } else {
                &mut train
            };
            stratum.left -= 1;
            part.words[row as usize / 64] |= 1 << (row % 64);
            part.totals.add(record, &self.store.marks(record)?);
            Ok(())
        })?;
        Ok((train.of(self.clone()), validation.of(self)))
    }

    /// The classes, or all examples where targets are values or classes of words.
    fn strata(&self, fraction: f64, what: &str) -> Result<Vec<Stratum>> {
        let counts = match &self.targets {
            Targets::Classes(_) => self.class_counts(),
            Targets::WordClasses(_) | Targets::Values => vec![self.len() as u64],
            Targets::Open => return Err(self.never_set()),
        };
        if let Some(class) = counts.iter().position(|&count| count == 1) {
            let label = self.labels.get(class).filter(|_| !self.of_words);
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

    fn of(self, whole: Dataset) -> Dataset {
        Dataset { selection: Selection::Some(Arc::new(RowSet::new(self.words))), totals: self.totals, ..whole }
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
