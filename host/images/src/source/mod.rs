//! Where pictures come from. At first only names and places are read; a picture's bytes are, when it is asked for.

mod folder;
mod pairs;
mod tar;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use folder::{ClassName, Classes, FolderOptions, LeftOut, is_picture};
pub use pairs::Pairs;

use crate::decode::{Header, MAX_PIXELS, header};
use crate::error::{Error, Kind, Result};

/// How much of a file usually holds its header: EXIF with a thumbnail is at most 64 KiB.
const HEAD: u64 = 80 << 10;
/// How much of a file's beginning and of its end tells it from others.
const END: u64 = 4 << 10;

/// Pictures by number. Reading needs no lock, so threads share one.
#[derive(Clone, Debug, Default)]
pub struct Source {
    items: Vec<Item>,
}

/// One picture's place.
#[derive(Clone, Debug)]
pub struct Item {
    /// How errors and reports name it: a path, or the row that it stands in.
    name: Box<str>,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// A file of its own.
    File(Box<Path>),
    /// A range of another file, which stays open.
    Range { file: Arc<File>, offset: u64, length: u64 },
}

impl Item {
    /// A file of its own, named by its path.
    pub fn file(path: PathBuf) -> Self {
        Self::named_file(path.display().to_string(), path)
    }

    /// A file of its own, named as the caller will: `train.csv:14: photos/7.jpg`.
    pub fn named_file(name: String, path: PathBuf) -> Self {
        Self { name: name.into(), place: Place::File(path.into()) }
    }

    /// Some bytes of a file.
    pub fn range(name: String, file: Arc<File>, offset: u64, length: u64) -> Self {
        Self { name: name.into(), place: Place::Range { file, offset, length } }
    }
}

impl FromIterator<Item> for Source {
    fn from_iter<T: IntoIterator<Item = Item>>(items: T) -> Self {
        Self { items: items.into_iter().collect() }
    }
}

impl Source {
    /// How many pictures there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Those at some places.
    ///
    /// # Panics
    ///
    /// Where there are not so many.
    #[must_use]
    pub fn select(&self, places: &[usize]) -> Self {
        places.iter().map(|&place| self.items[place].clone()).collect()
    }

    /// How errors name a picture.
    ///
    /// # Panics
    ///
    /// Where there are not so many.
    pub fn name(&self, index: usize) -> &str {
        &self.items[index].name
    }

    /// A picture's bytes. A file that has gone, or cannot be read, is an error of that picture.
    ///
    /// # Panics
    ///
    /// Where there are not so many.
    pub fn read(&self, index: usize) -> Result<Vec<u8>> {
        self.read_at_most(index, u64::MAX)
    }

    fn read_at_most(&self, index: usize, most: u64) -> Result<Vec<u8>> {
        let item = &self.items[index];
        let read = || -> std::io::Result<Vec<u8>> {
            match &item.place {
                Place::File(path) => {
                    let mut file = File::open(path)?;
                    let length = file.metadata()?.len().min(most);
                    let mut bytes = Vec::with_capacity(length as usize);
                    (&mut file).take(most).read_to_end(&mut bytes)?;
                    Ok(bytes)
                }
                Place::Range { file, offset, length } => {
                    let mut bytes = vec![0; (*length).min(most) as usize];
                    file.read_exact_at(&mut bytes, *offset)?;
                    Ok(bytes)
                }
            }
        };
        read().map_err(|error| unreadable(&item.name, &error))
    }

    /// A picture's length in bytes, its first and its last bytes: where they are equal, so are pictures in all likelihood.
    ///
    /// # Panics
    ///
    /// Where there are not so many.
    pub fn ends(&self, index: usize) -> Result<Vec<u8>> {
        let item = &self.items[index];
        let read = || -> std::io::Result<Vec<u8>> {
            let opened;
            let (file, offset, length) = match &item.place {
                Place::File(path) => {
                    opened = File::open(path)?;
                    (&opened, 0, opened.metadata()?.len())
                }
                Place::Range { file, offset, length } => (&**file, *offset, *length),
            };
            let mut bytes = vec![0; length.min(2 * END) as usize];
            let (first, last) = bytes.split_at_mut(length.min(END) as usize);
            file.read_exact_at(first, offset)?;
            file.read_exact_at(last, offset + length - last.len() as u64)?;
            bytes.extend(length.to_le_bytes());
            Ok(bytes)
        };
        read().map_err(|error| unreadable(&item.name, &error))
    }

    /// What a picture's header says; only its beginning is read where that will do.
    ///
    /// # Panics
    ///
    /// Where there are not so many.
    pub fn header(&self, index: usize) -> Result<Header> {
        let head = self.read_at_most(index, HEAD)?;
        match header(&head, self.name(index), MAX_PIXELS) {
            Err(_) if head.len() as u64 == HEAD => header(&self.read(index)?, self.name(index), MAX_PIXELS),
            header => header,
        }
    }
}

fn unreadable(name: &str, error: &std::io::Error) -> Error {
    let help = "was it moved, or the archive changed, since the run began?";
    Error::new(Kind::Picture, name, format!("cannot read it: {error}"), help)
}
