//! Tokens become text as they come.

use crate::Result;
use crate::data::Tokenizer;

/// The text of tokens that come one by one. Told are whole characters only, and nothing that may turn out to be the text at which it stops.
pub(super) struct Streaming<'a> {
    tokenizer: &'a Tokenizer,
    /// Texts at which it stops.
    stops: &'a [String],
    ids: Vec<u32>,
    /// Where the tokens begin by which new ones are read: what a token stands for may depend on those before it.
    from: usize,
    /// Tokens whose text is known.
    read: usize,
    text: String,
    /// Bytes of the text that were told.
    told: usize,
    stopped: bool,
}

impl<'a> Streaming<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, stops: &'a [String]) -> Self {
        Self { tokenizer, stops, ids: Vec::new(), from: 0, read: 0, text: String::new(), told: 0, stopped: false }
    }

    /// Takes a token, and says whether the text stops with it.
    pub(super) fn push(&mut self, id: u32) -> Result<bool> {
        self.ids.push(id);
        let (before, all) = self.last()?;
        // A character of several tokens is one only with the last of them.
        if all.len() > before && !all.ends_with(char::REPLACEMENT_CHARACTER) {
            self.take(all.get(before..).unwrap_or_default());
        }
        Ok(self.stopped)
    }

    /// What can be told now, and was not before.
    pub(super) fn tell(&mut self) -> &str {
        let begins = |at: usize| self.stops.iter().any(|stop| stop.starts_with(&self.text[at..]));
        let until = match self.stopped {
            true => self.text.len(),
            false => {
                let mut places = self.text[self.told..].char_indices().map(|(at, _)| at + self.told);
                places.find(|&at| begins(at)).unwrap_or(self.text.len())
            }
        };
        let new = &self.text[self.told..until];
        self.told = until;
        new
    }

    /// The whole text, after the last token; what is left of it can be told before. A character that lacks tokens is left out.
    pub(super) fn end(&mut self) -> Result<()> {
        let (before, all) = self.last()?;
        if !self.stopped {
            let rest = all.get(before..).unwrap_or_default();
            self.take(rest.trim_end_matches(char::REPLACEMENT_CHARACTER));
        }
        self.stopped = true;
        Ok(())
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// The text of the last tokens, and the length of what is known of it.
    fn last(&self) -> Result<(usize, String)> {
        let before = self.tokenizer.text_of(&self.ids[self.from..self.read])?.len();
        Ok((before, self.tokenizer.text_of(&self.ids[self.from..])?))
    }

    fn take(&mut self, new: &str) {
        // What was told begins no stop.
        let from = self.told;
        self.text.push_str(new);
        (self.from, self.read) = (self.read, self.ids.len());
        let found = self.stops.iter().filter_map(|stop| self.text[from..].find(stop.as_str())).min();
        if let Some(at) = found {
            self.text.truncate(from + at);
            self.stopped = true;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::path::Path;

    use serde_json::json;

    use super::*;

    /// A tokenizer whose tokens are single bytes, as those of GPT-2 and its heirs name them.
    fn bytes(folder: &Path) -> Tokenizer {
        let path = folder.join("tokenizer.json");
        let mut vocabulary = serde_json::Map::new();
        // The letters that stand for bytes: printable ones for themselves, the others from U+0100 on.
        let mut others = 0;
        for byte in 0..=255u32 {
            let printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
            let letter = if printable { byte } else { 256 + others };
            others += u32::from(!printable);
            vocabulary.insert(char::from_u32(letter).unwrap().to_string(), byte.into());
        }
        let text = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
            "post_processor": null, "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
            "model": { "type": "BPE", "vocab": vocabulary, "merges": [] },
        });
        std::fs::write(&path, text.to_string()).unwrap();
        Tokenizer::load(&path, 512).unwrap()
    }

    /// What is told after each byte of `text`, the whole text, and whether it stopped.
    fn stream(text: &[u8], stops: &[&str]) -> (Vec<String>, String, bool) {
        let folder = tempfile::tempdir().unwrap();
        let (tokenizer, stops) = (bytes(folder.path()), stops.iter().map(|&stop| stop.to_owned()).collect::<Vec<_>>());
        let mut streaming = Streaming::new(&tokenizer, &stops);
        let (mut told, mut stopped) = (Vec::new(), false);
        for &byte in text {
            stopped = streaming.push(u32::from(byte)).unwrap();
            told.push(streaming.tell().to_owned());
            if stopped {
                break;
            }
        }
        streaming.end().unwrap();
        told.push(streaming.tell().to_owned());
        told.retain(|piece| !piece.is_empty());
        (told, streaming.into_text(), stopped)
    }

    #[test]
    fn characters_are_told_whole() {
        let (told, text, _) = stream("aé☃b".as_bytes(), &[]);
        assert_eq!((told, text.as_str()), (["a", "é", "☃", "b"].map(str::to_owned).to_vec(), "aé☃b"));
        let (told, text, _) = stream(&"a☃".as_bytes()[..3], &[]);
        assert_eq!((told.concat().as_str(), text.as_str()), ("a", "a"));
    }

    #[test]
    fn what_stops_a_text_is_never_told() {
        let (told, text, stopped) = stream(b"one\nQ: two", &["\nQ:"]);
        assert_eq!((told.concat().as_str(), text.as_str(), stopped), ("one", "one", true));
        // What only begins like it is told once that is clear.
        let (told, text, stopped) = stream(b"one\nQu", &["\nQ:"]);
        assert_eq!((told.concat().as_str(), text.as_str(), stopped), ("one\nQu", "one\nQu", false));
        assert_eq!(told.last().unwrap(), "\nQu");
        let (_, text, stopped) = stream(b"aab", &["ab", "b"]);
        assert_eq!((text.as_str(), stopped), ("a", true));
    }
}
