//! The tokenizer in a file of llama.cpp's: what a tokenizer.json would say, and the template of a chat.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use crate::LoadError;
use crate::weights::{Vocabulary, Weights};

/// The tokenizer that comes with a model's weights in one file.
#[derive(Clone, Debug, PartialEq)]
pub struct FileTokenizer {
    /// What its tokenizer.json would say.
    pub json: Json,
    /// Its tokens with a part of their own, by Transformers' names of these: `eos_token`.
    pub special: Vec<(&'static str, String)>,
    /// The template of its chats, in Jinja.
    pub template: Option<String>,
}

/// The tokenizer of a file of weights, or of the one that a folder holds; `None` where weights are all that is in it.
///
/// # Errors
/// Where the weights cannot be read, or their tokenizer is of a kind that is not known.
pub fn tokenizer(path: &Path) -> Result<Option<FileTokenizer>, LoadError> {
    let weights = Weights::open(path)?;
    let Some((vocabulary, file)) = weights.vocabulary()? else { return Ok(None) };
    let json = to_json(&vocabulary).map_err(|reason| LoadError::Refused {
        file: file.into(),
        reason: format!("{reason}; put the model's tokenizer.json beside it"),
    })?;
    let Vocabulary { tokens, first, last, unknown, padding, template, .. } = vocabulary;
    let parts = [("bos_token", first), ("eos_token", last), ("unk_token", unknown), ("pad_token", padding)];
    let special = parts.into_iter().filter_map(|(name, id)| Some((name, tokens.get(id?)?.clone()))).collect();
    Ok(Some(FileTokenizer { json, special, template }))
}

/// The file that says how texts become tokens: tokenizer.json of a folder; where there is none, that of weights which come with their
/// tokenizer.
pub fn tokenizer_file(path: &Path) -> PathBuf {
    let own = path.join(TOKENIZER_FILE);
    if own.is_file() {
        return own;
    }
    let weights = Weights::open(path).ok();
    weights.and_then(|weights| weights.with_metadata().map(Path::to_owned)).unwrap_or(own)
}

const TOKENIZER_FILE: &str = "tokenizer.json";

/// Kinds of tokens, by llama.cpp's numbers: those that stand for themselves wherever they occur in a text.
pub(super) const UNKNOWN: i64 = 2;
pub(super) const CONTROL: i64 = 3;
pub(super) const USER_DEFINED: i64 = 4;

/// How texts are split before pairs are merged: what stands in `tokenizer.ggml.pre`.
pub(super) struct Splits {
    /// The first is what is written.
    pub(super) names: &'static [&'static str],
    /// The pieces, where they are not GPT-2's.
    pub(super) pattern: Option<&'static str>,
    /// Each digit is a piece.
    pub(super) digits: bool,
    /// A piece that is a token is taken as it is.
    pub(super) ignore_merges: bool,
    /// Canonical composition goes first.
    pub(super) composed: bool,
}

const GPT2: Splits = Splits {
    names: &["gpt-2", "gpt2", "default", "mpt", "olmo", "phi-2"],
    pattern: None,
    digits: false,
    ignore_merges: false,
    composed: false,
};

/// What each of these splits is a fact of the models' own tokenizer.json.
pub(super) const SPLITS: [Splits; 4] = [
    GPT2,
    Splits { names: &["smollm", "starcoder", "refact", "command-r"], digits: true, ..GPT2 },
    Splits {
        names: &["llama-bpe", "llama3", "llama-v3"],
        pattern: Some(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        ignore_merges: true,
        ..GPT2
    },
    Splits {
        names: &["qwen2", "deepseek-r1-qwen"],
        pattern: Some(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        composed: true,
        ..GPT2
    },
];

pub(super) fn to_json(vocabulary: &Vocabulary) -> Result<Json, String> {
    let parts = match vocabulary.model.as_str() {
        "gpt2" => bytes(vocabulary)?,
        "llama" => pieces(vocabulary),
        other => return Err(format!("has a tokenizer of the kind {other:?}, which is not known")),
    };
    let Parts { normalizer, pre_tokenizer, decoder, model } = parts;
    let added: Vec<Json> = (0..)
        .zip(&vocabulary.types)
        .filter(|(_, kind)| [UNKNOWN, CONTROL, USER_DEFINED].contains(kind))
        .filter_map(|(id, kind)| Some((id, *kind, vocabulary.tokens.get(id)?)))
        .map(|(id, kind, content)| {
            json!({
                "id": id, "content": content, "special": kind != USER_DEFINED, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false,
            })
        })
        .collect();
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": around(vocabulary), "decoder": decoder, "model": model,
    }))
}

