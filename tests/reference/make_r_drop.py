"""Writes r_drop.json: R-Drop's loss of two passes, with its gradients.

    python make_r_drop.py

compute_kl_loss as in github.com/dropreg/R-Drop, over the examples by the weights of their classes as torch's cross entropy is.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F


def loss(alpha, weights, smoothing):
    generator = torch.Generator().manual_seed(17)
    logits = (2 * torch.randn(2 * 5, 3, generator=generator)).requires_grad_()
    labels = torch.tensor([0, 2, 1, 1, 0])
    first, second = logits[:5], logits[5:]
    class_weights = None if weights is None else torch.tensor(weights)
    entropy = lambda of: F.cross_entropy(of, labels, weight=class_weights, label_smoothing=smoothing)
    kl = lambda p, q: F.kl_div(F.log_softmax(p, -1), F.softmax(q, -1), reduction="none").sum(1)
    of = torch.ones(5) if weights is None else class_weights[labels]
    apart = (of * (kl(first, second) + kl(second, first)) / 2).sum() / of.sum()
    value = 0.5 * (entropy(first) + entropy(second)) + alpha * apart
    value.backward()
    options = {"r_drop": alpha, "label_smoothing": smoothing} | ({} if weights is None else {"class_weights": weights})
    return {
        "options": options,
        "logits": logits.flatten().tolist(),
        "labels": labels.tolist(),
        "loss": value.item(),
        "once": entropy(first).item(),
        "weight": of.sum().item(),
        "gradient": logits.grad.flatten().tolist(),
    }


found = {"made_with": {"torch": torch.__version__}, "losses": [loss(1.0, None, 0.0), loss(5.0, [1.0, 0.5, 3.0], 0.1)]}
Path(__file__).with_name("r_drop.json").write_text(json.dumps(found) + "\n")
