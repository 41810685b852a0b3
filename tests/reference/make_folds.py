"""Makes folds.json, the reference of host/src/data/folds.rs.

Usage: python tests/reference/make_folds.py    (needs scikit-learn; made with 1.9)
"""

import json
from pathlib import Path

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold

HERE = Path(__file__).resolve().parent


def counts(folds, classes):
    """Examples of each class in each fold's test part, [folds][classes]."""
    number = classes.max() + 1
    return [np.bincount(classes[test], minlength=number).tolist() for _, test in folds]


def stratified(sizes, folds):
    classes = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    found = StratifiedKFold(folds).split(classes, classes)
    return {"classes": classes.tolist(), "folds": folds, "counts": counts(found, classes)}


def grouped(seed, classes, groups, folds):
    """Groups of uneven size that are uneven over the classes, no two equally: of those scikit-learn takes the one first whose name is,
    and we the larger one. Of one class all are."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(5, 60, groups)
    rows = [(int(c), g) for g, n in enumerate(sizes) for c in rng.choice(classes, n, p=rng.dirichlet(np.ones(classes)))]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    per_group = np.array([[rows.count((c, g)) for c in range(classes)] for g in range(groups)])
    if classes > 1 and len(set((classes * (per_group**2).sum(1) - per_group.sum(1) ** 2).tolist())) < groups:
        return grouped(seed + 100, classes, groups, folds)
    order = list(dict.fromkeys(g for _, g in rows))
    label = np.array([c for c, _ in rows])
    group = np.array([order.index(g) for _, g in rows])
    split = StratifiedGroupKFold(folds) if classes > 1 else GroupKFold(folds)
    found = split.split(label, label, group)
    return {"classes": label.tolist(), "groups": group.tolist(), "folds": folds, "counts": counts(found, label)}


content = {
    "stratified": [
        stratified(sizes, folds)
        for sizes, folds in [([33, 21], 5), ([100, 10, 7], 3), ([5, 5, 5], 5), ([47, 2], 2), ([13, 11, 17, 19], 10)]
    ],
    "grouped": [
        grouped(1, 2, 11, 5),
        grouped(2, 3, 17, 4),
        grouped(3, 5, 12, 3),
        grouped(4, 3, 7, 7),
        grouped(5, 1, 23, 4),
    ],
}
(HERE / "folds.json").write_text(json.dumps(content) + "\n")
