#!/usr/bin/env python3
"""Kills a run at random moments, resumes it each time, and compares the result with that of a run that went through.

Usage: kill-resume.py RUN.toml [--kills 20] [--plugin FILE]... [--fthost target/release/fthost] [--seed N] [-- ARGUMENTS]

Everything after `--` goes to every run, such as `--set train.checkpoint_steps=10`. Prints what was compared, and ends with an error
where any bit of the saved weights, of the log (but for its clock) or of the results differs.
"""

import argparse
import hashlib
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("run")
p.add_argument("--kills", type=int, default=20)
p.add_argument("--plugin", action="append", default=[])
p.add_argument("--fthost", default="target/release/fthost")
p.add_argument("--seed", type=int, help="of the moments; without it they differ each time")
p.add_argument("arguments", nargs="*")
a = p.parse_args()

plugins = [word for plugin in a.plugin for word in ("--plugin", plugin)]
start = [a.fthost, a.run, *plugins, *a.arguments, "--quiet", "--out"]


def weights(run):
    files = [run / "adapter/adapter_model.safetensors", run / "model/model.safetensors"]
    return next(hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file())


def log(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def results(run):
    return json.loads((run / "result.json").read_text())["tasks"]


def main():
    moments = random.Random(a.seed)
    with tempfile.TemporaryDirectory() as folder:
        through, killed = pathlib.Path(folder, "through"), pathlib.Path(folder, "killed")
        began = time.monotonic()
        subprocess.run([*start, through], check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - began
        print(f"a run that goes through: {seconds:.1f} s, {len(log(through))} lines, weights {weights(through)[:16]}")

        kills, at = 0, []
        while not (killed / "result.json").is_file():
            checkpoints = sorted(killed.glob("checkpoints/step-*"))
            if checkpoints:
                command = [a.fthost, "--resume", "--out", killed, "--quiet"]
            else:
                subprocess.run(["rm", "-rf", killed], check=True)
                command = [*start, killed]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            if kills < a.kills:
                # From the first checkpoint that is new on, a moment within twice an equal share of the run.
                while process.poll() is None and sorted(killed.glob("checkpoints/step-*")) == checkpoints:
                    time.sleep(0.002)
                time.sleep(moments.uniform(0, 2 * seconds / (a.kills + 5)) * 0.5)
            else:
                process.wait()
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                steps = sorted(killed.glob("checkpoints/step-*"))
                at.append(int(steps[-1].stem.split("-")[1]) if steps else 0)
            elif process.returncode != 0:
                sys.exit(f"a run ended with code {process.returncode}")
        print(f"killed {kills} times, at the latest checkpoints {at}")
        for what, of in (("weights", weights), ("log", log), ("results", results)):
            if of(through) != of(killed):
                sys.exit(f"the {what} differ")
        print(f"the same bits: weights {weights(killed)[:16]}, log and results")


main()
