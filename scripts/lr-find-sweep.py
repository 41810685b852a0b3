#!/usr/bin/env python3
"""Holds what `fthost lr-find` suggests against a sweep of eight rates, by validation accuracy, for LoRA, full and a head alone.

    scripts/lr-find-sweep.py --model FOLDER --out FOLDER sst2=TRAIN.tsv trec=TRAIN.tsv

Of each file some examples train (--train) and others validate (--validate), drawn once by their order in a shuffle: give training files,
never a test file. Each run is one epoch with a linear schedule, and a run that is in --out is not made again: only suggestions are asked
for anew (--search says by which binary, --fthost which one trains). The script ends with 1 where the suggested rate's accuracy, the mean
over --seeds, is more than --within points below the best of the sweep.
"""

import argparse
import csv
import json
import pathlib
import random
import statistics
import subprocess
import sys

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("data", nargs="+", metavar="NAME=TRAIN.tsv")
p.add_argument("--model", type=pathlib.Path, required=True)
p.add_argument("--out", type=pathlib.Path, required=True)
p.add_argument("--fthost", default="target/release/fthost")
p.add_argument("--search", help="the binary that is asked; the one that trains without it")
p.add_argument("--methods", default="lora,full,head")
p.add_argument("--train", type=int, default=2000)
p.add_argument("--validate", type=int, default=2000)
p.add_argument("--batch", type=int, default=16)
p.add_argument("--seeds", default="0")
p.add_argument("--within", type=float, default=2.0)
p.add_argument("--skip-sweep", action="store_true", help="only suggestions, printed")
a = p.parse_args()

METHODS = {
    "lora": 'plugin = "lora"\nrank = 8\nalpha = 16\ntargets = ["query", "value"]',
    "full": 'plugin = "full"',
    "head": 'plugin = "freezing"',
}
# A rate every four sevenths of a decade.
RATES = [float(f"{10 ** (-5 + 4 * i / 7):.2g}") for i in range(8)]
SEEDS = [int(seed) for seed in a.seeds.split(",")]


def rows(path):
    """The examples of a TSV file, without a header that says text and label."""
    with open(path, newline="") as file:
        read = [row for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if row]
    return read[1:] if read[0] == ["text", "label"] else read


def prepare(name, path):
    """The two files that a data set's runs read."""
    files = {part: a.out / f"{name}-{part}.tsv" for part in ("train", "validation")}
    if not all(file.is_file() for file in files.values()):
        read = rows(path)
        random.Random(0).shuffle(read)
        parts = {"train": read[: a.train], "validation": read[a.train : a.train + a.validate]}
        for part, file in files.items():
            file.write_text("text\tlabel\n" + "".join("\t".join(row) + "\n" for row in parts[part]))
    return files


def run_file(name, method, files):
    path = a.out / f"{name}-{method}.toml"
    path.write_text(f"""[model]
path = {json.dumps(str(a.model.resolve()))}

[[task]]
name = "{name}"
head = {{ plugin = "classification" }}
train = {json.dumps(str(files["train"].resolve()))}
validation = {json.dumps(str(files["validation"].resolve()))}

[[strategy]]
{METHODS[method]}

[schedule]
plugin = "linear"
warmup = 0.06

[train]
epochs = 1
batch_size = {a.batch}
lr = 1e-3
""")
    return path


def accuracy(file, rate, seed):
    """Validation accuracy at the end of a run, in points; 0 where it broke off."""
    out = a.out / f"{file.stem}-{rate:g}-{seed}"
    if not (out / "result.json").is_file():
        subprocess.run(["rm", "-rf", out], check=True)
        command = [a.fthost, file, "--out", out, "--quiet", "--seed", str(seed), "--set", f"train.lr={rate!r}"]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"{out.name}: {done.stderr.strip().splitlines()[0]}", file=sys.stderr)
            return 0.0
        for left in [*out.glob("checkpoints"), *out.glob("model"), *out.glob("adapter"), *out.glob("state.safetensors")]:
            subprocess.run(["rm", "-rf", left], check=True)
    for line in reversed((out / "metrics.jsonl").read_text().splitlines()):
        line = json.loads(line)
        if line.get("when") == "validation":
            metrics = line.get("metrics", line)
            return 100 * metrics["accuracy"]
    sys.exit(f"{out} has no validation")


def mean(file, rate):
    return statistics.mean(accuracy(file, rate, seed) for seed in SEEDS)


def suggestion(file):
    command = [a.search or a.fthost, "lr-find", file, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)["suggestion"]


def main():
    a.out.mkdir(parents=True, exist_ok=True)
    far = False
    heads = "".join(f"{rate:>8.1e}" for rate in RATES)
    print(f"{'':12}{heads}   suggested     gives  below the best")
    for argument in a.data:
        name, path = argument.split("=", 1)
        files = prepare(name, path)
        for method in a.methods.split(","):
            file = run_file(name, method, files)
            swept = [] if a.skip_sweep else [mean(file, rate) for rate in RATES]
            line = f"{name + ' ' + method:12}" + "".join(f"{value:8.2f}" for value in swept)
            rate = suggestion(file)
            if rate is None:
                print(f"{line}   none", flush=True)
                far = True
                continue
            rate = float(f"{rate:.2g}")
            if a.skip_sweep:
                print(f"{line}   {rate:9.1e}", flush=True)
                continue
            gives = mean(file, rate)
            below = max(swept) - gives
            far |= below > a.within
            print(f"{line}   {rate:9.1e}  {gives:8.2f}  {below:6.2f}", flush=True)
    sys.exit(int(far))


if __name__ == "__main__":
    main()
