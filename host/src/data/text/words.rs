//! Texts that come as words: which token begins each.
//!
//! As Transformers' token classification has it: a word's label belongs to its first token; its further tokens and special ones
//! do not count.

use std::collections::BTreeSet;

use fthost_images::guarded;
use rayon::prelude::*;
use tokenizers::{Encoding, PostProcessor, PreTokenizerWrapper, TruncationDirection};

use super::super::store::UNCOUNTED;
use super::{BYTES_PER_TOKEN, DAMAGED, MARGIN, Tokenizer, Tokens, keep, part};
use crate::Result;

impl Tokenizer {
    /// Encodes lists of words on all cores; the answers are in order. No token reaches over two words. Words that come after the
    /// longest length, and those that the tokenizer makes nothing of, begin no token.
    pub fn encode_words(&self, texts: &[&[String]]) -> Result<Vec<Tokens>> {
        texts.par_iter().with_min_len(16).map(|words| self.encode_list(words)).collect()
    }

    fn encode_list(&self, words: &[String]) -> Result<Tokens> {
        let failed = || Err(self.failed(&words.join(" "), &DAMAGED.into()));
        guarded(|| self.encode_each(words)).unwrap_or_else(failed)
    }

    fn encode_each(&self, words: &[String]) -> Result<Tokens> {
        let (mut encoding, first, looked_at) = self.encode_some(words)?;
        let special = self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        let tokens = encoding.len();
        let of_words: BTreeSet<u32> = encoding.get_word_ids().iter().flatten().map(|word| word + first).collect();
        let kept = tokens.min(self.max_tokens.saturating_sub(special));
        keep(&mut encoding, kept, self.side);
        let encoding =
            self.inner.post_process(encoding, None, true).map_err(|error| self.failed(&words.join(" "), &error))?;
        let mut last = None;
        let begins = encoding.get_word_ids().iter().map(|&word| {
            let begins = word.filter(|_| word != last);
            last = word;
            begins.map_or(UNCOUNTED, |word| word + first)
        });
        let begins: Vec<u32> = begins.collect();
        let kept_words: BTreeSet<u32> = begins.iter().copied().collect();
        let seen = first..first + looked_at as u32;
        // What was not looked at is cut off, and of the rest what had tokens.
        let cut = (0..words.len() as u32)
            .filter(|word| !seen.contains(word) || (of_words.contains(word) && !kept_words.contains(word)));
        Ok(Tokens {
            cut: cut.collect(),
            begins,
            ids: encoding.get_ids().to_vec(),
            types: self.types(&encoding),
            truncated: kept < tokens,
        })
    }

    /// Tokens of the words without special tokens: of all, or of as many, from the side that is kept, as the longest length can
    /// need; the place of the first of these words, and how many they are.
    fn encode_some(&self, words: &[String]) -> Result<(Encoding, u32, usize)> {
        let wanted = self.max_tokens.saturating_add(MARGIN);
        let space = if self.needs_spaces() { " " } else { "" };
        let mut looked_at = wanted;
        loop {
            let some = match self.side {
                TruncationDirection::Right => &words[..looked_at.min(words.len())],
                TruncationDirection::Left => &words[words.len().saturating_sub(looked_at)..],
            };
            let all = some.len() == words.len();
            let first = if self.side == TruncationDirection::Left { words.len() - some.len() } else { 0 };
            let bytes = wanted.saturating_mul(BYTES_PER_TOKEN);
            let some: Vec<String> =
                some.iter().map(|word| format!("{space}{}", part(word, bytes, self.side))).collect();
            let encoded = self.inner.encode(some, false); // the fast way does not tell words
            let mut encoding = encoded.map_err(|error| self.failed(&words.join(" "), &error))?;
            encoding.take_overflowing();
            if all || encoding.len() >= wanted {
                return Ok((encoding, first as u32, looked_at.min(words.len())));
            }
            looked_at = looked_at.saturating_mul(2);
        }
    }

