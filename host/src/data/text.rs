//! Texts to token ids, by the model's tokenizer.json and what tokenizer_config.json says beside it, or by the tokenizer that comes in one
//! file with the model's weights.

mod language;
pub(crate) mod settings;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fthost_images::guarded;
use fthost_models::FileTokenizer;
use rayon::prelude::*;
use tokenizers::{Encoding, PostProcessor, TruncationDirection, TruncationParams};

use super::row::{data_error, shortened};
use crate::{Error, Result};
pub(in crate::data) use language::WordSigns;
use settings::Settings;

/// Tokens beyond the longest length that are made of a text that has more: where its beginning ends, tokens may differ
/// from those of the whole text.
const MARGIN: usize = 64;
/// Bytes of a text that are looked at first, per token that is wanted.
const BYTES_PER_TOKEN: usize = 16;

/// A model's tokenizer: special tokens are added, texts are cut to the longest length, nothing is padded.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    /// What tokenizer_config.json allows.
    longest: usize,
    /// Tokens of the longest text, special ones included.
    max_tokens: usize,
    /// The side where texts are cut.
    side: TruncationDirection,
    /// Whether the texts of a pair are told apart.
    token_types: bool,
    /// Its tokens with a part of their own, by Transformers' names of these: `eos_token`.
    special: BTreeMap<String, String>,
    /// The template of chats that comes with it, and where that is from.
    template: Option<(String, PathBuf)>,
}

/// What a text became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Token ids, `[tokens]`.
    pub ids: Vec<u32>,
    /// Segment of each token, `[tokens]`: 1 in the second text of a pair, where the tokenizer tells them apart.
    pub types: Vec<u32>,
    /// Whether tokens were cut off.
    pub truncated: bool,
    /// Of a text that comes as words, the place of the word that each token begins, `[tokens]`, or `u32::MAX`; empty of others.
    pub begins: Vec<u32>,
    /// The places of the words that are cut off, ascending.
    pub cut: Vec<u32>,
}

impl Tokens {
    /// The places of those of so many words that the tokenizer makes nothing of, ascending.
    pub fn silent(&self, words: usize) -> Vec<u32> {
        let mut silent = vec![true; words];
        for &word in self.begins.iter().chain(&self.cut) {
            if let Some(silent) = silent.get_mut(word as usize) {
                *silent = false;
            }
        }
        (0..).zip(silent).filter_map(|(word, silent)| silent.then_some(word)).collect()
    }
}

