//! Pictures for training: read lazily, decoded, described as a model asks for them, augmented, ahead of the step.
//!
//! ```no_run
//! use fthost_images::{Augment, Loader, Preprocess, Transform, decode, source::{Classes, FolderOptions}};
//! # fn uniform(_seed: u64, _epoch: u64, _example: u64, _draw: u64) -> f64 { 0.5 }
//!
//! # fn main() -> Result<(), fthost_images::Error> {
//! let flowers = Classes::folder("flowers/train".as_ref(), &FolderOptions::default())?;
//! let preprocess = Preprocess::from_model("efficientnet-lite0".as_ref())?;
//! let augment: Augment = serde_json::from_str(r#"["random_resized_crop", "flip"]"#).expect("a list of ops");
//! let transform = Transform::new(preprocess, augment)?;
//! let batches = vec![vec![0, 1, 2], vec![3, 4, 5]];
//! let work = move |index: &usize| {
//!     let bytes = flowers.source.read(*index)?;
//!     let picture = decode(&bytes, &flowers.source.name(*index), fthost_images::MAX_PIXELS)?;
//!     // A picture's random numbers follow from seed, epoch and example alone.
//!     let mut draw = 0..;
//!     let mut random = || uniform(1, 0, *index as u64, draw.next().unwrap_or(0));
//!     Ok::<_, fthost_images::Error>((transform.train(picture, None, &mut random), flowers.labels[*index]))
//! };
//! for batch in Loader::new(batches.into_iter(), work, 2, 4) {
//!     for example in batch {
//!         let (sample, label) = example?;
//!         // sample.input: f32 [height, width, channels]
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here draws random numbers: an op asks the caller's [`Random`] for them. So there is one generator in the host, and it
//! counts: the bits of a picture depend neither on threads nor on what was augmented before it.

pub mod augment;
mod decode;
mod error;
mod fault;
#[cfg(test)]
mod fixtures;
mod grey;
mod guard;
mod jpeg;
mod loader;
mod normalise;
mod orientation;
mod overlay;
mod plane;
mod png;
pub mod preprocess;
mod random;
mod resize;
mod show;
pub mod source;
mod transform;

pub use augment::Augment;
pub use decode::{Format, Header, MAX_PIXELS, decode, decode_mask, decode_over, decode_pair, header};
pub use error::{Error, Kind, Result};
pub use grey::grey;
pub use guard::guarded;
pub use loader::Loader;
pub use normalise::{Normalise, Normalised};
pub use orientation::turned;
pub use overlay::class_colour;
pub use plane::{Mask, Picture, Plane};
pub use preprocess::Preprocess;
pub use random::Random;
pub use resize::Filter;
pub use transform::{Sample, Transform};
