//! What is in a folder or an archive of pictures, for who begins.

use std::path::Path;

use fthost_images::source::{Classes, FolderOptions, Pairs, Source};
use fthost_images::{MAX_PIXELS, decode_mask};

use crate::Result;
use crate::data::files::Files;

/// The classes of pictures that nobody has said anything of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PicturesSeen {
    /// Each class and how many pictures it has.
    pub classes: Vec<(String, usize)>,
    /// What their masks are, where they have some and no classes.
    pub masks: Option<MasksSeen>,
    /// Sentences about what was passed over.
    pub notes: Vec<String>,
}

/// Masks beside pictures, of which some have been looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasksSeen {
    /// Pictures.
    pub pictures: usize,
    /// Masks that were looked at.
    pub looked_at: usize,
    /// The levels that occur in these, ascending.
    pub levels: Vec<u8>,
    /// Height and width of the first picture.
    pub size: (usize, usize),
}

/// Masks that are looked at.
const LOOKED_AT: usize = 200;

impl MasksSeen {
    fn of(images: &Path, masks: &Path) -> Result<Self> {
        let Pairs { pictures, masks, .. } = Pairs::folders(images, masks)?;
        let (looked_at, mut there) = (masks.len().min(LOOKED_AT), [false; 256]);
        for number in 0..looked_at {
            let mask = decode_mask(&masks.read(number)?, masks.name(number), MAX_PIXELS)?;
            mask.bytes().iter().for_each(|&level| there[usize::from(level)] = true);
        }
        let levels = (0..=u8::MAX).filter(|&level| there[usize::from(level)]).collect();
        let header = pictures.header(0)?;
        Ok(Self { pictures: pictures.len(), looked_at, levels, size: (header.height, header.width) })
    }
}

impl PicturesSeen {
    /// Looks at a folder or a tar; `None` where it holds none, or more of something else.
    ///
    /// # Errors
    /// Pictures that lie in no folder of a class, and a class without a picture.
    pub fn of(path: &Path) -> Result<Option<Self>> {
        if let Some((images, masks)) = Files::folders_of_masks(path) {
            let masks = Some(MasksSeen::of(&images, &masks)?);
            return Ok(Some(Self { classes: Vec::new(), masks, notes: Vec::new() }));
        }
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
        Ok(Some(Self { classes, masks: None, notes: notes.into_iter().collect() }))
    }
}
