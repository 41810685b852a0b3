#!/usr/bin/env python3
"""Token ids that Transformers' AutoTokenizer gives with settings of tokenizer_config.json.

Usage: make_tokenizer_settings.py OUT.json    (or - for standard output)
Needs: pip install transformers

Each case has the model_type of config.json, tokenizer_config.json (null: there is none), what is changed in the normalizer of the tiny
BERT's tokenizer.json or a tokenizer.json of its own, the length asked for (null: none), and texts, or pairs of texts, with their ids
and token types as a model gets them: zeros where the tokenizer gives none.
"""

import json
import sys
import tempfile
from pathlib import Path

from transformers import AutoTokenizer

TINY = Path(__file__).parent / "tiny"
TEXTS = [
    ["The Film was good", None],
    ["the film was good", None],
    ["the f\u00eflm is b\u00e4d and the plot is cold", None],
    ["good\u4e2dbad", None],
    ["the film was good", "a bad movie"],
    ["a bad movie", "this story is clever and moving but we hated the actor and the scene"],
]
CASED = {"lowercase": False}


def byte_tokenizer():
    """RoBERTa's in small: bytes, two merges."""
    alphabet = [chr(c) for c in range(ord("a"), ord("z") + 1)] + ["\u0120"]
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, "\u0120a", "oo", "<mask>"]
    vocabulary = {token: i for i, token in enumerate(vocabulary)}
    special = [
        {"id": vocabulary[token], "content": token, "single_word": False, "lstrip": token == "<mask>", "rstrip": False,
         "normalized": False, "special": True}
        for token in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    ]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True,
                           "add_prefix_space": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
                  "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary, "merges": [["\u0120", "a"], ["o", "o"]]},
    }  # fmt: skip


def bert(settings, normalizer=None, longest=None, model_type="bert"):
    return {"model_type": model_type, "settings": settings, "normalizer": normalizer, "tokenizer": None, "longest": longest}


def roberta(settings, longest=None):
    return {"model_type": "roberta", "settings": settings, "normalizer": None, "tokenizer": byte_tokenizer(), "longest": longest}


CLASS = {"tokenizer_class": "BertTokenizer"}
CASES = {
    "nothing set": bert(None),
    "lower case against tokenizer.json": bert(CLASS | {"do_lower_case": True}, CASED),
    "letter case against tokenizer.json": bert(CLASS | {"do_lower_case": False}),
    "letter case, the old name of the class": bert({"tokenizer_class": "BertTokenizerFast", "do_lower_case": False}),
    "letter case, no class named": bert({"do_lower_case": False}),
    "defaults of the class": bert({"model_max_length": 512}, CASED | {"strip_accents": False}),
    "accents kept": bert(CLASS | {"do_lower_case": True, "strip_accents": False}),
    "accents stripped, letter case kept": bert(CLASS | {"do_lower_case": False, "strip_accents": True}),
    "Chinese characters together": bert(CLASS | {"tokenize_chinese_chars": False}),
    "cut on the left": bert(CLASS | {"truncation_side": "left"}, longest=8),
    "cut on the right": bert(CLASS | {"truncation_side": "right"}, longest=8),
    "a longest length": bert(CLASS | {"model_max_length": 7}),
    "a longest length and a left side": bert(CLASS | {"model_max_length": 7, "truncation_side": "left"}),
    "no longest length": bert(CLASS | {"model_max_length": 1000000000000000019884624838656}),
    "no token types": bert(CLASS | {"model_input_names": ["input_ids", "attention_mask"]}),
    "token types": bert(CLASS | {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}),
    "DistilBERT's class": bert({"tokenizer_class": "DistilBertTokenizer", "do_lower_case": False}),
    "a class that reads tokenizer.json alone": bert(
        {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True, "unk_token": "[UNK]", "cls_token": "[CLS]",
         "sep_token": "[SEP]", "pad_token": "[PAD]", "model_input_names": ["input_ids", "token_type_ids", "attention_mask"]},
        CASED,
    ),
    "RoBERTa": roberta(None),
    "RoBERTa with its settings": roberta({"tokenizer_class": "RobertaTokenizer", "add_prefix_space": False, "truncation_side": "left"}, 8),
    "RoBERTa with a first space": roberta({"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True}),
}  # fmt: skip


def encode(case):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        tokenizer = case["tokenizer"] or json.loads((TINY / "bert/tokenizer.json").read_text())
        if case["normalizer"]:
            tokenizer["normalizer"] |= case["normalizer"]
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        (folder / "config.json").write_text(json.dumps({"model_type": case["model_type"]}))
        if case["settings"] is not None:
            (folder / "tokenizer_config.json").write_text(json.dumps(case["settings"]))
        tokenizer = AutoTokenizer.from_pretrained(folder)
    limits = {"truncation": True} if case["longest"] is None else {"truncation": True, "max_length": case["longest"]}
    if case["longest"] is None and tokenizer.model_max_length > 10**9:
        limits = {}
    rows = []
    for text, pair in TEXTS:
        encoded = tokenizer(text, pair, **limits)
        ids = encoded["input_ids"]
        rows.append({"text": text, "pair": pair, "ids": ids, "types": encoded.get("token_type_ids", [0] * len(ids))})
    return case | {"rows": rows}


found = json.dumps({name: encode(case) for name, case in CASES.items()}, ensure_ascii=True)
if sys.argv[1] == "-":
    print(found)
else:
    Path(sys.argv[1]).write_text(found.replace('}, "', '},\n"') + "\n")
