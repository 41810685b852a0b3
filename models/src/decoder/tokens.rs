//! What a tokenizer.json says, as llama.cpp's files say it: the other way of `vocabulary`.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::vocabulary::{CONTROL, FileTokenizer, SPACE, SPLITS, UNKNOWN, USER_DEFINED, merges};
use crate::weights::Vocabulary;

/// Kinds of tokens, by llama.cpp's numbers, that a tokenizer.json has no word for.
const NORMAL: i64 = 1;
const UNUSED: i64 = 5;
const BYTE: i64 = 6;

/// The vocabulary of a model with so many rows of word embeddings.
///
/// # Errors
/// Why llama.cpp would make other tokens of a text.
pub(super) fn vocabulary(tokenizer: &FileTokenizer, rows: usize) -> Result<Vocabulary, String> {
    let FileTokenizer { json, special, template } = tokenizer;
    let model = &json["model"];
    if model["type"] != "BPE" {
        return Err(format!(
            "its tokenizer is of the kind {}, and llama.cpp's of a decoder merge pairs",
            model["type"]
        ));
    }
    let of_pieces = model["byte_fallback"] == true;
    let (tokens, types) = tokens(json, rows, of_pieces)?;
    let id = |content: &str| tokens.iter().position(|token| token == content);
    let named = |name: &str| special.iter().find(|(part, _)| *part == name).and_then(|(_, content)| id(content));
    let merged = pairs(model)?;
    let [before, after] = around(json);
    let alone = |side: &[String], what: &str| match side {
        [] => Ok(None),
        [token] => Ok(id(token)),
        several => Err(format!("its tokenizer puts {} {what} a text, and llama.cpp one token", several.join(" "))),
    };
    let (before, after) = (alone(&before, "before")?, alone(&after, "after")?);
    let mut vocabulary = Vocabulary {
        model: if of_pieces { "llama" } else { "gpt2" }.into(),
        // What stands around a text is what llama.cpp calls its first and its last token.
        first: before.or_else(|| named("bos_token")),
        last: after.or_else(|| named("eos_token")),
        unknown: named("unk_token").or_else(|| id(model["unk_token"].as_str()?)),
        padding: named("pad_token"),
        add_first: before.is_some(),
        add_last: after.is_some(),
        template: template.clone(),
        tokens,
        types,
        ..Vocabulary::default()
    };
    if of_pieces {
        vocabulary.space_first = space_first(json)?;
        vocabulary.scores = scores(&vocabulary.tokens, &merged);
        // Of the scores a reader makes the pairs again: these are a proof that it will merge as was meant.
        let again = merges(&vocabulary);
        if !again.iter().map(|[left, right]| (*left, *right)).eq(merged.iter().map(|(a, b)| (a.as_str(), b.as_str()))) {
            return Err("the pairs of its tokenizer are in an order that no scores of pieces give".into());
        }
    } else {
        vocabulary.splits = Some(splits(json)?.into());
        vocabulary.merges = merged.iter().map(|(left, right)| format!("{left} {right}")).collect();
    }
    Ok(vocabulary)
}

/// All tokens by number, and their kinds. Rows that have none are named, as llama.cpp's own converter does.
fn tokens(json: &Json, rows: usize, of_pieces: bool) -> Result<(Vec<String>, Vec<i64>), String> {
    let of_model = json["model"]["vocab"].as_object().into_iter().flatten();
    let of_model = of_model.map(|(token, id)| (token.as_str(), id.as_u64(), NORMAL));
    let added = json["added_tokens"].as_array().into_iter().flatten().filter_map(|added| {
        let kind = if added["special"] == true { CONTROL } else { USER_DEFINED };
        Some((added["content"].as_str()?, added["id"].as_u64(), kind))
    });
    let mut tokens: Vec<String> = (0..rows).map(|row| format!("[PAD{row}]")).collect();
    let mut types = vec![UNUSED; rows];
    for (token, id, kind) in of_model.chain(added) {
        let id = id.map_or(usize::MAX, |id| id as usize);
        if id >= rows {
            return Err(format!("its tokenizer has the token {token:?}, and the model {rows} rows of word embeddings"));
        }
        let is_byte = || of_pieces && token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
        types[id] = match kind {
            _ if of_pieces && json["model"]["unk_token"] == token => UNKNOWN,
            NORMAL if is_byte() => BYTE,
            kind => kind,
        };
        token.clone_into(&mut tokens[id]);
    }
    Ok((tokens, types))
}

