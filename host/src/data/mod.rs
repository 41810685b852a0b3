//! Reading and tokenizing data sets.
//!
//! [`load`] reads a file row by row ([`table`]), encodes the texts in parallel ([`text`]) and keeps token ids, labels
//! and lines only: in memory while they are few, in a temporary file beyond ([`dataset`]). [`sampler`] says which
//! examples come when.

mod again;
mod bytes;
mod csv;
pub mod dataset;
mod distinct;
pub mod episodes;
mod fingerprint;
#[cfg(test)]
mod fixtures;
mod guard;
mod header;
mod images;
mod jsonl;
mod lines;
mod load;
mod parquet;
pub mod permutation;
pub mod row;
pub mod sampler;
mod selection;
mod split;
mod store;
pub mod table;
pub mod text;

pub use again::{Again, counted_words};
pub(crate) use bytes::cache_folder;
pub use dataset::Dataset;
pub use episodes::Episodes;
pub use fingerprint::fingerprint;
pub use images::Part;
pub use load::{Block, Source, check, load, unlabelled};
pub use permutation::Permutation;
pub use row::{Columns, Row};
pub use sampler::{Sampler, Shuffled, split_micro_batches};
pub use store::UNCOUNTED;
pub use table::may_have_header;
pub use text::Tokenizer;
pub use text::settings::FILE as TOKENIZER_SETTINGS;
