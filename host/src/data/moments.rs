//! Mean and standard deviation of examples' values.

use super::dataset::{Dataset, Targets};
use crate::Result;

/// Mean and standard deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// The mean.
    pub mean: f64,
    /// The root of the mean squared distance from it, as scikit-learn's `StandardScaler` has it.
    pub std: f64,
}

impl Dataset {
    /// Those of the examples' values.
    ///
    /// # Errors
    ///
    /// Targets that are no values; a disk that does not read.
    pub fn moments(&self) -> Result<Moments> {
        let Targets::Values = self.targets else { return Err(self.never_set()) };
        // Welford 1962, doi:10.1080/00401706.1962.10490022: one pass that does not cancel where values are far from 0.
        let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
        self.store.each_record(|row, record| {
            if self.selection.contains(row) {
                count += 1.0;
                let value = f64::from(record.value);
                let distance = value - mean;
                mean += distance / count;
                squares += distance * (value - mean);
            }
            Ok(())
        })?;
        Ok(Moments { mean, std: (squares / f64::max(count, 1.0)).sqrt() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use fthost_plugin_api::TargetKind;

    use super::super::fixtures::{TEXT, load_file};
    use super::*;

    #[test]
    fn they_are_those_of_the_examples_that_are_left_also_far_from_zero() {
        let content = "text\tlabel\na\t1000001\nb\t1000002\na b\t1000003\nc\t1000006\n";
        for memory in [usize::MAX, 0] {
            let mut data = load_file(("a.tsv", content.as_bytes()), None, TEXT, memory).unwrap();
            assert!(data.moments().is_err()); // classes so far
            data.set_targets(TargetKind::Value).unwrap();
            assert_eq!(data.moments().unwrap(), Moments { mean: 1_000_003.0, std: 3.5f64.sqrt() });
            let (train, held_out) = data.split(0.25, 0).unwrap();
            let held_out = held_out.moments().unwrap();
            assert_eq!(held_out.std, 0.0);
            assert!((3.0 * train.moments().unwrap().mean + held_out.mean - 4_000_012.0).abs() < 1e-6);
        }
    }
}
