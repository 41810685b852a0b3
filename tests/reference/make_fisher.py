"""Diagonal Fisher information of the tiny BERT on fisher.tsv: writes fisher.json. Needs torch, transformers and tokenizers.

The mean over examples, one at a time, of the squared gradients of -log p(label): `empirical` with the data's labels,
`exact` with every label, weighted by its probability. As models/cl/continual_learner.py of GMvandeVen/continual-learning
(fisher_labels "true" and "all", fisher_batch 1), but for its divisor, which is one less than the number of examples where
it sees the whole data set. `head` is the checkpoint's own head.
"""
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import BertForSequenceClassification

HERE = Path(__file__).parent
PARAMETERS = [
    "embeddings.position_embeddings.weight",
    "embeddings.LayerNorm.bias",
    "encoder.layer.0.attention.self.query.weight",
    "encoder.layer.1.output.dense.bias",
    "pooler.dense.weight",
]

torch.manual_seed(0)
model = BertForSequenceClassification.from_pretrained(HERE / "tiny/bert", attn_implementation="eager").double().eval()
tokenizer = Tokenizer.from_file(str(HERE / "tiny/bert/tokenizer.json"))
parameters = dict(model.bert.named_parameters())
rows = [line.split("\t") for line in (HERE / "fisher.tsv").read_text().splitlines()]

fisher = {labels: {name: torch.zeros_like(parameters[name]) for name in PARAMETERS} for labels in ["empirical", "exact"]}


def add(into, ids, label, weight):
    model.zero_grad()
    torch.nn.functional.cross_entropy(model(ids).logits, torch.tensor([label])).backward()
    for name in PARAMETERS:
        into[name] += weight * parameters[name].grad ** 2 / len(rows)


for text, label in rows:
    ids = torch.tensor([tokenizer.encode(text).ids])
    add(fisher["empirical"], ids, int(label), 1.0)
    with torch.no_grad():
        probabilities = model(ids).logits.softmax(1)[0].tolist()
    for label, probability in enumerate(probabilities):
        add(fisher["exact"], ids, label, probability)


def numbers(tensor):
    return [float(f"{value:.7g}") for value in tensor.flatten().tolist()]


head = {"classifier.weight": model.classifier.weight, "classifier.bias": model.classifier.bias}
with open(HERE / "fisher.json", "w") as file:
    json.dump({of: {name: numbers(x) for name, x in tensors.items()} for of, tensors in (fisher | {"head": head}).items()}, file)
