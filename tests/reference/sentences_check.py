#!/usr/bin/env python3
"""Opens folders that fthost saved with sentence-transformers, and says where these give other outputs than fthost.

Usage: sentences_check.py CASES.json
Needs: pip install torch transformers peft sentence-transformers

CASES.json is a list of {of, folder, data, predictions, labels, vectors}: `folder` is a whole model's or an adapter's, `data` rows of texts,
`predictions` what fthost says of each row, `vectors` its features before the head. Prints a JSON list of what is wrong.
"""

import importlib.util
import json
import sys
from pathlib import Path

if importlib.util.find_spec("sentence_transformers") is None:
    print(json.dumps("no sentence-transformers"))
    sys.exit()

import torch
from sentence_transformers import SentenceTransformer
from transformers.utils import logging

from checks import report

logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_num_threads(1)


def check(case):
    texts = [line.split("\t")[0] for line in Path(case["data"]).read_text().splitlines()[1:]]
    model = SentenceTransformer(case["folder"], device="cpu")
    outputs = model.encode(texts, convert_to_tensor=True, show_progress_bar=False)
    labels = case["labels"]
    if labels:
        ours = torch.tensor([[row["probabilities"][label] for label in labels] for row in case["predictions"]])
        theirs = outputs.softmax(-1)
    else:
        ours = torch.tensor([[row["value"]] for row in case["predictions"]])
        theirs = outputs
    assert theirs.shape == ours.shape, (theirs.shape, ours.shape)
    scale = max(1.0, ours.abs().max().item() / 100)
    worst = (theirs - ours).abs().max().item()
    assert worst < 1e-4 * scale, f"outputs differ by {worst}"
    headless = SentenceTransformer(modules=list(model)[:-1], device="cpu")
    features = headless.encode(texts, convert_to_tensor=True, show_progress_bar=False)
    worst = (features - torch.tensor([row["vector"] for row in case["vectors"]])).abs().max().item()
    assert worst < 1e-4, f"features differ by {worst}"


report(check)
