//! Values that the command line sets: `--set train.lr=1e-3`.

use std::ops::Range;

use super::document::{Document, Entry, Node, Place, Value};
use crate::{Error, Result};

/// A value for a key of the run file, and the argument that it comes from.
#[derive(Clone, Debug)]
pub struct Override {
    /// The argument as it stands on the command line: errors show it.
    argument: String,
    /// The key's parts with their places in the argument.
    path: Vec<(String, Range<usize>)>,
    /// The value's place in the argument.
    value: Range<usize>,
}

impl Override {
    /// `--set KEY=VALUE`. A key is a path: `train.lr`, `strategy.1.rank`, or `strategy.rank` where there is one strategy.
    /// The value is TOML; what is not is a string.
    ///
    /// # Errors
    /// Where there is no `=`, or a part of the key is empty.
    pub fn set(assignment: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::usage(format!("--set {assignment}: {what}")).with_help("write KEY=VALUE: --set train.lr=1e-3")
        };
        let (key, value) = assignment.split_once('=').ok_or_else(|| wrong("there is no ="))?;
        let argument = format!("--set {assignment}");
        let mut path = Vec::new();
        let mut start = argument.len() - assignment.len();
        for part in key.split('.') {
            if part.trim().is_empty() {
                return Err(wrong(if key.trim().is_empty() {
                    "there is no key"
                } else {
                    "a part of the key is empty"
                }));
            }
            path.push((part.trim().to_owned(), start..start + part.len()));
            start += part.len() + 1;
        }
        let start = argument.len() - value.trim_start().len();
        let value = start..start + value.trim().len();
        Ok(Self { argument, path, value })
    }

    /// A flag that stands for a key: `--seed 7` for `train.seed`.
    pub fn flag(flag: &str, key: &str, value: impl std::fmt::Display) -> Self {
        let argument = format!("{flag} {value}");
        let path = key.split('.').map(|part| (part.to_owned(), 0..flag.len())).collect();
        let value = flag.len() + 1..argument.len();
        Self { argument, path, value }
    }

    /// Sets the value in the document.
    pub(super) fn apply(&self, document: &mut Document) -> Result<()> {
        let source = document.add_argument(&self.argument);
        let value = match document.parse_value(source, self.value.clone())? {
            Some(value) => value,
            None => Node {
                value: Value::String(self.argument[self.value.clone()].to_owned()),
                at: Place::new(source, self.value.clone()),
            },
        };
        let mut root = std::mem::replace(&mut document.root, Node { value: Value::Boolean(false), at: value.at });
        let done = self.insert(document, &mut root, source, 0, value);
        document.root = root;
        done
    }

    fn insert(&self, document: &Document, node: &mut Node, source: usize, depth: usize, value: Node) -> Result<()> {
        let Some((part, range)) = self.path.get(depth) else {
            *node = value;
            return Ok(());
        };
        let at = Place::new(source, range.clone());
        let so_far = || self.path[..depth].iter().map(|(part, _)| part.as_str()).collect::<Vec<_>>().join(".");
        match &mut node.value {
            Value::Table(entries) => {
                let entry = match entries.iter().position(|entry| entry.key == *part) {
                    Some(i) => &mut entries[i],
                    None => {
                        let repeats = depth == 0 && depth + 1 < self.path.len() && REPEATED.contains(&part.as_str());
                        let table = Node { value: Value::Table(Vec::new()), at };
                        let node = if repeats { Node { value: Value::Array(vec![table]), at } } else { table };
                        entries.push(Entry { key: part.clone(), key_at: at, node });
                        entries.last_mut().ok_or_else(|| Error::usage("an entry that was just added is gone"))?
                    }
                };
                if depth + 1 == self.path.len() {
                    // The argument is to blame where the key is unknown, and the file where the argument only changes its value.
                    entry.key_at = at;
                }
                self.insert(document, &mut entry.node, source, depth + 1, value)
            }
            Value::Array(items) => {
                let count = items.len();
                match (part.parse::<usize>(), items.as_mut_slice()) {
                    (Ok(i), items) if i < count => self.insert(document, &mut items[i], source, depth + 1, value),
                    (Err(_), [only]) => self.insert(document, only, source, depth, value),
                    (Ok(i), _) => {
                        let message = format!("there is no {}.{i}", so_far());
                        let help = format!("{} has {count}, counted from 0", so_far());
                        Err(document.error(at, message, "no such entry", Some(help)))
                    }
                    (Err(_), _) => {
                        let message = format!("{} has {count} entries, and {part} could be set in each", so_far());
                        let help = format!("say which, counted from 0: {}.0.{part}", so_far());
                        Err(document.error(at, message, "which entry?", Some(help)))
                    }
                }
            }
            other => {
                let message = format!("{} is {}, and holds no keys", so_far(), other.type_name());
                Err(document.error(at, message, "no such key", None))
            }
        }
    }
}

/// Tables that stand several times in a run file.
const REPEATED: [&str; 3] = ["task", "strategy", "regularizer"];