struct Parts {
    normalizer: Json,
    pre_tokenizer: Json,
    decoder: Json,
    model: Json,
}

fn ids(tokens: &[String]) -> HashMap<&str, usize> {
    tokens.iter().map(String::as_str).zip(0..).collect()
}

/// Pairs of bytes, as GPT-2 merges them.
fn bytes(vocabulary: &Vocabulary) -> Result<Parts, String> {
    let name = vocabulary.splits.as_deref().unwrap_or("default");
    let splits = SPLITS.iter().find(|splits| splits.names.contains(&name));
    let splits = splits.ok_or_else(|| format!("splits texts as {name:?} does, which is not known"))?;
    let merges: Vec<[&str; 2]> =
        vocabulary.merges.iter().filter_map(|pair| pair.split_once(' ')).map(|(a, b)| [a, b]).collect();
    let level = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
    let mut steps = Vec::new();
    if splits.digits {
        steps.push(json!({ "type": "Digits", "individual_digits": true }));
    }
    if let Some(pattern) = splits.pattern {
        steps
            .push(json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false }));
    }
    steps.push(level(splits.pattern.is_none()));
    Ok(Parts {
        normalizer: if splits.composed { json!({ "type": "NFC" }) } else { Json::Null },
        pre_tokenizer: json!({ "type": "Sequence", "pretokenizers": steps }),
        decoder: level(true),
        model: json!({
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": splits.ignore_merges,
            "vocab": ids(&vocabulary.tokens), "merges": merges,
        }),
    })
}

/// What stands for a space in the pieces of SentencePiece.
pub(super) const SPACE: &str = "\u{2581}";

/// The pieces of SentencePiece, the likeliest pair being merged first, as Llama 2 has them.
fn pieces(vocabulary: &Vocabulary) -> Parts {
    let spaces = json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE });
    let mut normalizers = vec![spaces];
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if vocabulary.space_first {
        normalizers.insert(0, json!({ "type": "Prepend", "prepend": SPACE }));
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let unknown = vocabulary.unknown.and_then(|id| vocabulary.tokens.get(id));
    Parts {
        normalizer: json!({ "type": "Sequence", "normalizers": normalizers }),
        pre_tokenizer: Json::Null,
        decoder: json!({ "type": "Sequence", "decoders": decoders }),
        model: json!({
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": ids(&vocabulary.tokens), "merges": merges(vocabulary),
        }),
    }
}

/// The pairs that give a piece, from the likeliest piece on; of one piece the pair whose left part is the longer first.
pub(super) fn merges(vocabulary: &Vocabulary) -> Vec<[&str; 2]> {
    let ids = ids(&vocabulary.tokens);
    let mut all = Vec::new();
    for (piece, score) in vocabulary.tokens.iter().zip(&vocabulary.scores) {
        let splits = piece.char_indices().skip(1).map(|(place, _)| piece.split_at(place));
        let mut of_piece: Vec<(&str, &str)> =
            splits.filter(|(left, right)| ids.contains_key(left) && ids.contains_key(right)).collect();
        of_piece.sort_by_key(|(left, right)| (ids[left], ids[right]));
        all.extend(of_piece.into_iter().map(|(left, right)| (*score, left, right)));
    }
    let length = |part: &str| part.chars().count();
    all.sort_by(|(a, left, right), (b, other_left, other_right)| {
        let lengths = (Reverse(length(left)), Reverse(length(right)));
        b.total_cmp(a).then(lengths.cmp(&(Reverse(length(other_left)), Reverse(length(other_right)))))
    });
    all.into_iter().map(|(_, left, right)| [left, right]).collect()
}

