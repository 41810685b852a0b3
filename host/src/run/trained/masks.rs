//! Predicted masks as files: of each picture one whose levels are the indices of classes, and the picture with their colours over it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};

use fthost_images::Mask;

use crate::data::Dataset;
use crate::run::state::folder::cannot_write;
use crate::{Error, Result};

/// Pictures whose masks are held at once.
pub(super) const AT_ONCE: usize = 64;

/// A folder for predicted masks.
pub struct MaskFolder(PathBuf);

impl MaskFolder {
    /// The folder; it must not exist.
    ///
    /// # Errors
    /// Where it does.
    pub fn new(folder: &Path) -> Result<Self> {
        if folder.exists() {
            return Err(Error::usage(format!("{} exists, and nothing is overwritten", folder.display()))
                .with_help("name a folder that is not there"));
        }
        Ok(Self(folder.to_owned()))
    }

    /// Writes what is predicted of an example, in its picture's own size: `masks/NAME.png` and `overlays/NAME.png`.
    pub(super) fn write(&self, data: &Dataset, row: u32, mask: &Mask) -> Result<()> {
        let Some(picture) = data.picture(row)? else { return Ok(()) };
        let name = data.id(row)?.unwrap_or_else(|| format!("{:06}", row + 1));
        let mask = mask.at_size(picture.size());
        let write = |kind: &str, bytes: &[u8]| {
            let path = self.0.join(kind).join(inside(&name)).with_extension("png");
            let folder = path.parent().unwrap_or(&self.0);
            fs::create_dir_all(folder).map_err(cannot_write(folder))?;
            let file = OpenOptions::new().write(true).create_new(true).open(&path);
            file.and_then(|mut file| file.write_all(bytes)).map_err(cannot_write(&path))
        };
        write("masks", &mask.to_png())?;
        write("overlays", &picture.overlaid(&mask, None).to_png())
    }
}

/// A picture's name as a path that leads nowhere else.
fn inside(name: &str) -> PathBuf {
    let parts = Path::new(name).components().filter(|part| matches!(part, Component::Normal(_)));
    parts.collect()
}

/// The share of each class in a mask's pixels.
pub(super) fn shares(mask: &Mask, classes: usize) -> Vec<f32> {
    let mut counts = vec![0u64; classes];
    mask.pixels().iter().for_each(|[class]| counts[usize::from(*class)] += 1);
    let all = mask.pixels().len() as f64;
    counts.into_iter().map(|pixels| (pixels as f64 / all) as f32).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        for (name, path) in [("a/b.jpg", "a/b.jpg"), ("../../etc/x.png", "etc/x.png"), ("/abs/y", "abs/y")] {
            assert_eq!(inside(name), Path::new(path));
        }
        let mask = Mask::new(1, 4, vec![[0], [2], [2], [2]]).unwrap();
        assert_eq!(shares(&mask, 3), [0.25, 0.0, 0.75]);
    }
}
