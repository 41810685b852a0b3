"""Torch's regression losses with their gradients, and a linear head on top of a dense one: writes regression.json. Needs torch."""
import json
from pathlib import Path

import torch
from torch.nn import functional

LOSSES = {
    "mse": lambda outputs, targets, _: functional.mse_loss(outputs, targets, reduction="sum"),
    "mae": lambda outputs, targets, _: functional.l1_loss(outputs, targets, reduction="sum"),
    "huber": lambda outputs, targets, delta: functional.huber_loss(outputs, targets, reduction="sum", delta=delta),
}

torch.set_default_dtype(torch.float64)
targets = torch.tensor([3.0, -1.0, 7.5, 0.0, 250.0, 4.0])
outputs = torch.tensor([0.25, -1.5, 2.0, -0.75, -40.0, 1.0])
cases = []
for center, scale in [(0.0, 1.0), (2.0, 2.0)]:
    for loss, delta in [("mse", None), ("mae", None), ("huber", 1.0), ("huber", 0.3)]:
        x = outputs.clone().requires_grad_()
        value = LOSSES[loss](x, (targets - center) / scale, delta)
        value.backward()
        cases.append(
            {"center": center, "scale": scale, "loss": loss, "delta": delta, "sum": value.item(), "gradient": x.grad.tolist()}
        )

features = torch.sin(torch.arange(12.0)).reshape(3, 4)
weights = {
    "dense.weight": torch.cos(torch.arange(16.0)).reshape(4, 4),
    "dense.bias": torch.linspace(-1, 1, 4),
    "out_proj.weight": torch.linspace(0, 1, 4).reshape(1, 4),
    "out_proj.bias": torch.tensor([0.5]),
}
hidden = torch.tanh(functional.linear(features, weights["dense.weight"], weights["dense.bias"]))
head = {
    "features": features.flatten().tolist(),
    "weights": {name: weight.flatten().tolist() for name, weight in weights.items()},
    "outputs": functional.linear(hidden, weights["out_proj.weight"], weights["out_proj.bias"])[:, 0].tolist(),
}
with open(Path(__file__).parent / "regression.json", "w") as file:
    json.dump({"targets": targets.tolist(), "outputs": outputs.tolist(), "cases": cases, "head": head}, file)
