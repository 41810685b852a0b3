//! What language models need of a tokenizer: where tokens stand in their text, what stands around one, and which tokens are no text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fthost_images::guarded;
use fthost_models::FileTokenizer;
use tokenizers::Encoding;

use super::super::store::UNCOUNTED;
use super::{DAMAGED, Tokenizer};
use crate::Result;

/// Tokens of a text, and where each stands in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Token ids, `[tokens]`.
    pub ids: Vec<u32>,
    /// Where each begins and ends in the text, in bytes, `[tokens]`.
    pub places: Vec<(usize, usize)>,
}

impl Tokenizer {
    /// The tokens of a text without special tokens, but those that stand in it by name. There may be some more than the longest length has
    /// room for.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn placed(&self, text: &str) -> Result<Placed> {
        let encode = || {
            let mut encoding = self.inner.encode(text, false).map_err(|error| self.failed(text, &error))?;
            encoding.take_overflowing();
            Ok(encoding)
        };
        let encoding: Encoding = guarded(encode).unwrap_or_else(|| Err(self.failed(text, &DAMAGED.into())))?;
        Ok(Placed { ids: encoding.get_ids().to_vec(), places: encoding.get_offsets().to_vec() })
    }

    /// The same tokenizer for texts of any length. It holds a vocabulary of its own: made once, and not for each text.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn uncut(&self) -> Result<Self> {
        let mut uncut = Self { longest: usize::MAX, ..self.clone() };
        uncut.cut_to(usize::MAX)?;
        Ok(uncut)
    }

    /// The special tokens that stand before and after a text.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn frame(&self) -> Result<(Vec<u32>, Vec<u32>)> {
        const TEXT: &str = "a";
        let plain = self.placed(TEXT)?.ids;
        let framed = self.encode(&[(TEXT, None)])?.pop().map(|tokens| tokens.ids).unwrap_or_default();
        let at = framed.windows(plain.len().max(1)).position(|ids| ids == plain);
        Ok(at.map_or_else(Default::default, |at| (framed[..at].to_vec(), framed[at + plain.len()..].to_vec())))
    }

    /// The token that stands where nothing else does before a text whose first token is to be said: that which begins texts, else that which
    /// ends them. None where the tokenizer puts one there itself.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn start(&self) -> Result<Option<u32>> {
        let itself = !self.frame()?.0.is_empty();
        Ok(["bos_token", "eos_token"].into_iter().find_map(|name| self.special_id(name)).filter(|_| !itself))
    }

    /// The token that every text begins with, as it is written; none where there is none or several.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn first_text(&self) -> Result<Option<String>> {
        let (before, _) = self.frame()?;
        match before.as_slice() {
            [first] => self.text_with_special(&[*first]).map(Some),
            _ => Ok(None),
        }
    }

    /// Its tokens with a part of their own, by Transformers' names of these: `bos_token`.
    pub fn special_tokens(&self) -> &BTreeMap<String, String> {
        &self.special
    }

    /// The id of such a token, of the end of a text as `eos_token`; of the mask also where only its usual names say what it is.
    pub fn special_id(&self, name: &str) -> Option<u32> {
        let usual: &[&str] = if name == "mask_token" { &["[MASK]", "<mask>"] } else { &[] };
        let named = self.special.get(name).map(String::as_str);
        named.into_iter().chain(usual.iter().copied()).find_map(|token| self.inner.token_to_id(token))
    }

    /// The text of a template of chats that comes with the tokenizer, and the file that it stands in.
    pub fn template(&self) -> Option<(&str, &Path)> {
        self.template.as_ref().map(|(text, file)| (text.as_str(), file.as_path()))
    }

    /// The same tokenizer as a file with a model's weights would hold it, with another template of chats.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn as_in_file(&self, template: Option<String>) -> Result<FileTokenizer> {
        const PARTS: [&str; 4] = ["bos_token", "eos_token", "pad_token", "unk_token"];
        let written = self.inner.to_string(false).map_err(|error| self.failed("", &error))?;
        let json = serde_json::from_str(&written).map_err(|error| self.failed("", &error.into()))?;
        let special = PARTS.iter().filter_map(|&name| Some((name, self.special.get(name)?.clone()))).collect();
        Ok(FileTokenizer { json, special, template })
    }

    /// What tells the words of tokens apart.
    pub fn word_signs(&self) -> WordSigns<'_> {
        let added = self.inner.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        let vocabulary = self.inner.get_vocab(false);
        let begins = BEGINS.into_iter().find(|&sign| vocabulary.keys().any(|token| token.starts_with(sign)));
        WordSigns { tokenizer: self, special, begins }
    }

    /// The text of tokens, without special ones. Bytes that are no whole character become U+FFFD.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn text_of(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(|error| self.failed("", &error))
    }

    /// Whether a token stands for itself wherever its name occurs, and is not made of a text's pieces.
    pub fn is_added(&self, id: u32) -> bool {
        self.inner.get_added_tokens_decoder().contains_key(&id)
    }

    /// The text of tokens, special ones by their names.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn text_with_special(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, false).map_err(|error| self.failed("", &error))
    }
}

/// The signs at the beginning of words: of byte pairs and of SentencePiece.
const BEGINS: [char; 2] = ['\u{120}', '\u{2581}'];
/// The sign of what goes on with a word: WordPiece's.
const GOES_ON: &str = "##";

/// How tokens tell which of them are one word, and which are no part of a text.
#[derive(Debug)]
pub struct WordSigns<'a> {
    tokenizer: &'a Tokenizer,
    special: BTreeSet<u32>,
    begins: Option<char>,
}

impl WordSigns<'_> {
    /// The number of each token's word, from 0; [`UNCOUNTED`] where it is special.
    pub fn numbers(&self, ids: &[u32]) -> Vec<u32> {
        let mut word = None;
        let mut open = false;
        let number = |id: &u32| {
            if self.special.contains(id) {
                open = false;
                return UNCOUNTED;
            }
            let next = word.map_or(0, |word| word + 1);
            let number = word.filter(|_| open && self.goes_on(*id)).unwrap_or(next);
            (word, open) = (Some(number), true);
            number
        };
        ids.iter().map(number).collect()
    }

    fn goes_on(&self, id: u32) -> bool {
        let Some(token) = self.tokenizer.inner.id_to_token(id) else { return false };
        match self.begins {
            // Where words begin with a sign, letters without it go on.
            Some(sign) => token.chars().next().is_some_and(|first| first != sign && first.is_alphanumeric()),
            None => token.starts_with(GOES_ON),
        }
    }
}
