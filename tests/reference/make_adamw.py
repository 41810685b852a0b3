"""Optimizer trajectories of torch on fixed gradients, one parameter joining late: writes adamw.json. Needs torch."""
import json
import torch

OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "sgd_momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.05),
    "sgd_nesterov": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
}

start = [torch.linspace(-1, 1, 5), torch.linspace(1, 2, 3)]
after_step = {}
for name, make in OPTIMIZERS.items():
    a, b = (torch.nn.Parameter(x.clone()) for x in start)
    optimizer = make([a, b])
    after_step[name] = []
    for t in range(20):
        a.grad = torch.sin(torch.arange(5.0) + t)
        b.grad = torch.cos(torch.arange(3.0) * t) if t >= 10 else None
        optimizer.step()
        after_step[name].append([a.tolist(), b.tolist()])
gradients = "a: sin(arange(5) + t); b: cos(arange(3) * t), none before t = 10"
with open("adamw.json", "w") as f:
    json.dump({"gradients": gradients, "start": [x.tolist() for x in start], "after_step": after_step}, f)
