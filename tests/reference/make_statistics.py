"""Makes statistics.json, the reference of host/src/compare/statistics.rs.

Usage: python tests/reference/make_statistics.py             (needs SciPy and statsmodels; made with 1.17 and 0.15)
       python tests/reference/make_statistics.py coverage    prints how often intervals hold the truth, in some minutes
"""

import itertools
import json
import random
import sys
from pathlib import Path

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

HERE = Path(__file__).resolve().parent


def exact_variances(right_a, right_b):
    """Variances of the bootstrap of a difference of accuracies, over every draw there is: [seeds][items] of 0 and 1."""
    difference = np.array(right_a, float) - np.array(right_b, float)
    seeds, items = difference.shape
    drawn, fixed = [], []
    for chosen in itertools.product(range(items), repeat=items):
        by_seed = difference[:, chosen].mean(axis=1)
        fixed.append(by_seed)
        for of in itertools.product(range(seeds), repeat=max(seeds - 1, 1)):
            drawn.append(by_seed[list(of)].mean())
    fixed = np.array(fixed)
    return {
        "a": right_a,
        "b": right_b,
        "difference": difference.mean(),
        "whole": np.var(drawn),
        "of_mean": np.var(fixed.mean(axis=1)),
        "of_one": np.var(fixed, axis=0).mean(),
        "by_seeds": difference.mean(axis=1).var(ddof=1) / seeds if seeds > 1 else 0.0,
    }


def interval(case, items=None):
    """Student's t around the difference, degrees of freedom by Satterthwaite."""
    seeds, rows = np.array(case["a"]).shape
    items = items or rows
    by_seeds = case["by_seeds"]
    by_items = max(case["whole"] - by_seeds, 0)
    parts = by_seeds**2 / (max(seeds, 2) - 1) + by_items**2 / (max(items, 2) - 1)
    degrees = (by_seeds + by_items) ** 2 / parts
    half = stats.t.ppf(0.975, degrees) * case["whole"] ** 0.5
    return case | {"interval": [case["difference"] - half, case["difference"] + half]}


def clustered(metric, rows, targets, a, b):
    """A difference where an example has several rows, [seeds][rows] of 0 and 1: the bootstrap's interval over every draw of examples
    that there is, and p over every exchange of examples."""
    targets, a, b = (np.array(values, float) for values in (targets, a, b))
    ends = np.cumsum([0] + rows)
    places = [np.arange(ends[i], ends[i + 1]) for i in range(len(rows))]

    def score(predictions, chosen):
        truth, found = targets[chosen], predictions[chosen]
        if metric == "accuracy":
            return (truth == found).mean() if len(chosen) else np.nan
        right = (truth * found).sum()
        return 2 * right / (truth.sum() + found.sum()) if truth.sum() + found.sum() else 0.0

    everything = np.arange(ends[-1])
    by_seed = lambda a, b, chosen: np.array([score(x, chosen) - score(y, chosen) for x, y in zip(a, b)])
    difference = by_seed(a, b, everything)
    drawn = []
    for chosen in itertools.product(range(len(rows)), repeat=len(rows)):
        found = by_seed(a, b, np.concatenate([places[i] for i in chosen]))
        if np.isfinite(found).all():
            drawn += [found[list(of)].mean() for of in itertools.product(range(len(a)), repeat=max(len(a) - 1, 1))]

    def exchanged(x, y):
        """The statistic of SciPy's test, for which a sample is a candidate and an observation an example's number, signed."""
        swap = np.concatenate([np.full(n, sign < 0) for n, sign in zip(rows, x)])
        return by_seed(np.where(swap, b, a), np.where(swap, a, b), everything).mean()

    signs = np.arange(1, len(rows) + 1)
    test = stats.permutation_test((signs, -signs), exchanged, permutation_type="samples", n_resamples=np.inf)
    case = {
        "metric": metric,
        "rows": rows,
        "targets": [targets.tolist()],
        "a": a.tolist(),
        "b": b.tolist(),
        "difference": difference.mean(),
        "whole": np.var(drawn),
        "by_seeds": difference.var(ddof=1) / len(a) if len(a) > 1 else 0.0,
        "p": float(test.pvalue),
    }
    return interval(case, len(rows))


