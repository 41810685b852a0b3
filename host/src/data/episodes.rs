//! Few-shot episodes: a few classes, with some examples of each to learn them by and others to tell apart.

use std::sync::Arc;

use fthost_autograd::random::Stream;

use super::balanced::rows_by_class;
use super::{Dataset, Permutation};
use crate::{Error, Result};

/// What an episode is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Shape {
    /// Classes.
    pub ways: usize,
    /// Support examples of each class.
    pub shots: usize,
    /// Query examples of each class.
    pub queries: usize,
}

impl Shape {
    /// Examples of each class.
    pub fn per_class(&self) -> usize {
        self.shots + self.queries
    }

    /// Examples.
    pub fn size(&self) -> usize {
        self.ways * self.per_class()
    }

    /// Whether the example at this place of an episode is a support example: each class has its own first, then its queries.
    pub fn supports(&self, place: usize) -> bool {
        place % self.per_class() < self.shots
    }
}

/// Episodes of a data set: classes and their examples are drawn without replacement, anew for each (Vinyals et al. 2016,
/// arXiv:1606.04080; Snell et al. 2017, arXiv:1703.05175).
#[derive(Clone, Debug)]
pub struct Episodes {
    /// Its shape.
    pub shape: Shape,
    /// The rows of each class, four bytes an example.
    classes: Arc<Vec<Vec<u32>>>,
    stream: Stream,
}

impl Episodes {
    /// Episodes of examples with a class each.
    ///
    /// # Errors
    /// Where there are fewer classes than an episode has, or a class has too few examples.
    pub fn new(seed: u64, data: &Dataset, shape: Shape) -> Result<Self> {
        let classes = rows_by_class(data)?;
        let Shape { ways, shots, queries } = shape;
        if classes.len() < ways {
            let message = format!("an episode has {ways} classes, and the data have {}", classes.len());
            return Err(Error::usage(message).with_help(format!("set ways to {} or less", classes.len())));
        }
        if let Some((class, rows)) = classes.iter().enumerate().find(|(_, rows)| rows.len() < shape.per_class()) {
            let message = format!(
                "an episode has {shots} support examples and {queries} queries of each class, and class {:?} has {} examples",
                data.labels()[class],
                rows.len()
            );
            return Err(Error::usage(message).with_help(format!("lower shots and queries to {} together", rows.len())));
        }
        Ok(Self { shape, classes: Arc::new(classes), stream: Stream::new(seed, "episodes") })
    }

    /// Episodes of an epoch: as many as hold about as many examples as there are, one at least.
    pub fn number(&self) -> usize {
        let examples: usize = self.classes.iter().map(Vec::len).sum();
        (examples / self.shape.size()).max(1)
    }

    /// The rows of an episode, class by class, its support examples before its queries.
    pub fn episode(&self, epoch: u64, number: u64) -> Vec<u32> {
        let classes = Permutation::new(self.stream.at(&[epoch, number]), self.classes.len() as u32);
        let mut rows = Vec::with_capacity(self.shape.size());
        for place in 0..self.shape.ways as u32 {
            let class = classes.at(place);
            let of_class = &self.classes[class as usize];
            let order = Permutation::new(self.stream.at(&[epoch, number, u64::from(class)]), of_class.len() as u32);
            rows.extend((0..self.shape.per_class() as u32).map(|place| of_class[order.at(place) as usize]));
        }
        rows
    }

    /// At most `most` examples of each class, drawn at random, always the same.
    pub fn sample(&self, most: usize) -> Vec<u32> {
        let mut rows = Vec::new();
        for (class, of_class) in self.classes.iter().enumerate() {
            let order = Permutation::new(self.stream.at(&[class as u64]), of_class.len() as u32);
            rows.extend((0..of_class.len().min(most) as u32).map(|place| of_class[order.at(place) as usize]));
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::collections::BTreeSet;

    use fthost_plugin_api::TargetKind;

    use super::*;
    use crate::data::Part;
    use crate::data::fixtures::{DIGITS, load_digits};

    fn digits() -> Dataset {
        let mut digits = load_digits("demo", Part::Test, DIGITS).unwrap();
        digits.set_targets(TargetKind::Class).unwrap();
        digits
    }

    const SHAPE: Shape = Shape { ways: 4, shots: 2, queries: 3 };

    #[test]
    fn an_episode_holds_each_of_its_classes_once_and_no_example_twice() {
        let data = digits();
        let episodes = Episodes::new(1, &data, SHAPE).unwrap();
        assert_eq!(episodes.number(), 355 / 20);
        let mut classes_seen = BTreeSet::new();
        for number in 0..50 {
            let rows = episodes.episode(0, number);
            assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), SHAPE.size());
            let classes: Vec<u32> = rows.iter().map(|&row| data.class(row).unwrap().unwrap()).collect();
            let ways: BTreeSet<u32> = classes.iter().copied().collect();
            assert_eq!(ways.len(), SHAPE.ways);
            assert!(classes.chunks(SHAPE.per_class()).all(|block| block.iter().all(|class| *class == block[0])));
            classes_seen.extend(ways);
        }
        assert_eq!(classes_seen.len(), 10);
        let supports: Vec<usize> = (0..SHAPE.size()).filter(|&place| SHAPE.supports(place)).collect();
        assert_eq!(supports, [0, 1, 5, 6, 10, 11, 15, 16]);
    }

    #[test]
    fn episodes_follow_from_seed_epoch_and_number() {
        let data = digits();
        let of = |seed, epoch, number| Episodes::new(seed, &data, SHAPE).unwrap().episode(epoch, number);
        assert_eq!(of(1, 2, 3), of(1, 2, 3));
        let all: BTreeSet<Vec<u32>> = [of(1, 2, 3), of(2, 2, 3), of(1, 3, 3), of(1, 2, 4)].into();
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn a_sample_has_so_many_of_each_class() {
        let data = digits();
        let episodes = Episodes::new(1, &data, SHAPE).unwrap();
        let rows = episodes.sample(3);
        assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), 30);
        let of_class = |class| rows.iter().filter(|&&row| data.class(row).unwrap() == Some(class)).count();
        assert!((0..10).all(|class| of_class(class) == 3));
        assert_eq!(episodes.sample(usize::MAX).len(), data.len());
    }

    #[test]
    fn what_cannot_fill_an_episode_is_refused() {
        let check = |shape: Shape, expected: &str| {
            let error = Episodes::new(1, &digits(), shape).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(Shape { ways: 11, ..SHAPE }, "an episode has 11 classes, and the data have 10");
        check(Shape { shots: 32, ..SHAPE }, "and class \"8\" has 34 examples");
    }
}
