//! Pictures in the IDX format of MNIST (LeCun and Cortes): a file of pictures beside one of labels.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use fthost_images::Picture;

use crate::data::form::Encoding;
use crate::data::input::{Input, read_error};
use crate::data::row::data_error;
use crate::{Error, Result};

/// Bytes of unsigned numbers in three dimensions, and in one.
const PICTURES: [u8; 4] = [0, 0, 8, 3];
const LABELS: [u8; 4] = [0, 0, 8, 1];
/// What the names of files of pictures and of labels have.
const NAMES: [[&str; 2]; 2] = [["images-idx3", "labels-idx1"], ["images.idx3", "labels.idx1"]];
/// Most bytes of pictures: of IDX files all are kept in memory.
const MOST: usize = 1 << 31;

/// Grey pictures of one size, in memory.
#[derive(Clone, Debug)]
pub(super) struct Planes {
    height: usize,
    width: usize,
    /// `[pictures, height, width]`.
    levels: Arc<[u8]>,
}

impl Planes {
    /// Whether a file's content is one of pictures.
    pub(super) fn are_in(path: &Path) -> bool {
        path.is_file() && Input::open(path, Encoding::Utf8).is_ok_and(|input| input.sample().starts_with(&PICTURES))
    }

    /// All pictures of a file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let (sizes, levels) = numbers(path, PICTURES, 3)?;
        match sizes[..] {
            [_, height, width] if height > 0 && width > 0 => Ok(Self { height, width, levels: shared(levels) }),
            _ => Err(data_error(path, None, "holds pictures without a pixel")),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.levels.len() / (self.height * self.width)
    }

    /// The levels of a picture.
    pub(super) fn bytes(&self, row: u32) -> &[u8] {
        let size = self.height * self.width;
        &self.levels[row as usize * size..][..size]
    }

    /// A picture.
    pub(super) fn picture(&self, row: u32) -> Result<Picture> {
        let pixels = self.bytes(row).iter().map(|&level| [level; 3]).collect();
        Picture::new(self.height, self.width, pixels).ok_or_else(|| Error::run("a picture without a pixel"))
    }

    /// Bytes in memory; of pictures that several data sets have, its share of them.
    pub(super) fn in_memory(&self) -> usize {
        self.levels.len() / Arc::strong_count(&self.levels).max(1)
    }
}

/// Levels that are in memory already.
static KNOWN: Mutex<Vec<Weak<[u8]>>> = Mutex::new(Vec::new());

/// The levels, or the same ones where they are in memory already: tasks that learn from one file in turn have one copy of it.
fn shared(levels: Vec<u8>) -> Arc<[u8]> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|of| of.strong_count() > 0);
    if let Some(same) = known.iter().filter_map(Weak::upgrade).find(|of| **of == *levels) {
        return same;
    }
    let levels: Arc<[u8]> = levels.into();
    known.push(Arc::downgrade(&levels));
    levels
}

/// The file of labels that stands beside one of pictures: `train-labels-idx1-ubyte.gz` beside `train-images-idx3-ubyte.gz`.
pub(super) fn labels_beside(pictures: &Path) -> Option<PathBuf> {
    let name = pictures.file_name()?.to_str()?;
    let [from, to] = NAMES.into_iter().find(|[from, _]| name.contains(from))?;
    let labels = pictures.with_file_name(name.replace(from, to));
    labels.is_file().then_some(labels)
}

/// All labels of a file.
pub(super) fn labels(path: &Path) -> Result<Vec<u8>> {
    numbers(path, LABELS, 1).map(|(_, labels)| labels)
}

/// The sizes that a file's header says, and the numbers after it.
fn numbers(path: &Path, magic: [u8; 4], dimensions: usize) -> Result<(Vec<usize>, Vec<u8>)> {
    let damaged = |message: String| {
        Err(data_error(path, None, message).with_help("bring it again; a file in the IDX format is meant"))
    };
    let mut reader = Input::open(path, Encoding::Utf8)?.into_reader();
    let mut header = vec![0; 4 + 4 * dimensions];
    reader.read_exact(&mut header).map_err(|error| read_error(path, error))?;
    if header[..4] != magic {
        return damaged(format!("begins with {:02x?}, and such a file with {magic:02x?}", &header[..4]));
    }
    let sizes: Vec<usize> =
        header[4..].as_chunks::<4>().0.iter().map(|&bytes| u32::from_be_bytes(bytes) as usize).collect();
    let total = sizes.iter().try_fold(1usize, |all, &size| all.checked_mul(size)).filter(|&total| total <= MOST);
    let Some(total) = total else {
        return damaged(format!("says that it holds {sizes:?} numbers, and at most {MOST} are read"));
    };
    let mut found = Vec::new();
    reader.take(total as u64).read_to_end(&mut found).map_err(|error| read_error(path, error))?;
    if found.len() < total {
        return damaged(format!("ends after {} of {total} numbers", found.len()));
    }
    Ok((sizes, found))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn header(magic: [u8; 4], sizes: &[u32]) -> Vec<u8> {
        magic.into_iter().chain(sizes.iter().flat_map(|size| size.to_be_bytes())).collect()
    }

    #[test]
    fn pictures_and_labels_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = [header(PICTURES, &[2, 1, 3]), vec![1, 2, 3, 4, 5, 6]].concat();
        let pictures = write(folder.path(), "train-images-idx3-ubyte", &bytes);
        assert_eq!(labels_beside(&pictures), None);
        let labels_file = write(folder.path(), "train-labels-idx1-ubyte", &[header(LABELS, &[2]), vec![7, 9]].concat());
        assert_eq!(labels_beside(&pictures), Some(labels_file.clone()));
        assert!(Planes::are_in(&pictures) && !Planes::are_in(&labels_file) && !Planes::are_in(folder.path()));
        let planes = Planes::read(&pictures).unwrap();
        assert_eq!((planes.len(), planes.picture(1).unwrap().size()), (2, (1, 3)));
        assert_eq!(planes.picture(1).unwrap().pixels(), [[4; 3], [5; 3], [6; 3]]);
        assert_eq!(labels(&labels_file).unwrap(), [7, 9]);
    }

    #[test]
    fn the_same_pictures_are_in_memory_once() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str, last: u8| {
            let bytes = [header(PICTURES, &[1, 1, 4]), vec![11, 12, 13, last]].concat();
            Planes::read(&write(folder.path(), name, &bytes)).unwrap()
        };
        let (first, second, other) = (read("a", 14), read("b", 14), read("c", 15));
        assert!(Arc::ptr_eq(&first.levels, &second.levels) && !Arc::ptr_eq(&first.levels, &other.levels));
        assert_eq!((first.in_memory(), second.in_memory(), other.in_memory()), (2, 2, 4));
        drop(second);
        assert_eq!(first.in_memory(), 4);
    }

    #[test]
    fn damaged_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let said =
            |bytes: &[u8]| Planes::read(&write(folder.path(), "x-images-idx3-ubyte", bytes)).unwrap_err().to_string();
        for (bytes, expected) in [
            (header(PICTURES, &[2, 1, 3]), "ends after 0 of 6 numbers"),
            (header(PICTURES, &[u32::MAX, u32::MAX, 3]), "at most 2147483648 are read"),
            (header(PICTURES, &[0, 0, 3]), "without a pixel"),
            (header(LABELS, &[2, 1, 3]), "begins with"),
            (vec![0, 0, 8, 3, 0], "is damaged or cut off"),
        ] {
            let said = said(&bytes);
            assert!(said.contains(expected), "{said}");
        }
    }
}
