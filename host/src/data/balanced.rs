//! Epochs in which every class is as frequent as the others.

use std::sync::Arc;

use fthost_autograd::random::Stream;
use fthost_plugin_api::schemars::{self, JsonSchema};
use serde::{Deserialize, Serialize};

use super::{Dataset, Permutation};
use crate::{Error, Result};

/// How often an epoch takes the examples of a class, where not once each
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Balance {
    /// each class as often as the most frequent one: examples of the others come several times an epoch
    Oversample,
    /// each class as often as the rarest one: of the others each epoch has different examples
    Undersample,
}

/// The rows of each class of a data set, in their order, four bytes an example.
///
/// # Errors
/// Where targets are no classes of examples, or examples cannot be read back.
pub(super) fn rows_by_class(data: &Dataset) -> Result<Vec<Vec<u32>>> {
    let mut classes = vec![Vec::new(); data.labels().len()];
    for row in 0..data.len() as u32 {
        let class = data.class(row)?;
        let rows = class.and_then(|class| classes.get_mut(class as usize));
        rows.ok_or_else(|| Error::run("examples are drawn by class, and these have none"))?.push(row);
    }
    Ok(classes)
}

/// The examples of epochs in which each class comes equally often. What stands at a place of an epoch is a function of the seed, the
/// epoch and the place: a resumed run needs nothing but its place.
#[derive(Clone, Debug)]
pub struct Balanced {
    /// The rows of each class that has some.
    classes: Arc<Vec<Vec<u32>>>,
    /// Examples of each class in an epoch.
    each: u32,
    order: Stream,
    draws: Stream,
}

impl Balanced {
    /// Epochs of examples that have a class each. Classes without an example are left out.
    ///
    /// # Errors
    /// Where targets are no classes of examples; where an epoch would have more than `u32::MAX` examples.
    pub fn new(seed: u64, data: &Dataset, balance: Balance) -> Result<Self> {
        let mut classes = rows_by_class(data)?;
        classes.retain(|rows| !rows.is_empty());
        let sizes = classes.iter().map(Vec::len);
        let each = match balance {
            Balance::Oversample => sizes.max(),
            Balance::Undersample => sizes.min(),
        };
        let each = each.unwrap_or_default() as u32;
        if u32::try_from(classes.len() as u64 * u64::from(each)).is_err() {
            let message = format!("{} classes, {each} times each, are more than {} examples", classes.len(), u32::MAX);
            return Err(Error::usage(message).with_help("balance = \"undersample\" takes fewer"));
        }
        let stream = |name| Stream::new(seed, name);
        Ok(Self { classes: Arc::new(classes), each, order: stream("balanced order"), draws: stream("balanced draws") })
    }

    /// Classes that have examples.
    pub fn classes(&self) -> usize {
        self.classes.len()
    }

    /// Examples of each class in an epoch.
    pub fn each(&self) -> usize {
        self.each as usize
    }