impl Tokenizer {
    /// Reads a tokenizer.json, or the tokenizer that is in a file of weights. Texts become at most `max_tokens` tokens, special ones included; of a pair the longer
    /// text is cut first. What tokenizer_config.json says beside it is done as Transformers' AutoTokenizer does it.
    ///
    /// # Errors
    /// Where a file is missing or broken, or says what is not understood, or where the longest length leaves no room for a text.
    pub fn load(path: &Path, max_tokens: usize) -> Result<Self> {
        let wrong = |message: String, help: String| Error::Data {
            file: path.to_owned(),
            line: None,
            message,
            help: Some(help),
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        let save = format!(
            "save it beside the model from Python: AutoTokenizer.from_pretrained(\"<the model's name>\").save_pretrained(\"{}\")",
            folder.display()
        );
        let bytes = read(path)?.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                let old = if folder.join("vocab.txt").exists() || folder.join("vocab.json").exists() {
                    " (the vocabulary file alone does not say how texts are split)"
                } else {
                    ""
                };
                wrong(format!("there is no such file; a model that reads text needs its tokenizer{old}"), save.clone())
            }
            _ => wrong(format!("cannot be read: {error}"), "check the permissions of the file and its folders".into()),
        })?;
        let (bytes, in_file) = bytes;
        let mut inner =
            parse(&bytes).map_err(|error| wrong(format!("is no tokenizer that can be read: {error}"), save.clone()))?;
        let settings = Settings::read(folder)?;
        settings.apply(&mut inner)?;
        let (special, template) = match in_file {
            Some(found) => {
                let special = found.special.into_iter().map(|(name, token)| (name.to_owned(), token)).collect();
                (special, found.template.map(|template| (template, path.to_owned())))
            }
            None => (settings.special(), settings.template(folder)?),
        };
        let (side, token_types) = (settings.side(&inner)?, settings.token_types()?);
        let longest = settings.longest()?.unwrap_or(usize::MAX);
        let mut tokenizer =
            Self { inner, path: path.to_owned(), longest, max_tokens, side, token_types, special, template };
        let special = tokenizer.special();
        if longest <= special {
            let message =
                format!("model_max_length is {longest}, and the tokenizer alone adds up to {special} special tokens");
            return Err(data_error(settings.file(), None, message).with_help("raise it, or take it out"));
        }
        tokenizer.inner.with_padding(None);
        tokenizer.cut_to(max_tokens)?;
        Ok(tokenizer)
    }

    /// From now on texts become at most `max_tokens` tokens, special ones included. Reading a vocabulary anew for that takes long.
    ///
    /// # Errors
    /// Where that leaves no room for a text.
    pub fn cut_to(&mut self, max_tokens: usize) -> Result<()> {
        let special = self.special();
        if max_tokens <= special {
            return Err(Error::Usage {
                message: format!(
                    "max_tokens is {max_tokens}, and the tokenizer alone adds up to {special} special tokens"
                ),
                help: Some("raise max_tokens".into()),
            });
        }
        self.max_tokens = max_tokens.min(self.longest);
        let truncation = TruncationParams {
            max_length: self.max_tokens.saturating_add(MARGIN),
            direction: self.side,
            ..TruncationParams::default()
        };
        self.inner
            .with_truncation(Some(truncation))
            .map_err(|error| data_error(&self.path, None, error.to_string()).with_help("raise max_tokens"))?;
        Ok(())
    }

    /// Tokens that are added to a pair of texts.
    fn special(&self) -> usize {
        self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(true))
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The longest length, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Whether texts are cut on the left.
    pub fn cuts_left(&self) -> bool {
        self.side == TruncationDirection::Left
    }

    /// Encodes texts, or pairs of texts, on all cores; the answers are in order.
    ///
    /// An answer may be empty: a tokenizer without special tokens makes nothing of an empty text.
    pub fn encode(&self, texts: &[(&str, Option<&str>)]) -> Result<Vec<Tokens>> {
        texts.par_iter().with_min_len(16).map(|&(text, pair)| self.encode_one(text, pair)).collect()
    }

    /// Token ids of a text without special tokens, as many as the longest length at most.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = guarded(|| self.encode_kept(text));
        let encoding = encoding.unwrap_or_else(|| Err(self.failed(text, &DAMAGED.into())))?;
        Ok(encoding.get_ids()[..encoding.len().min(self.max_tokens)].to_vec())
    }

    /// The segment of each token.
    fn types(&self, encoding: &Encoding) -> Vec<u32> {
        if self.token_types { encoding.get_type_ids().to_vec() } else { vec![0; encoding.len()] }
    }

    fn failed(&self, text: &str, error: &tokenizers::Error) -> Error {
        Error::Data {
            file: self.path.clone(),
            line: None,
            message: format!("the tokenizer failed on {:?}: {error}", shortened(text)),
            help: None,
        }
    }

    fn encode_one(&self, text: &str, pair: Option<&str>) -> Result<Tokens> {
        guarded(|| self.encode_pair(text, pair)).unwrap_or_else(|| Err(self.failed(text, &DAMAGED.into())))
    }

    fn encode_pair(&self, text: &str, pair: Option<&str>) -> Result<Tokens> {
        let mut first = self.encode_kept(text)?;
        let mut second = pair.map(|pair| self.encode_kept(pair)).transpose()?;
        let special = self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(pair.is_some()));
        let lengths = (first.len(), second.as_ref().map_or(0, Encoding::len));
        let kept = cut_longest(lengths, self.max_tokens.saturating_sub(special));
        keep(&mut first, kept.0, self.side);
        if let Some(second) = &mut second {
            keep(second, kept.1, self.side);
        }
        let encoding = self.inner.post_process(first, second, true).map_err(|error| self.failed(text, &error))?;
        Ok(Tokens {
            ids: encoding.get_ids().to_vec(),
            types: self.types(&encoding),
            truncated: kept != lengths,
            begins: Vec::new(),
            cut: Vec::new(),
        })
    }

    /// Tokens of a text without special tokens: all, or where there are more, some beyond the longest length.
    ///
    /// Of a long text only the beginning is looked at, or the end where beginnings are cut off: the tokenizer keeps some hundred
    /// bytes for each byte of its text. Tokens depend on what stands near them, so the margin makes up for the cut.
    fn encode_kept(&self, text: &str) -> Result<Encoding> {
        let wanted = self.max_tokens.saturating_add(MARGIN);
        let mut bytes = wanted.saturating_mul(BYTES_PER_TOKEN);
        loop {
            let part = part(text, bytes, self.side);
            let mut encoding = self.inner.encode_fast(part, false).map_err(|error| self.failed(text, &error))?;
            encoding.take_overflowing();
            if part.len() == text.len() || encoding.len() >= wanted {
                return Ok(encoding);
            }
            bytes = bytes.saturating_mul(2);
        }
    }
}

