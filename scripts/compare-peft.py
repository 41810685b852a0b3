#!/usr/bin/env python3
"""Measures fthost beside PyTorch + PEFT on this machine: the same task, in turn, medians of several runs.

Usage: compare-peft.py --peer peft_text.py --python VENV/bin/python --model MODEL_DIR --train TRAIN.tsv --test TEST.tsv
                       [--plugin target/release/liblora.so] [--precision f32|bf16] [--runs 3] [--out runs/compare]
`peft_text.py` prints one JSON line with train_s, accuracy, peak_rss_mb, first_step_s. Prints a table and the ratios.
Seeds are 0, 1, 2, ...: one per run, the same for both.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import tempfile

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--peer", required=True)
p.add_argument("--python", required=True)
p.add_argument("--model", required=True)
p.add_argument("--train", required=True)
p.add_argument("--test", required=True)
p.add_argument("--fthost", default="target/release/fthost")
p.add_argument("--plugin", default="target/release/liblora.so")
p.add_argument("--method", default="lora", help="the peer's name of the method")
p.add_argument("--precision", default="f32", choices=["f32", "bf16"])
p.add_argument("--runs", type=int, default=3)
p.add_argument("--out", help="keep fthost's run folders here")
a = p.parse_args()

RUN = """
[model]
path = {model}
[[task]]
name = "text"
head = {{ plugin = "classification" }}
train = {train}
test = {test}
[[strategy]]
plugin = "lora"
rank = 8
alpha = 16
targets = ["query", "value"]
[schedule]
plugin = "constant"
[train]
epochs = 1
batch_size = 16
lr = 5e-4
precision = "{precision}"
"""


def last_json(text):
    return json.loads(text.strip().splitlines()[-1])


def ours(folder, seed):
    out = pathlib.Path(folder) / f"{a.precision}-{seed}"
    shutil.rmtree(out, ignore_errors=True)
    file = pathlib.Path(folder) / "run.toml"
    quoted = {k: json.dumps(str(pathlib.Path(v).resolve())) for k, v in vars(a).items() if k in ("model", "train", "test")}
    file.write_text(RUN.format(precision=a.precision, **quoted))
    command = [a.fthost, "--config", str(file), "--plugin", a.plugin, "--seed", str(seed), "--out", str(out), "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    r = json.loads((out / "result.json").read_text())
    t = r["train"]
    return {
        "train_s": t["seconds"],
        "accuracy": r["tasks"]["text"]["metrics"]["accuracy"],
        "peak_mb": t["peak_rss_bytes"] / 1e6,
        "first_step_s": t["first_step_seconds"],
    }


def peer(seed):
    command = [a.python, a.peer, a.model, a.train, a.test, "--method", a.method, "--seed", str(seed)]
    command += ["--bf16"] if a.precision == "bf16" else []
    r = last_json(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {
        "train_s": r["train_s"],
        "accuracy": r["accuracy"],
        "peak_mb": r["peak_rss_mb"] * 1.048576,
        "first_step_s": r["first_step_s"],
    }


rows = {"fthost": [], "peer": []}
with tempfile.TemporaryDirectory() as scratch:
    folder = a.out or scratch
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    for seed in range(a.runs):
        for name, run in (("fthost", lambda: ours(folder, seed)), ("peer", lambda: peer(seed))):
            rows[name].append(run())
            print(json.dumps({"who": name, "seed": seed, **rows[name][-1]}), flush=True)

print(f"\n{a.precision}, {a.runs} runs in turn; medians (accuracy: mean)")
print(f"{'':14}{'fthost':>10}{'peer':>10}{'ratio':>8}")
for key, middle in (("train_s", statistics.median), ("peak_mb", statistics.median), ("first_step_s", statistics.median), ("accuracy", statistics.mean)):
    mine, theirs = (middle(r[key] for r in rows[who]) for who in ("fthost", "peer"))
    print(f"{key:14}{mine:10.4g}{theirs:10.4g}{mine / theirs:8.3f}")
