"""Writes multi_label.json: scikit-learn's metrics and report of several labels an example, and torch's loss with its gradients.

    python make_multi_label.py
"""

import json
import warnings
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn import metrics

warnings.filterwarnings("ignore")
random = np.random.default_rng(13)


def case(examples, classes, share, decimals=None):
    true = (random.random((examples, classes)) < share).astype(int)
    scores = 0.35 * true + 0.65 * random.random((examples, classes))
    if decimals is not None:
        scores = scores.round(decimals)  # ties
    return true, scores.astype(np.float32)


def of(true, probabilities, threshold=0.5):
    predicted = (probabilities >= threshold).astype(int)
    values = {
        "subset_accuracy": metrics.accuracy_score(true, predicted),
        "hamming_loss": metrics.hamming_loss(true, predicted),
        "mean_average_precision": metrics.average_precision_score(true, probabilities, average="macro"),
    }
    one_sided = ((true.sum(0) == 0) | (true.sum(0) == len(true))).any()
    values["roc_auc"] = None if one_sided else metrics.roc_auc_score(true, probabilities, average="macro")
    for average in ["micro", "macro", "weighted", "samples"]:
        found = metrics.precision_recall_fscore_support(true, predicted, average=average, zero_division=0)
        values |= {f"{average}_{name}": float(value) for name, value in zip(["precision", "recall", "f1"], found)}
    return {
        "true": true.tolist(),
        "predicted": predicted.tolist(),
        "probabilities": [[float(value) for value in row] for row in probabilities],
        "values": dict(sorted(values.items())),
    }


def report(true, probabilities, names):
    predicted = (probabilities >= 0.5).astype(int)
    return metrics.classification_report(true, predicted, target_names=names, digits=4, zero_division=0)


def loss(weights):
    """The loss of one step, and its gradient by the logits."""
    generator = torch.Generator().manual_seed(3)
    logits = (3 * torch.randn(5, 4, generator=generator)).requires_grad_()
    with torch.no_grad():
        logits[0, 0], logits[1, 1] = 0.0, 60.0  # what composites of log and exp get wrong
    targets = (torch.rand(5, 4, generator=generator) < 0.4).float()
    targets[0, 0], targets[1, 1], targets[2] = 1.0, 0.0, 0.0
    positive = None if weights is None else torch.tensor(weights)
    value = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=positive)
    value.backward()
    return {
        "logits": logits.tolist(),
        "targets": targets.tolist(),
        "weights": weights,
        "loss": value.item(),
        "gradient": logits.grad.tolist(),
        "probabilities": logits.sigmoid().tolist(),
    }


cases = [case(60, 5, 0.3), case(40, 3, 0.5, decimals=1), case(30, 8, 0.1), case(25, 4, 0.6)]
nobody = case(20, 4, 0.4)
nobody[0][:, 2] = 0  # a class that no example has
everybody = case(20, 3, 0.4)
everybody[0][:, 0] = 1
names = ["joy", "anger and more", "fear", "sadness"]
text = case(30, 4, 0.3)
found = {
    "made_with": {"scikit-learn": sklearn.__version__, "torch": torch.__version__},
    "metrics": [of(*one) for one in [*cases, nobody, everybody, text]] + [of(*cases[0], threshold=2.0)],
    "report": {"labels": names, "text": report(*text, names)},
    "unseen_report": {"labels": names, "text": report(*nobody, names)},
    "losses": [loss(None), loss([1.0, 2.5, 0.0, 7.0])],
}
Path(__file__).with_name("multi_label.json").write_text(json.dumps(found) + "\n")