/// What is said of a file on which the tokenizers crate panics.
const DAMAGED: &str = "its parts do not fit together";

/// A tokenizer.json, or what it would say of the tokenizer in a file of weights.
fn read(path: &Path) -> Result<std::io::Result<(Vec<u8>, Option<FileTokenizer>)>> {
    // Of a file of weights only what it says first is looked at.
    let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    if !is_json && let Some(found) = fthost_models::tokenizer(path)? {
        return Ok(Ok((found.json.to_string().into_bytes(), Some(found))));
    }
    Ok(std::fs::read(path).map(|bytes| (bytes, None)))
}

/// The tokenizer of a file's text.
fn parse(bytes: &[u8]) -> Result<tokenizers::Tokenizer, tokenizers::Error> {
    // The crate panics on some files that are cut off.
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes)?;
    guarded(|| tokenizers::Tokenizer::from_bytes(bytes)).unwrap_or_else(|| Err(DAMAGED.into()))
}

/// At most so many bytes of a text: those that are kept where it is cut on this side.
fn part(text: &str, bytes: usize, side: TruncationDirection) -> &str {
    match side {
        TruncationDirection::Right => beginning(text, bytes),
        TruncationDirection::Left => end(text, bytes),
    }
}

/// The last bytes of a text, at most so many, and whole words where it has spaces.
fn end(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let begin = text.len() - bytes;
    let begin = (begin..=text.len()).find(|&begin| text.is_char_boundary(begin)).unwrap_or(text.len());
    let begin = text[begin..].find(char::is_whitespace).map_or(begin, |space| begin + space);
    &text[begin..]
}

/// At most so many bytes of a text, and whole words where it has spaces.
fn beginning(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let end = (0..=bytes).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    let end = text[..end].rfind(char::is_whitespace).unwrap_or(end);
    &text[..end]
}

/// How many tokens of each text of a pair are kept, so that they are at most `room` together: the longer is cut first,
/// then both to halves. Of a single text the second length is 0.
fn cut_longest((first, second): (usize, usize), room: usize) -> (usize, usize) {
    let half = room / 2;
    match (first.min(second), first.saturating_add(second) <= room) {
        (_, true) => (first, second),
        (shorter, _) if shorter <= half && first <= second => (first, room - first),
        (shorter, _) if shorter <= half => (room - second, second),
        _ if first <= second => (half, room - half),
        _ => (room - half, half),
    }
}

