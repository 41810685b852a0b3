#!/usr/bin/env python3
"""Compares what a saved LoRA of fthost has taken out of the base weights with what PEFT takes out of them at its start.

Usage: lora_start_check.py BASE_FOLDER ADAPTER_FOLDER INIT       INIT is PEFT's init_lora_weights: pissa or olora
Needs: pip install torch transformers peft

The adapter has twice the rank: A above A0, and B beside -B0. Prints one JSON line: for each layer how far s B0 A0 is from PEFT's first
s B A, divided by that one's norm.
"""

import json
import sys
from pathlib import Path

from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

base, adapter, init = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
ours = json.loads((adapter / "adapter_config.json").read_text())
rank, alpha = ours["r"] // 2, ours["lora_alpha"] / 2
config = LoraConfig(
    task_type="SEQ_CLS", r=rank, lora_alpha=alpha, target_modules=ours["target_modules"], init_lora_weights=init
)
model = get_peft_model(AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, ignore_mismatched_sizes=True), config)
theirs = {name.replace(".default", ""): value.detach() for name, value in model.named_parameters() if "lora_" in name}
tensors = load_file(adapter / "adapter_model.safetensors")
off = {}
for name, a in theirs.items():
    if "lora_A" not in name:
        continue
    other = name.replace("lora_A", "lora_B")
    expected = theirs[other] @ a
    found = -tensors[other][:, rank:] @ tensors[name][rank:]
    off[name] = ((found - expected).norm() / expected.norm()).item()
print(json.dumps(off))
