//! Who imports whom: no modules import each other in a circle, and no arrow goes against the order that ARCHITECTURE.md states.
//!
//! An arrow goes from a module to the module where the thing stands that it imports or names by a path. So:
//!
//! - `mod x;` and `pub use x::Y` are doors and no arrows: who takes `Y` through the door has an arrow to `x`.
//! - A parent that uses its child is above it, and so its child may take nothing that the parent itself defines.
//! - Tests are left out: they may know everything.
//!
//! A call of a method names no module and is no arrow.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use fthost_tests::root;
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ItemMod, ItemUse, Macro, UseTree, Visibility};

/// A path in the source: `["crate", "run", "file"]`.
type Segments = Vec<String>;

/// What one module's source says.
#[derive(Default)]
struct Module {
    /// Modules below it that are not tests.
    children: BTreeSet<String>,
    /// What its names stand for.
    names: BTreeMap<String, Segments>,
    /// What it takes.
    taken: Vec<Segments>,
    /// How many inline modules the visitor is in.
    depth: usize,
}

fn is_test(attributes: &[Attribute]) -> bool {
    let tokens = |attribute: &Attribute| attribute.meta.require_list().map(|list| list.tokens.to_string());
    attributes.iter().any(|a| a.path().is_ident("test") || (a.path().is_ident("cfg") && tokens(a).unwrap() == "test"))
}

impl Module {
    fn read(&mut self, code: &str) {
        self.visit_file(&syn::parse_file(code).unwrap());
    }

    /// A path as it reads from the file's own module; `None` where it stays within the file.
    fn in_file(&self, mut path: Segments) -> Option<Segments> {
        let up = path.iter().take_while(|segment| *segment == "super").count();
        if self.depth > 0 && (up < self.depth || path[0] == "self") && path[0] != "crate" {
            return None;
        }
        path.drain(..up.min(self.depth));
        (!path.is_empty()).then_some(path)
    }

    fn take(&mut self, path: Segments) {
        let path = self.in_file(path);
        self.taken.extend(path);
    }

    fn import(&mut self, tree: &UseTree, before: &[String], door: bool) {
        let longer = |name: &dyn ToString| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.import(&path.tree, &longer(&path.ident), door),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(tree, before, door)),
            UseTree::Glob(_) => self.take(before.to_vec()),
            UseTree::Name(name) if name.ident == "self" => self.name(before.last().unwrap().clone(), before, door),
            UseTree::Name(name) => self.name(name.ident.to_string(), &longer(&name.ident), door),
            UseTree::Rename(rename) if rename.ident == "self" => self.name(rename.rename.to_string(), before, door),
            UseTree::Rename(rename) => self.name(rename.rename.to_string(), &longer(&rename.ident), door),
        }
    }

    fn name(&mut self, name: String, path: &[String], door: bool) {
        if self.depth == 0 {
            self.names.insert(name, path.to_vec());
        }
        if !door {
            self.take(path.to_vec());
        }
    }

    /// Paths in a macro's tokens: words between `::`.
    fn take_tokens(&mut self, tokens: TokenStream) {
        let (mut path, mut colons) = (Segments::new(), 0);
        for token in tokens {
            match token {
                TokenTree::Ident(word) if colons == 2 => path.push(word.to_string()),
                TokenTree::Ident(word) => {
                    self.end(&mut path);
                    path.push(word.to_string());
                }
                TokenTree::Punct(point) if point.as_char() == ':' && !path.is_empty() => {
                    colons += 1;
                    continue;
                }
                TokenTree::Group(group) => {
                    self.end(&mut path);
                    self.take_tokens(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => self.end(&mut path),
            }
            colons = 0;
        }
        self.end(&mut path);
    }

    fn end(&mut self, path: &mut Segments) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.take(path);
        }
    }
}

impl<'ast> Visit<'ast> for Module {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes: &[Attribute] = match item {
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if item.content.is_none() {
            self.children.insert(item.ident.to_string());
        }
        self.depth += 1;
        visit::visit_item_mod(self, item);
        self.depth -= 1;
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.import(&item.tree, &[], !matches!(item.vis, Visibility::Inherited));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.take(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        self.take_tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }

    /// Which of the crate's modules sees a thing is no arrow.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

/// The modules of a crate by their paths, `run::file`; its roots are the empty one.
struct Crate {
    name: String,
    modules: BTreeMap<String, Module>,
}

/// From one module to another, and the path that says so.
type Arrows = BTreeMap<String, BTreeMap<String, String>>;

impl Crate {
    /// Reads the modules that its roots declare. `source` gives a module's sources: that of a file, or two where there are two roots.
    fn read(name: &str, source: impl Fn(&str) -> Vec<String>) -> Self {
        let (mut modules, mut left) = (BTreeMap::new(), vec![String::new()]);
        while let Some(path) = left.pop() {
            let mut module = Module::default();
            source(&path).iter().for_each(|code| module.read(code));
            left.extend(module.children.iter().map(|child| below(&path, child)));
            modules.insert(path, module);
        }
        Self { name: name.to_owned(), modules }
    }

