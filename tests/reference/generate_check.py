#!/usr/bin/env python3
"""What Transformers makes of prompts, greedily: each by itself, in float32, written by the model's chat template.

Usage: generate_check.py MODEL_DIR PROMPTS.jsonl TOKENS        lines are {"prompt": "..."}
Needs: pip install torch transformers

Prints a JSON list with the tokens that each prompt becomes, those that come after it, and their text.
"""

import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()

folder, prompts, tokens = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
found = []
for line in open(prompts, encoding="utf8"):
    turns = [{"role": "user", "content": json.loads(line)["prompt"]}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    mask = torch.ones_like(ids)
    with torch.no_grad():
        out = model.generate(ids, attention_mask=mask, max_new_tokens=int(tokens), do_sample=False, pad_token_id=0)
    new = out[0, ids.shape[1] :]
    text = tokenizer.decode(new, skip_special_tokens=True)
    found.append({"prompt_tokens": ids.shape[1], "generated_tokens": len(new), "text": text})
print(json.dumps(found))
