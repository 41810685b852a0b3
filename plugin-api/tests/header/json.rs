//! The JSON that crosses, read from the types that serde writes and reads.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use syn::{Attribute, Field, Fields, File, GenericArgument, Item, ItemEnum, ItemStruct, PathArguments, Type};

use crate::since::Since;
use crate::source::{docs, names, public, serde, wrap};

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Text,
    Integer,
    Number,
    Truth,
    Any,
    List(Box<Kind>),
    /// A list of so many.
    Array(Box<Kind>, usize),
    /// An object of any keys.
    Map(Box<Kind>),
    OrNull(Box<Kind>),
    Named(String),
}

/// A key of an object.
#[derive(Debug)]
pub struct Key {
    pub name: String,
    pub kind: Kind,
    pub docs: String,
    /// Whether a reader takes an object without it.
    pub may_miss: bool,
}

/// One of several forms.
#[derive(Debug)]
pub struct Variant {
    /// As it stands in JSON; empty where the value itself tells.
    pub name: String,
    pub docs: String,
    pub keys: Vec<Key>,
    /// The value itself, where there is no object.
    pub bare: Option<Kind>,
}

/// How a type is written.
#[derive(Debug)]
pub enum Shape {
    Object(Vec<Key>),
    /// One of some words.
    Words(Vec<Variant>),
    /// Objects that a key tells apart.
    Tagged(String, Vec<Variant>),
    /// Whichever fits.
    Untagged(Vec<Variant>),
}

#[derive(Debug)]
pub struct Form {
    pub docs: String,
    pub shape: Shape,
}

/// The public types of some files that serde writes or reads, by name.
pub fn forms(files: &[File]) -> BTreeMap<String, Form> {
    let serde = |attributes: &[Attribute]| {
        names(attributes, "derive", "Serialize") || names(attributes, "derive", "Deserialize")
    };
    let items = files.iter().flat_map(|file| &file.items);
    let form = |item: &Item| match item {
        Item::Struct(item) if public(&item.vis) && serde(&item.attrs) => object(item),
        Item::Enum(item) if public(&item.vis) && serde(&item.attrs) => Some(choice(item)),
        _ => None,
    };
    items.filter_map(form).collect()
}

/// The names among `roots` that are forms, and all that they are made of.
pub fn reached(forms: &BTreeMap<String, Form>, roots: &BTreeSet<String>) -> BTreeSet<String> {
    fn of_kind(kind: &Kind) -> Option<&String> {
        match kind {
            Kind::Named(name) => Some(name),
            Kind::List(of) | Kind::Array(of, _) | Kind::Map(of) | Kind::OrNull(of) => of_kind(of),
            _ => None,
        }
    }
    let mut open: Vec<String> = roots.iter().filter(|root| forms.contains_key(*root)).cloned().collect();
    let mut found = BTreeSet::new();
    while let Some(name) = open.pop() {
        let form = forms.get(&name).unwrap_or_else(|| panic!("{name} crosses, and serde does not know it"));
        if found.insert(name) {
            open.extend(form.kinds().filter_map(of_kind).cloned());
        }
    }
    found
}

fn object(item: &ItemStruct) -> Option<(String, Form)> {
    let Fields::Named(fields) = &item.fields else { return None };
    let whole = serde(&item.attrs, "default").is_some();
    let keys = fields.named.iter().map(|field| key(field, whole)).collect();
    Some((item.ident.to_string(), Form { docs: docs(&item.attrs), shape: Shape::Object(keys) }))
}

fn key(field: &Field, whole: bool) -> Key {
    let kind = kind(&field.ty);
    let may_miss = whole || serde(&field.attrs, "default").is_some() || matches!(kind, Kind::OrNull(_));
    Key { name: field.ident.as_ref().unwrap().to_string(), kind, docs: docs(&field.attrs), may_miss }
}

