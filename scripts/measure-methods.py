#!/usr/bin/env python3
"""Measures methods on real texts: a table for each of TREC, STS, these and SST-2 together, and TREC before SST-2. (SST-2 beside PEFT:
compare-peft.py.)

Usage: measure-methods.py trec|sts|mixture|joint|sequence --data FOLDER --model FOLDER [--out runs/methods] [--fthost target/release/fthost]

FOLDER of data: sst2/{train,test}.tsv (text, label), trec/{train,test}.tsv (text, label), sts/{train,test}.tsv (text, text_pair, score).
Run files are written to --out, and each is run with --seeds seeds, from 0 (trec and sts: by `fthost compare`). A folder that is there
is gone on with. Learning rates were chosen on a tenth of the training examples, never on the test file, and so is how the joint run mixes
its tasks: `mixture` tries sampling rules and weights of STS, one epoch each, and names the one with the highest mean of the three tasks'
metrics. `joint` takes TREC and STS alone from the runs of `trec` and `sts`, which have the same options.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("what", choices=["trec", "sts", "mixture", "joint", "sequence"])
p.add_argument("--data", type=pathlib.Path, required=True)
p.add_argument("--model", type=pathlib.Path, required=True)
p.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/methods"))
p.add_argument("--fthost", default="target/release/fthost")
p.add_argument("--seeds", type=int, default=3)
p.add_argument("--precision", default="f32", choices=["f32", "bf16"])
p.add_argument("--lambdas", default="1e4,3e4,1e5", help="EWC's in sequence")
a = p.parse_args()

LORA = 'plugin = "lora"\nrank = 8\nalpha = 16\n'
LORA_EVERYWHERE = LORA + 'targets = ["query", "key", "value", "dense"]\n'
HOULSBY = 'plugin = "adapter"\nkind = "houlsby"\n'
FULL = 'plugin = "full"\n'
HEAD_ONLY = 'plugin = "freezing"\n'
METRICS = {"sst2": "accuracy", "trec": "accuracy", "sts": "pearson"}
# How tasks may be mixed: the sampling rule and the weight of STS. The first is the one that `mixture` chose.
MIXTURES = [("uniform", 1), ("proportional", 1), ("proportional", 3)]
WARM_UP = '[schedule]\nplugin = "linear"\nwarmup = 0.06\n'


def task(name, head='{ plugin = "classification" }', more="", data=("train", "test")):
    files = "".join(f"{part} = {json.dumps(str((a.data / name / f'{part}.tsv').resolve()))}\n" for part in data)
    return f'[[task]]\nname = "{name}"\nhead = {head}\n{files}{more}\n'


def sts(more="", data=("train", "test")):
    return task("sts", '{ plugin = "regression", center = 2.5, scale = 1.5 }', 'columns = { label = "score" }\n' + more, data)


SST2, TREC = task("sst2"), task("trec")


def write(name, tasks, strategy, train, more=""):
    folder = a.out / a.what
    folder.mkdir(parents=True, exist_ok=True)
    model = json.dumps(str(a.model.resolve()))
    train += f'precision = "{a.precision}"\n'
    text = f"[model]\npath = {model}\n\n{tasks}\n[[strategy]]\n{strategy}\n{more}\n[train]\n{train}"
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def run(name, path, seed=0):
    """The result of one run, which is not made again."""
    out = path.parent / f"{name}-{seed}"
    if not (out / "result.json").is_file():
        command = [a.fthost, path, "--out", out, "--seed", str(seed), "--quiet"]
        subprocess.run(command + (["--resume"] if out.exists() else []), check=True, stdout=subprocess.DEVNULL)
    return json.loads((out / "result.json").read_text())


def compare(files, metric=None):
    out = a.out / a.what / "comparison"
    command = [a.fthost, "compare", *files, "--seeds", str(a.seeds), "--out", out]
    command += ["--metric", metric] if metric else []
    subprocess.run(command + (["--resume"] if out.exists() else []), check=True)


def main():
    if a.what == "trec":
        methods = {"full": (FULL, 1e-4), "lora": (LORA_EVERYWHERE, 1e-3), "houlsby": (HOULSBY, 1e-3)}
        train = "epochs = 3\nbatch_size = 16\n"
        files = [write(name, TREC, text, f"{train}lr = {lr}\n", WARM_UP) for name, (text, lr) in methods.items()]
        compare(files)
    elif a.what == "sts":
        methods = {"full": (FULL, 1e-4), "lora": (LORA, 2e-3), "head": (HEAD_ONLY, 2e-3)}
        train = "epochs = 3\nbatch_size = 16\n"
        files = [write(name, sts(), text, f"{train}lr = {lr}\n", WARM_UP) for name, (text, lr) in methods.items()]
        compare(files, "pearson")
    elif a.what == "mixture":
        means = {}
        for sampling, weight in MIXTURES:
            held_out = "validation = 0.1\n"
            tasks = "".join(task(name, more=held_out, data=["train"]) for name in ("sst2", "trec"))
            tasks += sts(f"{held_out}weight = {weight}\n", ["train"])
            name = f"{sampling}-{weight}"
            train = f'sampling = "{sampling}"\nepochs = 1\nbatch_size = 16\nlr = 1e-4\n'
            run(name, write(name, tasks, FULL, train, WARM_UP))
            lines = map(json.loads, (a.out / a.what / f"{name}-0/metrics.jsonl").read_text().splitlines())
            metrics = {line["task"]: line["metrics"][METRICS[line["task"]]] for line in lines if line.get("when") == "validation"}
            means[name] = statistics.mean(metrics.values())
            print(f"{name}: " + ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()) + f"; mean {means[name]:.4f}", flush=True)
        print(f"best: {max(means, key=means.get)}")
    elif a.what == "joint":
        train = "epochs = 3\nbatch_size = 16\nlr = 1e-4\n"
        sampling, weight = MIXTURES[0]
        tasks = SST2 + TREC + sts(f"weight = {weight}\n")
        joint = write("joint", tasks, FULL, f'sampling = "{sampling}"\n' + train, WARM_UP)
        sst2 = write("sst2", SST2, FULL, train, WARM_UP)
        singles = {name: a.out / name / "comparison/full" for name in ("trec", "sts")}
        for name, runs in singles.items():
            if not all((runs / f"seed-{seed}/result.json").is_file() for seed in range(a.seeds)):
                sys.exit(f"{runs} lacks results of seeds below {a.seeds}: run `measure-methods.py {name} --seeds {a.seeds}` first")
        found = {name: ([], []) for name in METRICS}
        for seed in range(a.seeds):
            together, alone = run("joint", joint, seed), {"sst2": run("sst2", sst2, seed)}
            for name, runs in singles.items():
                alone[name] = json.loads((runs / f"seed-{seed}/result.json").read_text())
            for name, metric in METRICS.items():
                for values, result in zip(found[name], (alone[name], together)):
                    values.append(result["tasks"][name]["metrics"][metric])
                print(f"{name}, seed {seed}: {metric} {found[name][0][-1]:.4f} alone, {found[name][1][-1]:.4f} together", flush=True)
        for name, values in found.items():
            alone, together = map(statistics.mean, values)
            print(f"{name}: {alone:.4f} alone, {together:.4f} together ({together - alone:+.4f}), means of {a.seeds}")
    else:
        # Both tasks see the whole of theirs twice.
        train = 'tasks = "sequence"\nepochs = 2\nbatch_size = 16\nlr = 5e-5\n'
        for strength in (None, *map(float, a.lambdas.split(","))):
            name = "without" if strength is None else f"ewc-{strength:.0e}"
            ewc = "" if strength is None else f'[[regularizer]]\nplugin = "ewc"\nlambda = {strength}\n'
            path = write(name, TREC + SST2, FULL, train, ewc)
            for seed in range(a.seeds):
                sequence = run(name, path, seed)["sequence"]
                first, last = sequence[0]["metrics"]["trec"]["accuracy"], sequence[1]["metrics"]["trec"]["accuracy"]
                second = sequence[1]["metrics"]["sst2"]["accuracy"]
                print(f"{name}, seed {seed}: TREC {first:.4f}, then {last:.4f} ({last - first:+.4f}); SST-2 {second:.4f}", flush=True)


sys.exit(main())
