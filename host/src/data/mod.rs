//! Reading and tokenizing data sets.
//!
//! [`load`] reads a file row by row ([`table`]), encodes the texts in parallel ([`text`]) and keeps token ids, labels
//! and lines only: in memory while they are few, in a temporary file beyond ([`dataset`]). [`sampler`] says which
//! examples come when. Of pictures it keeps where they are, and shows what is seen of them ([`Shown`]).

mod arrow;
mod balanced;
mod bytes;
mod conll;
mod csv;
pub mod dataset;
mod distinct;
mod elements;
pub mod episodes;
mod extra;
mod files;
mod fingerprint;
#[cfg(test)]
mod fixtures;
mod folder;
mod folds;
mod form;
mod guess;
mod header;
mod input;
mod jsonl;
mod label_lists;
mod language;
mod lines;
mod load;
mod masked;
mod measured;
mod moments;
mod pairs;
mod parquet;
mod part;
mod peek;
pub mod permutation;
mod pictures;
mod prompts;
mod recognise;
pub mod row;
mod rows;
pub mod sampler;
mod scheme;
mod selection;
#[cfg(test)]
mod sides_tests;
mod source;
mod split;
mod store;
pub mod survey;
pub mod table;
pub mod text;
mod texts;
mod writer;

pub use balanced::{Balance, Balanced};
pub(crate) use bytes::{cache_folder, own_folder, unnamed_file};
pub use dataset::Dataset;
pub use episodes::Episodes;
pub use files::{Files, MASKS};
pub use fingerprint::fingerprint;
pub use folds::Fold;
pub use form::{Encoding, Form, Format, LanguageForm, LanguageModel, Learns, Quote, Score};
pub use header::Naming;
pub use label_lists::SEPARATOR;
pub use language::{Answered, Asked, Asker, Turn, Writing, pictures_beside};
pub(crate) use language::{ChatTemplate, GoTemplate, has_name as is_chat_template, template_text};
pub use load::{check, load, of_texts, unlabelled};
pub use measured::{Holds, Measured, passes};
pub use moments::Moments;
pub use part::Part;
pub use peek::{Column, Peek, peek};
pub use permutation::Permutation;
pub use pictures::{
    ClassFolder, Draws, MaskForm, MasksSeen, OnBadImage, PictureForm, PicturesSeen, Shown, has_rows, is_picture_file,
};
pub use row::Columns;
pub use sampler::{Sampler, Shuffled, split_micro_batches};
pub use source::Source;
pub use store::UNCOUNTED;
pub use survey::Survey;
pub use table::may_have_header;
pub use text::Tokenizer;
pub use text::settings::FILE as TOKENIZER_SETTINGS;
