//! What a task says of its pictures.

use fthost_plugin_api::schemars::{self, JsonSchema};
use serde::{Deserialize, Serialize};

/// What a task says of its pictures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PictureForm {
    /// Which folder names a class.
    pub class_folder: ClassFolder,
    /// The folder inside an archive that holds the classes, where it is said.
    pub under: Option<String>,
    /// What becomes of a file that is no picture.
    pub on_bad_image: OnBadImage,
    /// Whether each class turned by a quarter, a half and three quarters of a circle is a class of its own.
    pub rotate_classes: bool,
    /// What the levels of masks are.
    pub masks: MaskForm,
}

/// What the levels of masks are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaskForm {
    /// Names of the classes in index order; none where they are called by their indices.
    pub classes: Vec<String>,
    /// What pixels without a class have, where it is said.
    pub ignore_index: Option<u8>,
}

impl MaskForm {
    /// What pixels without a class have.
    pub fn void(&self) -> u8 {
        self.ignore_index.unwrap_or(u8::MAX)
    }
}

/// Which folder names a picture's class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClassFolder {
    /// The topmost: whatever lies in rose/... is a rose.
    #[default]
    Top,
    /// The whole path: Latin/character01 is a class.
    Path,
}

/// What becomes of a file that is no picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBadImage {
    /// The run ends, and names it.
    #[default]
    Stop,
    /// It is left out, and counted: every picture is decoded before training begins.
    Skip,
}