    /// Examples of an epoch.
    pub fn len(&self) -> usize {
        self.classes.len() * self.each()
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows at these places of an epoch.
    pub fn rows(&self, epoch: u64, places: std::ops::Range<usize>) -> Vec<u32> {
        let order = Permutation::new(self.order.at(&[epoch]), self.len() as u32);
        places.map(|place| self.draw(epoch, order.at(place as u32))).collect()
    }

    /// The row of a draw: each class has as many, one after the other.
    ///
    /// A class with fewer examples than draws has all of them in a random order, again and again: each comes as often as any other, or
    /// once more. One with more examples is dealt out over several epochs: they have no example in common.
    fn draw(&self, epoch: u64, draw: u32) -> u32 {
        let (class, number) = (draw / self.each, draw % self.each);
        let rows = &self.classes[class as usize];
        let size = rows.len() as u32;
        let epochs = u64::from((size / self.each).max(1));
        let (deal, place) = (number / size, (epoch % epochs) as u32 * self.each + number % size);
        let order = self.draws.at(&[u64::from(class), epoch / epochs, u64::from(deal)]);
        rows[Permutation::new(order, size).at(place) as usize]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::collections::{BTreeMap, BTreeSet};

    use fthost_plugin_api::TargetKind;
    use proptest::prelude::*;

    use super::super::fixtures::{TEXT, load_file};
    use super::*;

    /// Classes of so many examples each.
    fn data(sizes: &[usize]) -> Dataset {
        let rows = sizes.iter().enumerate().flat_map(|(class, &n)| vec![class; n]);
        let rows: String = rows.map(|class| format!("{{\"text\": \"a b\", \"label\": {class}}}\n")).collect();
        let mut data = load_file(("a.jsonl", rows.as_bytes()), None, TEXT, usize::MAX).unwrap();
        data.set_targets(TargetKind::Class).unwrap();
        data
    }

    fn epoch(balanced: &Balanced, epoch: u64) -> Vec<u32> {
        balanced.rows(epoch, 0..balanced.len())
    }

    /// How often each example comes.
    fn times(rows: &[u32]) -> BTreeMap<u32, usize> {
        rows.iter().fold(BTreeMap::new(), |mut times, &row| {
            *times.entry(row).or_default() += 1;
            times
        })
    }

    #[test]
    fn oversampling_takes_each_class_as_often_as_the_most_frequent_and_each_example_at_least_once() {
        let data = data(&[7, 3, 1]);
        let balanced = Balanced::new(5, &data, Balance::Oversample).unwrap();
        assert_eq!((balanced.classes(), balanced.each(), balanced.len()), (3, 7, 21));
        let mut twice_over = BTreeSet::new();
        for number in 0..20 {
            let times = times(&epoch(&balanced, number));
            let of_class = |rows: std::ops::Range<u32>| rows.map(|row| times[&row]).collect::<Vec<_>>();
            assert_eq!(of_class(0..7), [1; 7]);
            // 7 draws of 3 examples: two come twice, one three times, and it is another in other epochs.
            let mut of_second = of_class(7..10);
            twice_over.insert(of_second.iter().position(|&times| times == 3));
            of_second.sort_unstable();
            assert_eq!((of_second, of_class(10..11)), (vec![2, 2, 3], vec![7]));
        }
        assert_eq!(twice_over, BTreeSet::from([Some(0), Some(1), Some(2)]));
    }

    #[test]
    fn undersampling_takes_each_class_as_often_as_the_rarest_and_other_examples_each_epoch() {
        let data = data(&[11, 5, 3]);
        let balanced = Balanced::new(5, &data, Balance::Undersample).unwrap();
        assert_eq!((balanced.each(), balanced.len()), (3, 9));
        let epochs: Vec<Vec<u32>> = (0..9).map(|number| epoch(&balanced, number)).collect();
        for rows in &epochs {
            assert!(times(rows).values().all(|&times| times == 1), "{rows:?}");
            let of_class =
                [0..11u32, 11..16, 16..19].map(|class| rows.iter().filter(|row| class.contains(row)).count());
            assert_eq!(of_class, [3; 3]);
        }
        // Of eleven examples three epochs take nine, none of them twice.
        let first = |epochs: &[Vec<u32>]| epochs.iter().flatten().copied().filter(|&row| row < 11).collect::<Vec<_>>();
        for three in epochs.chunks(3) {
            assert_eq!(first(three).into_iter().collect::<BTreeSet<_>>().len(), 9);
        }
        assert_eq!(first(&epochs).into_iter().collect::<BTreeSet<_>>().len(), 11, "in time each example comes");
    }

    #[test]
    fn what_is_no_class_of_examples_is_refused() {
        let mut data = load_file(("a.tsv", &b"a\t1\nb\t2\n"[..]), None, TEXT, usize::MAX).unwrap();
        data.set_targets(TargetKind::Value).unwrap();
        let error = Balanced::new(1, &data, Balance::Oversample).unwrap_err();
        assert!(error.to_string().contains("these have none"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whatever the sizes, classes come equally often, at every epoch, the same wherever one begins to read.
        #[test]
        fn classes_come_equally_often(sizes in proptest::collection::vec(1usize..40, 2..6), seed: u64, number in 0u64..50) {
            let data = data(&sizes);
            for balance in [Balance::Oversample, Balance::Undersample] {
                let balanced = Balanced::new(seed, &data, balance).unwrap();
                let rows = epoch(&balanced, number);
                let mut counts = vec![0; sizes.len()];
                rows.iter().for_each(|&row| counts[data.class(row).unwrap().unwrap() as usize] += 1);
                prop_assert_eq!(counts, vec![balanced.each(); sizes.len()]);
                let middle = balanced.len() / 2;
                prop_assert_eq!(&balanced.rows(number, middle..balanced.len()), &rows[middle..]);
                if balance == Balance::Oversample {
                    prop_assert_eq!(times(&rows).len(), data.len());
                }
            }
        }
    }
}
