#!/usr/bin/env python3
"""Trains a LoRA by DPO on pairs of answers with torch, Transformers and PEFT, and says how well it tells held-out pairs apart.

Usage: dpo.py MODEL_FOLDER PAIRS.json [--hold 100] [--epochs 1] [--batch 8] [--lr 5e-5] [--rank 8] [--alpha 16] [--beta 0.1]
              [--max-len 512] [--limit N] [--seed 0] [--schedule constant] [--micro 4]
Needs: pip install torch transformers peft

PAIRS.json is a list of {instruction, input, chosen, rejected}: one turn of the user (instruction, two newlines, input) and one of the
assistant, written by the model's chat template; an answer counts with its end of turn, and is cut to --max-len with its prompt. Pairs with
equal answers are left out. The last --hold of the file's rows are held out. The reference is the model with its adapter off, its
log-probabilities computed before step 1. The loss of a step is the mean over its pairs; AdamW with weight decay 0.01 as PyTorch has it.
Prints one JSON line: TRL's metrics on the held-out pairs before and after.
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

arguments = argparse.ArgumentParser()
arguments.add_argument("model")
arguments.add_argument("pairs")
for name, default in [("hold", 100), ("epochs", 1), ("batch", 8), ("rank", 8), ("alpha", 16), ("max-len", 512), ("limit", 0), ("seed", 0)]:
    arguments.add_argument(f"--{name}", type=int, default=default)
arguments.add_argument("--lr", type=float, default=5e-5)
arguments.add_argument("--beta", type=float, default=0.1)
arguments.add_argument("--schedule", choices=["constant", "linear"], default="constant")
arguments.add_argument("--micro", type=int, default=4, help="pairs of one forward pass")
options = arguments.parse_args()

torch.manual_seed(options.seed)
tokenizer = AutoTokenizer.from_pretrained(options.model)
model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
model.config.use_cache = False
model = get_peft_model(
    model,
    LoraConfig(task_type="CAUSAL_LM", r=options.rank, lora_alpha=options.alpha, target_modules="all-linear", lora_dropout=0.0),
)


def encode(row, answer):
    """Ids, and which of them count."""
    asked = row["instruction"] + (f"\n\n{row['input']}" if row.get("input") else "")
    turns = [{"role": "user", "content": asked}]
    prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(
        turns + [{"role": "assistant", "content": row[answer]}], tokenize=False
    )
    before, ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, whole))
    return ids[: options.max_len], ([0] * len(before) + [1] * (len(ids) - len(before)))[: options.max_len]


def pairs_of(rows):
    pairs = [(encode(row, "chosen"), encode(row, "rejected")) for row in rows]
    return [pair for pair in pairs if pair[0][0] != pair[1][0] and any(pair[0][1]) and any(pair[1][1])]


def log_probabilities(pairs):
    """Of both answers of each pair, [pairs, 2]: sums over the tokens that count."""
    sequences = [sequence for pair in pairs for sequence in pair]
    longest = max(len(ids) for ids, _ in sequences)
    padded = lambda values, fill: torch.tensor([row + [fill] * (longest - len(row)) for row in values])
    ids = padded([ids for ids, _ in sequences], tokenizer.pad_token_id or 0)
    counts = padded([counts for _, counts in sequences], 0)
    mask = padded([[1] * len(ids) for ids, _ in sequences], 0)
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
    said = F.log_softmax(logits, -1).gather(2, ids[:, 1:, None])[..., 0]
    return (said * counts[:, 1:]).sum(1).reshape(-1, 2)


@torch.no_grad()
def reference_of(pairs):
    model.eval()
    with model.disable_adapter():
        found = [log_probabilities(pairs[i : i + options.micro]) for i in range(0, len(pairs), options.micro)]
    return torch.cat(found)


@torch.no_grad()
def measure(pairs, reference):
    model.eval()
    policy = torch.cat([log_probabilities(pairs[i : i + options.micro]) for i in range(0, len(pairs), options.micro)])
    rewards = options.beta * (policy - reference)
    margin = rewards[:, 0] - rewards[:, 1]
    return {
        "reward_accuracy": (margin > 0).double().mean().item(),
        "reward_margin": margin.mean().item(),
        "rewards_chosen": rewards[:, 0].mean().item(),
        "rewards_rejected": rewards[:, 1].mean().item(),
        "loss": -F.logsigmoid(margin).mean().item(),
    }


rows = json.load(open(options.pairs, encoding="utf8"))
held, rows = rows[len(rows) - options.hold :], rows[: len(rows) - options.hold]
train, held = pairs_of(rows[: options.limit] if options.limit else rows), pairs_of(held)
began = time.time()
reference, reference_held = reference_of(train), reference_of(held)
reference_seconds = time.time() - began
before = measure(held, reference_held)

trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
optimizer = torch.optim.AdamW(trainable, lr=options.lr, weight_decay=0.01)
steps = options.epochs * -(-len(train) // options.batch)
began, step = time.time(), 0
for epoch in range(options.epochs):
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(options.seed + epoch)).tolist()
    for first in range(0, len(order), options.batch):
        batch = order[first : first + options.batch]
        model.train()
        for at in range(0, len(batch), options.micro):
            some = batch[at : at + options.micro]
            rewards = options.beta * (log_probabilities([train[i] for i in some]) - reference[some])
            (-F.logsigmoid(rewards[:, 0] - rewards[:, 1]).sum() / len(batch)).backward()
        for group in optimizer.param_groups:
            group["lr"] = options.lr * (1 - step / steps if options.schedule == "linear" else 1)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
seconds = time.time() - began
print(json.dumps({
    "pairs": len(train),
    "held_out": len(held),
    "steps": steps,
    "before": before,
    "after": measure(held, reference_held),
    "reference_seconds": round(reference_seconds, 1),
    "train_seconds": round(seconds, 1),
}))