fn choice(item: &ItemEnum) -> (String, Form) {
    let snake = serde(&item.attrs, "rename_all").flatten().as_deref() == Some("snake_case");
    let tag = serde(&item.attrs, "tag").flatten();
    let untagged = serde(&item.attrs, "untagged").is_some();
    let variants: Vec<Variant> = item
        .variants
        .iter()
        .map(|variant| {
            let ident = variant.ident.to_string();
            let (keys, bare) = match &variant.fields {
                Fields::Named(fields) => (fields.named.iter().map(|field| key(field, false)).collect(), None),
                Fields::Unnamed(fields) => (Vec::new(), Some(kind(&fields.unnamed[0].ty))),
                Fields::Unit => (Vec::new(), None),
            };
            let name = if snake { snake_case(&ident) } else { ident };
            Variant { name, docs: docs(&variant.attrs), keys, bare }
        })
        .collect();
    let shape = match tag {
        Some(tag) => Shape::Tagged(tag, variants),
        None if untagged => Shape::Untagged(variants),
        None => Shape::Words(variants),
    };
    (item.ident.to_string(), Form { docs: docs(&item.attrs), shape })
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (at, c) in name.char_indices() {
        if c.is_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

fn kind(of: &Type) -> Kind {
    match of {
        Type::Array(array) => {
            let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(len), .. }) = &array.len else { panic!("a length") };
            Kind::Array(Box::new(kind(&array.elem)), len.base10_parse().unwrap())
        }
        Type::Path(path) => {
            let last = path.path.segments.last().unwrap();
            let of: Vec<Kind> = match &last.arguments {
                PathArguments::AngleBracketed(arguments) => {
                    let types = arguments.args.iter();
                    types
                        .filter_map(|of| if let GenericArgument::Type(of) = of { Some(kind(of)) } else { None })
                        .collect()
                }
                _ => Vec::new(),
            };
            match (last.ident.to_string().as_str(), of.as_slice()) {
                ("String", _) => Kind::Text,
                ("u8" | "u32" | "u64" | "i64" | "usize", _) => Kind::Integer,
                ("f32" | "f64", _) => Kind::Number,
                ("bool", _) => Kind::Truth,
                ("Value", _) => Kind::Any,
                ("Vec", [of]) => Kind::List(Box::new(of.clone())),
                ("Option", [of]) => Kind::OrNull(Box::new(of.clone())),
                ("BTreeMap", [_, of]) => Kind::Map(Box::new(of.clone())),
                (name, []) => Kind::Named(name.to_owned()),
                (name, _) => panic!("{name} of something has no form in JSON here"),
            }
        }
        _ => panic!("a type without a form in JSON here"),
    }
}

impl Kind {
    /// In words.
    pub fn said(&self) -> String {
        match self {
            Self::Text => "string".into(),
            Self::Integer => "integer".into(),
            Self::Number => "number".into(),
            Self::Truth => "bool".into(),
            Self::Any => "any JSON".into(),
            Self::List(of) => format!("[{}]", of.said()),
            Self::Array(of, len) => format!("[{}]", vec![of.said(); *len].join(", ")),
            Self::Map(of) => format!("{{name: {}}}", of.said()),
            Self::OrNull(of) => format!("{} or null", of.said()),
            Self::Named(name) => name.clone(),
        }
    }
}

impl Form {
    fn kinds(&self) -> impl Iterator<Item = &Kind> {
        let (keys, variants) = match &self.shape {
            Shape::Object(keys) => (keys.as_slice(), [].as_slice()),
            Shape::Words(variants) | Shape::Tagged(_, variants) | Shape::Untagged(variants) => {
                ([].as_slice(), variants.as_slice())
            }
        };
        let inside = variants.iter().flat_map(|of| of.keys.iter().map(|key| &key.kind).chain(&of.bare));
        keys.iter().map(|key| &key.kind).chain(inside)
    }

