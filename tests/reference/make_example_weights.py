"""Torch's losses where examples have weights, with their gradients: writes example_weights.json. Needs torch.

The mean divides by the sum of what the examples' terms weigh: the example's weight, times its class's where classes have weights.
"""
import json
from pathlib import Path

import torch
from torch.nn import functional

torch.set_default_dtype(torch.float64)
weights = torch.tensor([0.5, 2.0, 0.0, 2.0, 1.0])


def case(outputs, terms, term_weights):
    """Terms that hold their class's weight already, and what each weighs."""
    total = (weights_of * terms).sum()
    mean = total / (weights_of * term_weights).sum()
    gradient = torch.autograd.grad(mean, outputs)[0]
    return {"sum": total.item(), "mean": mean.item(), "gradient": gradient.flatten().tolist()}


# Five texts of two classes.
weights_of = weights
outputs = torch.sin(torch.arange(10.0)).reshape(5, 2).requires_grad_()
targets = torch.tensor([0, 1, 1, 0, 1])
classes = {"outputs": outputs.flatten().tolist(), "targets": targets.tolist(), "cases": []}
for class_weights in [None, [1.0, 3.0]]:
    weight = None if class_weights is None else torch.tensor(class_weights)
    terms = functional.cross_entropy(outputs, targets, weight=weight, reduction="none")
    of_class = torch.ones(5) if weight is None else weight[targets]
    classes["cases"].append({"class_weights": class_weights or "none", **case(outputs, terms, of_class)})

# The same with values.
values = torch.cos(torch.arange(5.0)).requires_grad_()
truth = torch.tensor([0.5, -1.0, 2.0, 0.25, 3.0])
squares = functional.mse_loss(values, truth, reduction="none")
regression = {"outputs": values.tolist(), "targets": truth.tolist(), **case(values, squares, torch.ones(5))}

# Five texts of one to three words: a word has its text's weight.
lengths = [1, 3, 2, 1, 2]
weights_of = weights.repeat_interleave(torch.tensor(lengths))
outputs = torch.sin(torch.arange(27.0) + 1).reshape(9, 3).requires_grad_()
targets = torch.tensor([0, 1, 2, 2, 0, 1, 2, 1, 0])
terms = functional.cross_entropy(outputs, targets, reduction="none")
words = {
    "lengths": lengths,
    "outputs": outputs.flatten().tolist(),
    "targets": targets.tolist(),
    **case(outputs, terms, torch.ones(9)),
}
content = {"weights": weights.tolist(), "classes": classes, "regression": regression, "words": words}
(Path(__file__).parent / "example_weights.json").write_text(json.dumps(content))
