"""An episode's loss with its gradient, and what prototypes of given classes predict, in torch: writes prototypical.json. Needs torch.

The loss is that of Snell et al. 2017 as jakesnell/prototypical-networks (few_shot.py) computes it, but for "euclidean", the root of the
distance. Rows come class by class, support before queries; the classes are numbered as in a larger set.
"""
import json
from pathlib import Path

import torch

WAYS, SHOTS, QUERIES, WIDTH = 3, 2, 2, 4
CLASSES = [4, 0, 2]
ALL = 6

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)


def distances(x, y, form):
    squares = (x[:, None, :] - y[None, :, :]).pow(2).sum(-1)
    return squares if form == "squared_euclidean" else squares.sqrt()


embeddings = torch.randn(WAYS * (SHOTS + QUERIES), WIDTH)
support = torch.tensor(([1] * SHOTS + [0] * QUERIES) * WAYS)
classes = torch.tensor(CLASSES).repeat_interleave(SHOTS + QUERIES)
cases = []
for form in ("squared_euclidean", "euclidean"):
    x = embeddings.clone().requires_grad_()
    by_class = x.view(WAYS, SHOTS + QUERIES, WIDTH)
    prototypes = by_class[:, :SHOTS].mean(1)
    queries = by_class[:, SHOTS:].reshape(-1, WIDTH)
    log_p = torch.log_softmax(-distances(queries, prototypes, form), dim=1)
    truth = torch.arange(WAYS).repeat_interleave(QUERIES)
    loss = -log_p.gather(1, truth[:, None]).sum()
    loss.backward()

    # All rows now stand for training examples of their classes, and new ones are told by their means. Classes 1, 3 and 5 have none.
    means = torch.stack([embeddings[classes == c].mean(0) for c in sorted(CLASSES)])
    new = torch.sin(torch.arange(5.0 * WIDTH)).view(5, WIDTH)
    known = torch.softmax(-distances(new, means, form), dim=1)
    probabilities = torch.zeros(5, ALL)
    probabilities[:, sorted(CLASSES)] = known
    cases.append(
        {
            "distance": form,
            "sum": loss.item(),
            "gradient": x.grad.flatten().tolist(),
            "probabilities": probabilities.flatten().tolist(),
            "weight": (2 * means).flatten().tolist(),
            "bias": (-means.pow(2).sum(1)).tolist(),
        }
    )

with open(Path(__file__).parent / "prototypical.json", "w") as file:
    json.dump(
        {
            "embeddings": embeddings.flatten().tolist(),
            "classes": classes.tolist(),
            "support": support.tolist(),
            "known": sorted(CLASSES),
            "new": new.flatten().tolist(),
            "cases": cases,
        },
        file,
    )
