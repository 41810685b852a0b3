//! Image folders: a class a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::{Item, Source};
use crate::error::{Error, Result};

/// Ends of names that are taken for pictures'. What they are, their content says.
const ENDS: [&str; 9] = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "dib"];

/// How deep folders lie in each other at most: deeper is a link that leads back.
const DEPTH: usize = 32;

/// Which folder names a picture's class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClassName {
    /// The topmost: whatever lies in `rose/...` is a rose, as for torchvision's `ImageFolder`.
    #[default]
    Top,
    /// The whole path: `Latin/character01` is a class, as of Omniglot.
    Path,
}

/// How a folder, or an archive of one, is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderOptions {
    /// Which folder names the class.
    pub class_name: ClassName,
    /// The folder inside an archive that holds the classes: `omniglot/images_background`. Where it is not said, it is the deepest that
    /// holds them all.
    pub under: Option<String>,
}

/// Names that were passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// How many names begin with a dot, and folders that do.
    pub hidden: usize,
    /// How many names are not those of pictures.
    pub others: usize,
    /// The first ten of those.
    pub names: Vec<String>,
    /// How many pictures lie beside the classes' folders, and so have no class.
    pub classless: usize,
}

impl LeftOut {
    pub(super) fn other(&mut self, name: impl ToString) {
        self.others += 1;
        if self.names.len() < 10 {
            self.names.push(name.to_string());
        }
    }
}

/// Pictures with classes.
#[derive(Clone, Debug)]
pub struct Classes {
    /// The pictures, sorted by class and name.
    pub source: Source,
    /// The classes' names, sorted.
    pub names: Vec<String>,
    /// The number of each picture's class.
    pub labels: Vec<u32>,
    /// What was passed over.
    pub left_out: LeftOut,
}

/// Whether a name is one of a picture.
pub fn is_picture(name: &str) -> bool {
    let end = name.rsplit_once('.').map_or("", |(_, end)| end);
    ENDS.iter().any(|known| end.eq_ignore_ascii_case(known))
}

/// What a name is worth: `None` where it is hidden, or no picture's; both are counted.
pub(super) fn picture_name<'a>(name: &'a str, place: &str, left_out: &mut LeftOut) -> Option<&'a str> {
    if name.starts_with('.') {
        left_out.hidden += 1;
        return None;
    }
    if !is_picture(name) {
        left_out.other(place);
        return None;
    }
    Some(name)
}

impl Source {
    /// All pictures that lie in a folder, however deep, in the order of their paths, whatever their classes. Names alone are read.
    pub fn folder(root: &Path) -> Result<(Self, LeftOut)> {
        let mut found = Found::default();
        walk(root, &mut Vec::new(), &mut found)?;
        let item = |path: &[String]| Item::file(path.iter().fold(root.to_owned(), |at, name| at.join(name)));
        found.all(&root.display().to_string(), item)
    }
}

impl Classes {
    /// The pictures of a folder, each folder in it a class. Names alone are read. Hidden names and those that do not end as pictures'
    /// are passed over and counted. A class without pictures is an error, and so is a folder without classes.
    pub fn folder(root: &Path, options: &FolderOptions) -> Result<Self> {
        let mut found = Found::default();
        walk(root, &mut Vec::new(), &mut found)?;
        let place = root.display().to_string();
        let item = |path: &[String]| Item::file(path.iter().fold(root.to_owned(), |at, name| at.join(name)));
        found.classes(&place, options.class_name, item)
    }
}

/// What lies in a folder: paths from it, part by part.
#[derive(Default)]
pub(super) struct Found {
    pub(super) pictures: Vec<Vec<String>>,
    /// The folders right in it.
    pub(super) folders: BTreeSet<String>,
    pub(super) left_out: LeftOut,
}

impl Found {
    /// Pictures whatever their classes.
    pub(super) fn all(mut self, place: &str, item: impl FnMut(&[String]) -> Item) -> Result<(Source, LeftOut)> {
        if self.pictures.is_empty() {
            return Err(Error::files(place, "there is no picture", "is it the right folder?"));
        }
        self.pictures.sort_unstable();
        let mut item = item;
        Ok((self.pictures.iter().map(|path| item(path)).collect(), self.left_out))
    }

