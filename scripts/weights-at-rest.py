#!/usr/bin/env python3
"""Measures what a model's weights cost at rest: peak memory, and the time to the end of the first step, in turn with PyTorch + PEFT.

Usage: weights-at-rest.py --minilm MODEL_DIR --train TRAIN.tsv --python VENV/bin/python [--peer peft_text.py] [--bert BERT_DIR]
                          [--fthost target/release/fthost] [--runs 3] [--steps 3] [--out runs/weights]

Two cases: BERT-base with LoRA by products of bf16, eight rows a batch, and MiniLM with LoRA in f32, sixteen rows. Each measured run follows
directly on one of the same program that is not counted, so that no file has to come from the disk, nor memory from whoever lends the machine. Where --bert is no folder, a
BERT-base with random weights and MiniLM's tokenizer is made there by Transformers. Medians of --runs; the limits that must hold stand beside
them. `peft_text.py` prints one JSON line with peak_rss_mb and first_step_s; without it the peer is skipped.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

# Name, which model, precision, rows of a batch, and the limits: megabytes and seconds to the end of the first step.
CASES = [("BERT-base", "bert", "bf16", 8, 650, 1.5), ("MiniLM", "minilm", "f32", 16, 280, None)]

RUN = """
[model]
path = {model}
[[task]]
name = "text"
head = {{ plugin = "classification" }}
train = {train}
[[strategy]]
plugin = "lora"
rank = 8
alpha = 16
targets = ["query", "value"]
[schedule]
plugin = "constant"
[train]
steps = {steps}
batch_size = {batch}
lr = 5e-4
precision = "{precision}"
"""

MAKE = """
import sys, torch
from transformers import BertConfig, BertModel
torch.manual_seed(0)
BertModel(BertConfig()).save_pretrained(sys.argv[1])
"""
TOKENIZER = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--minilm", type=pathlib.Path, required=True)
p.add_argument("--train", type=pathlib.Path, required=True)
p.add_argument("--python", default=sys.executable, help="an interpreter with torch, transformers and peft")
p.add_argument("--peer")
p.add_argument("--bert", type=pathlib.Path, default=pathlib.Path("target/fixtures/bert-base-random"))
p.add_argument("--fthost", default="target/release/fthost")
p.add_argument("--runs", type=int, default=3)
p.add_argument("--steps", type=int, default=3)
p.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/weights"))
a = p.parse_args()
offline = os.environ | {"HF_HUB_OFFLINE": "1"}


def make_bert():
    if a.bert.is_dir():
        return
    partial = a.bert.with_name(a.bert.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    subprocess.run([a.python, "-c", MAKE, partial], check=True, env=offline)
    for name in TOKENIZER:
        shutil.copy(a.minilm / name, partial)
    partial.rename(a.bert)


def ours(model, precision, batch, out):
    quoted = {"model": json.dumps(str(model.resolve())), "train": json.dumps(str(a.train.resolve()))}
    file = a.out / "run.toml"
    file.write_text(RUN.format(precision=precision, batch=batch, steps=a.steps, **quoted))
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run([a.fthost, file, "--out", out, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    train = json.loads((out / "result.json").read_text())["train"]
    return train["peak_rss_bytes"] / 1e6, train["first_step_seconds"]


def peers(model, precision, batch, _):
    # The peer takes a test file too; few rows keep its evaluation from counting.
    few = a.out / "few.tsv"
    few.write_text("".join(a.train.read_text(encoding="utf8").splitlines(keepends=True)[: 1 + batch]), encoding="utf8")
    command = [a.python, a.peer, model, a.train, few, "--batch", str(batch), "--limit", str(batch * a.steps)]
    command += ["--bf16"] if precision == "bf16" else []
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=offline).stdout
    row = json.loads(said.strip().splitlines()[-1])
    return row["peak_rss_mb"] * 1.048576, row["first_step_s"]


make_bert()
a.out.mkdir(parents=True, exist_ok=True)
sides = {"fthost": ours} | ({"peer": peers} if a.peer else {})
if not a.peer:
    print("skipped: the peer (--peer names none)")
held = True
for name, which, precision, batch, most_mb, most_s in CASES:
    model = getattr(a, which)
    rows = {who: [] for who in sides}
    for i in range(a.runs):
        for who, run in sides.items():
            warm, measured = (run(model, precision, batch, a.out / f"{which}-{i}") for _ in range(2))
            rows[who].append(measured)
    for who, row in rows.items():
        mb, seconds = (statistics.median(values) for values in zip(*row))
        print(f"{name:10} {precision:5} {who:7} {mb:7.0f} MB {seconds:7.2f} s to the end of the first step")
        if who == "fthost":
            mine = (mb, most_mb), (seconds, most_s)
            held &= all(most is None or found <= most for found, most in mine)
    limits = f"{most_mb} MB" + (f", {most_s} s" if most_s else "")
    print(f"{'':10} {'':5} at most {limits}")
print("the limits hold" if held else "the limits do not hold")
sys.exit(0 if held else 1)