    /// The crate whose sources lie in a folder.
    fn of_folder(name: &str, folder: &str) -> Self {
        let folder = root().join(folder);
        Self::read(name, |module| {
            let place = module.replace("::", "/");
            let files: &[_] = match module {
                "" => &["lib.rs".to_owned(), "main.rs".to_owned()],
                _ => &[format!("{place}.rs"), format!("{place}/mod.rs")],
            };
            let found: Vec<String> =
                files.iter().filter_map(|file| fs::read_to_string(folder.join(file)).ok()).collect();
            assert!(!found.is_empty(), "{name} has no file of the module {module}");
            found
        })
    }

    /// The module that holds what a path names, as it reads in the module `from`; `None` where it is another crate's.
    fn holder(&self, from: &str, path: &[String]) -> Option<String> {
        let (mut at, mut rest) = match path[0].as_str() {
            first if first == "crate" || (from.starts_with("cli") && first == self.name) => (String::new(), &path[1..]),
            "self" => (from.to_owned(), &path[1..]),
            "super" => {
                let up = path.iter().take_while(|segment| *segment == "super").count();
                ((0..up).fold(from.to_owned(), |at, _| above(&at)), &path[up..])
            }
            first if self.modules[from].children.contains(first) => (from.to_owned(), path),
            _ => return None,
        };
        while let Some(child) = rest.first().filter(|first| self.modules[&at].children.contains(*first)) {
            (at, rest) = (below(&at, child), &rest[1..]);
        }
        match rest.first().and_then(|first| self.modules[&at].names.get(first)) {
            Some(other) => self.holder(&at, &[other, &rest[1..]].concat()),
            None => Some(at),
        }
    }

    fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (from, module) in &self.modules {
            let to = arrows.entry(from.clone()).or_default();
            for path in &module.taken {
                if let Some(holder) = self.holder(from, path).filter(|holder| holder != from) {
                    to.entry(holder).or_insert_with(|| path.join("::"));
                }
            }
        }
        arrows
    }
}

fn below(path: &str, child: &str) -> String {
    if path.is_empty() { child.to_owned() } else { format!("{path}::{child}") }
}

fn above(path: &str) -> String {
    path.rsplit_once("::").map_or_else(String::new, |(above, _)| above.to_owned())
}

fn named(from: &str, to: &str, by: &str) -> String {
    format!("{from} -> {to} by {by}")
}

/// The modules that a way of arrows leads to.
fn reached<'a>(arrows: &'a Arrows, from: &'a str) -> BTreeSet<&'a str> {
    let (mut reached, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(at) = left.pop() {
        left.extend(arrows[at].keys().map(String::as_str).filter(|next| reached.insert(*next)));
    }
    reached
}

/// The arrows that lie on a circle.
fn circles(arrows: &Arrows) -> Vec<String> {
    let mut found = Vec::new();
    for (from, to) in arrows {
        let circle = to.iter().filter(|(to, _)| reached(arrows, to).contains(from.as_str()));
        found.extend(circle.map(|(to, by)| named(from, to, by)));
    }
    found
}

/// What breaks an order of the modules below `room`: arrows from one to a later one, modules that it does not name, and names without a
/// module.
fn against(order: &[&str], room: &str, tree: &Crate, arrows: &Arrows) -> Vec<String> {
    let inside = |path: &str| -> Option<String> {
        let rest = if room.is_empty() { Some(path) } else { path.strip_prefix(room)?.strip_prefix("::") };
        rest.filter(|rest| !rest.is_empty()).map(|rest| rest.split("::").next().unwrap().to_owned())
    };
    let known: BTreeSet<&str> = tree.modules[room].children.iter().map(String::as_str).collect();
    let stated: BTreeSet<&str> = order.iter().copied().collect();
    let mut found: Vec<String> = known
        .symmetric_difference(&stated)
        .map(|name| format!("{name} is not in both, the order and the source"))
        .collect();
    let place = |name: &str| order.iter().position(|stated| *stated == name);
    for (from, to) in arrows {
        for (to, by) in to {
            let (Some(a), Some(b)) = (inside(from), inside(to)) else { continue };
            if place(&a) < place(&b) {
                found.push(named(from, to, by));
            }
        }
    }
    found
}

/// The orders that a page states, by the folder: lines such as `    host/src: error < report`.
fn orders(page: &str) -> BTreeMap<&str, Vec<&str>> {
    let lines = page.lines().filter(|line| line.starts_with("    ") && line.contains(" < "));
    let stated = lines.filter_map(|line| line.trim().split_once(": "));
    stated.map(|(folder, order)| (folder, order.split(" < ").collect())).collect()
}

/// Our crates: the names by which they are imported, and their sources.
const CRATES: [(&str, &str); 5] = [
    ("fthost", "host/src"),
    ("fthost_images", "host/images/src"),
    ("fthost_models", "models/src"),
    ("fthost_autograd", "models/autograd/src"),
    ("fthost_plugin_api", "plugin-api/src"),
];

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let found = CRATES.map(|(name, folder)| {
        let circles = circles(&Crate::of_folder(name, folder).arrows());
        circles.iter().map(|arrow| format!("{folder}: {arrow}\n")).collect::<String>()
    });
    assert!(found.concat().is_empty(), "these arrows lie on circles:\n{}", found.concat());
}

#[test]
fn arrows_go_the_way_that_the_map_states() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let orders = orders(&map);
    assert!(["host/src", "host/src/run"].iter().all(|folder| orders.contains_key(folder)), "{orders:?}");
    for (folder, order) in orders {
        let (name, sources) = CRATES.iter().find(|(_, sources)| Path::new(folder).starts_with(sources)).unwrap();
        let tree = Crate::of_folder(name, sources);
        let room = folder[sources.len()..].trim_start_matches('/').replace('/', "::");
        let found = against(&order, &room, &tree, &tree.arrows());
        assert!(found.is_empty(), "the order of {folder} is broken:\n{}", found.join("\n"));
    }
}

