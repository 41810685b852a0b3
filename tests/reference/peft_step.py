#!/usr/bin/env python3
"""Takes one step of gradient descent in PEFT from an adapter that fthost saved, and compares it with fthost's own next one.

Usage: peft_step.py BASE_FOLDER ADAPTER_FOLDER NEXT_ADAPTER_FOLDER TRAIN.tsv RATE
Needs: pip install torch transformers peft tokenizers

The step is on the mean cross entropy over all `text<TAB>label` rows of TRAIN.tsv, without dropout. Prints one JSON line: for each
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
from transformers import AutoModelForSequenceClassification

base, adapter, after, train = map(Path, sys.argv[1:5])
rate = float(sys.argv[5])
labels = json.loads((adapter / "labels.json").read_text())
model = AutoModelForSequenceClassification.from_pretrained(
    base, num_labels=len(labels), ignore_mismatched_sizes=True
)
model = PeftModel.from_pretrained(model, adapter, is_trainable=True).eval()

tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
tokenizer.no_padding()
rows = [line.rsplit("\t", 1) for line in train.read_text().splitlines()]
for text, label in rows:
    logits = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).logits
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([labels.index(label)]))
    (loss / len(rows)).backward()


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
