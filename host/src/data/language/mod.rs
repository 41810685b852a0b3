//! Rows for language models: conversations, instructions, texts and how they go on, pairs of answers; and the tokens of them that count.

mod conversation;
mod encode;
mod load;
mod objects;
mod preferences;
mod template;

pub(in crate::data) use load::read;
pub(crate) use template::has_name;
