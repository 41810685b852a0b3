//! Rows for language models: conversations, instructions, texts and how they go on, pairs of answers; and the tokens of them that count.

mod answered;
mod asked;
mod beside;
mod conversation;
mod encode;
mod go_template;
mod load;
mod objects;
mod preferences;
mod template;

pub use answered::Answered;
pub use asked::{Asked, Asker, Writing};
pub use beside::pictures_beside;
pub use conversation::Turn;
pub(crate) use go_template::GoTemplate;
pub(in crate::data) use load::read;
pub(crate) use template::{ChatTemplate, has_name, text_of as template_text};
