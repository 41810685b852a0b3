#!/usr/bin/env python3
"""Takes one step of gradient descent in PEFT from an adapter that fthost saved, and compares it with fthost's own next one.

Usage: peft_step.py BASE_FOLDER ADAPTER_FOLDER NEXT_ADAPTER_FOLDER TRAIN.tsv|TRAIN.jsonl RATE
Needs: pip install torch transformers peft tokenizers

The step is on the mean cross entropy over all `text<TAB>label` rows of TRAIN.tsv, or over all next tokens of the {"text": ...} rows of
TRAIN.jsonl, without dropout. Prints one JSON line: for each
tensor that trains how far fthost's step is from PEFT's, beyond the rounding of the values that it leads to, divided by the length of
PEFT's (of a tensor that hardly moves, by a thousandth of the longest).
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

base, adapter, after, train = map(Path, sys.argv[1:5])
rate = float(sys.argv[5])
tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
tokenizer.no_padding()
lines = train.read_text().splitlines()
if train.suffix == ".jsonl":
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    rows = [torch.tensor([tokenizer.encode(json.loads(line)["text"]).ids]) for line in lines]
    rows = [(ids, ids[0, 1:], slice(0, -1)) for ids in rows]
else:
    labels = json.loads((adapter / "labels.json").read_text())
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=len(labels), ignore_mismatched_sizes=True
    )
    rows = [line.rsplit("\t", 1) for line in lines]
    rows = [
        (torch.tensor([tokenizer.encode(text).ids]), torch.tensor([labels.index(label)]), slice(None))
        for text, label in rows
    ]
model = PeftModel.from_pretrained(model, adapter, is_trainable=True).eval()
scored = sum(len(targets) for _, targets, _ in rows)
for ids, targets, counts in rows:
    logits = model(input_ids=ids).logits
    logits = logits[0, counts] if logits.dim() == 3 else logits
    (torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / scored).backward()


def saved(name):
    """The name of a parameter in the adapter's file."""
    name = name.replace(".default", "").replace(".modules_to_save", "")
    return name.removesuffix(".weight") if "magnitude" in name else name


now, then = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, after))
steps = {saved(n): -rate * p.grad for n, p in model.named_parameters() if p.requires_grad}
assert steps.keys() == now.keys(), steps.keys() ^ now.keys()
# The bias of keys has no gradient but rounding: softmax does not see it.
least = 1e-3 * max(step.norm().item() for step in steps.values())


def off(name, step):
    rounding = 2**-24 * then[name].norm()
    distance = (then[name] - now[name] - step).norm() - rounding
    return (distance.clamp_min(0) / step.norm().clamp_min(least)).item()


print(json.dumps({name: off(name, step) for name, step in steps.items()}))
