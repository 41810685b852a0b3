//! The distinct labels of a file. Each has a number, by which the rows' records name it.
//!
//! Labels that are one number are one label, however they are written: a file's 1 may be another's 1.0 and a third's "1".

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use super::row::shortened;
use crate::{Error, Result};

/// The number of a label that came when there were too many: it can still be a value, but no class.
pub(super) const UNNUMBERED: u32 = u32::MAX;

/// Labels that get numbers. More are no classes, and must not fill the memory.
const MOST: usize = 1 << 16;
/// Bytes of all labels with numbers.
const MOST_BYTES: usize = 8 << 20;

/// The distinct labels of a file.
#[derive(Debug, Default)]
pub(super) struct Distinct {
    /// Each label by its [`name`], with its number. Numbers follow the order in which labels occur first.
    numbers: BTreeMap<String, u32>,
    /// By number the line where the label occurs first; no line where there is no file.
    lines: Vec<Option<u64>>,
    bytes: usize,
    /// The first row whose label got no number.
    unnumbered: Option<Occurrence>,
    /// The first row whose label is no value.
    no_value: Option<Occurrence>,
}

/// A label and its line.
#[derive(Debug)]
struct Occurrence {
    label: String,
    line: Option<u64>,
}

impl Occurrence {
    fn error(&self, path: &Path, message: impl Into<String>, help: String) -> Error {
        Error::Data { file: path.to_owned(), line: self.line, message: message.into(), help: Some(help) }
    }
}

impl Distinct {
    /// Takes a row's label. Its number, and its value: not a number where the label is none.
    pub(super) fn add(&mut self, label: String, line: Option<u64>) -> (u32, f32) {
        let value = label.parse::<f32>().ok().filter(|value| value.is_finite()).unwrap_or(f32::NAN);
        if value.is_nan() && self.no_value.is_none() {
            self.no_value = Some(Occurrence { label: label.clone(), line });
        }
        let name = name(&label);
        let number = match self.numbers.get(name.as_ref()) {
            Some(&number) => number,
            None if self.numbers.len() == MOST || self.bytes + name.len() > MOST_BYTES => {
                self.unnumbered.get_or_insert(Occurrence { label, line });
                UNNUMBERED
            }
            None => {
                let number = self.lines.len() as u32;
                self.bytes += name.len();
                self.lines.push(line);
                self.numbers.insert(name.into_owned(), number);
                number
            }
        };
        (number, value)
    }

    /// The number of a label, where a row has it.
    pub(super) fn number(&self, label: &str) -> Option<u32> {
        self.numbers.get(name(label).as_ref()).copied()
    }

    /// Whether every label has a number.
    pub(super) fn all_numbered(&self) -> bool {
        self.unnumbered.is_none()
    }

    /// The labels in the order of their classes: sorted as text, or by value where all are whole numbers.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.numbers.keys().cloned().collect(); // sorted as text
        if names.iter().all(|name| name.parse::<i64>().is_ok()) {
            names.sort_by_key(|name| name.parse::<i64>().unwrap_or_default());
        }
        names
    }

    /// By number the class of each label: its place in `names`.
    ///
    /// # Errors
    ///
    /// A label that `names` has not, with the first line that has it; more labels than there can be classes.
    pub(super) fn classes(&self, path: &Path, names: &[String]) -> Result<Vec<u32>> {
        // What a run or a folder of another program calls its classes need not be written as here.
        let known: BTreeMap<Cow<'_, str>, u32> = names.iter().map(|known| name(known)).zip(0..).collect();
        let mut classes = vec![None; self.numbers.len()];
        for (label, &number) in &self.numbers {
            classes[number as usize] = known.get(label.as_str()).copied();
        }
        if let Some(first) = classes.iter().position(Option::is_none) {
            let label = self.numbers.iter().find(|&(_, &number)| number as usize == first);
            let label = label.map(|(label, _)| label.clone()).unwrap_or_default();
            let message = format!("the label `{}` does not occur in the training data", shortened(&label));
            let unknown = Occurrence { label, line: self.lines[first] };
            return Err(unknown.error(path, message, format!("known are {}", list(names))));
        }
        if let Some(row) = &self.unnumbered {
            let message = format!(
                "the label `{}` comes after {} different ones: so many, or so long, labels cannot be classes",
                shortened(&row.label),
                self.numbers.len()
            );
            let help = "check which column is the label's; to predict values, choose a head that learns values";
            return Err(row.error(path, message, help.into()));
        }
        Ok(classes.into_iter().flatten().collect())
    }

    /// The line where a label occurs first.
    pub(super) fn line(&self, label: &str) -> Option<u64> {
        self.lines[self.number(label)? as usize]
    }

    /// Whether all labels are values; the error has the first line whose label is none.
    pub(super) fn check_values(&self, path: &Path) -> Result<()> {
        let Some(row) = &self.no_value else { return Ok(()) };
        Err(row.error(
            path,
            format!("the label `{}` is no number", shortened(&row.label)),
            "the task's head predicts values: every label must be a number such as 3.5".into(),
        ))
    }
}