/// Cuts an encoding to so many tokens, on this side.
fn keep(encoding: &mut Encoding, tokens: usize, side: TruncationDirection) {
    encoding.truncate(tokens, 0, side);
    // What was cut off would be combined with what is cut off from a second text.
    encoding.take_overflowing();
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// A word-level tokenizer that adds `[CLS]` (1) and `[SEP]` (2) as BERT does, or nothing.
    pub(in super::super) fn write_tokenizer(folder: &Path, special: bool) -> PathBuf {
        let words = ["[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d"];
        let vocabulary: serde_json::Map<_, _> =
            words.iter().enumerate().map(|(i, w)| (w.to_string(), i.into())).collect();
        let token = |id: &str, segment: u32| serde_json::json!({"SpecialToken": {"id": id, "type_id": segment}});
        let text = |id: &str, segment: u32| serde_json::json!({"Sequence": {"id": id, "type_id": segment}});
        let template = serde_json::json!({
            "type": "TemplateProcessing",
            "single": [token("[CLS]", 0), text("A", 0), token("[SEP]", 0)],
            "pair": [token("[CLS]", 0), text("A", 0), token("[SEP]", 0), text("B", 1), token("[SEP]", 1)],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [2], "tokens": ["[SEP]"]},
            },
        });
        let tokenizer = serde_json::json!({
            "version": "1.0", "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                        "pad_type_id": 0, "pad_token": "[UNK]"},
            "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": if special { template } else { serde_json::Value::Null },
            "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
        });
        let path = folder.join("tokenizer.json");
        std::fs::write(&path, tokenizer.to_string()).unwrap();
        path
    }

    #[test]
    fn texts_and_pairs_are_encoded_with_special_tokens_and_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_tokenizer(folder.path(), true);
        let check = |max_tokens, text, pair, ids: &[u32], types: &[u32], truncated| {
            let tokens = Tokenizer::load(&path, max_tokens).unwrap().encode(&[(text, pair)]).unwrap().remove(0);
            assert_eq!(
                tokens,
                Tokens { ids: ids.into(), types: types.into(), truncated, begins: Vec::new(), cut: Vec::new() }
            );
        };
        // The file's own truncation and padding do not count.
        check(8, "a b c d", None, &[1, 3, 4, 5, 6, 2], &[0; 6], false);
        check(5, "a b c d", None, &[1, 3, 4, 5, 2], &[0; 5], true);
        check(8, "", None, &[1, 2], &[0; 2], false);
        check(8, "a x", Some("b"), &[1, 3, 0, 2, 4, 2], &[0, 0, 0, 0, 1, 1], false);
        check(6, "a b c d", Some("b"), &[1, 3, 4, 2, 4, 2], &[0, 0, 0, 0, 1, 1], true);
    }

    /// The tokenizers crate, given all tokens of both texts, cuts alike.
    #[test]
    fn pairs_are_cut_as_elsewhere() {
        use tokenizers::utils::truncation::truncate_encodings;

        let folder = tempfile::tempdir().unwrap();
        let path = write_tokenizer(folder.path(), true);
        let mut theirs = tokenizers::Tokenizer::from_file(&path).unwrap();
        theirs.with_padding(None).with_truncation(None).unwrap();
        let text = |words: usize| (0..words).map(|i| ["a ", "b ", "c ", "d "][i % 4]).collect::<String>();
        for (max_tokens, side) in [4, 5, 8, 9].into_iter().flat_map(|most| [(most, "left"), (most, "right")]) {
            std::fs::write(folder.path().join(settings::FILE), format!("{{\"truncation_side\": \"{side}\"}}")).unwrap();
            let ours = Tokenizer::load(&path, max_tokens).unwrap();
            let direction = if side == "left" { TruncationDirection::Left } else { TruncationDirection::Right };
            let truncation = TruncationParams { max_length: max_tokens - 3, direction, ..TruncationParams::default() };
            for (a, b) in (0..12).flat_map(|a| (0..12).map(move |b| (a, b))) {
                let (first, second) = (text(a), text(b));
                let encode = |text: &str| theirs.encode(text, false).unwrap();
                let (cut, cut_pair) = truncate_encodings(encode(&first), Some(encode(&second)), &truncation).unwrap();
                let expected = theirs.post_process(cut, cut_pair, true).unwrap();
                let tokens = ours.encode(&[(&first, Some(&second))]).unwrap().remove(0);
                let ids = expected.get_ids();
                assert_eq!((tokens.ids.as_slice(), tokens.types.as_slice()), (ids, expected.get_type_ids()));
                assert_eq!(tokens.truncated, a + b + 3 > max_tokens);
            }
        }
    }

    #[test]
    fn a_cut_is_seen_without_special_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = Tokenizer::load(&write_tokenizer(folder.path(), false), 3).unwrap();
        let encoded = tokenizer.encode(&[("a b c", None), ("a b c d", None), ("a", Some("b")), ("a b", Some("b c"))]);
        let truncated: Vec<bool> = encoded.unwrap().iter().map(|tokens| tokens.truncated).collect();
        assert_eq!(truncated, [false, true, false, true]);
    }

    /// A long text takes no more than its beginning does, whatever it is made of.
    #[test]
    fn long_texts_are_cut_in_no_time() {
        const BYTES: usize = 5 << 20;
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = Tokenizer::load(&write_tokenizer(folder.path(), true), 8).unwrap();
        let began = std::time::Instant::now();
        let words = "a b c d ".repeat(BYTES / 8);
        let unknown = "é".repeat(BYTES / 2);
        let spaces = " ".repeat(BYTES) + "a b";
        let mut late = "x".repeat(100_000);
        late += " a b c d a b c d";
        let pairs: [(&str, Option<&str>); 5] =
            [(&words, None), (&words, Some(&words)), (&unknown, None), (&spaces, None), (&late, None)];
        let encoded = tokenizer.encode(&pairs).unwrap();
        let expected: [(&[u32], bool); 5] = [
            (&[1, 3, 4, 5, 6, 3, 4, 2], true),
            (&[1, 3, 4, 2, 3, 4, 5, 2], true),
            (&[1, 0, 2], false),
            (&[1, 3, 4, 2], false),
            (&[1, 0, 3, 4, 5, 6, 3, 2], true),
        ];
        for (tokens, (ids, truncated)) in encoded.iter().zip(expected) {
            assert_eq!((tokens.ids.as_slice(), tokens.truncated), (ids, truncated));
        }
        // Cut on the left, no more than its end.
        std::fs::write(folder.path().join(settings::FILE), "{\"truncation_side\": \"left\"}").unwrap();
        let tokenizer = Tokenizer::load(&write_tokenizer(folder.path(), true), 8).unwrap();
        let early = "a b c d a b c d ".to_owned() + &"x".repeat(100_000);
        let encoded = tokenizer.encode(&[(&words, None), (&words, Some(&words)), (&early, None)]).unwrap();
        let expected: [&[u32]; 3] = [&[1, 5, 6, 3, 4, 5, 6, 2], &[1, 5, 6, 2, 4, 5, 6, 2], &[1, 6, 3, 4, 5, 6, 0, 2]];
        for (tokens, ids) in encoded.iter().zip(expected) {
            assert_eq!((tokens.ids.as_slice(), tokens.truncated), (ids, true));
        }
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }

    #[test]
    fn a_beginning_ends_between_words_or_characters() {
        let check = |text, bytes, expected| assert_eq!(beginning(text, bytes), expected);
        check("one two", 7, "one two");
        check("one two", 6, "one");
        check("one two", 2, "on");
        check("ééé", 3, "é");
        check("é", 1, "");
        let check = |text, bytes, expected| assert_eq!(end(text, bytes), expected);
        check("one two", 7, "one two");
        check("one two", 5, " two");
        check("one two", 2, "wo");
        check("ééé", 3, "é");
        check("é", 1, "");
    }

    #[test]
    fn many_texts_keep_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = Tokenizer::load(&write_tokenizer(folder.path(), false), 8).unwrap();
        let words = ["a", "b", "c", "d", ""];
        let texts: Vec<_> = (0..1000).map(|i| (words[i % 5], None)).collect();
        for (i, tokens) in tokenizer.encode(&texts).unwrap().iter().enumerate() {
            let expected: &[u32] = if i % 5 == 4 { &[] } else { &[3 + (i % 5) as u32] };
            assert_eq!(tokens.ids, expected);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let check = |max_tokens, expected: &[&str]| {
            let error = Tokenizer::load(&folder.path().join("tokenizer.json"), max_tokens).unwrap_err();
            let help = miette::Diagnostic::help(&error).map(|h| h.to_string()).unwrap_or_default();
            let text = format!("{error}; {help}");
            assert!(expected.iter().all(|part| text.contains(part)), "{text}");
        };
        check(8, &["tokenizer.json: there is no such file", "save_pretrained(\""]);
        std::fs::write(folder.path().join("vocab.txt"), "").unwrap();
        check(8, &["the vocabulary file alone"]);
        std::fs::write(folder.path().join("tokenizer.json"), "{").unwrap();
        check(8, &["is no tokenizer that can be read", "save_pretrained"]);
        write_tokenizer(folder.path(), true);
        check(3, &["max_tokens is 3", "up to 3 special tokens", "raise max_tokens"]);
    }

    #[test]
    fn a_tokenizer_takes_another_longest_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_tokenizer(folder.path(), true);
        let mut tokenizer = Tokenizer::load(&path, 5).unwrap();
        let text = "a b c d ".repeat(100);
        for max_tokens in [5, 300, 4] {
            tokenizer.cut_to(max_tokens).unwrap();
            let read_so = Tokenizer::load(&path, max_tokens).unwrap();
            assert_eq!(tokenizer.encode(&[(&text, None)]).unwrap(), read_so.encode(&[(&text, None)]).unwrap());
        }
        assert!(tokenizer.cut_to(3).is_err());
        // Never longer than tokenizer_config.json allows.
        std::fs::write(folder.path().join(settings::FILE), "{\"model_max_length\": 6}").unwrap();
        let mut tokenizer = Tokenizer::load(&path, 5).unwrap();
        tokenizer.cut_to(8).unwrap();
        assert_eq!(tokenizer.max_tokens(), 6);
    }
}
