"""Writes optimizers.json: parameters updated by Lion and by Muon, step by step.

    python make_optimizers.py

Lion as its authors' lion_pytorch.py (github.com/google/automl), Muon as github.com/KellerJordan/Muon with the scale of torch's optim.Muon, all in
f32; what Muon leaves to AdamW by torch's. Muon's steps are held against torch's own, which multiplies in bf16.
"""

import json
from pathlib import Path

import torch


class Lion:
    def __init__(self, betas):
        self.beta2, self.m = betas[1], None

    def step(self, p, g, lr, momentum, weight_decay):
        if self.m is None:
            self.m = torch.zeros_like(p)
        p.mul_(1 - lr * weight_decay)
        p.add_(torch.sign(self.m * momentum + g * (1 - momentum)), alpha=-lr)
        self.m.mul_(self.beta2).add_(g, alpha=1 - self.beta2)


def newton_schulz(g, steps):
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.mT if g.size(-2) > g.size(-1) else g
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if g.size(-2) > g.size(-1) else x


class Muon:
    def __init__(self, nesterov=True, scale="adamw", iterations=5):
        self.nesterov, self.scale, self.iterations, self.m = nesterov, scale, iterations, None

    def step(self, p, g, lr, momentum, weight_decay):
        if self.m is None:
            self.m = torch.zeros_like(p)
        self.m.lerp_(g, 1 - momentum)
        update = g.lerp(self.m, momentum) if self.nesterov else self.m
        rows, columns = p.shape[0], p[0].numel()
        update = newton_schulz(update.reshape(rows, columns), self.iterations).reshape(p.shape)
        scale = 0.2 * max(rows, columns) ** 0.5 if self.scale == "adamw" else max(1, rows / columns) ** 0.5
        p.mul_(1 - lr * weight_decay)
        p.add_(update, alpha=-lr * scale)


class Torch:
    def __init__(self, make):
        self.make, self.rule = make, None

    def step(self, p, g, lr, momentum, weight_decay):
        if self.rule is None:
            self.p = torch.nn.Parameter(p.clone())
            self.rule = self.make([self.p], lr, weight_decay)
        for group in self.rule.param_groups:
            group["lr"], group["weight_decay"] = lr, weight_decay
        self.p.grad = g.clone()
        self.rule.step()
        p.copy_(self.p.data)


def case(plugin, options, name, shape, rule, steps, zeros=False):
    """Values after each step, from gradients that differ in size."""
    generator = torch.Generator().manual_seed(len(shape) + sum(shape))
    p = torch.randn(shape, generator=generator)
    found = {"plugin": plugin, "options": options, "name": name, "shape": list(shape), "start": p.flatten().tolist(), "steps": []}
    for i, (lr, momentum, weight_decay) in enumerate(steps):
        g = torch.randn(shape, generator=generator) * 10 ** (i - 2)
        if zeros:
            g.view(-1)[0] = 0.0
        rule.step(p, g, lr, momentum, weight_decay)
        found["steps"].append(
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "gradient": g.flatten().tolist(), "value": p.flatten().tolist()}
        )
    return found


plain = [(0.01, 0.9, 0.0)] * 4
moving = [(0.01, 0.95, 0.1), (0.02, 0.9, 0.1), (0.01, 0.85, 0.1), (0.005, 0.85, 0.0)]
steady = [(0.02, 0.95, 0.1)] * 4
adamw = lambda params, lr, decay: torch.optim.AdamW(params, lr=lr, weight_decay=decay)
found = {
    "made_with": {"torch": torch.__version__},
    "cases": [
        case("lion", {}, "layer.weight", (3, 4), Lion((0.9, 0.99)), plain, zeros=True),
        case("lion", {"beta1": 0.95, "beta2": 0.98}, "layer.bias", (5,), Lion((0.95, 0.98)), moving),
        case("muon", {}, "layer.weight", (6, 4), Muon(), steady),
        case("muon", {"scale": "original", "nesterov": False}, "layer.weight", (8, 3), Muon(False, "original"), steady),
        case("muon", {"iterations": 3}, "layer.weight", (3, 8), Muon(iterations=3), moving),
        case("muon", {}, "stem.weight", (4, 2, 3, 3), Muon(), steady),
        case("muon", {}, "layer.bias", (5,), Torch(adamw), steady),
        case("muon", {}, "classifier.weight", (2, 4), Torch(adamw), steady),
    ],
}

# torch's own, in bf16, takes nearly the same steps.
for shape in [(6, 4), (3, 8)]:
    for ours, theirs in [("adamw", "match_rms_adamw"), ("original", "original")]:
        make = lambda params, lr, decay: torch.optim.Muon(params, lr=lr, weight_decay=decay, momentum=0.95, adjust_lr_fn=theirs)
        one = case("muon", {}, "", shape, Muon(scale=ours), steady)
        other = case("muon", {}, "", shape, Torch(make), steady)
        a, b = (torch.tensor(of["steps"][-1]["value"]) - torch.tensor(of["start"]) for of in (one, other))
        assert (a - b).norm() < 0.05 * a.norm(), (shape, ours, (a - b).norm() / a.norm())
Path(__file__).with_name("optimizers.json").write_text(json.dumps(found) + "\n")
