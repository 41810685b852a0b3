//! A tar of image folders. Its headers are read once; pictures are read at their offsets.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use tar::{Archive, EntryType};

use super::folder::{Classes, FolderOptions, Found, LeftOut, picture_name};
use super::{Item, Source};
use crate::error::{Error, Result};

/// Beginnings of files that are archives of another kind.
const OTHERS: [(&[u8], &str); 6] = [
    (&[0x1F, 0x8B], "compressed by gzip"),
    (&[0x28, 0xB5, 0x2F, 0xFD], "compressed by zstd"),
    (&[0xFD, b'7', b'z', b'X', b'Z'], "compressed by xz"),
    (b"BZh", "compressed by bzip2"),
    (b"PK\x03\x04", "a zip file"),
    (b"7z\xBC\xAF", "a 7-zip file"),
];

/// What stands in an archive.
struct Contents {
    place: String,
    file: Arc<File>,
    /// Where the bytes of each picture lie, and how many there are, by its path.
    ranges: BTreeMap<Vec<String>, (u64, u64)>,
    folders: Vec<Vec<String>>,
    left_out: LeftOut,
}

impl Contents {
    fn read(archive: &Path) -> Result<Self> {
        let place = archive.display().to_string();
        let failed = |error: std::io::Error| {
            Error::files(
                &place,
                format!("cannot read the archive: {error}"),
                "is it whole, and a tar? tar tf lists one",
            )
        };
        let mut file = File::open(archive).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut head = [0; 8];
        let read = file.read(&mut head).map_err(failed)?;
        if let Some((_, kind)) = OTHERS.iter().find(|(magic, _)| head[..read].starts_with(magic)) {
            let message = format!("the archive is {kind}; its pictures cannot be read one by one");
            return Err(Error::files(&place, message, "unpack it, and name the folder; or make a plain .tar of it"));
        }
        file.seek(SeekFrom::Start(0)).map_err(failed)?;

        let (mut ranges, mut folders, mut left_out) = (BTreeMap::new(), Vec::new(), LeftOut::default());
        let mut tar = Archive::new(&file);
        for entry in tar.entries_with_seek().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let parts: Vec<String> =
                path.split('/').filter(|part| !matches!(*part, "" | ".")).map(str::to_owned).collect();
            let Some((name, above)) = parts.split_last() else { continue };
            if above.iter().any(|part| part.starts_with('.')) {
                left_out.hidden += 1;
                continue;
            }
            match entry.header().entry_type() {
                EntryType::Directory => folders.push(parts),
                EntryType::Regular | EntryType::Continuous => {
                    if picture_name(name, &format!("{place}: {path}"), &mut left_out).is_none() {
                        continue;
                    }
                    let (offset, length) = (entry.raw_file_position(), entry.size());
                    if offset.checked_add(length).is_none_or(|end| end > size) {
                        let message = format!("the archive ends within {path}");
                        return Err(Error::files(&place, message, "copy or download it anew"));
                    }
                    // Of two entries of one name the later counts, as for tar itself.
                    ranges.insert(parts, (offset, length));
                }
                // A link's target may lie anywhere; a sparse file's bytes do not lie together.
                _ => left_out.other(format!("{place}: {path}")),
            }
        }
        Ok(Self { place, file: Arc::new(file), ranges, folders, left_out })
    }

    fn item(&self, path: &[String]) -> Item {
        let (offset, length) = self.ranges.get(path).copied().unwrap_or_default();
        Item::range(format!("{}: {}", self.place, path.join("/")), self.file.clone(), offset, length)
    }
}

impl Source {
    /// All pictures of a tar, in the order of their paths, whatever their classes.
    pub fn tar(archive: &Path) -> Result<(Self, LeftOut)> {
        let mut contents = Contents::read(archive)?;
        let left_out = std::mem::take(&mut contents.left_out);
        let found = Found { pictures: contents.ranges.keys().cloned().collect(), left_out, ..Found::default() };
        found.all(&contents.place, |path| contents.item(path))
    }
}

impl Classes {
    /// The pictures of a tar, as of a [`folder`](Self::folder): the folders in the one that holds them all are the classes.
    ///
    /// A compressed archive is refused: pictures, which hardly shrink, could not be read out of order.
    pub fn tar(archive: &Path, options: &FolderOptions) -> Result<Self> {
        let mut contents = Contents::read(archive)?;
        let left_out = std::mem::take(&mut contents.left_out);
        let root: Vec<String> = match &options.under {
            Some(under) => under.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
            None => holding_all(contents.ranges.keys()),
        };
        let below = |path: &Vec<String>| path.strip_prefix(root.as_slice()).map(<[String]>::to_vec);
        let mut found = Found { left_out, ..Found::default() };
        found.pictures = contents.ranges.keys().filter_map(below).collect();
        found.folders = contents.folders.iter().filter_map(below).filter_map(|path| path.into_iter().next()).collect();
        found.folders.retain(|name| !name.starts_with('.'));
        let place = &contents.place;
        let inside = if root.is_empty() { place.clone() } else { format!("{place}: {}", root.join("/")) };
        found.classes(&inside, options.class_name, |path| contents.item(&[root.as_slice(), path].concat()))
    }
}

/// The deepest folder that holds all folders with pictures.
fn holding_all<'a>(mut pictures: impl Iterator<Item = &'a Vec<String>>) -> Vec<String> {
    let Some(first) = pictures.next() else { return Vec::new() };
    // Without the picture's name and the class.
    let mut root = &first[..first.len().saturating_sub(2)];
    for path in pictures {
        let above = &path[..path.len().saturating_sub(2)];
        let same = root.iter().zip(above).take_while(|(a, b)| a == b).count();
        root = &root[..same];
    }
    root.to_vec()
}
