//! What can be wrong with a picture's bytes, and what a user is told of it.

use image::ImageError;

use crate::error::Error;

/// What is wrong with a file's bytes.
pub(crate) enum Fault {
    /// It is nothing that is read here; what it seems to be, if that can be told.
    NoPicture(Option<&'static str>),
    /// It ends before its pixels do.
    Truncated,
    /// A decoder's words.
    Broken(String),
    /// More pixels than the limit.
    TooLarge { height: usize, width: usize, limit: u64 },
    /// A mask without indices, and why.
    NoIndices(&'static str),
    /// The decoder failed.
    Panic,
}

impl Fault {
    pub(crate) fn broken(error: impl ToString) -> Self {
        // Decoders' debug output ends in a line feed here and there.
        Self::Broken(error.to_string().trim().to_owned())
    }

    pub(crate) fn at(self, place: &str) -> Error {
        const ANEW: &str = "copy or download it anew, or leave it out (on_bad_image = \"skip\")";
        let (message, help): (String, &str) = match self {
            Self::NoPicture(None) => (
                "this is no picture: its content is none of JPEG, PNG, WebP, GIF and BMP".into(),
                "convert it, or leave it out (on_bad_image = \"skip\")",
            ),
            Self::NoPicture(Some(kind)) => (
                format!("this is {kind}, which is not read"),
                "convert it to PNG or JPEG, or leave it out (on_bad_image = \"skip\")",
            ),
            Self::Truncated => ("the picture is cut off: its file ends before its pixels do".into(), ANEW),
            Self::Broken(words) => (format!("the picture is damaged: {words}"), ANEW),
            Self::TooLarge { height, width, limit } => (
                format!("its header says {width} x {height} pixels, more than the limit of {limit}"),
                "it may be made to fill memory; shrink it if it is a picture, or raise the limit (max_pixels)",
            ),
            Self::NoIndices(why) => (
                format!("this is no mask: {why}"),
                "a mask is a PNG, grey or with a palette, whose values are the indices of classes",
            ),
            Self::Panic => ("the picture is damaged: its decoder gave up".into(), ANEW),
        };
        Error::picture(place, message, help)
    }
}

impl From<ImageError> for Fault {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Self::Truncated,
            error => Self::broken(error),
        }
    }
}
