//! What is in a folder or an archive of pictures, for who begins.

use std::path::Path;

use fthost_images::source::{Classes, FolderOptions, Source};

use crate::Result;

/// The classes of pictures that nobody has said anything of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PicturesSeen {
    /// Each class and how many pictures it has.
    pub classes: Vec<(String, usize)>,
    /// Sentences about what was passed over.
    pub notes: Vec<String>,
}

impl PicturesSeen {
    /// Looks at a folder or a tar; `None` where it holds none, or more of something else.
    ///
    /// # Errors
    /// Pictures that lie in no folder of a class, and a class without a picture.
    pub fn of(path: &Path) -> Result<Option<Self>> {
        let is_tar = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("tar"));
        let options = FolderOptions::default();
        let found = if path.is_dir() {
            // A folder of texts may hold a picture.
            match Source::folder(path) {
                Ok((pictures, left_out)) if pictures.len() > left_out.others => Classes::folder(path, &options)?,
                _ => return Ok(None),
            }
        } else if is_tar && path.is_file() {
            Classes::tar(path, &options)?
        } else {
            return Ok(None);
        };
        let count = |class: usize| found.labels.iter().filter(|&&label| label as usize == class).count();
        let classes = found.names.iter().enumerate().map(|(class, name)| (name.clone(), count(class))).collect();
        let passed_over = found.left_out.others + found.left_out.classless;
        let notes = (passed_over > 0).then(|| format!("{passed_over} files in it are no pictures of a class"));
        Ok(Some(Self { classes, notes: notes.into_iter().collect() }))
    }
}