/// The pairs that are merged, in their order: lists of two, or as older files have them with a space between.
fn pairs(model: &Json) -> Result<Vec<(String, String)>, String> {
    let pair = |pair: &Json| match pair {
        Json::String(text) => text.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned())),
        pair => Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned())),
    };
    let all = model["merges"].as_array().into_iter().flatten().map(pair).collect::<Option<Vec<_>>>();
    all.ok_or_else(|| "the merges of its tokenizer are no pairs".into())
}

/// The score of each piece: the earlier it is merged the higher.
fn scores(tokens: &[String], merged: &[(String, String)]) -> Vec<f64> {
    let mut ranks = HashMap::new();
    for (left, right) in merged {
        let next = ranks.len();
        ranks.entry(format!("{left}{right}")).or_insert(next);
    }
    // What is merged of nothing comes last, as single letters do.
    let of = |token: &String| -(ranks.get(token).copied().unwrap_or(ranks.len()) as f64);
    tokens.iter().map(of).collect()
}

/// Whether a space is put before a text of pieces.
fn space_first(json: &Json) -> Result<bool, String> {
    let mut first = false;
    for step in
        steps(&json["normalizer"], "normalizers").into_iter().chain(steps(&json["pre_tokenizer"], "pretokenizers"))
    {
        match step["type"].as_str().unwrap_or_default() {
            "Prepend" if step["prepend"] == SPACE => first = true,
            "Replace" if step["content"] == SPACE => {}
            "Metaspace" if step["replacement"] == SPACE => first |= step["prepend_scheme"] != "never",
            // By words of which none reaches over a space: pieces do not either.
            "Split" if step["pattern"]["String"] == " " => {}
            other => return Err(format!("its tokenizer has a step {other:?}, which llama.cpp has not for pieces")),
        }
    }
    Ok(first)
}

/// The steps of a part of a tokenizer.json: those of a sequence, or the only one.
fn steps<'a>(part: &'a Json, list: &str) -> Vec<&'a Json> {
    match part {
        Json::Null => Vec::new(),
        part if part["type"] == "Sequence" => part[list].as_array().into_iter().flatten().collect(),
        part => vec![part],
    }
}

/// llama.cpp's name of the way in which texts are split before pairs of bytes are merged.
fn splits(json: &Json) -> Result<&'static str, String> {
    let (mut digits, mut pattern, mut bytes) = (false, None, false);
    for step in steps(&json["pre_tokenizer"], "pretokenizers") {
        match step["type"].as_str().unwrap_or_default() {
            "Digits" if step["individual_digits"] == true => digits = true,
            "Split" if step["behavior"] == "Isolated" => pattern = step["pattern"]["Regex"].as_str(),
            "ByteLevel" if step["add_prefix_space"] != true => bytes = true,
            other => {
                return Err(format!(
                    "its tokenizer splits texts by {other:?} as no splits of llama.cpp's that are known here"
                ));
            }
        }
    }
    let composed = match steps(&json["normalizer"], "normalizers").as_slice() {
        [] => false,
        [step] if step["type"] == "NFC" => true,
        _ => return Err("its tokenizer changes texts before it splits them, as llama.cpp does not".into()),
    };
    let ignore_merges = json["model"]["ignore_merges"] == true;
    let found = SPLITS.iter().find(|known| {
        (known.digits, known.pattern, known.composed, known.ignore_merges) == (digits, pattern, composed, ignore_merges)
    });
    let name = found.filter(|_| bytes).and_then(|known| known.names.first());
    name.copied().ok_or_else(|| {
        "its tokenizer splits texts in a way that none of llama.cpp's names known here stands for".to_owned()
    })
}