    /// Pictures sorted into classes. `item` gives the place of each.
    pub(super) fn classes(
        mut self,
        place: &str,
        class_name: ClassName,
        mut item: impl FnMut(&[String]) -> Item,
    ) -> Result<Classes> {
        let all = self.pictures.len();
        self.pictures.retain(|path| path.len() > 1);
        self.left_out.classless = all - self.pictures.len();
        let filled: BTreeSet<&String> = self.pictures.iter().filter_map(|path| path.first()).collect();
        if let Some(empty) = self.folders.iter().find(|folder| !filled.contains(folder)) {
            let seen = if self.left_out.others == 0 {
                String::new()
            } else {
                format!(" (passed over: {}, ...)", self.left_out.names[0])
            };
            return Err(Error::files(
                format!("{place}/{empty}"),
                format!("the class {empty} has no picture{seen}"),
                "fill or remove the folder; pictures end in .jpg, .jpeg, .png, .webp, .gif or .bmp",
            ));
        }
        let mut by_class: BTreeMap<String, Vec<&Vec<String>>> = BTreeMap::new();
        for path in &self.pictures {
            let class = match class_name {
                ClassName::Top => path[0].clone(),
                ClassName::Path => path[..path.len() - 1].join("/"),
            };
            by_class.entry(class).or_default().push(path);
        }
        if by_class.is_empty() {
            let message = match self.left_out.classless {
                0 => "there is no picture".to_owned(),
                n => format!("its {n} pictures lie in no folder, so they have no class"),
            };
            return Err(Error::files(place, message, "make a folder for each class, and put its pictures into it"));
        }
        let (mut items, mut labels) = (Vec::with_capacity(self.pictures.len()), Vec::new());
        for (label, paths) in (0..).zip(by_class.values_mut()) {
            paths.sort_unstable();
            labels.extend(std::iter::repeat_n(label, paths.len()));
            items.extend(paths.iter().map(|path| item(path)));
        }
        let source = Source::from_iter(items);
        let names = by_class.into_keys().collect();
        Ok(Classes { source, names, labels, left_out: self.left_out })
    }
}

/// Collects what lies in a folder and those in it, in the order of names.
fn walk(folder: &Path, at: &mut Vec<String>, found: &mut Found) -> Result<()> {
    let unreadable = |error: std::io::Error| {
        Error::files(folder.display(), format!("cannot read the folder: {error}"), "look at its name and permissions")
    };
    if at.len() > DEPTH {
        let message = format!("folders lie more than {DEPTH} deep in each other");
        return Err(Error::files(folder.display(), message, "does a link lead back to a folder above it?"));
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect())
        .map_err(unreadable)?;
    entries.sort_unstable();
    for path in entries {
        let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else {
            found.left_out.other(path.display());
            continue;
        };
        if path.is_dir() {
            if name.starts_with('.') {
                found.left_out.hidden += 1;
                continue;
            }
            if at.is_empty() {
                found.folders.insert(name.clone());
            }
            at.push(name);
            walk(&path, at, found)?;
            at.pop();
        } else if picture_name(&name, &path.display().to_string(), &mut found.left_out).is_some() {
            let mut path = at.clone();
            path.push(name);
            found.pictures.push(path);
        }
    }
    Ok(())
}

/// The pictures right in a folder by their names without the end: for masks and what they belong to.
pub(super) fn by_stem(folder: &Path, left_out: &mut LeftOut) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = Found::default();
    walk(folder, &mut Vec::new(), &mut found)?;
    left_out.hidden += found.left_out.hidden;
    left_out.others += found.left_out.others;
    left_out.names.extend(found.left_out.names);
    left_out.names.truncate(10);
    let mut stems: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in found.pictures {
        let whole = path.join("/");
        let stem = whole.rsplit_once('.').map_or(whole.as_str(), |(stem, _)| stem).to_owned();
        let file = folder.join(&whole);
        if let Some(other) = stems.insert(stem, file.clone()) {
            let message = format!("its name without the end is that of {}, too", other.display());
            return Err(Error::files(file.display(), message, "rename one of the two: pairs are matched by that name"));
        }
    }
    Ok(stems)
}