    /// Whether the tokenizer knows a word's beginning by the space before it, which words by themselves have not. Transformers'
    /// token classification asks for `add_prefix_space` there.
    fn needs_spaces(&self) -> bool {
        matches!(self.inner.get_pre_tokenizer(), Some(PreTokenizerWrapper::ByteLevel(bytes)) if !bytes.add_prefix_space)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::tests::write_tokenizer;
    use super::*;

    const NONE: u32 = UNCOUNTED;

    fn words(text: &str) -> Vec<String> {
        text.split('|').map(str::to_owned).collect()
    }

    #[test]
    fn a_word_is_marked_at_its_first_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_tokenizer(folder.path(), true);
        let check = |max_tokens, text: &str, ids: &[u32], begins: &[u32], truncated| {
            let words = words(text);
            let tokens = Tokenizer::load(&path, max_tokens).unwrap().encode_words(&[&words]).unwrap().remove(0);
            assert_eq!((tokens.ids.as_slice(), tokens.begins.as_slice()), (ids, begins), "{text}");
            assert_eq!((tokens.types, tokens.truncated), (vec![0; ids.len()], truncated), "{text}");
        };
        check(8, "a|b", &[1, 3, 4, 2], &[NONE, 0, 1, NONE], false);
        // Words of several tokens, of none, and unknown ones.
        check(8, "a b|c", &[1, 3, 4, 5, 2], &[NONE, 0, NONE, 1, NONE], false);
        check(8, "a||b", &[1, 3, 4, 2], &[NONE, 0, 2, NONE], false);
        check(8, "x|a", &[1, 0, 3, 2], &[NONE, 0, 1, NONE], false);
        check(8, " |", &[1, 2], &[NONE, NONE], false);
        // Cut within a word and between words.
        check(5, "a|b c d|a", &[1, 3, 4, 5, 2], &[NONE, 0, 1, NONE, NONE], true);
        check(4, "a|b|c", &[1, 3, 4, 2], &[NONE, 0, 1, NONE], true);
    }

    #[test]
    fn words_that_are_cut_off_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_tokenizer(folder.path(), true);
        let cut = |max_tokens, text: &str| {
            let words = words(text);
            Tokenizer::load(&path, max_tokens).unwrap().encode_words(&[&words]).unwrap().remove(0).cut
        };
        assert_eq!(cut(8, "a|b||c"), [0; 0]);
        // A word of which a token is left is not cut off, and one without a token cannot be.
        assert_eq!(cut(5, "a|b c d||a|b"), [3, 4]);
        let many = vec!["a"; 1000].join("|");
        assert_eq!(cut(5, &many), (3..1000).collect::<Vec<u32>>());
        std::fs::write(folder.path().join(super::super::settings::FILE), "{\"truncation_side\": \"left\"}").unwrap();
        assert_eq!(cut(5, "a|b c d|a"), [0]);
        assert_eq!(cut(5, &many), (0..997).collect::<Vec<u32>>());
    }

    /// However many words make nothing: those after them are found, and the rest is not looked at.
    #[test]
    fn many_words_are_looked_at_as_far_as_needed() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = Tokenizer::load(&write_tokenizer(folder.path(), true), 8).unwrap();
        let mut many = vec![" ".to_owned(); 1000];
        many.extend(["a".to_owned(), "b ".repeat(1 << 20)]);
        many.extend(vec!["c".to_owned(); 1 << 20]);
        let tokens = tokenizer.encode_words(&[&many]).unwrap().remove(0);
        assert_eq!(tokens.ids, [1, 3, 4, 4, 4, 4, 4, 2]);
        assert_eq!(tokens.begins, [NONE, 1000, 1001, NONE, NONE, NONE, NONE, NONE]);
        assert!(tokens.truncated);
    }

    /// A word of which the first tokens are cut off is marked at the first that is left, as Transformers' word_ids have it.
    #[test]
    fn words_are_cut_on_the_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_tokenizer(folder.path(), true);
        std::fs::write(folder.path().join(super::super::settings::FILE), "{\"truncation_side\": \"left\"}").unwrap();
        let check = |words: &[String], ids: &[u32], begins: &[u32]| {
            let tokens = Tokenizer::load(&path, 5).unwrap().encode_words(&[words]).unwrap().remove(0);
            assert_eq!((tokens.ids.as_slice(), tokens.begins.as_slice()), (ids, begins));
        };
        check(&words("a|b"), &[1, 3, 4, 2], &[NONE, 0, 1, NONE]);
        check(&words("a|b c d|a"), &[1, 5, 6, 3, 2], &[NONE, 1, NONE, 2, NONE]);
        let mut many = vec!["a".to_owned(); 100_000];
        many.extend(words("b|c d"));
        check(&many, &[1, 4, 5, 6, 2], &[NONE, 100_000, 100_001, NONE, NONE]);
    }

    /// RoBERTa's: a word inside of a sentence begins with the space before it.
    #[test]
    fn bytes_know_a_word_by_its_space() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let tokenizer = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": bytes, "post_processor": null, "decoder": null,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "fuse_unk": false, "byte_fallback": false,
                "vocab": {"a": 0, "Ġ": 1, "Ġa": 2}, "merges": ["Ġ a"],
            },
        });
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, tokenizer.to_string()).unwrap();
        let tokenizer = Tokenizer::load(&path, 8).unwrap();
        let tokens = tokenizer.encode_words(&[&words("a|aa")]).unwrap().remove(0);
        assert_eq!((tokens.ids, tokens.begins), (vec![2, 2, 0], vec![0, 1, NONE]));
    }
}
