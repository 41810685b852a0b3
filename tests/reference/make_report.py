"""Makes the references of host/src/report: report.json, report_wide.json and metrics.json.

Usage: python tests/reference/make_report.py     (needs scikit-learn and SciPy; made with 1.9 and what it brings)
"""

import json
import random
import warnings
from pathlib import Path

import numpy as np
from scipy import stats
from sklearn import metrics

warnings.filterwarnings("ignore")
HERE = Path(__file__).resolve().parent


def write(name, content):
    (HERE / name).write_text(json.dumps(content, indent=1))


def report(true, predicted):
    return {
        "true": true,
        "predicted": predicted,
        "report": metrics.classification_report(true, predicted, digits=4, zero_division=0),
        "confusion": metrics.confusion_matrix(true, predicted).tolist(),
        "labels": sorted(set(true) | set(predicted)),
    }


def noisy(true, classes, share):
    """Predictions that differ from the truth in about this share."""
    return [random.choice(classes) if random.random() < share else label for label in true]


# One class that is predicted and never true; the draws are those of the shared reference.
random.seed(3)
true = [random.choice("abcc") for _ in range(97)]
write("report.json", report(true, [v if random.random() < 0.7 else random.choice("abcd") for v in true]))

# Labels wider than "weighted avg", letters of more than one byte, many classes.
names = ["Überraschung und Freude", "ärger", "joy", "neutral"] + [f"class {i}" for i in range(12)]
true = [random.choice(names) for _ in range(1024)]
write("report_wide.json", report(true, noisy(true, names, 0.4)))


def class_case(true, predicted):
    found = {"accuracy": metrics.accuracy_score(true, predicted), "matthews": metrics.matthews_corrcoef(true, predicted)}
    for average in ["macro", "weighted"]:
        scores = metrics.precision_recall_fscore_support(true, predicted, average=average, zero_division=0)
        found |= {f"{average}_{name}": score for name, score in zip(["precision", "recall", "f1"], scores)}
    return {"true": true, "predicted": predicted, "metrics": {name: float(value) for name, value in found.items()}}


def value_case(true, predicted):
    true, predicted = (np.array(values, np.float32).astype(np.float64) for values in (true, predicted))
    found = {
        "mse": metrics.mean_squared_error(true, predicted),
        "mae": metrics.mean_absolute_error(true, predicted),
        "pearson": stats.pearsonr(true, predicted)[0],
        "spearman": stats.spearmanr(true, predicted)[0],
    }
    found = {name: None if np.isnan(value) else float(value) for name, value in found.items()}
    return {"true": true.tolist(), "predicted": predicted.tolist(), "metrics": found}


classes = [random.choice([0, 1, 1, 3]) for _ in range(60)]
scores = [random.randrange(0, 21) / 4 for _ in range(60)]
write(
    "metrics.json",
    {
        "classes": [
            class_case(classes, noisy(classes, [0, 1, 2, 3], 0.3)),
            class_case([0, 1, 0, 1], [0, 0, 0, 0]),
            class_case([1, 1, 0, 4], [1, 1, 0, 4]),
            class_case([0, 0, 1, 1], [1, 1, 0, 0]),
        ],
        "values": [
            value_case(scores, [score + random.gauss(0, 1) for score in scores]),
            value_case([1, 2, 2, 3], [5, 1, 1, 0.5]),
            value_case([1, 2, 3], [2, 2, 2]),
        ],
    },
)