    /// As the header's comment says it.
    pub fn said(&self, name: &str, since: &mut Since) -> String {
        let head = match &self.shape {
            Shape::Object(_) => format!("{name}, an object"),
            Shape::Words(_) => format!("{name}, one of some words"),
            Shape::Tagged(tag, _) => format!("{name}, an object by its \"{tag}\""),
            Shape::Untagged(variants) => {
                let ways = variants.iter().filter_map(|variant| variant.bare.as_ref()).map(Kind::said);
                format!("{name}, {}", ways.collect::<Vec<_>>().join(" or "))
            }
        };
        let mut text = format!("   {head}\n{}", indented("      ", &since.of(format!("JSON {name}"), &self.docs)));
        match &self.shape {
            Shape::Object(keys) => text += &said_keys(keys, name, since),
            Shape::Words(variants) => {
                for of in variants {
                    let docs = since.of(format!("JSON {name}.{}", of.name), &of.docs);
                    text += &format!("      \"{}\"\n{}", of.name, indented("         ", &docs));
                }
            }
            Shape::Tagged(tag, variants) => {
                for of in variants {
                    let symbol = format!("{name}.{}", of.name);
                    let docs = since.of(format!("JSON {symbol}"), &of.docs);
                    let keys = of.keys.iter().map(|key| format!(", \"{}\": {}", key.name, key.kind.said()));
                    let form = format!("{{\"{tag}\": \"{}\"{}}}", of.name, keys.collect::<String>());
                    text += &format!("      {form}\n{}", indented("         ", &docs));
                    for key in &of.keys {
                        let docs =
                            since.of(format!("JSON {symbol}.{}", key.name), &format!("{}: {}", key.name, key.docs));
                        text += &indented("         ", &docs);
                    }
                }
            }
            Shape::Untagged(variants) => {
                for of in variants {
                    let kind = of.bare.as_ref().map_or_else(String::new, Kind::said);
                    text += &format!("      {kind}\n{}", indented("         ", &of.docs));
                }
            }
        }
        text
    }
}

fn said_keys(keys: &[Key], name: &str, since: &mut Since) -> String {
    let mut text = String::new();
    for key in keys {
        let miss = if key.may_miss { ", may be missing" } else { "" };
        let docs = since.of(format!("JSON {name}.{}", key.name), &key.docs);
        text += &format!("      \"{}\": {}{miss}\n{}", key.name, key.kind.said(), indented("         ", &docs));
    }
    text
}

fn indented(indent: &str, text: &str) -> String {
    wrap(text, 110 - indent.len()).iter().map(|line| format!("{indent}{line}\n")).collect()
}

/// Values of a form as this file says it: with every key, and then, with each key named, without one.
pub fn samples(forms: &BTreeMap<String, Form>, name: &str) -> Vec<Sample> {
    let object = |tag: Option<(&str, &str)>, keys: &[Key]| {
        let mut whole: Map<String, Value> =
            keys.iter().map(|key| (key.name.clone(), value(forms, &key.kind))).collect();
        if let Some((tag, name)) = tag {
            whole.insert(tag.to_owned(), json!(name));
        }
        let without = keys.iter().map(|key| {
            let mut less = whole.clone();
            less.remove(&key.name);
            Sample { value: Value::Object(less), without: Some((key.name.clone(), key.may_miss)) }
        });
        let without: Vec<_> = without.collect();
        [Sample { value: Value::Object(whole), without: None }].into_iter().chain(without).collect::<Vec<_>>()
    };
    let whole = |value: Value| Sample { value, without: None };
    match &forms[name].shape {
        Shape::Object(keys) => object(None, keys),
        Shape::Words(variants) => variants.iter().map(|of| whole(json!(of.name))).collect(),
        Shape::Tagged(tag, variants) => {
            variants.iter().flat_map(|of| object(Some((tag, &of.name)), &of.keys)).collect()
        }
        Shape::Untagged(variants) => {
            variants.iter().filter_map(|of| Some(whole(value(forms, of.bare.as_ref()?)))).collect()
        }
    }
}

/// A value, and which key it lacks and whether it may.
pub struct Sample {
    pub value: Value,
    pub without: Option<(String, bool)>,
}

fn value(forms: &BTreeMap<String, Form>, kind: &Kind) -> Value {
    match kind {
        Kind::Text => json!("text"),
        Kind::Integer => json!(3),
        Kind::Number => json!(1.5),
        Kind::Truth => json!(true),
        Kind::Any => json!({ "any": [1, null] }),
        Kind::List(of) => json!([value(forms, of)]),
        Kind::Array(of, len) => Value::Array(vec![value(forms, of); *len]),
        Kind::Map(of) => json!({ "name": value(forms, of) }),
        Kind::OrNull(of) => value(forms, of),
        Kind::Named(name) => samples(forms, name).swap_remove(0).value,
    }
}
