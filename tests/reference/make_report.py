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
from sklearn.calibration import calibration_curve

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
    found = {
        "accuracy": metrics.accuracy_score(true, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(true, predicted),
        "matthews": metrics.matthews_corrcoef(true, predicted),
        "kappa": metrics.cohen_kappa_score(true, predicted),
    }
    for average in ["macro", "weighted"]:
        scores = metrics.precision_recall_fscore_support(true, predicted, average=average, zero_division=0)
        found |= {f"{average}_{name}": score for name, score in zip(["precision", "recall", "f1"], scores)}
    return {"true": true, "predicted": predicted, "metrics": numbers(found)}


def numbers(found):
    """What is no number is null."""
    return {name: None if np.isnan(value) else float(value) for name, value in found.items()}


def probability_case(true, probabilities):
    """Probabilities are rounded to what the model's are, float32, and their metrics are those of these."""
    p = np.array(probabilities, np.float32)
    wide, classes = p.astype(np.float64), list(range(p.shape[1]))
    one_hot = np.eye(len(classes))[true]
    right = (p.argmax(1) == np.array(true)).astype(int)
    confidence = wide.max(1)
    # scikit-learn's curve takes the right answers for the positive class.
    accuracy, mean = calibration_curve(right, confidence, n_bins=15) if len(set(right)) == 2 else by_hand(right, confidence)
    members = np.histogram(np.searchsorted(np.linspace(0, 1, 16)[1:-1], confidence), bins=range(16))[0]
    members = members[members > 0]
    if len(classes) == 2:
        auc = metrics.roc_auc_score(true, wide[:, 1]) if len(set(true)) == 2 else np.nan
        precision = metrics.average_precision_score(one_hot[:, 1], wide[:, 1])
    else:
        auc = np.mean([metrics.roc_auc_score(one_hot[:, c], wide[:, c]) for c in classes])
        if set(true) == set(classes) and np.allclose(wide.sum(1), 1):
            assert auc == metrics.roc_auc_score(true, wide, multi_class="ovr")
        precision = metrics.average_precision_score(one_hot, wide)
    found = {
        "roc_auc": auc,
        "pr_auc": precision,
        "log_loss": metrics.log_loss(true, wide, labels=classes),
        "brier": metrics.brier_score_loss(true, wide, labels=classes),
        "calibration_error": float((members / len(true) * abs(accuracy - mean)).sum()),
    }
    for k in [3, 5]:
        if k < len(classes):
            found[f"top_{k}_accuracy"] = metrics.top_k_accuracy_score(true, wide, k=k, labels=classes)
    return {
        "true": true,
        "probabilities": [[float(v) for v in row] for row in p],
        "metrics": numbers(found),
        "bin_accuracy": [float(v) for v in accuracy],
        "bin_confidence": [float(v) for v in mean],
    }


def by_hand(right, confidence):
    """The curve where all are right or all are wrong, which scikit-learn refuses."""
    bins = np.searchsorted(np.linspace(0, 1, 16)[1:-1], confidence)
    of = [bins == b for b in sorted(set(bins))]
    return np.array([right[b].mean() for b in of]), np.array([confidence[b].mean() for b in of])


def softmax(examples, classes, skill, seed, labels=None):
    """True classes and probabilities of a model that is often right."""
    draw = np.random.default_rng(seed)
    true = draw.choice(labels or classes, examples)
    logits = draw.normal(size=(examples, classes))
    logits[np.arange(examples), true] += skill
    p = np.exp(2 * logits)
    return true.tolist(), p / p.sum(1, keepdims=True)


def coarse(case):
    """The same with ties: probabilities in twentieths."""
    true, p = case
    return true, np.round(p * 20) / 20


def value_case(true, predicted):
    true, predicted = (np.array(values, np.float32).astype(np.float64) for values in (true, predicted))
    found = {
        "mse": metrics.mean_squared_error(true, predicted),
        "rmse": metrics.root_mean_squared_error(true, predicted),
        "r2": metrics.r2_score(true, predicted),
        "mae": metrics.mean_absolute_error(true, predicted),
        "pearson": stats.pearsonr(true, predicted)[0],
        "spearman": stats.spearmanr(true, predicted)[0],
    }
    return {"true": true.tolist(), "predicted": predicted.tolist(), "metrics": numbers(found)}


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
            # A class that is predicted alone, and one class alone.
            class_case([1, 1, 0], [1, 2, 2]),
            class_case([1, 1, 1], [1, 1, 1]),
        ],
        "probabilities": [
            probability_case(*softmax(80, 2, 0.7, 1)),
            probability_case(*softmax(80, 3, 0.7, 2)),
            probability_case(*softmax(120, 9, 1.2, 3)),
            # Ties.
            probability_case(*coarse(softmax(80, 2, 0.7, 4))),
            probability_case(*coarse(softmax(120, 6, 0.7, 5))),
            # A class that is absent, one class alone.
            probability_case(*softmax(60, 4, 0.7, 6, [0, 2, 3])),
            probability_case(*softmax(20, 2, 0.7, 7, [0])),
            probability_case(*softmax(20, 2, 0.7, 8, [1])),
            # A true class of probability 0, a model that is always sure and right, and one that knows nothing.
            probability_case([0, 1, 1], [[1, 0], [1, 0], [0, 1]]),
            probability_case([0, 1, 2, 0], [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]),
            probability_case([0, 1, 2, 3, 4, 5], [[1 / 6] * 6] * 6),
        ],
        "values": [
            value_case(scores, [score + random.gauss(0, 1) for score in scores]),
            value_case([1, 2, 2, 3], [5, 1, 1, 0.5]),
            value_case([1, 2, 3], [2, 2, 2]),
            # Constant targets, met and missed.
            value_case([2, 2, 2], [2, 2, 2]),
            value_case([2, 2, 2], [1, 2, 3]),
        ],
    },
)
