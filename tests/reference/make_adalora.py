"""Writes adalora.json: AdaLoRA's penalty, allocations and ranks along two trainings, as PEFT computes them.

    python make_adalora.py

Two linear layers learn random targets by Adam. After each step PEFT's update_and_allocate is called with the step's number, as its example does; where
tfinal is 0, once more with the number of all steps, which is what settles the ranks. Needs: pip install torch transformers peft
"""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import peft
import torch

# The names and shapes of the tiny BERT's.
LAYERS = {"encoder.layer.0.attention.self.query": (16, 16), "encoder.layer.0.intermediate.dense": (16, 32)}
PARTS = ["lora_A", "lora_B", "lora_E"]


class Net(torch.nn.Module):
    """Linear layers beside each other, each with targets of its own."""

    def __init__(self):
        super().__init__()
        for path, (width, out) in LAYERS.items():
            *parents, name = path.split(".")
            module = self
            for parent in parents:
                if not hasattr(module, parent):
                    module.add_module(parent, torch.nn.Module())
                module = getattr(module, parent)
            module.add_module(name, torch.nn.Linear(width, out))

    def forward(self, batch):
        losses = [((self.get_submodule(path)(x) - y) ** 2).mean() for path, (x, y) in batch.items()]
        return SimpleNamespace(loss=sum(losses), task=sum(losses).item())


def short(tensor):
    """Numbers that read as the same f32."""
    return [float(str(x)) for x in tensor.detach().numpy().astype(np.float32).flatten()]


def training(seed, **options):
    torch.manual_seed(seed)
    config = peft.AdaLoraConfig(init_r=3, target_r=1, target_modules=list(LAYERS), **options)
    model = peft.get_peft_model(Net(), config)
    allocator = model.base_model.rankallocator
    # PEFT's own start is so small that ten steps would not tell triplets apart.
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for name, p in params.items():
        if "lora_E" not in name:
            p.data = (p.data * 10).round(decimals=4)
    ours = {name.removeprefix("base_model.model.").removesuffix(".default"): p for name, p in params.items()}
    values = lambda: {name: short(p) for name, p in ours.items()}
    gradients = lambda: {name: short(p.grad) for name, p in ours.items()}
    weight = config.orth_reg_weight

    def penalty():
        factors = [p if "lora_A" in name else p.T for name, p in ours.items() if "lora_E" not in name]
        return weight * sum(torch.linalg.norm(p @ p.T - torch.eye(3)) for p in factors) / len(factors)

    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    start, steps = values(), []
    for step in range(config.total_step):
        batch = {path: (torch.randn(8, width), torch.randn(8, out)) for path, (width, out) in LAYERS.items()}
        optimizer.zero_grad()
        outputs = model.base_model(batch)  # a PeftModel without a task passes by the penalty
        found = {"penalty": penalty().item()}
        assert abs(outputs.loss.item() - outputs.task - found["penalty"]) < 1e-6  # it is the one that PEFT adds
        outputs.loss.backward()
        # Few digits, so that the file is small.
        for p in ours.values():
            p.grad.copy_(p.grad.round(decimals=5))
        optimizer.step()
        for p in ours.values():
            p.data.copy_(p.data.round(decimals=4))
        found |= {"gradients": gradients(), "values": values()}
        model.base_model.update_and_allocate(step)
        if step + 1 == config.total_step and config.tfinal == 0:
            model.base_model.update_and_allocate(config.total_step)
        found["left"] = {name: short(p) for name, p in ours.items() if "lora_E" in name}
        name = lambda n: n.removeprefix("base_model.model.").removesuffix(".default")
        found["sensitivity"] = {name(n): short(t) for n, t in allocator.exp_avg_ipt.items() if "lora_E" in n}
        steps.append(found)
    pattern = {n.removesuffix(".default"): left for n, left in model.peft_config["default"].rank_pattern.items()}
    # The gradient of the penalty alone, where the training ends.
    optimizer.zero_grad()
    penalty().backward()
    end = {"penalty": penalty().item(), "gradients": {n: short(p.grad) for n, p in ours.items() if p.grad is not None}}
    delta = {path: short(model.base_model.model.get_submodule(path).get_delta_weight("default")) for path in LAYERS}
    return {
        "options": {key: getattr(config, key) for key in ["init_r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2"]},
        "orth_reg_weight": weight,
        "total_step": config.total_step,
        "start": start,
        "steps": steps,
        "rank_pattern": pattern,
        "end": end,
        "delta": {path: of[:32] for path, of in delta.items()},
    }


found = {
    "made_with": {"torch": torch.__version__, "peft": peft.__version__},
    "trainings": [
        training(7, tinit=1, tfinal=2, deltaT=2, total_step=8),
        training(2, beta1=0.5, beta2=0.7, orth_reg_weight=0.1, total_step=5),
    ],
}
Path(__file__).with_name("adalora.json").write_text(json.dumps(found) + "\n")
