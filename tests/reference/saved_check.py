#!/usr/bin/env python3
"""Opens folders that fthost saved with Transformers and PEFT, and says where these compute something else.

Usage: saved_check.py CASES.json
Needs: pip install torch transformers peft

CASES.json is a list of {of, folder, base, data, predictions, labels, loss, pair, cased}: `folder` is a whole model's or an adapter's, `base`
the model that was adapted, `data` rows.tsv (text, pair, label) or words.jsonl, `predictions` what fthost says of each row. Prints a JSON
list of what is wrong.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    pipeline,
    set_seed,
)
from transformers.utils import logging

logging.set_verbosity_error()


def adapter(case, auto):
    """PEFT's model on the base; a module that Transformers makes at random must come with the adapter."""
    labels = case["labels"]
    set_seed(len(case["of"]))
    model = auto.from_pretrained(
        case["base"],
        num_labels=len(labels) or 1,
        ignore_mismatched_sizes=True,
        dtype=torch.float32,
    )
    model = PeftModel.from_pretrained(model, case["folder"])
    used = {name.replace(".default", "").replace(".modules_to_save", "") for name, _ in model.named_parameters()}
    unknown = sorted(set(load_file(Path(case["folder"], "adapter_model.safetensors"))) - used)
    assert not unknown, f"PEFT has no place for {unknown}"
    config = json.loads(Path(case["folder"], "adapter_config.json").read_text())
    assert Path(config["base_model_name_or_path"]).samefile(case["base"])
    # Which file has what config.json says of this tokenizer is the base model's business.
    return model, PreTrainedTokenizerFast(tokenizer_file=case["base"] + "/tokenizer.json", pad_token="[PAD]")


def whole(case, auto):
    """Transformers' model, by the folder alone."""
    folder, labels = Path(case["folder"]), case["labels"]
    set_seed(len(case["of"]))
    model, loading = auto.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    config = model.config
    assert type(model).__name__ == config.architectures[0], config.architectures
    assert [config.id2label[i] for i in range(config.num_labels)] == (labels or ["LABEL_0"]), config.id2label
    assert config.dtype == model.dtype == torch.float32, (config.dtype, model.dtype)
    left = {"_name_or_path", "finetuning_task", "num_labels", "task_specific_params", "torch_dtype"}
    left &= json.loads((folder / "config.json").read_text()).keys()
    assert not left, left
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = Path(case["base"], "tokenizer_config.json")
    longest = json.loads(theirs.read_text())["model_max_length"] if theirs.exists() else None
    assert longest in (None, tokenizer.model_max_length), tokenizer.model_max_length
    assert tokenizer.model_max_length <= config.max_position_embeddings
    plain = Tokenizer.from_file(case["base"] + "/tokenizer.json")
    for text in ["The Film was good", "the film was good"]:
        assert tokenizer(text)["input_ids"] == plain.encode(text).ids, text
    return model, tokenizer


def check_rows(case, model, tokenizer, is_whole):
    lines = Path(case["data"]).read_text().splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    texts = [(row[0], row[1]) if case["pair"] else (row[0],) for row in rows]
    ours = [
        [row["value"]] if "value" in row else [row["probabilities"][label] for label in case["labels"]]
        for row in case["predictions"]
    ]
    ours = torch.tensor(ours)
    encoded = tokenizer(*map(list, zip(*texts)), padding=True, return_tensors="pt")
    if not case["pair"]:
        encoded.pop("token_type_ids", None)
    with torch.no_grad():
        logits = model(**encoded).logits
    theirs = logits if not case["labels"] else logits.softmax(-1)
    assert theirs.shape == ours.shape, (theirs.shape, ours.shape)
    tolerance = 1e-4 * max(1.0, ours.abs().max().item() / 100)
    worst = (theirs - ours).abs().max().item()
    assert worst < tolerance, f"the model differs by {worst}"
    if not is_whole:
        return
    expected = "single_label_classification" if case["labels"] else "regression"
    assert model.config.problem_type == expected, model.config.problem_type
    pipe = pipeline("text-classification", model=case["folder"], top_k=None, device=-1)
    inputs = [dict(zip(["text", "text_pair"], text)) for text in texts]
    for answers, row in zip(pipe(inputs), case["predictions"]):
        for answer in answers:
            score = row["value"] if "value" in row else row["probabilities"][answer["label"]]
            assert abs(answer["score"] - score) < tolerance, f"the pipeline says {answer} of {row}"


def check_words(case, model, tokenizer):
    loss, counted = 0.0, 0
    labels = case["labels"]
    for line, ours in zip(Path(case["data"]).read_text().splitlines(), case["predictions"], strict=True):
        row = json.loads(line)
        encoded = tokenizer(row["text"], is_split_into_words=True)
        words, previous, targets = encoded.word_ids(), None, []
        for word in words:
            begins = word is not None and word != previous
            targets.append(labels.index(row["label"][word]) if begins else -100)
            previous = word
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([encoded["input_ids"]])).logits[0]
        loss += torch.nn.functional.cross_entropy(logits, torch.tensor(targets), reduction="sum").item()
        best = [labels[i] for i, target in zip(logits.argmax(-1).tolist(), targets) if target != -100]
        assert best == ours["labels"], (best, ours)
        counted += len(best)
    assert abs(loss / counted - case["loss"]) < 1e-4, (loss / counted, case["loss"])


wrong = []
for case in json.loads(Path(sys.argv[1]).read_text()):
    words = case["data"].endswith(".jsonl")
    auto = AutoModelForTokenClassification if words else AutoModelForSequenceClassification
    is_whole = not Path(case["folder"], "adapter_config.json").exists()
    try:
        model, tokenizer = (whole if is_whole else adapter)(case, auto)
        model.eval()
        check_words(case, model, tokenizer) if words else check_rows(case, model, tokenizer, is_whole)
    except Exception as error:  # all that is wrong is listed
        wrong.append(f"{case['of']}: {type(error).__name__}: {error}")
print(json.dumps(wrong))
