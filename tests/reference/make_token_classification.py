"""Torch's cross entropy over the tokens that count, with its gradients: writes token_classification.json. Needs torch."""
import json
from pathlib import Path

import torch
from torch.nn import functional

UNCOUNTED = 2**32 - 1

torch.set_default_dtype(torch.float64)
targets = [UNCOUNTED, 2, 0, UNCOUNTED, 1, 2, UNCOUNTED]
features = torch.sin(torch.arange(28.0)).reshape(7, 4)
weight = torch.cos(torch.arange(12.0)).reshape(3, 4)
bias = torch.tensor([0.5, -0.25, 0.0])
outputs = functional.linear(features, weight, bias)
ignoring = torch.tensor([-100 if target == UNCOUNTED else target for target in targets])
cases = []
for class_weights in [None, [1.0, 0.5, 3.0]]:
    for smoothing in [0.0, 0.2]:
        x = outputs.clone().requires_grad_()
        options = {
            "weight": None if class_weights is None else torch.tensor(class_weights),
            "label_smoothing": smoothing,
        }
        mean = functional.cross_entropy(x, ignoring, **options)
        total = functional.cross_entropy(x, ignoring, reduction="sum", **options)
        total.backward()
        cases.append(
            {
                "class_weights": class_weights or "none",
                "label_smoothing": smoothing,
                "mean": mean.item(),
                "sum": total.item(),
                "gradient": x.grad.flatten().tolist(),
            }
        )
content = {
    "features": features.flatten().tolist(),
    "weight": weight.flatten().tolist(),
    "bias": bias.tolist(),
    "outputs": outputs.flatten().tolist(),
    "targets": targets,
    "cases": cases,
}
(Path(__file__).parent / "token_classification.json").write_text(json.dumps(content))
