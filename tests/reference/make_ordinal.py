"""Writes ordinal.json: CORAL's loss with its gradients and probabilities, and metrics of ordered classes by scikit-learn.

    python make_ordinal.py

coral_loss and levels_from_labelbatch as in coral-pytorch (github.com/Raschka-research-group/coral-pytorch).
"""

import json
from pathlib import Path

import numpy as np
import sklearn
import torch
import torch.nn.functional as F
from sklearn import metrics

CLASSES = 4


def levels_from_labels(labels):
    return torch.stack([torch.tensor([1.0] * label + [0.0] * (CLASSES - 1 - label)) for label in labels.tolist()])


def coral_terms(logits, levels):
    return -torch.sum(F.logsigmoid(logits) * levels + (F.logsigmoid(logits) - logits) * (1 - levels), dim=1)


def loss(weights):
    """The loss of one step, and its gradient by the logits. Thresholds of the first rows are in order, those of the last are not."""
    generator = torch.Generator().manual_seed(7)
    score = 3 * torch.randn(6, 1, generator=generator)
    score[0], score[1] = 0.0, 60.0
    logits = score + torch.tensor([1.0, 0.0, -1.5])
    logits[5] = torch.tensor([-1.0, 0.5, 2.0])
    logits.requires_grad_()
    labels = torch.tensor([2, 0, 3, 1, 1, 0])
    terms = coral_terms(logits, levels_from_labels(labels))
    of = torch.ones(6) if weights is None else torch.tensor(weights)[labels]
    value = (of * terms).sum() / of.sum()
    value.backward()
    beyond = logits.detach().sigmoid()
    edges = torch.cat([torch.ones(6, 1), beyond, torch.zeros(6, 1)], 1)
    probabilities = (edges[:, :-1] - edges[:, 1:]).clamp(min=0)
    probabilities /= probabilities.sum(1, keepdim=True)
    ordered = (probabilities[:5] > 0).all(1)
    # Where thresholds are in order, the median of the probabilities is coral-pytorch's proba_to_label.
    medians = (probabilities.flip(1).cumsum(1).flip(1)[:, 1:] > 0.5).sum(1)
    assert (medians[:5][ordered] == (beyond > 0.5).sum(1)[:5][ordered]).all()
    return {
        "logits": logits.flatten().tolist(),
        "labels": labels.tolist(),
        "weights": weights,
        "loss": value.item(),
        "weight": of.sum().item(),
        "gradient": logits.grad.flatten().tolist(),
        "probabilities": probabilities.flatten().tolist(),
    }


def of_metrics(examples, noise):
    random = np.random.default_rng(examples)
    true = random.integers(0, CLASSES, examples)
    scores = random.random((examples, CLASSES)) ** noise
    scores[np.arange(examples), true] += 0.5
    probabilities = (scores / scores.sum(1, keepdims=True)).astype(np.float32)
    predicted = probabilities.argmax(1)
    return {
        "targets": true.tolist(),
        "probabilities": probabilities.flatten().tolist(),
        "ordinal_mae": float(metrics.mean_absolute_error(true, predicted)),
        "quadratic_kappa": float(metrics.cohen_kappa_score(true, predicted, weights="quadratic")),
    }


found = {
    "made_with": {"scikit-learn": sklearn.__version__, "torch": torch.__version__},
    "losses": [loss(None), loss([1.0, 2.5, 0.0, 7.0])],
    "metrics": [of_metrics(60, 1), of_metrics(25, 3)],
}
Path(__file__).with_name("ordinal.json").write_text(json.dumps(found) + "\n")
