//! Pictures: where they come from, and what a model sees of them.
//!
//! Of a picture only its place is known ([`list`]) until it is asked for. Then it is read, decoded, changed as the task says and brought
//! to what the model takes: in evaluation always to the same, in training by random numbers that follow from the seed, the step and the
//! picture's place in the batch. So the bits depend neither on threads nor on what is made ahead.

pub(super) mod digits;
mod draws;
mod form;
mod idx;
pub(super) mod list;
mod masks;
mod parquet;
mod pixels;
mod seen;
mod shown;
mod views;

pub use draws::Draws;
pub use form::{ClassFolder, MaskForm, OnBadImage, PictureForm};
pub use list::{has_rows, is_picture_file};
pub(super) use masks::Masks;
pub(super) use pixels::Pictures;
pub use seen::{MasksSeen, PicturesSeen};
pub use shown::Shown;
