//! Reading and tokenizing data sets.
//!
//! [`load`] reads a file row by row ([`table`]), encodes the texts in parallel ([`text`]) and keeps token ids and targets only
//! ([`dataset`]). [`sampler`] says which examples come when.

pub mod dataset;
mod images;
pub mod sampler;
pub mod table;
pub mod text;

pub use dataset::{Dataset, Source, load};
pub use images::Part;
pub use sampler::{Sampler, split_micro_batches};
pub use table::Columns;
pub use text::Tokenizer;
