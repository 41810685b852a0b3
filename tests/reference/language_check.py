#!/usr/bin/env python3
"""The loss of a language model on a text, as Transformers and PEFT compute it, in blocks of which the first token is not scored.

Usage: language_check.py BASE_FOLDER TEXT MAX_TOKENS [--adapter FOLDER] [--save FOLDER CONFIG_JSON]
Needs: pip install torch transformers peft tokenizers safetensors

--adapter opens what PEFT or a run has saved; --save has PEFT save one with random weights first, of these fields of an adapter_config.json.
Prints the mean loss as one JSON line.
"""

import argparse
import json
from pathlib import Path

import torch
from peft import PeftModel, get_peft_config, get_peft_model
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("base", type=Path)
parser.add_argument("text", type=Path)
parser.add_argument("max_tokens", type=int)
parser.add_argument("--adapter", type=Path)
parser.add_argument("--save", nargs=2)
given = parser.parse_args()

model = AutoModelForCausalLM.from_pretrained(given.base, dtype=torch.float32)
if given.save:
    folder, fields = given.save
    tuned = get_peft_model(model, get_peft_config({"task_type": "CAUSAL_LM", **json.loads(fields)}))
    torch.manual_seed(0)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn_like(parameter)
    tuned.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(given.base, dtype=torch.float32)
    given.adapter = Path(folder)
if given.adapter:
    model = PeftModel.from_pretrained(model, given.adapter)
model.eval()
tokenizer = Tokenizer.from_file(str(given.base / "tokenizer.json"))
tokenizer.no_truncation()
ids = tokenizer.encode(given.text.read_text(encoding="utf8"), add_special_tokens=False).ids
total, count = 0.0, 0
with torch.no_grad():
    for start in range(0, len(ids), given.max_tokens):
        block = torch.tensor([ids[start : start + given.max_tokens]])
        if block.shape[1] > 1:
            # Prompts, where there are any, have rows before those of the text.
            logits = model(input_ids=block).logits[0, -block.shape[1] :][:-1].float()
            total += torch.nn.functional.cross_entropy(logits, block[0, 1:], reduction="sum").item()
            count += block.shape[1] - 1
print(json.dumps({"loss": total / count, "tokens": count}))
