#!/usr/bin/env python3
"""Loads an adapter that fthost saved into Transformers and PEFT, and says what they compute with it.

Usage: peft_check.py BASE_FOLDER ADAPTER_FOLDER TEST.tsv
Needs: pip install torch transformers peft tokenizers

ADAPTER_FOLDER may be a whole model's, with labels.json but without an adapter: then BASE_FOLDER is checked alone.

TEST.tsv holds `text<TAB>label` without a header; the adapter's labels.json says which class a label is. Prints one JSON line:
logits by example, mean cross entropy, and the confusion matrix (rows: true classes).
"""

import inspect
import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification

base, adapter, test = map(Path, sys.argv[1:])
labels = json.loads((adapter / "labels.json").read_text())
# The base checkpoint's own head, if it has one, has other classes: the adapter brings its own.
model = AutoModelForSequenceClassification.from_pretrained(
    base, num_labels=len(labels), ignore_mismatched_sizes=True
)
if (adapter / "adapter_config.json").exists():
    backbone = model.base_model
    model = PeftModel.from_pretrained(model, adapter)
    prefix = model.active_peft_config.peft_type == "PREFIX_TUNING"
    if prefix and "past_key_values" not in inspect.signature(backbone.forward).parameters:
        # Since 5.24 Transformers says cache, and PEFT 0.21 knows the old name alone.
        forward = backbone.forward
        backbone.forward = lambda past_key_values=None, **inputs: forward(cache=past_key_values, **inputs)

    # A key that PEFT does not know would be left out without a word.
    named = [*model.named_parameters(), *model.named_buffers(remove_duplicate=False)]  # VeRA's matrices are buffers
    used = {name.replace(".default", "").replace(".modules_to_save", "") for name, _ in named}
    used |= {name.removesuffix(".weight") for name in used if name.endswith(".lora_magnitude_vector.weight")}
    if model.active_peft_config.is_prompt_learning:
        used.add("prompt_embeddings")  # goes into the prompt encoder, under another name
    unknown = sorted(set(load_file(adapter / "adapter_model.safetensors")) - used)
    assert not unknown, f"PEFT has no place for {unknown}"
model.eval()

tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation(min(128, model.config.max_position_embeddings))

rows = [line.rsplit("\t", 1) for line in test.read_text().splitlines()]
logits, loss = [], 0.0
confusion = [[0] * len(labels) for _ in labels]
with torch.no_grad():
    for text, label in rows:
        row = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).logits[0]
        target = labels.index(label)
        loss += torch.nn.functional.cross_entropy(row, torch.tensor(target)).item()
        confusion[target][row.argmax().item()] += 1
        logits.append(row.tolist())
print(json.dumps({"logits": logits, "loss": loss / len(rows), "confusion": confusion}))
