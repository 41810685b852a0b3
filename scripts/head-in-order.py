#!/usr/bin/env python3
"""What PyTorch reaches with a head alone when it sees the examples in fthost's order: compare-peft.py's `head`, where the order decides.

Usage: VENV/bin/python head-in-order.py MODEL_DIR TRAIN.tsv TEST.tsv [--seeds 10] [--draws 6] [--lr 1e-2]
Set-up: pip install torch transformers. Texts go through the frozen encoder once, dropout on, as in training; then torch's AdamW trains a
linear layer on its outputs for an epoch of batches of 16, in the order in which fthost visits them with each seed, with --draws inits and
dropouts. Prints the mean accuracy and its deviation for each seed, to be held beside fthost's run of that seed, and for torch's own orders.
"""

import argparse
import math
import statistics

import torch
from torch.nn import functional
from transformers import AutoTokenizer, BertForSequenceClassification

BATCH = 16
BITS = (1 << 64) - 1


def mix(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & BITS
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & BITS
    return x ^ (x >> 31)


def philox(counter, key):
    """Philox4x32-10: four words of 32 bits."""
    (a, b, c, d), (k, l) = counter, key
    for _ in range(10):
        low, high = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = (high >> 32) ^ b ^ k, high & 0xFFFFFFFF, (low >> 32) ^ d ^ l, low & 0xFFFFFFFF
        k, l = (k + 0x9E3779B9) & 0xFFFFFFFF, (l + 0xBB67AE85) & 0xFFFFFFFF
    return a, b, c, d


def fthosts_order(seed, n, epoch=0):
    """The rows of an epoch as fthost visits them: models/autograd/src/random.rs and host/src/data/permutation.rs."""
    space = 0xCBF29CE484222325
    for byte in b"shuffle":
        space = (space ^ byte) * 0x100000001B3 & BITS
    space = mix(mix(mix(space) + 0x9E3779B97F4A7C15 & BITS) ^ epoch)
    side = math.isqrt(n - 1) + 1

    def below_side(index):
        block = index // 2
        words = philox((block & 0xFFFFFFFF, block >> 32, space & 0xFFFFFFFF, space >> 32), (seed & 0xFFFFFFFF, seed >> 32))
        low, high = words[index % 2 * 2 :][:2]
        return ((high << 32 | low) * side) >> 64

    shifts = [[below_side(turn << 32 | digit) for digit in range(side)] for turn in range(10)]

    def goes_to(place):
        while True:
            left, right = divmod(place, side)
            for shift in shifts:
                left, right = right, (left + shift[right]) % side
            place = left * side + right
            if place < n:
                return place

    return torch.tensor([goes_to(place) for place in range(n)])


def torchs_order(seed, n):
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def read(path):
    rows = [line.rstrip("\n").split("\t") for line in open(path, encoding="utf8") if line.strip()]
    rows = rows[rows[0][:2] == ["text", "label"] :]
    names = sorted({row[1] for row in rows})
    return [row[0] for row in rows], torch.tensor([names.index(row[1]) for row in rows])


@torch.no_grad()
def pooled(model, tokenizer, texts, train):
    """What the head gets. [texts, width]"""
    model.train(train)
    ids = tokenizer(texts, truncation=True, max_length=128)["input_ids"]
    out = torch.empty(len(ids), model.config.hidden_size)
    by_length = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for start in range(0, len(ids), 64):
        rows = by_length[start : start + 64]
        batch = tokenizer.pad({"input_ids": [ids[i] for i in rows]}, return_tensors="pt")
        out[rows] = model.bert(**batch).pooler_output
    return out


def accuracy(train, test, order, lr, seed, dropout):
    (x, y), (test_x, test_y) = train, test
    torch.manual_seed(seed)
    head = torch.nn.Linear(x.shape[1], int(y.max()) + 1)
    torch.nn.init.normal_(head.weight, std=0.02)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(head.parameters(), lr=lr)
    for rows in order.split(BATCH):
        functional.cross_entropy(head(functional.dropout(x[rows], dropout)), y[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        return (head(test_x).argmax(-1) == test_y).float().mean().item()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("train")
    p.add_argument("test")
    p.add_argument("--seeds", type=int, default=10)
    p.add_argument("--draws", type=int, default=6)
    p.add_argument("--lr", type=float, default=1e-2)
    a = p.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(a.model)
    model = BertForSequenceClassification.from_pretrained(a.model)
    (texts, y), (test_texts, test_y) = read(a.train), read(a.test)
    torch.manual_seed(0)
    encoded = [(pooled(model, tokenizer, texts, train=True), y) for _ in range(2)]
    test = (pooled(model, tokenizer, test_texts, train=False), test_y)

    def try_order(order, draws, first=0):
        return [accuracy(encoded[i % 2], test, order, a.lr, i, model.config.hidden_dropout_prob) for i in range(first, first + draws)]

    means = []
    for seed in range(a.seeds):
        found = try_order(fthosts_order(seed, len(texts)), a.draws)
        means.append(statistics.mean(found))
        print(f"fthost's order of seed {seed}: {means[-1]:.4f}, deviation {statistics.stdev(found):.4f}", flush=True)
    print(f"mean of the {a.seeds} orders {statistics.mean(means):.4f}, of seeds 0 to 2 {statistics.mean(means[:3]):.4f}")
    for name, order in (("fthost", fthosts_order), ("torch", torchs_order)):
        found = [try_order(order(seed, len(texts)), 1, seed)[0] for seed in range(40)]
        print(f"40 orders of {name}: {statistics.mean(found):.4f}, deviation {statistics.stdev(found):.4f}", flush=True)


main()
