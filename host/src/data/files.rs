//! The files that examples stand in.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::arrow::Saved;
use super::texts::MAPPING;
use crate::Result;

/// Keys of a table that is pictures beside masks, and the usual names of their folders.
pub const MASKS: [&str; 2] = ["images", "masks"];

/// The files of a part of the data: of its training examples, say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Files {
    /// One file, a folder that `datasets` saved or that has a folder of texts for each class, or an embedded data set.
    One(PathBuf),
    /// Texts, one a line, beside their labels, one a line.
    Pair {
        /// The texts.
        text: PathBuf,
        /// The labels.
        label: PathBuf,
    },
    /// Pictures in a folder, and of each the mask of the same name in another: a class for each pixel.
    Masks {
        /// The pictures.
        images: PathBuf,
        /// Their masks.
        masks: PathBuf,
    },
    /// A file for each class, or a folder of texts: all its examples have it.
    ByClass(BTreeMap<String, PathBuf>),
}

impl From<&Path> for Files {
    fn from(path: &Path) -> Self {
        Self::One(path.to_owned())
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.named().iter().map(|path| path.display().to_string()).collect();
        f.write_str(&names.join(" and "))
    }
}

impl Files {
    /// The folders of pictures and of their masks, where a folder has both under their usual names.
    pub fn folders_of_masks(folder: &Path) -> Option<(PathBuf, PathBuf)> {
        let [images, masks] = MASKS.map(|name| folder.join(name));
        (images.is_dir() && masks.is_dir()).then_some((images, masks))
    }

    /// The files that are named.
    pub fn named(&self) -> Vec<&Path> {
        match self {
            Self::One(path) => vec![path],
            Self::Pair { text, label } => vec![text, label],
            Self::Masks { images, masks } => vec![images, masks],
            Self::ByClass(files) => files.values().map(PathBuf::as_path).collect(),
        }
    }

    /// Every file that is read: those of a data set that was saved in a folder, a folder of texts itself, labels beside texts, and names of classes beside them too.
    ///
    /// # Errors
    /// Where what `datasets` saved cannot be read.
    pub fn read(&self) -> Result<Vec<PathBuf>> {
        let mut all = Vec::new();
        for path in self.named() {
            match Saved::is(path) {
                true => all.extend(Saved::read(path)?.all()),
                false => all.push(path.to_owned()),
            }
        }
        if let Self::One(path) = self {
            all.extend(labels_beside(path));
        }
        if !matches!(self, Self::ByClass(_) | Self::Masks { .. })
            && let Some(labels) = all.get(1)
        {
            all.extend(Some(labels.with_file_name(MAPPING)).filter(|path| path.is_file()));
        }
        Ok(all)
    }

    /// The one file with this name, for messages: the first.
    pub fn first(&self) -> &Path {
        match self {
            Self::One(path) => path,
            Self::Pair { text, .. } => text,
            Self::Masks { images, .. } => images,
            Self::ByClass(files) => files.values().next().map_or(Path::new(""), PathBuf::as_path),
        }
    }
}

/// The labels beside a file of texts, as TweetEval names them: `train_labels.txt` beside `train_text.txt`.
pub(super) fn labels_beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let (begin, end) = name.split_once("_text.txt")?;
    let labels = path.with_file_name(format!("{begin}_labels.txt{end}"));
    labels.is_file().then_some(labels)
}
