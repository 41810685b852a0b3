#!/usr/bin/env python3
"""Lets PEFT save a folder with random weights in all that it trains, and says what it computes when it opens it again.

Usage: peft_save.py BASE_FOLDER OUT_FOLDER TEST.tsv CONFIG_JSON [CHANGES_JSON]
Needs: pip install torch transformers peft tokenizers safetensors

CONFIG_JSON are the fields of an adapter_config.json. CHANGES_JSON is what another version of PEFT would have saved: `drop`, an end of the
names of tensors that it did not save, and `fields` of its adapter_config.json. Prints the mean cross entropy over the `text<TAB>class` rows
of TEST.tsv, classes by their numbers, as one JSON line.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel, get_peft_config, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification

base, out, test = map(Path, sys.argv[1:4])
config = get_peft_config({"task_type": "SEQ_CLS", **json.loads(sys.argv[4])})
changes = json.loads(sys.argv[5]) if len(sys.argv) > 5 else {}


def base_model():
    torch.manual_seed(3)  # of what the base model's files do not hold
    return AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, ignore_mismatched_sizes=True)


model = get_peft_model(base_model(), config)
torch.manual_seed(0)
for parameter in model.parameters():
    if parameter.requires_grad:
        parameter.data += 0.2 * torch.randn_like(parameter)
model.save_pretrained(out)
if "drop" in changes:
    saved = load_file(out / "adapter_model.safetensors")
    kept = {name: tensor for name, tensor in saved.items() if not name.endswith(changes["drop"])}
    assert len(kept) < len(saved), f"nothing ends with {changes['drop']}"
    save_file(kept, out / "adapter_model.safetensors", {"format": "pt"})
fields = json.loads((out / "adapter_config.json").read_text()) | changes.get("fields", {})
(out / "adapter_config.json").write_text(json.dumps(fields))
model = PeftModel.from_pretrained(base_model(), out).eval()

tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
tokenizer.no_padding()
rows = [line.rsplit("\t", 1) for line in test.read_text().splitlines()]
with torch.no_grad():
    logits = torch.cat([model(input_ids=torch.tensor([tokenizer.encode(text).ids])).logits for text, _ in rows])
loss = torch.nn.functional.cross_entropy(logits, torch.tensor([int(label) for _, label in rows]))
print(json.dumps({"loss": loss.item(), "logits": logits.tolist()}))
