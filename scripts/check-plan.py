#!/usr/bin/env python3
"""Prints what `fthost plan` foretells beside what the run takes: seconds of training and peak memory, medians of three. The last row is
the memory that the run itself foretells before it trains.

    scripts/check-plan.py RUN.toml... [-- ARGUMENTS OF FTHOST]
    scripts/check-plan.py demo.toml -- --plugin lora

FTHOST names the program (target/release/fthost). Time should agree within 30 % on an idle machine, and memory within 15 %; the
script ends with 1 where one does not.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 3
WITHIN = {"seconds": 0.3, "MB": 0.15, "MB said": 0.15}
FTHOST = os.environ.get("FTHOST", str(Path(__file__).resolve().parent.parent / "target/release/fthost"))


def fthost(*arguments):
    """The JSON that a command prints."""
    done = subprocess.run([FTHOST, *arguments, "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"fthost {' '.join(arguments)} ended with {done.returncode}: {done.stdout.strip()}")
    return json.loads(done.stdout)


def figures(file, more):
    """Planned and taken: seconds and megabytes of one plan and one run, and the megabytes that the run foretells."""
    plan = fthost("plan", file, *more)["estimate"]
    with tempfile.TemporaryDirectory() as folder:
        run = fthost(file, "--out", f"{folder}/run", *more)
    peak = run["train"]["peak_rss_bytes"] / 1e6
    said = sum(run["plan"]["memory"].values()) / 1e6
    return (plan["train_seconds"], run["train"]["seconds"]), (plan["peak_rss_bytes"] / 1e6, peak), (said, peak)


def main():
    arguments = sys.argv[1:]
    at = arguments.index("--") if "--" in arguments else len(arguments)
    files, more = arguments[:at], arguments[at + 1 :]
    if not files:
        sys.exit(__doc__)
    print(f"{'run file':30} {'':8} {'plan':>9} {'run':>9} {'ratio':>6}")
    apart = False
    for file in files:
        rounds = [figures(file, more) for _ in range(ROUNDS)]
        for name, pairs in zip(WITHIN, zip(*rounds)):
            plan, run = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
            apart |= abs(plan / run - 1) > WITHIN[name]
            print(f"{file:30} {name:8} {plan:9.2f} {run:9.2f} {plan / run:6.2f}")
    sys.exit(int(apart))


if __name__ == "__main__":
    main()
