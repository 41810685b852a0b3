#!/usr/bin/env python3
"""Loads a token classifier that fthost saved into Transformers (and PEFT, where it is an adapter), and says what they compute with it.

Usage: token_check.py BASE_FOLDER FOLDER TEST.jsonl
Needs: pip install torch transformers peft

FOLDER is an adapter's, or a whole model's. TEST.jsonl has a list of words and a list of labels in each line. Labels are put on
tokens as Transformers' run_ner does. Prints one JSON line: mean cross entropy over the tokens that count, the confusion matrix (rows:
true classes), and the label of each word.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerFast

base, folder, test = map(Path, sys.argv[1:])
labels = json.loads((folder / "labels.json").read_text())
if (folder / "adapter_config.json").exists():
    model = AutoModelForTokenClassification.from_pretrained(base, num_labels=len(labels), ignore_mismatched_sizes=True)
    model = PeftModel.from_pretrained(model, folder)
    assert model.active_peft_config.task_type == "TOKEN_CLS"
    # A key that PEFT does not know would be left out without a word.
    used = {name.replace(".default", "").replace(".modules_to_save", "") for name, _ in model.named_parameters()}
    unknown = sorted(set(load_file(folder / "adapter_model.safetensors")) - used)
    assert not unknown, f"PEFT has no place for {unknown}"
else:
    architecture = json.loads((folder / "config.json").read_text())["architectures"]
    model, loading = AutoModelForTokenClassification.from_pretrained(folder, output_loading_info=True)
    assert type(model).__name__ == architecture[0], architecture
    assert not loading["missing_keys"], loading
    assert [model.config.id2label[i] for i in range(len(labels))] == labels
model.eval()
tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(base / "tokenizer.json"))
longest = min(128, model.config.max_position_embeddings)

loss, counted = 0.0, 0
confusion = [[0] * len(labels) for _ in labels]
predicted = []
with torch.no_grad():
    for line in test.read_text().splitlines():
        row = json.loads(line)
        encoded = tokenizer(row["text"], is_split_into_words=True, truncation=True, max_length=longest)
        targets, previous = [], None
        for word in encoded.word_ids():
            begins = word is not None and word != previous
            targets.append(labels.index(row["label"][word]) if begins else -100)
            previous = word
        logits = model(input_ids=torch.tensor([encoded["input_ids"]])).logits[0]
        loss += torch.nn.functional.cross_entropy(logits, torch.tensor(targets), reduction="sum").item()
        of_row = []
        for target, best in zip(targets, logits.argmax(-1).tolist()):
            if target != -100:
                confusion[target][best] += 1
                counted += 1
                of_row.append(labels[best])
        predicted.append(of_row)
print(json.dumps({"loss": loss / counted, "confusion": confusion, "labels": predicted}))
