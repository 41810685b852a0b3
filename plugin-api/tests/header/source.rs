//! Reading the crate's own source: items, attributes, and what doc comments say.

use std::fs;
use std::path::Path;

use syn::{Attribute, Expr, ExprLit, File, Item, ItemConst, ItemMod, Lit, LitStr, Meta, MetaNameValue, Visibility};

/// A parsed file below `src/`.
pub fn read(root: &Path, file: &str) -> File {
    let path = root.join("src").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names of all Rust files in a folder below `src/`, as [`read`] takes them, sorted.
pub fn files(root: &Path, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root.join("src").join(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = names
        .filter(|name| name.ends_with(".rs") && name != "tests.rs")
        .map(|name| if folder.is_empty() { name } else { format!("{folder}/{name}") })
        .collect();
    files.sort();
    files
}

pub const fn public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Whether it stands there for tests of longer tables alone.
pub fn longer(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string();
            condition.contains("longer-tables") && !condition.starts_with("not")
        }
        _ => false,
    })
}

/// Whether an attribute such as `repr` or `derive` names something.
pub fn names(attributes: &[Attribute], attribute: &str, named: &str) -> bool {
    attributes.iter().any(|of| match &of.meta {
        Meta::List(list) if list.path.is_ident(attribute) => {
            list.tokens.to_string().split([',', ' ', '(']).any(|word| word.trim() == named)
        }
        _ => false,
    })
}

/// One key of `#[serde(...)]`: `Some(None)` where it stands without a value.
pub fn serde(attributes: &[Attribute], key: &str) -> Option<Option<String>> {
    let mut found = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        let read = attribute.parse_nested_meta(|meta| {
            let value = meta.value().and_then(|value| value.parse::<LitStr>()).ok().map(|text| text.value());
            if meta.path.is_ident(key) {
                found = Some(value);
            }
            Ok(())
        });
        read.expect("serde's attributes are keys, some with a text");
    }
    found
}

/// What doc comments say, Rust's links as plain text.
pub fn docs(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(MetaNameValue { path, value: Expr::Lit(ExprLit { lit: Lit::Str(text), .. }), .. })
            if path.is_ident("doc") =>
        {
            Some(text.value().strip_prefix(' ').map_or_else(|| text.value(), str::to_owned))
        }
        _ => None,
    });
    unlink(&lines.collect::<Vec<_>>().join("\n"))
}

/// ``[`Event`](crate::Event)`` and ``[`Event`]`` as `` `Event` ``, `[a draft](self)` as `a draft`.
fn unlink(text: &str) -> String {
    let (mut plain, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('[') {
        plain.push_str(&rest[..at]);
        let inside = &rest[at + 1..];
        let end = inside.find(']').unwrap_or(inside.len());
        let (label, after) = (&inside[..end], inside.get(end + 1..).unwrap_or_default());
        let target = after.strip_prefix('(').and_then(|target| target.split_once(')'));
        // Brackets of shapes and of JSON stay.
        let code = label.len() > 2
            && label.starts_with('`')
            && label.ends_with('`')
            && !label[1..label.len() - 1].contains('`');
        rest = match target {
            Some((_, rest)) => {
                plain.push_str(label);
                rest
            }
            None if code => {
                plain.push_str(label);
                after
            }
            None => {
                plain.push('[');
                inside
            }
        };
    }
    plain + rest
}

/// The public constants at the top of a file or module.
pub fn constants(items: &[Item]) -> impl Iterator<Item = &ItemConst> {
    items.iter().filter_map(|item| match item {
        Item::Const(constant) if public(&constant.vis) && !longer(&constant.attrs) => Some(constant),
        _ => None,
    })
}

/// The public modules in a file that hold constants.
pub fn modules(file: &File) -> impl Iterator<Item = (&ItemMod, &[Item])> {
    file.items.iter().filter_map(|item| match item {
        Item::Mod(module) if public(&module.vis) => Some((module, module.content.as_ref()?.1.as_slice())),
        _ => None,
    })
}

/// A comment in C of as many lines as it takes, or nothing for no text.
pub fn comment(indent: &str, text: &str) -> String {
    let lines = wrap(text, 110 - indent.len());
    match lines.as_slice() {
        [] => String::new(),
        [line] => format!("{indent}/* {line} */\n"),
        lines => {
            let rest: String = lines[1..].iter().map(|line| format!("\n{indent}   {line}")).collect();
            let text = format!("{indent}/* {}{rest} */\n", lines[0]);
            text.split('\n').map(str::trim_end).collect::<Vec<_>>().join("\n")
        }
    }
}

/// The text in lines of a width: paragraphs and points of a list are kept, each broken anew.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let text = text.replace("*/", "* /").replace("/*", "/ *");
    let mut paragraphs: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.trim().lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with("- ") || !open {
            if line.is_empty() && open {
                paragraphs.push(String::new());
            }
            open = !line.is_empty();
            if open {
                paragraphs.push(line.to_owned());
            }
        } else if let Some(last) = paragraphs.last_mut() {
            *last += " ";
            *last += line;
        }
    }
    paragraphs.iter().flat_map(|paragraph| fill(paragraph, width)).collect()
}

fn fill(paragraph: &str, width: usize) -> Vec<String> {
    let hanging = if paragraph.starts_with("- ") { "  " } else { "" };
    let mut lines = vec![String::new()];
    for word in paragraph.split_whitespace() {
        let last = lines.last_mut().unwrap();
        if last.trim().is_empty() || last.len() + 1 + word.len() <= width {
            if !last.trim().is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        } else {
            lines.push(format!("{hanging}{word}"));
        }
    }
    lines
}