def clustered_cases():
    """Sentences whose tokens are right or wrong together, as they are."""
    rng = np.random.default_rng(3)
    for metric, rows, seeds in [("accuracy", [4, 1, 6, 3, 2], 1), ("accuracy", [2, 5, 3, 4, 1, 3], 2), ("entity_f1", [3, 0, 2, 4, 1, 2], 2)]:
        targets = np.ones(sum(rows)) if metric == "accuracy" else rng.integers(0, 2, sum(rows))
        by_example = lambda chance: np.repeat(rng.random(len(rows)) < chance, rows)
        run = lambda chance: np.where(by_example(chance) ^ (rng.random(sum(rows)) < 0.15), targets, 1 - targets)
        a, b = ([run(chance).tolist() for _ in range(seeds)] for chance in (0.9, 0.5))
        yield clustered(metric, rows, targets, a, b)


def resampled(differences, test, train):
    """The corrected resampled t-test (Nadeau and Bengio 2003, "Inference for the generalization error"), two-sided: the variance of a
    mean over runs whose training data overlap. So it stands in scikit-learn's example "Statistical comparison of models using grid
    search" too."""
    d = np.array(differences, float)
    error = np.sqrt((1 / len(d) + test / train) * d.var(ddof=1))
    t = d.mean() / error
    half = stats.t.ppf(0.975, len(d) - 1) * error
    return {
        "differences": differences,
        "test": test,
        "train": train,
        "t": t,
        "p": float(2 * stats.t.sf(abs(t), len(d) - 1)),
        "interval": [d.mean() - half, d.mean() + half],
    }


def resampled_cases():
    rng = np.random.default_rng(4)
    for runs, shift in [(2, 0.1), (5, 0.02), (5, -0.05), (10, 0.01), (30, 0.005)]:
        yield resampled((shift + 0.02 * rng.normal(size=runs)).tolist(), 20, 20 * (runs - 1))


def write():
    counts = [(0, 0), (1, 0), (3, 9), (9, 3), (12, 12), (40, 71), (0, 30), (300, 380)]
    exact = [float(mcnemar([[0, a], [b, 0]], exact=True).pvalue) if a + b else 1.0 for a, b in counts]
    random.seed(1)
    p = [[0.01], [0.01, 0.04, 0.03], [0.5, 0.6, 0.001, 0.02, 0.02], [random.random() ** 3 for _ in range(10)]]
    bootstrap = [
        exact_variances([[1, 1, 0, 1, 1]], [[1, 0, 0, 0, 1]]),
        exact_variances([[1, 1, 0, 1, 1], [1, 1, 1, 0, 1]], [[1, 0, 0, 0, 1], [0, 1, 1, 0, 1]]),
        exact_variances([[1, 1, 1, 1], [1, 0, 1, 0], [0, 1, 1, 1]], [[0, 0, 0, 1], [1, 0, 0, 1], [0, 1, 0, 1]]),
    ]
    content = {
        "mcnemar": [{"counts": pair, "p": value} for pair, value in zip(counts, exact)],
        "holm": [{"p": values, "corrected": multipletests(values, method="holm")[1].tolist()} for values in p],
        "bootstrap": [interval(case) for case in bootstrap],
        "clustered": list(clustered_cases()),
        "resampled": list(resampled_cases()),
    }
    (HERE / "statistics.json").write_text(json.dumps(content, indent=1))


def coverage(runs=600, draws=600, items=400):
    """Shares of 95 % intervals that hold a true difference of zero: percentiles of all seeds drawn again, and ours."""
    rng = np.random.default_rng(0)
    print("seeds  spread over seeds  percentiles  ours")
    for seeds, spread in itertools.product((2, 3, 5, 10), (0.0, 0.05, 0.3)):
        percentiles = ours = 0
        for _ in range(runs):
            shape = (seeds, items)
            found = 0.3 * rng.normal(size=items) + spread * rng.normal(size=(seeds, 1)) + 0.3 * rng.normal(size=shape)
            weights = rng.multinomial(items, np.ones(items) / items, size=draws) / items
            by_seed = weights @ found.T
            draw = lambda n: np.take_along_axis(by_seed, rng.integers(0, seeds, size=(draws, n)), 1).mean(axis=1)
            low, high = np.quantile(draw(seeds), [0.025, 0.975])
            percentiles += low <= 0 <= high
            whole = draw(seeds - 1).var(ddof=1)
            part = min(found.mean(axis=1).var(ddof=1) / seeds, whole)
            degrees = whole**2 / (part**2 / (seeds - 1) + (whole - part) ** 2 / (items - 1))
            ours += abs(found.mean()) <= stats.t.ppf(0.975, degrees) * whole**0.5
        print(f"{seeds:5}  {spread:17}  {percentiles / runs:11.3f}  {ours / runs:.3f}")


coverage() if sys.argv[1:] == ["coverage"] else write()