/// The tokens that are put around a text.
fn around(vocabulary: &Vocabulary) -> Json {
    let token = |id: Option<usize>, asked: bool| {
        let id = id.filter(|_| asked)?;
        Some((id, vocabulary.tokens.get(id)?))
    };
    let (first, last) = (token(vocabulary.first, vocabulary.add_first), token(vocabulary.last, vocabulary.add_last));
    if first.is_none() && last.is_none() {
        return Json::Null;
    }
    let special = |token: Option<(usize, &String)>, kind: usize| {
        token.map(|(_, content)| json!({ "SpecialToken": { "id": content, "type_id": kind } }))
    };
    let one = |text: &str, kind: usize| {
        let text = Some(json!({ "Sequence": { "id": text, "type_id": kind } }));
        [special(first, kind), text, special(last, kind)].into_iter().flatten().collect::<Vec<Json>>()
    };
    let named = [first, last].into_iter().flatten();
    let named: serde_json::Map<String, Json> = named
        .map(|(id, content)| (content.clone(), json!({ "id": content, "ids": [id], "tokens": [content] })))
        .collect();
    let pair = [one("A", 0), one("B", 1)].concat();
    json!({ "type": "TemplateProcessing", "single": one("A", 0), "pair": pair, "special_tokens": named })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use tokenizers::Tokenizer;

    use super::*;

    fn tokens(all: &[&str]) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }

    fn built(vocabulary: &Vocabulary) -> Tokenizer {
        Tokenizer::from_bytes(to_json(vocabulary).unwrap().to_string()).unwrap()
    }

    fn of(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
        tokenizer.encode(text, true).unwrap().get_tokens().to_vec()
    }

    #[test]
    fn pairs_of_bytes_are_merged_within_pieces() {
        let all = ["<s>", "a", "b", "\u{120}", "1", "2", "ab", "12", "\u{120}ab", "<end>", "."];
        let mut vocabulary = Vocabulary {
            model: "gpt2".into(),
            splits: Some("gpt-2".into()),
            tokens: tokens(&all),
            types: vec![CONTROL, 1, 1, 1, 1, 1, 1, 1, 1, USER_DEFINED, 1],
            merges: tokens(&["a b", "1 2", "\u{120} ab"]),
            first: Some(0),
            add_first: true,
            ..Vocabulary::default()
        };
        assert_eq!(of(&built(&vocabulary), "ab ab12<end>"), ["<s>", "ab", "\u{120}ab", "12", "<end>"]);
        vocabulary.splits = Some("smollm".into());
        assert_eq!(of(&built(&vocabulary), "ab12"), ["<s>", "ab", "1", "2"]);
        (vocabulary.splits, vocabulary.add_first) = (Some("qwen2".into()), false);
        let tokenizer = built(&vocabulary);
        let encoded = tokenizer.encode(" ab.12", true).unwrap();
        assert_eq!(encoded.get_tokens(), ["\u{120}ab", ".", "1", "2"]);
        assert_eq!(tokenizer.decode(encoded.get_ids(), false).unwrap(), " ab.12");
        vocabulary.splits = Some("llama-bpe".into());
        assert_eq!(of(&built(&vocabulary), "ab12"), ["ab", "12"]);
        vocabulary.splits = Some("a new way".into());
        assert!(to_json(&vocabulary).unwrap_err().contains("splits texts as \"a new way\" does"));
        vocabulary.model = "t5".into();
        assert!(to_json(&vocabulary).unwrap_err().contains("of the kind \"t5\""));
    }

    #[test]
    fn pieces_are_merged_by_their_scores() {
        let all = ["<unk>", "<s>", "</s>", "<0x41>", SPACE, "a", "b", "c", "ab", "bc", "\u{2581}a", "abc"];
        let vocabulary = Vocabulary {
            model: "llama".into(),
            tokens: tokens(&all),
            types: vec![UNKNOWN, CONTROL, CONTROL, 6, 1, 1, 1, 1, 1, 1, 1, 1],
            scores: vec![0.0, 0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -9.0, -3.0, -2.0, -5.0, -4.0],
            unknown: Some(0),
            first: Some(1),
            last: Some(2),
            add_first: true,
            space_first: true,
            ..Vocabulary::default()
        };
        let tokenizer = built(&vocabulary);
        // `b c` is likelier than `a b`, and then `a bc` than `▁ a`.
        let encoded = tokenizer.encode("abc", true).unwrap();
        assert_eq!(encoded.get_tokens(), ["<s>", SPACE, "abc"]);
        assert_eq!(tokenizer.decode(&encoded.get_ids()[1..], false).unwrap(), "abc");
        assert_eq!(of(&tokenizer, "A"), ["<s>", SPACE, "<0x41>"]);
        let pair = tokenizer.encode(("a", "b"), true).unwrap();
        assert_eq!(pair.get_tokens(), ["<s>", "\u{2581}a", "<s>", SPACE, "b"]);
        let plain = Vocabulary { space_first: false, add_first: false, ..vocabulary };
        assert_eq!(of(&built(&plain), "a b"), ["a", SPACE, "b"]);
    }
}
