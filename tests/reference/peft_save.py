#!/usr/bin/env python3
"""Lets PEFT save a folder with random weights in all that it trains, and says what it computes with it.

Usage: peft_save.py BASE_FOLDER OUT_FOLDER TEST.tsv CONFIG_JSON
Needs: pip install torch transformers peft tokenizers

CONFIG_JSON are the fields of an adapter_config.json. Prints the mean cross entropy over the `text<TAB>class` rows of TEST.tsv, classes by
their numbers, as one JSON line.
"""

import json
import sys
from pathlib import Path

import torch
from peft import get_peft_config, get_peft_model
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification

base, out, test = map(Path, sys.argv[1:4])
config = get_peft_config({"task_type": "SEQ_CLS", **json.loads(sys.argv[4])})
model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, ignore_mismatched_sizes=True)
model = get_peft_model(model, config).eval()
torch.manual_seed(0)
for parameter in model.parameters():
    if parameter.requires_grad:
        parameter.data += 0.2 * torch.randn_like(parameter)
model.save_pretrained(out)

tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
tokenizer.no_padding()
rows = [line.rsplit("\t", 1) for line in test.read_text().splitlines()]
with torch.no_grad():
    logits = torch.cat([model(input_ids=torch.tensor([tokenizer.encode(text).ids])).logits for text, _ in rows])
loss = torch.nn.functional.cross_entropy(logits, torch.tensor([int(label) for _, label in rows]))
print(json.dumps({"loss": loss.item(), "logits": logits.tolist()}))
