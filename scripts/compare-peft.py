#!/usr/bin/env python3
"""Measures fthost beside PyTorch + PEFT on this machine: the same methods and options, in turn, medians of several runs.

Usage: compare-peft.py --peer peft_text.py --python VENV/bin/python --model MODEL_DIR --train TRAIN.tsv --test TEST.tsv
                       [--methods lora,ia3,prompt,prefix,full,head] [--precision f32|bf16] [--runs 3] [--out runs/compare]
`peft_text.py` prints one JSON line with train_s, accuracy, peak_rss_mb, first_step_s. Prints a table and the ratios.
Seeds are 0, 1, 2, ...: one per run, the same for both. A run whose figures lie in --out is not made again.
"""

import argparse
import json
import pathlib
import statistics
import subprocess

# The run file's strategy and the learning rate of each of the peer's methods. Those of prefix tuning and of a head alone are the best of
# five and of four on SST-2's validation file: at small ones they have hardly begun to learn after an epoch, and chance decides.
METHODS = {
    "lora": ('plugin = "lora"\nrank = 8\nalpha = 16\ntargets = ["query", "value"]', 5e-4),
    "ia3": ('plugin = "ia3"', 5e-4),
    "prompt": ('plugin = "prompt"\ntokens = 20', 5e-4),
    "prefix": ('plugin = "prefix"\ntokens = 20', 3e-2),
    "full": ('plugin = "full"', 5e-5),
    "head": ('plugin = "freezing"', 1e-2),
}

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--peer", required=True)
p.add_argument("--python", required=True)
p.add_argument("--model", required=True)
p.add_argument("--train", required=True)
p.add_argument("--test", required=True)
p.add_argument("--fthost", default="target/release/fthost")
p.add_argument("--methods", default="lora", help="separated by commas: " + ", ".join(METHODS))
p.add_argument("--precision", default="f32", choices=["f32", "bf16"])
p.add_argument("--runs", type=int, default=3)
p.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/compare"), help="run folders and figures")
a = p.parse_args()

# Torch's AdamW decays every parameter.
RUN = """
[model]
path = {model}
[[task]]
name = "text"
head = {{ plugin = "classification" }}
train = {train}
test = {test}
[[strategy]]
{strategy}
[schedule]
plugin = "constant"
[train]
epochs = 1
batch_size = 16
lr = {lr}
decay_biases_and_norms = true
precision = "{precision}"
"""


def ours(method, seed, out):
    strategy, lr = METHODS[method]
    quoted = {k: json.dumps(str(pathlib.Path(v).resolve())) for k, v in vars(a).items() if k in ("model", "train", "test")}
    file = out.with_suffix(".toml")
    file.write_text(RUN.format(strategy=strategy, lr=lr, precision=a.precision, **quoted))
    subprocess.run([a.fthost, file, "--seed", str(seed), "--out", out, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    r = json.loads((out / "result.json").read_text())
    t = r["train"]
    return {
        "train_s": t["seconds"],
        "peak_mb": t["peak_rss_bytes"] / 1e6,
        "first_step_s": t["first_step_seconds"],
        "accuracy": r["tasks"]["text"]["metrics"]["accuracy"],
    }


def peer(method, seed, _):
    command = [a.python, a.peer, a.model, a.train, a.test, "--method", method, "--lr", str(METHODS[method][1]), "--seed", str(seed)]
    command += ["--bf16"] if a.precision == "bf16" else []
    r = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])
    return {
        "train_s": r["train_s"],
        "peak_mb": r["peak_rss_mb"] * 1.048576,
        "first_step_s": r["first_step_s"],
        "accuracy": r["accuracy"],
    }


a.out.mkdir(parents=True, exist_ok=True)
figures = {}
for seed in range(a.runs):
    for method in a.methods.split(","):
        for who, run in (("fthost", ours), ("peer", peer)):
            out = a.out / f"{who}-{method}-{a.precision}-{seed}"
            known = out.with_suffix(".json")
            if not known.is_file():
                known.write_text(json.dumps(run(method, seed, out)))
            row = json.loads(known.read_text())
            figures.setdefault((method, who), []).append(row)
            print(json.dumps({"who": who, "method": method, "seed": seed, **row}), flush=True)

print(f"\n{a.precision}, {a.runs} runs in turn; medians (accuracy: mean)")
print(f"{'':8}{'':14}{'fthost':>10}{'peer':>10}{'ratio':>8}")
for method in a.methods.split(","):
    for key in ("train_s", "peak_mb", "first_step_s", "accuracy"):
        middle = statistics.mean if key == "accuracy" else statistics.median
        mine, theirs = (middle(row[key] for row in figures[method, who]) for who in ("fthost", "peer"))
        print(f"{method:8}{key:14}{mine:10.4g}{theirs:10.4g}{mine / theirs:8.3f}")
