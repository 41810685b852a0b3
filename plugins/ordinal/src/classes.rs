//! The order of the classes.

use fthost_plugin_api::{Error, Result};

/// The place of each class in the order, 0 the lowest, by its number among the labels.
pub(crate) struct Classes(Vec<usize>);

impl Classes {
    /// The order of labels: that which the option says, else that of the numbers which they are.
    ///
    /// # Errors
    /// Where nothing says it, or the option names other classes.
    pub(crate) fn of(labels: &[String], order: Option<&[String]>) -> Result<Self> {
        let listed = |names: &[String]| names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        let places: Vec<usize> = match order {
            Some(order) => {
                let mut named: Vec<&String> = order.iter().collect();
                named.sort();
                named.dedup();
                if named.len() != order.len() || order.len() != labels.len() {
                    return Err(other_classes(&listed(order), &listed(labels)));
                }
                let place = |label: &String| order.iter().position(|named| named == label);
                labels
                    .iter()
                    .map(|label| place(label).ok_or_else(|| other_classes(&listed(order), &listed(labels))))
                    .collect::<Result<_>>()?
            }
            None => {
                let numbers: Vec<f64> = labels.iter().filter_map(|label| label.trim().parse().ok()).collect();
                if numbers.len() != labels.len() || !numbers.iter().all(|number| number.is_finite()) {
                    return Err(Error::new(format!(
                        "which class is the lowest and which the highest their names do not say: list them in order = [...]; they are {}",
                        listed(labels)
                    )));
                }
                numbers.iter().map(|number| numbers.iter().filter(|other| *other < number).count()).collect()
            }
        };
        Ok(Self(places))
    }

    /// Thresholds, one fewer than classes.
    pub(crate) fn between(&self) -> usize {
        self.0.len() - 1
    }

    /// The place of a class in the order.
    pub(crate) fn rank(&self, label: u32) -> usize {
        self.0[label as usize]
    }

    /// The places by label; `None` where labels are in order already.
    pub(crate) fn ranks_in_label_order(&self) -> Option<Vec<u32>> {
        let in_order = self.0.iter().enumerate().all(|(label, &rank)| label == rank);
        (!in_order).then(|| self.0.iter().map(|&rank| rank as u32).collect())
    }
}

fn other_classes(order: &str, labels: &str) -> Error {
    Error::new(format!("order lists {order}, and must list each of the task's classes once: {labels}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn of(labels: &[&str], order: Option<&[&str]>) -> Result<Vec<usize>> {
        let strings = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        Classes::of(&strings(labels), order.map(strings).as_deref()).map(|classes| classes.0)
    }

    #[test]
    fn numbers_have_an_order_and_words_are_told_one() {
        assert_eq!(of(&["1", "2", "10"], None).unwrap(), [0, 1, 2]);
        assert_eq!(of(&["10", "-1", "2.5"], None).unwrap(), [2, 0, 1]);
        assert_eq!(of(&["bad", "fair", "good"], Some(&["bad", "fair", "good"])).unwrap(), [0, 1, 2]);
        assert_eq!(of(&["high", "low", "mid"], Some(&["low", "mid", "high"])).unwrap(), [2, 0, 1]);
        let error = of(&["high", "low"], None).err().unwrap().to_string();
        assert!(error.contains("order = [...]; they are \"high\", \"low\""), "{error}");
        for order in [&["low"][..], &["low", "low"], &["low", "mid"], &["low", "high", "mid"]] {
            let error = of(&["high", "low"], Some(order)).err().unwrap().to_string();
            assert!(error.contains("must list each of the task's classes once"), "{error}");
        }
    }

    #[test]
    fn labels_in_order_need_no_other() {
        let classes = |places: &[usize]| Classes(places.to_vec()).ranks_in_label_order();
        assert_eq!((classes(&[0, 1, 2]), classes(&[2, 0, 1])), (None, Some(vec![2, 0, 1])));
    }
}
