"""Temperatures by scikit-learn's temperature scaling and the greatest F1 of its precision-recall curve: writes calibration.json.

Usage: python tests/reference/make_calibration.py     (needs scikit-learn 1.8 or later; made with 1.9)
"""

import json
from pathlib import Path

import numpy as np
from sklearn import metrics
from sklearn.calibration import _TemperatureScaling


def case(examples, classes, skill, sharpness, seed, skew=0.0):
    draw = np.random.default_rng(seed)
    true = draw.choice(classes, examples)
    logits = draw.normal(size=(examples, classes))
    logits[np.arange(examples), true] += skill
    logits[:, 0] += skew
    p = np.exp(sharpness * logits)
    p = (p / p.sum(1, keepdims=True)).astype(np.float32)
    log = np.log(p.astype(np.float64))
    scaling = _TemperatureScaling().fit(log, true)
    found = {
        "true": true.tolist(),
        "probabilities": [[float(v) for v in row] for row in p],
        "temperature": float(1 / scaling.beta_),
        "log_loss": metrics.log_loss(true, scaling.predict(log), labels=list(range(classes))),
    }
    if classes == 2:
        precision, recall, _ = metrics.precision_recall_curve(true, p[:, 1])
        found["best_f1"] = float(np.nanmax(2 * precision * recall / np.maximum(precision + recall, 1e-300)))
    return found


cases = [
    case(200, 2, 1.0, 4.0, 1),
    case(200, 2, 1.0, 0.3, 2, 3.0),
    case(300, 5, 1.5, 3.0, 3),
    case(300, 20, 3.0, 1.0, 4),
    case(60, 2, 0.5, 2.0, 5),
]
path = Path(__file__).resolve().parent / "calibration.json"
path.write_text(json.dumps(cases))
