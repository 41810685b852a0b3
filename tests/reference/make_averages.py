"""Writes averages.json: averages of a parameter along its training, by torch's swa_utils.

    python make_averages.py
"""

import json
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

generator = torch.Generator().manual_seed(5)
start = torch.randn(16, generator=generator)
values = [start + 0.1 * (i + 1) * torch.randn(16, generator=generator) for i in range(8)]


def warmed(decay):
    """torch's moving average with TensorFlow's decay, min(decay, (1 + t) / (10 + t))."""

    def average(averages, current, taken):
        t = int(taken)
        torch._foreach_lerp_(averages, current, 1 - min(decay, (1 + t) / (10 + t)))

    return average


def averages(fn, of):
    model = torch.nn.Linear(16, 1, bias=False)
    averaged = AveragedModel(model, multi_avg_fn=fn)
    found = []
    for value in of:
        model.weight.data.copy_(value[None])
        averaged.update_parameters(model)
        found.append(averaged.module.weight.data.flatten().tolist())
    return found


found = {
    "made_with": {"torch": torch.__version__},
    "start": start.flatten().tolist(),
    "values": [value.flatten().tolist() for value in values],
    "ema": averages(get_ema_multi_avg_fn(0.9), values),
    "warmed": averages(warmed(0.3), values),
    # From the half on, every other step, and every step.
    "swa": averages(get_swa_multi_avg_fn(), values[3::2]),
    "swa_every": averages(get_swa_multi_avg_fn(), values[4 - 1:]),
}
Path(__file__).with_name("averages.json").write_text(json.dumps(found) + "\n")