/// The tokens that are put before and after a text.
fn around(json: &Json) -> [Vec<String>; 2] {
    let mut sides = [Vec::new(), Vec::new()];
    for step in steps(&json["post_processor"], "processors") {
        let mut side = 0;
        for part in step["single"].as_array().into_iter().flatten() {
            match part["SpecialToken"]["id"].as_str() {
                Some(token) => sides[side].push(token.to_owned()),
                None => side = 1,
            }
        }
    }
    sides
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::super::vocabulary::to_json;
    use super::*;

    fn tokens(all: &[&str]) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }

    fn of_bytes() -> Vocabulary {
        Vocabulary {
            model: "gpt2".into(),
            splits: Some("gpt-2".into()),
            tokens: tokens(&["<s>", "a", "b", "\u{120}", "ab", "<end>", "[PAD6]"]),
            types: vec![CONTROL, 1, 1, 1, 1, USER_DEFINED, UNUSED],
            merges: tokens(&["a b"]),
            first: Some(0),
            last: Some(5),
            add_first: true,
            template: Some("{{ messages }}".into()),
            ..Vocabulary::default()
        }
    }

    fn of_pieces() -> Vocabulary {
        let all = ["<unk>", "<s>", "</s>", "<0x41>", SPACE, "a", "b", "c", "ab", "bc", "\u{2581}a", "abc"];
        Vocabulary {
            model: "llama".into(),
            tokens: tokens(&all),
            types: vec![UNKNOWN, CONTROL, CONTROL, BYTE, 1, 1, 1, 1, 1, 1, 1, 1],
            scores: vec![-4.0, -4.0, -4.0, -4.0, -4.0, -4.0, -4.0, -4.0, -1.0, 0.0, -3.0, -2.0],
            unknown: Some(0),
            first: Some(1),
            last: Some(2),
            add_first: true,
            space_first: true,
            ..Vocabulary::default()
        }
    }

    fn as_file(of: &Vocabulary) -> FileTokenizer {
        let parts = [("bos_token", of.first), ("eos_token", of.last), ("unk_token", of.unknown)];
        let special = parts.into_iter().filter_map(|(name, id)| Some((name, of.tokens[id?].clone()))).collect();
        FileTokenizer { json: to_json(of).unwrap(), special, template: of.template.clone() }
    }

    /// A vocabulary that became a tokenizer.json becomes the same again.
    #[test]
    fn there_and_back() {
        for splits in ["gpt-2", "smollm", "llama-bpe", "qwen2"] {
            let expected = Vocabulary { splits: Some(splits.into()), ..of_bytes() };
            let mut file = as_file(&expected);
            // A tokenizer.json knows nothing of rows without a token.
            file.json["model"]["vocab"].as_object_mut().unwrap().remove("[PAD6]");
            assert_eq!(vocabulary(&file, 7).unwrap(), expected);
        }
        let expected = of_pieces();
        assert_eq!(vocabulary(&as_file(&expected), 12).unwrap(), expected);
        let plain = Vocabulary { space_first: false, add_first: false, ..expected };
        assert_eq!(vocabulary(&as_file(&plain), 12).unwrap(), plain);
    }

    #[test]
    fn what_llama_cpp_would_read_otherwise_is_refused() {
        let check = |of: &Vocabulary, pointer: &str, value: Json, expected: &str| {
            let mut file = as_file(of);
            *file.json.pointer_mut(pointer).unwrap() = value;
            let error = vocabulary(&file, of.tokens.len()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(&of_bytes(), "/model/type", json!("WordPiece"), "of the kind \"WordPiece\"");
        check(&of_bytes(), "/model/ignore_merges", json!(true), "none of llama.cpp's names");
        check(&of_bytes(), "/normalizer", json!({ "type": "Lowercase" }), "changes texts before");
        check(&of_bytes(), "/added_tokens/0/id", json!(7), "7 rows of word embeddings");
        check(&of_pieces(), "/normalizer", json!({ "type": "NFKC" }), "a step \"NFKC\"");
        let mut file = as_file(&of_pieces());
        file.json["model"]["merges"].as_array_mut().unwrap().reverse();
        assert!(vocabulary(&file, 12).unwrap_err().contains("no scores of pieces"));
    }
}
