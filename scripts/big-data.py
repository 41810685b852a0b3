#!/usr/bin/env python3
"""Writes a data set of any size: random sentences of a small vocabulary, each with a label.

The same arguments give the same file.

Usage: big-data.py OUT.(tsv|csv|jsonl) --size 2GB [--classes 2 | --values] [--words FILE] [--seed 0]

A sentence's label is told by its words: each word has a hidden weight, and the sum falls into one of the classes (or is
the value), so a model learns something. `--words` names a file with one word a line, such as a BERT vocab.txt: of it only
whole lower-case words are taken. For measuring that memory does not grow with the data:

    scripts/big-data.py train.tsv --size 2GB
    /usr/bin/time -v target/release/fthost run.toml --set train.steps=20      # "Maximum resident set size"
"""

import argparse
import csv
import io
import json
import pathlib
import random

WORDS = """the a this that film movie story plot actor scene music ending humour dialogue camera script is was feels
seems looks good bad great awful funny boring slow bright dull clever stupid warm cold moving empty rich thin sharp flat
fresh stale and but with without very quite rather never always""".split()
BLOCK = 20_000  # rows that are written at once


def size(text):
    for unit, factor in (("KB", 10**3), ("MB", 10**6), ("GB", 10**9)):
        if text.upper().endswith(unit):
            return int(float(text[:-2]) * factor)
    return int(text)


def words(path):
    if path is None:
        return WORDS
    found = pathlib.Path(path).read_text(encoding="utf-8").split("\n")
    return [word for word in found if word.isalpha() and word.islower()][:5000]


def rows(rng, vocabulary, classes):
    """Endless texts and labels."""
    weight = {word: rng.gauss(0, 1) for word in vocabulary}
    while True:
        chosen = rng.choices(vocabulary, k=rng.randint(3, 40))
        score = sum(weight[word] for word in chosen) / len(chosen) ** 0.5
        label = f"{score:.6f}" if classes is None else str(min(max(int((score + 2) / 4 * classes), 0), classes - 1))
        yield " ".join(chosen), label


def lines(kind, block):
    if kind == ".jsonl":
        return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in block)
    if kind == ".csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(block)
        return out.getvalue()
    return "".join(f"{text}\t{label}\n" for text, label in block)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--size", type=size, required=True, help="bytes, or such as 300MB or 2GB")
    p.add_argument("--classes", type=int, default=2)
    p.add_argument("--values", action="store_true", help="a real value for each row, nearly all different")
    p.add_argument("--words", help="a file with one word a line")
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    kind = a.out.suffix
    if kind not in (".tsv", ".csv", ".jsonl"):
        p.error(f"{a.out}: the name must end in .tsv, .csv or .jsonl")

    source = rows(random.Random(a.seed), words(a.words), None if a.values else a.classes)
    header = {".tsv": "text\tlabel\n", ".csv": "text,label\n", ".jsonl": ""}[kind]
    written, count = len(header), 0
    with open(a.out, "w", encoding="utf-8") as out:
        out.write(header)
        while written < a.size:
            text = lines(kind, [next(source) for _ in range(BLOCK)])
            if written + len(text) > a.size:  # the last block ends with the last whole row
                text = text[: text.rfind("\n", 0, a.size - written) + 1] or text[: text.find("\n") + 1]
                out.write(text)
                written, count = a.size, count + text.count("\n")
            else:
                out.write(text)
                written, count = written + len(text), count + BLOCK
    print(f"{a.out}: {a.out.stat().st_size} bytes, {count} rows")


if __name__ == "__main__":
    main()