/// A made-up crate of modules and their sources.
fn made_up(sources: &[(&str, &str)]) -> Crate {
    let of = |module: &str| sources.iter().find(|(name, _)| *name == module).unwrap().1.to_owned();
    Crate::read("made_up", |module| vec![of(module)])
}

#[test]
fn a_circle_is_found_through_doors_and_macros_and_not_in_tests() {
    let sources =
        |b: &'static str| made_up(&[("", "mod a; mod b; pub use a::A;"), ("a", "use crate::b::B;"), ("b", b)]);
    let both = ["a -> b by crate::b::B", "b -> a by crate::A"];
    let check = |b, expected: &[&str]| assert_eq!(circles(&sources(b).arrows()), expected, "{b}");
    check("", &[]);
    check("use crate::A;", &both);
    check("fn b() { let _ = crate::A::new(); }", &[both[0], "b -> a by crate::A::new"]);
    check("fn b() { println!(\"{}\", crate::A); }", &both);
    check("mod inline { use super::super::A; }", &["a -> b by crate::b::B", "b -> a by super::A"]);
    check("mod inline { use super::B; }", &[]);
    check("pub(in crate::a) struct B;", &[]);
    check("#[cfg(test)] mod tests { use crate::A; }", &[]);
    check("pub use crate::A;", &[]);
    check("use super::a as other; fn b() { other::a() }", &["a -> b by crate::b::B", "b -> a by super::a"]);
}

#[test]
fn a_parent_and_its_child_are_a_circle_where_each_takes_from_the_other() {
    let check = |parent, child, circle: bool| {
        let tree = made_up(&[("", "mod p;"), ("p", parent), ("p::c", child)]);
        assert_eq!(!circles(&tree.arrows()).is_empty(), circle, "{parent} {child}");
    };
    check("mod c; use c::C; struct P;", "use super::P;", true);
    check("mod c; fn p() { c::c() } struct P;", "use super::P;", true);
    check("mod c; pub use c::C; struct P;", "use super::P;", false);
    check("mod c; use c::C;", "use std::fmt;", false);
}

#[test]
fn an_arrow_against_the_order_is_found() {
    let page = "Text with a < b.\n\n    src: low < high\n    src/high: x < y\n";
    let orders = orders(page);
    assert_eq!(orders, BTreeMap::from([("src", vec!["low", "high"]), ("src/high", vec!["x", "y"])]));
    let check = |low, x, room, expected: &[&str]| {
        let tree = made_up(&[
            ("", "mod low; mod high;"),
            ("low", low),
            ("high", "mod x; mod y; use x::X; struct H;"),
            ("high::x", x),
            ("high::y", "use super::x::X; use crate::low::L;"),
        ]);
        let order = &orders[if room == "high" { "src/high" } else { "src" }];
        assert_eq!(against(order, room, &tree, &tree.arrows()), expected);
    };
    check("", "", "", &[]);
    check("", "", "high", &[]);
    check("use crate::high::y::Y;", "", "", &["low -> high::y by crate::high::y::Y"]);
    check("", "use super::y::Y;", "high", &["high::x -> high::y by super::y::Y"]);
    let tree = made_up(&[("", "mod low; mod other;"), ("low", ""), ("other", "")]);
    assert_eq!(against(&orders["src"], "", &tree, &tree.arrows()).len(), 2, "a module too few and one too many");
}
