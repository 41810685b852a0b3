"""Writes si.json: paths, importances and penalties of synaptic intelligence over two tasks, as GMvandeVen/continual-learning computes them.

    python make_si.py

update_importance_estimates, update_omega and surrogate_loss there: W += -grad * (p - p_old) after each step, omega += W / ((p - p_prev)^2 + epsilon)
after a task, and the loss c * sum(omega (p - p_prev)^2). The gradient is that of the whole loss, the penalty's too.
"""

import json
from pathlib import Path

import torch

C, DAMPING = 0.5, 0.01

generator = torch.Generator().manual_seed(11)
random = lambda *shape: torch.randn(*shape, generator=generator)
weight = (0.3 * random(16)).requires_grad_()
first = weight.detach().clone()
optimizer = torch.optim.SGD([weight], lr=0.05, momentum=0.5)
previous, omega, tasks = first.clone(), None, []
for _ in range(2):
    inputs, targets = random(32, 16), random(32)
    path, old, steps = torch.zeros_like(first), weight.detach().clone(), []
    for _ in range(3):
        optimizer.zero_grad()
        loss = ((inputs @ weight - targets) ** 2).mean()
        penalty = torch.zeros(()) if omega is None else C * (omega * (weight - previous) ** 2).sum()
        grad_of_penalty = torch.autograd.grad(penalty, weight, retain_graph=True)[0] if omega is not None else torch.zeros_like(first)
        (loss + penalty).backward()
        optimizer.step()
        path += -weight.grad * (weight.detach() - old)
        old = weight.detach().clone()
        steps.append(
            {
                "penalty": penalty.item(),
                "penalty_gradient": grad_of_penalty.flatten().tolist(),
                "gradient": weight.grad.flatten().tolist(),
                "value": old.flatten().tolist(),
            }
        )
    importance = path / ((old - previous) ** 2 + DAMPING)
    omega = importance if omega is None else omega + importance
    previous = old.clone()
    tasks.append({"steps": steps, "path": path.flatten().tolist(), "omega": omega.flatten().tolist()})
found = {"made_with": {"torch": torch.__version__}, "c": C, "damping": DAMPING, "start": first.flatten().tolist(), "tasks": tasks}
Path(__file__).with_name("si.json").write_text(json.dumps(found) + "\n")
