"""Entity-level scores of IOB2 labels by seqeval: writes entities.json.

Usage: python tests/reference/make_entities.py     (needs seqeval; made with 1.2)
"""

import json
import random
import warnings
from pathlib import Path

from seqeval.metrics import classification_report, f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities

warnings.filterwarnings("ignore")
random.seed(5)
LABELS = ["B-LOC", "B-ORG", "I-LOC", "I-ORG", "I-PER", "O", "B-PER"]


def case(true, predicted):
    named = [[[LABELS[label] for label in text] for text in texts] for texts in (true, predicted)]
    return {
        "true": true,
        "predicted": predicted,
        "support": len(set(get_entities(named[0]))),
        "report": report(*named),
        "entity_precision": float(precision_score(*named)),
        "entity_recall": float(recall_score(*named)),
        "entity_f1": float(f1_score(*named)),
    }


def report(true, predicted):
    """seqeval has no report of no entity."""
    if get_entities(true) or get_entities(predicted):
        return classification_report(true, predicted, digits=4, zero_division=0)
    return NONE


NONE = (
    "              precision    recall  f1-score   support\n\n"
    "   micro avg     0.0000    0.0000    0.0000         0\n"
    "   macro avg     0.0000    0.0000    0.0000         0\n"
    "weighted avg     0.0000    0.0000    0.0000         0\n"
)


def noisy(texts, share):
    """Predictions that differ from the truth in about this share."""
    return [[random.randrange(len(LABELS)) if random.random() < share else label for label in text] for text in texts]


def classes(*texts):
    return [[LABELS.index(label) for label in text.split()] for text in texts]


cases = [
    # The borders of an entity, its type, and where one is broken in two.
    case(classes("B-LOC I-LOC O"), classes("B-LOC I-LOC O")),
    case(classes("B-LOC I-LOC O"), classes("B-LOC O O")),
    case(classes("B-LOC I-LOC O"), classes("B-LOC B-LOC O")),
    case(classes("B-LOC I-LOC O"), classes("B-LOC I-ORG O")),
    case(classes("B-LOC I-LOC O"), classes("I-LOC I-LOC O")),
    case(classes("O B-LOC"), classes("O I-LOC")),
    # None that are true, none that are predicted, none at all.
    case(classes("O O"), classes("B-LOC O")),
    case(classes("B-LOC O"), classes("O O")),
    case(classes("O O"), classes("O O")),
    # No entity reaches over two texts.
    case(classes("O B-LOC", "I-LOC O"), classes("O B-LOC", "B-LOC O")),
    case(classes("O B-LOC", "I-LOC O"), classes("O B-LOC", "O O")),
]
for share in [0.05, 0.2, 0.5, 1.0]:
    for texts in [1, 5, 30]:
        true = [[random.randrange(len(LABELS)) for _ in range(random.randint(1, 12))] for _ in range(texts)]
        cases.append(case(true, noisy(true, share)))
path = Path(__file__).resolve().parent / "entities.json"
path.write_text(json.dumps({"labels": LABELS, "cases": cases}))
