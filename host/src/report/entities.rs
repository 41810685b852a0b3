//! Entities that the labels of words spell in IOB2: `B-X` begins one of type X, `I-X` goes on in it, `O` is outside of all.
//!
//! They are found as conlleval and seqeval find them: an `I-X` after anything but `B-X` or `I-X` begins an entity too. One is
//! predicted right where its first word, its last word and its type are; the metrics are over all types together, and a table has
//! those of each.

use std::collections::BTreeMap;

use serde::Serialize;

use super::metrics::{Metrics, Scores, average, ratio};
use super::table::scores_table;

/// Names of the metrics.
pub const NAMES: [&str; 3] = ["entity_f1", "entity_precision", "entity_recall"];

/// What each class says of entities.
#[derive(Clone, Debug)]
pub struct Tags(Vec<Tag>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Tag {
    Outside,
    /// Begins an entity of a type.
    Begin(String),
    /// Goes on in an entity of a type.
    Inside(String),
}

impl Tag {
    fn of(label: &str) -> Option<Self> {
        match label.split_at_checked(2) {
            None if label == "O" => Some(Self::Outside),
            Some(("B-", kind)) => Some(Self::Begin(kind.to_owned())),
            Some(("I-", kind)) => Some(Self::Inside(kind.to_owned())),
            _ => None,
        }
    }

    fn kind(&self) -> Option<&str> {
        match self {
            Self::Outside => None,
            Self::Begin(kind) | Self::Inside(kind) => Some(kind),
        }
    }
}

/// An entity: its first word, its last word, and its type.
pub type Entity<'a> = (usize, usize, &'a str);

impl Tags {
    /// `None` where the classes' names are none of IOB2, or no entity begins in any.
    pub fn of(labels: &[String]) -> Option<Self> {
        let tags: Vec<Tag> = labels.iter().map(|label| Tag::of(label)).collect::<Option<_>>()?;
        tags.iter().any(|tag| matches!(tag, Tag::Begin(_))).then_some(Self(tags))
    }

    /// Scores of the predicted entities; the support is the number of true ones. `lengths`: how many words each text has; no
    /// entity reaches over two texts.
    pub fn scores(&self, targets: &[u32], predictions: &[u32], lengths: &[usize]) -> Entities {
        // Of each type how many are both true and predicted, true, and predicted.
        let mut counts: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
        let mut start = 0;
        for &length in lengths {
            let (of_targets, of_predictions) =
                (self.entities(&targets[start..][..length]), self.entities(&predictions[start..][..length]));
            of_targets.iter().for_each(|entity| counts.entry(entity.2).or_default()[1] += 1);
            for entity in of_predictions {
                let of_type = counts.entry(entity.2).or_default();
                of_type[0] += u64::from(of_targets.binary_search(&entity).is_ok());
                of_type[2] += 1;
            }
            start += length;
        }
        let all = |place: usize| counts.values().map(|counts| counts[place]).sum();
        Entities {
            all: scores(all(0), all(1), all(2)),
            types: counts
                .into_iter()
                .map(|(name, [right, actual, predicted])| (name.to_owned(), scores(right, actual, predicted)))
                .collect(),
        }
    }

    /// The entities of one text, in order.
    pub fn entities(&self, classes: &[u32]) -> Vec<Entity<'_>> {
        let mut found: Vec<Entity<'_>> = Vec::new();
        let mut last = None;
        for (place, &class) in classes.iter().enumerate() {
            let tag = &self.0[class as usize];
            if let Some(kind) = tag.kind() {
                match found.last_mut() {
                    Some(entity) if last == Some(kind) && matches!(tag, Tag::Inside(_)) => entity.1 = place,
                    _ => found.push((place, place, kind)),
                }
            }
            last = tag.kind();
        }
        found
    }
}

/// Scores of entities.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Entities {
    /// Over all types together.
    pub all: Scores,
    /// Of each type that occurs among the true ones or the predicted ones.
    pub types: BTreeMap<String, Scores>,
}

impl Entities {
    /// Names and values.
    pub fn to_map(&self) -> Metrics {
        to_map(&self.all)
    }

    /// A row for each type, and averages: to the character what `seqeval.metrics.classification_report(y, p, digits=4)` prints.
    pub fn report(&self) -> String {
        let types: Vec<Scores> = self.types.values().copied().collect();
        let support = self.all.support;
        scores_table(
            &self.types.iter().map(|(name, scores)| (name.as_str(), *scores)).collect::<Vec<_>>(),
            &[
                ("micro avg", self.all),
                ("macro avg", average(&types, support, |_| 1.0)),
                ("weighted avg", average(&types, support, |scores| scores.support as f64)),
            ],
        )
    }
}

/// Of entities that are both true and predicted, that are true, and that are predicted.
pub fn scores(right: u64, actual: u64, predicted: u64) -> Scores {
    Scores {
        precision: ratio(right, predicted),
        recall: ratio(right, actual),
        f1: ratio(2 * right, actual + predicted),
        support: actual,
    }
}

/// Names and values.
pub fn to_map(scores: &Scores) -> Metrics {
    let Scores { precision, recall, f1, support: _ } = *scores;
    NAMES.iter().zip([f1, precision, recall]).map(|(name, value)| ((*name).to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn scores_are_seqevals() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/entities.json");
        let reference: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let labels: Vec<String> = serde_json::from_value(reference["labels"].clone()).unwrap();
        let tags = Tags::of(&labels).unwrap();
        let cases = reference["cases"].as_array().unwrap();
        assert!(cases.len() >= 20);
        for case in cases {
            let texts = |key: &str| serde_json::from_value::<Vec<Vec<u32>>>(case[key].clone()).unwrap();
            let (targets, predictions) = (texts("true"), texts("predicted"));
            let lengths: Vec<usize> = targets.iter().map(Vec::len).collect();
            let found = tags.scores(&targets.concat(), &predictions.concat(), &lengths);
            assert_eq!(case["support"], found.all.support);
            assert_eq!(found.report(), case["report"].as_str().unwrap(), "{case}");
            for (name, value) in found.to_map() {
                let expected = case[&name].as_f64().unwrap();
                assert!((value - expected).abs() < 1e-12, "{name}: {value} is not {expected} in {case}");
            }
        }
    }

    #[test]
    fn other_labels_spell_none() {
        let check = |labels: &[&str], expected: bool| {
            let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
            assert_eq!(Tags::of(&labels).is_some(), expected, "{labels:?}");
        };
        check(&["B-ORG", "I-ORG", "O"], true);
        check(&["B-", "O"], true);
        check(&["O"], false);
        check(&["I-X", "O"], false);
        check(&["B-X", "O", "VERB"], false);
        check(&["0", "1"], false);
        check(&["\u{e9}", "B-X"], false);
    }
}
