//! Rows for language models: conversations, instructions, texts and how they go on; and the tokens of them that count.

mod asked;
mod conversation;
mod encode;
mod load;
mod objects;
mod template;

pub use asked::{Asked, Asker, Writing};
pub use conversation::Turn;
pub(in crate::data) use load::read;
pub(crate) use template::has_name;
