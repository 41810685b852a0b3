#!/usr/bin/env python3
"""Puts bottleneck adapters that fthost saved into Transformers' BERT, and says what it computes with them.

Usage: adapter_check.py BASE_FOLDER ADAPTER_FOLDER TEST.tsv OPTIONS_JSON
Needs: pip install torch transformers tokenizers

OPTIONS_JSON are the strategy's options (kind, activation, scale). Prints what peft_check.py prints: mean cross entropy and the
confusion matrix (rows: true classes) over the `text<TAB>label` rows of TEST.tsv, as one JSON line.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

base, folder, test = map(Path, sys.argv[1:4])
options = json.loads(sys.argv[4])
labels = json.loads((folder / "labels.json").read_text())
model = AutoModelForSequenceClassification.from_pretrained(
    base, num_labels=len(labels), ignore_mismatched_sizes=True
).eval()
saved = {
    name.removeprefix("base_model.model."): tensor
    for name, tensor in load_file(folder / "adapter_model.safetensors").items()
}
adapters = {name.split(".adapter.")[0] for name in saved if ".adapter." in name}
missing = model.load_state_dict({n: t for n, t in saved.items() if ".adapter." not in n}, strict=False)
assert not missing.unexpected_keys, missing.unexpected_keys

kind = options["kind"]
activation = getattr(functional, options.get("activation") or ("gelu" if kind == "houlsby" else "relu"))
scale = options.get("scale") or (4.0 if kind == "parallel" else 1.0)


def install(site):
    """Adds a site's adapter to what its dropout gives, which BERT normalises after the residual is added."""

    def update(x):
        down, up = ([saved[f"{site}.adapter.{layer}.{of}"] for of in ("weight", "bias")] for layer in ("down", "up"))
        return scale * functional.linear(activation(functional.linear(x, *down)), *up)

    module, residual = model.get_submodule(site), []
    module.register_forward_pre_hook(lambda _, inputs: residual.__setitem__(slice(None), inputs[1:]))
    module.dropout.register_forward_hook(lambda _, __, x: x + update(*residual if kind == "parallel" else [x]))


for site in adapters:
    install(site)
layers = model.config.num_hidden_layers
assert len(adapters) == layers * (2 if kind == "houlsby" else 1), adapters

tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
tokenizer.no_padding()
loss, confusion = 0.0, [[0] * len(labels) for _ in labels]
rows = [line.rsplit("\t", 1) for line in test.read_text().splitlines()]
with torch.no_grad():
    for text, label in rows:
        logits = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).logits[0]
        target = labels.index(label)
        loss += functional.cross_entropy(logits, torch.tensor(target)).item()
        confusion[target][logits.argmax().item()] += 1
print(json.dumps({"loss": loss / len(rows), "confusion": confusion}))