/// A label as classes are told apart: a number in its shortest form, 1 for 1.0 and 1e0, any other text as it is. What begins with a
/// zero as no number does, 007, is a text.
pub(super) fn name(label: &str) -> Cow<'_, str> {
    let unsigned = label.strip_prefix(['-', '+']).unwrap_or(label);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (decimal, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((decimal, exponent)) => (decimal, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, "0"));
    let is_number = digits(whole) && digits(fraction) && (whole == "0" || !whole.starts_with('0'));
    if !is_number {
        return Cow::Borrowed(label);
    }
    let short = match exponent {
        None => match fraction.trim_end_matches('0') {
            "" => whole.to_owned(),
            fraction => format!("{whole}.{fraction}"),
        },
        Some(_) => match unsigned.parse::<f64>() {
            Ok(value) if value.is_finite() => value.to_string(),
            _ => return Cow::Borrowed(label),
        },
    };
    let sign = if label.starts_with('-') && short != "0" { "-" } else { "" };
    if label.strip_prefix(sign) == Some(short.as_str()) {
        Cow::Borrowed(label)
    } else {
        Cow::Owned(format!("{sign}{short}"))
    }
}

/// The first labels, for messages.
fn list(labels: &[String]) -> String {
    const SHOWN: usize = 20;
    let mut text = labels.iter().take(SHOWN).map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
    if labels.len() > SHOWN {
        text += &format!(" and {} more", labels.len() - SHOWN);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn labels_are_numbered_as_they_occur() {
        let mut distinct = Distinct::default();
        let numbers: Vec<u32> = ["b", "2", "b", "a", "2"]
            .into_iter()
            .zip(1..)
            .map(|(l, line)| distinct.add(l.into(), Some(line)).0)
            .collect();
        assert_eq!(numbers, [0, 1, 0, 2, 1]);
        assert_eq!(distinct.names(), ["2", "a", "b"]);
        assert_eq!(distinct.classes(Path::new("x"), &distinct.names()).unwrap(), [2, 0, 1]);
        let error = distinct.classes(Path::new("x"), &["b".into()]).unwrap_err();
        assert!(error.to_string().starts_with("x:2: the label `2` does not occur"), "{error}");
    }

    #[test]
    fn a_number_is_one_label_however_it_is_written() {
        for (label, expected) in [
            ("1", "1"),
            ("1.0", "1"),
            ("1.000", "1"),
            ("+1", "1"),
            ("1e0", "1"),
            ("10E-1", "1"),
            ("-1.50", "-1.5"),
            ("-0.0", "0"),
            ("0.50", "0.5"),
            ("1e3", "1000"),
            ("100", "100"),
            ("12345678901234567890.0", "12345678901234567890"),
        ] {
            assert_eq!(name(label), expected, "{label}");
        }
        for text in [
            "", "-", "a", "007", "01.0", "1.", ".5", "1.0.0", "1e", "1e999", "0x1", "1 0", "e5", "B-1.0", "nan", "True",
        ] {
            assert_eq!(name(text), text);
        }
        let mut distinct = Distinct::default();
        let labels = ["1", "0.0", "1.0", "x", "0"].into_iter().zip(1..);
        let numbers: Vec<u32> = labels.map(|(label, line)| distinct.add(label.into(), Some(line)).0).collect();
        assert_eq!(numbers, [0, 1, 0, 2, 1]);
        assert_eq!(distinct.names(), ["0", "1", "x"]);
        // Names of a folder that another program wrote.
        assert_eq!(distinct.classes(Path::new("x"), &["x".into(), "1.0".into(), "0".into()]).unwrap(), [1, 2, 0]);
        assert_eq!((distinct.number("1.00"), distinct.number("2")), (Some(0), None));
    }

    #[test]
    fn values_are_finite() {
        let mut distinct = Distinct::default();
        assert_eq!(distinct.add("-1e-1".into(), Some(1)), (0, -0.1));
        distinct.check_values(Path::new("x")).unwrap();
        assert!(["inf", "NaN", "1e99", "", "x"].iter().all(|label| distinct.add((*label).into(), Some(2)).1.is_nan()));
        let error = distinct.check_values(Path::new("x")).unwrap_err();
        assert_eq!(error.to_string(), "x:2: the label `inf` is no number");
    }

    /// A column of values has as many labels as rows; they take no memory, and are no classes.
    #[test]
    fn too_many_labels_are_values_only() {
        let check = |label: &dyn Fn(usize) -> String, most: usize| {
            let mut distinct = Distinct::default();
            for i in 0..most + 10 {
                let expected = if i < most { i as u32 } else { UNNUMBERED };
                assert_eq!(distinct.add(label(i), Some(i as u64 + 1)).0, expected, "{i}");
            }
            assert_eq!(distinct.add(label(3), None).0, 3);
            assert!(!distinct.all_numbered() && distinct.names().len() == most);
            let error = distinct.classes(Path::new("x"), &distinct.names()).unwrap_err();
            let expected = format!("x:{}: the label `{}`", most + 1, shortened(&label(most)));
            assert!(error.to_string().starts_with(&expected), "{error}");
        };
        check(&|i| format!("{}.5", i), MOST);
        check(&|i| "0".repeat(MOST_BYTES / 16 - 2) + &format!("{i:02}"), 16);
    }
}
