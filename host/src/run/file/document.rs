//! The text of a run file as a tree in which every key and value keeps its place: in the file, or in the argument of the
//! command line that set it.

use std::ops::Range;

use miette::NamedSource;
use serde_json::Value as Json;
use toml::de::{DeTable, DeValue};

use crate::{Error, Result};

/// A place in one of the document's sources, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    source: usize,
    start: usize,
    end: usize,
}

impl Place {
    pub(super) fn new(source: usize, range: Range<usize>) -> Self {
        Self { source, start: range.start, end: range.end }
    }

    /// Is it in an argument of the command line?
    pub(super) fn is_argument(self) -> bool {
        self.source > 0
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) at: Place,
}

/// A TOML value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key of a table with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: Place,
    pub(super) node: Node,
}

/// A text that values come from.
#[derive(Clone, Debug)]
struct Source {
    name: String,
    text: String,
}

/// The run file and the arguments that changed it.
#[derive(Clone, Debug)]
pub(super) struct Document {
    /// The file first, then one for each argument.
    sources: Vec<Source>,
    pub(super) root: Node,
}

impl Document {
    /// Reads a run file's text.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self> {
        let source = Source { name: name.to_owned(), text: text.to_owned() };
        let start = Node { value: Value::Table(Vec::new()), at: Place::new(0, 0..0) };
        let mut document = Self { sources: vec![source], root: start };
        let parsed = DeTable::parse(text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            document.error(
                Place::new(0, span),
                error.message(),
                "here",
                Some("a run file is TOML: https://toml.io".into()),
            )
        })?;
        // The root has no place of its own: what is missing from it is missing at the file's start.
        document.root.value = Value::Table(document.entries(0, 0, parsed.get_ref())?);
        Ok(document)
    }

    /// Adds an argument of the command line as a source.
    pub(super) fn add_argument(&mut self, text: &str) -> usize {
        self.sources.push(Source { name: "command line".into(), text: text.to_owned() });
        self.sources.len() - 1
    }

    /// Reads a value as TOML: `None` where it is none.
    pub(super) fn parse_value(&self, source: usize, range: Range<usize>) -> Result<Option<Node>> {
        let offset = range.start;
        match DeValue::parse(&self.sources[source].text[range]) {
            Ok(value) => self.node(source, offset, value.span(), value.get_ref()).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// The text at a place, cut where it is long.
    pub(super) fn text(&self, place: Place) -> String {
        let text = &self.sources[place.source].text[place.start..place.end];
        let line = text.lines().next().unwrap_or_default();
        let cut: String = line.chars().take(40).collect();
        if cut.len() < text.len() { format!("{cut}...") } else { cut }
    }

    /// An error at a place.
    pub(super) fn error(
        &self,
        at: Place,
        message: impl Into<String>,
        label: impl Into<String>,
        help: Option<String>,
    ) -> Error {
        let Source { name, text } = &self.sources[at.source];
        Error::RunFile {
            message: message.into(),
            source_code: NamedSource::new(name, text.clone()).with_language("TOML"),
            span: (at.start..at.end).into(),
            label: label.into(),
            help,
        }
    }

    /// The value at a path such as `strategy[0].rank`, where there is one.
    pub(super) fn find(&self, path: &str) -> Option<&Node> {
        let (place, rest) = self.walk(path);
        rest.is_empty().then_some(place)
    }

    /// As [`find`](Self::find), to change it.
    pub(super) fn find_mut(&mut self, path: &str) -> Option<&mut Node> {
        let path = path.replace('[', ".").replace(']', "");
        path.split('.').filter(|part| !part.is_empty()).try_fold(&mut self.root, Node::child_mut)
    }

    /// The place of a path's value, or of the innermost table around it that there is.
    pub(super) fn place(&self, path: &str) -> Place {
        self.walk(path).0.at
    }

    /// As far as a path goes: the last node, and the parts that are left.
    fn walk(&self, path: &str) -> (&Node, Vec<String>) {
        let path = path.replace('[', ".").replace(']', "");
        let mut node = &self.root;
        let mut parts = path.split('.').filter(|part| !part.is_empty());
        while let Some(part) = parts.next() {
            let Some(inner) = node.child(part) else {
                return (node, std::iter::once(part).chain(parts).map(str::to_owned).collect());
            };
            node = inner;
        }
        (node, Vec::new())
    }

    fn entries(&self, source: usize, offset: usize, table: &DeTable<'_>) -> Result<Vec<Entry>> {
        let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
            let range = key.span();
            let key: &std::borrow::Cow<'_, str> = key.get_ref();
            Ok(Entry {
                key: key.to_string(),
                key_at: Place::new(source, range.start + offset..range.end + offset),
                node: self.node(source, offset, value.span(), value.get_ref())?,
            })
        };
        table.iter().map(entry).collect()
    }

    fn node(&self, source: usize, offset: usize, range: Range<usize>, value: &DeValue<'_>) -> Result<Node> {
        let at = Place::new(source, range.start + offset..range.end + offset);
        let too_large = || self.error(at, format!("{} is too large a number", self.text(at)), "too large", None);
        let value = match value {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(digits) => {
                Value::Integer(i64::from_str_radix(digits.as_str(), digits.radix()).map_err(|_| too_large())?)
            }
            DeValue::Float(digits) => Value::Float(digits.as_str().parse().map_err(|_| too_large())?),
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(time) => Value::Datetime(time.to_string()),
            DeValue::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|item| self.node(source, offset, item.span(), item.get_ref()))
                    .collect::<Result<_>>()?,
            ),
            DeValue::Table(table) => Value::Table(self.entries(source, offset, table)?),
        };
        Ok(Node { value, at })
    }
}

impl Node {
    /// A table's value by key, or an array's by number.
    pub(super) fn child(&self, part: &str) -> Option<&Node> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|entry| entry.key == part).map(|entry| &entry.node),
            Value::Array(items) => items.get(part.parse::<usize>().ok()?),
            _ => None,
        }
    }

    fn child_mut(&mut self, part: &str) -> Option<&mut Node> {
        match &mut self.value {
            Value::Table(entries) => entries.iter_mut().find(|entry| entry.key == part).map(|entry| &mut entry.node),
            Value::Array(items) => items.get_mut(part.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// A table's entries.
    pub(super) fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Table(entries) => Some(entries),
            _ => None,
        }
    }

    /// As JSON. Numbers that are not finite become null; the schema check refuses them where they are given.
    pub(super) fn to_json(&self) -> Json {
        match &self.value {
            Value::String(text) | Value::Datetime(text) => Json::from(text.as_str()),
            Value::Integer(number) => Json::from(*number),
            Value::Float(number) => Json::from(*number),
            Value::Boolean(value) => Json::from(*value),
            Value::Array(items) => items.iter().map(Self::to_json).collect(),
            Value::Table(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.node.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
}

impl Value {
    /// What it is, in words.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Datetime(_) => "a date",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}
