//! A folder in which each file is a text, in a folder for each class: as 20 Newsgroups, IMDB's reviews and SpamAssassin's mails are
//! published. A folder of files alone holds texts without labels, or those of one class.
//!
//! Hidden files are passed over, and so are files beside the classes' folders, which say what the data set is. A row's line is the number
//! of its file, from 1, class by class and by name; `columns = { id = "file" }` calls it by its file's name.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use super::arrow::Saved;
use super::form::Encoding;
use super::input::{Input, read_error};
use super::row::{Columns, Labels, Role, Row, data_error};
use crate::report::numbers::count;
use crate::{Error, Result};

/// The one column that such a folder has: the names of its files.
pub(super) const FILE: &str = "file";
/// Bytes of a file that is a text.
const LONGEST: u64 = 1 << 26;

/// The texts of a folder, one after the other.
pub(super) struct TextFolder {
    files: IntoIter<(String, PathBuf)>,
    folder: PathBuf,
    encoding: Encoding,
    ids: bool,
    number: u64,
}

/// What stands in a folder by name, without what is hidden: its folders and its files.
fn entries(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let failed = || Error::io(format!("cannot read the folder {}", folder.display()));
    let entries = fs::read_dir(folder).map_err(failed())?;
    let mut paths = entries.map(|entry| Ok(entry.map_err(failed())?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')));
    paths.sort();
    Ok(paths.into_iter().partition(|path| path.is_dir()))
}

/// The files of a folder: of its classes' folders, where it has some, each with its class.
///
/// # Errors
/// Where it cannot be read, a class has no file, or a folder of a class has folders.
pub(super) fn files(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let (classes, files) = entries(folder)?;
    if classes.is_empty() {
        return Ok(files.into_iter().map(|file| (String::new(), file)).collect());
    }
    let mut all = Vec::new();
    for class in classes {
        let (inner, files) = entries(&class)?;
        if let Some(inner) = inner.first() {
            return Err(data_error(&class, None, format!("holds a folder, {}", inner.display()))
                .with_help("a folder of texts has a folder for each class, and these have files alone; else name one file, or a folder that `datasets` saved"));
        }
        if files.is_empty() {
            return Err(data_error(&class, None, "is a class without a file").with_help("fill it, or remove it"));
        }
        let name = class.file_name().unwrap_or_default().to_string_lossy().into_owned();
        all.extend(files.into_iter().map(|file| (name.clone(), file)));
    }
    Ok(all)
}

/// Whether it is a folder, and none that `datasets` saved.
pub(super) fn is_of_texts(path: &Path) -> bool {
    path.is_dir() && !Saved::is(path)
}

impl TextFolder {
    /// Lists the files. With `labels` each stands in the folder of its class.
    ///
    /// # Errors
    /// As [`files`]; columns other than `id = "file"`; labels that are to be read where there are no folders of classes.
    pub(super) fn open(folder: &Path, columns: &Columns, labels: Labels, encoding: Encoding) -> Result<Self> {
        let other = [&columns.text, &columns.text_pair, &columns.label, &columns.weight, &columns.group, &columns.part];
        if other.into_iter().any(Option::is_some) || columns.id.as_ref().is_some_and(|id| id != FILE) {
            return Err(data_error(folder, None, "is a folder of texts, and has no columns")
                .with_help("take columns out of the task; columns = { id = \"file\" } alone has a meaning here"));
        }
        let files = files(folder)?;
        if files.is_empty() {
            return Err(
                data_error(folder, None, "is an empty folder").with_help("name a file, or a folder with texts in it")
            );
        }
        if labels == Labels::Read && files.iter().any(|(class, _)| class.is_empty()) {
            return Err(data_error(folder, None, "is a folder of files, and no data set that `datasets` saved")
                .with_help(format!(
                    "name one of the files, or a folder that has a folder of texts for each class; {}",
                    super::form::FORMATS
                )));
        }
        let ids = columns.extra(labels).any(|(role, _)| role == Role::Id);
        Ok(Self { files: files.into_iter(), folder: folder.to_owned(), encoding, ids, number: 0 })
    }

    /// What was recognised, in a sentence.
    pub(super) fn note(&self) -> String {
        let named = self.files.as_slice().first().is_some_and(|(class, _)| !class.is_empty());
        let classes = if named { ", its class is its folder's name" } else { "" };
        format!("{}: a text in each of {} files{classes}", self.folder.display(), count(self.files.len()))
    }

    /// Keeps so many files at most, from all over the folder; whether these are all.
    pub(super) fn keep(&mut self, most: usize) -> bool {
        let step = self.files.len().div_ceil(most).max(1);
        self.files = self.files.by_ref().step_by(step).collect::<Vec<_>>().into_iter();
        step == 1
    }

    /// The next text.
    pub(super) fn next_row(&mut self) -> Result<Option<Row>> {
        let Some((label, path)) = self.files.next() else { return Ok(None) };
        self.number += 1;
        let mut bytes = Vec::new();
        let input = Input::open(&path, self.encoding)?;
        input.into_reader().take(LONGEST + 1).read_to_end(&mut bytes).map_err(|error| read_error(&path, error))?;
        if bytes.len() as u64 > LONGEST {
            return Err(data_error(&path, None, format!("is a text of more than {} MB", LONGEST >> 20))
                .with_help("each file in this folder is one example"));
        }
        let text = String::from_utf8(bytes).map_err(|_| {
            data_error(&path, None, "is not valid UTF-8").with_help(
                "say what it is in the task: encoding = \"latin-1\" or \"windows-1252\"; or convert the files",
            )
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text).trim_end().to_owned();
        let id = || path.strip_prefix(&self.folder).unwrap_or(&path).display().to_string();
        let extra = self.ids.then(id).into_iter().collect();
        Ok(Some(Row { line: self.number, text, label, extra, ..Row::default() }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    fn read(folder: &Path, columns: &Columns, labels: Labels) -> Result<Vec<Row>> {
        let mut texts = TextFolder::open(folder, columns, labels, Encoding::Utf8)?;
        std::iter::from_fn(|| texts.next_row().transpose()).collect()
    }

    #[test]
    fn each_file_is_a_text_of_the_class_that_its_folder_says() {
        let folder = folder(&[
            ("pos/2.txt", b"good\nfilm\n"),
            ("pos/10.txt", b"\xef\xbb\xbffine"),
            ("neg/1.txt", b""),
            ("neg/.hidden", b"x"),
            ("urls.txt", b"x"),
        ]);
        let columns = Columns { id: Some("file".into()), ..Columns::default() };
        let rows = read(folder.path(), &columns, Labels::Read).unwrap();
        let rows: Vec<_> =
            rows.iter().map(|r| (r.line, r.label.as_str(), r.text.as_str(), r.extra[0].as_str())).collect();
        assert_eq!(
            rows,
            [(1, "neg", "", "neg/1.txt"), (2, "pos", "fine", "pos/10.txt"), (3, "pos", "good\nfilm", "pos/2.txt")]
        );
        let of_one = read(&folder.path().join("pos"), &Columns::default(), Labels::Unread).unwrap();
        assert_eq!(of_one.iter().map(|row| row.text.as_str()).collect::<Vec<_>>(), ["fine", "good\nfilm"]);
    }

    #[test]
    fn what_is_no_such_folder_is_refused() {
        let said = |folder: &Path, columns: &Columns| read(folder, columns, Labels::Read).unwrap_err().to_string();
        let none = Columns::default();
        for (files, expected) in [
            (&[("a.txt", &b"x"[..])][..], "is a folder of files, and no data set"),
            (&[("pos/in/a.txt", b"x"), ("neg/a.txt", b"x")], "holds a folder"),
            (&[("pos/.hidden", b"x"), ("neg/a.txt", b"x")], "is a class without a file"),
            (&[("pos/a.txt", b"caf\xe9"), ("neg/a.txt", b"x")], "a.txt: is not valid UTF-8"),
            (&[], "is an empty folder"),
        ] {
            let folder = folder(files);
            let error = said(folder.path(), &none);
            assert!(error.contains(expected), "{error}");
        }
        let folder = folder(&[("pos/a.txt", b"x")]);
        let error = said(folder.path(), &Columns { label: Some("gold".into()), ..none });
        assert!(error.contains("has no columns"), "{error}");
    }
}
