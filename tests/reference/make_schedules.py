"""Rates and momenta of torch's and Transformers' schedules, step by step: writes schedules.json. Needs torch and transformers.

A row is [rate, momentum] of one step at base rate 1 and momentum 0.9. Plateau's rows end with the value that is monitored
after the step.
"""
import json
import math

import torch
import transformers as hf
from torch.optim import lr_scheduler as torch_schedules


def run(make, steps=40, values=None):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler = make(optimizer)
    rows = []
    for step in range(steps):
        group = optimizer.param_groups[0]
        heard = [] if values is None else [values[step]]
        rows.append([group["lr"], group["momentum"], *heard])
        optimizer.step()
        scheduler.step(*heard)
    return rows


def plateau(values, **options):
    return run(lambda o: torch_schedules.ReduceLROnPlateau(o, **options), len(values), values)


S = torch_schedules
falling = [round(0.2 + 0.8 * math.exp(-t / 8) + 0.03 * math.sin(3 * t), 6) for t in range(60)]
rising = [round(1 - value, 6) for value in falling]
schedules = {
    "linear_warmup4_total40": run(lambda o: hf.get_linear_schedule_with_warmup(o, 4, 40)),
    "cosine_warmup4_total40": run(lambda o: hf.get_cosine_schedule_with_warmup(o, 4, 40)),
    "cosine_annealing_T40_min0.1": run(lambda o: S.CosineAnnealingLR(o, 40, eta_min=0.1)),
    "cosine_restarts_T010_mult2_min0.1_total70": run(lambda o: S.CosineAnnealingWarmRestarts(o, 10, 2, 0.1), 70),
    "cosine_hard_restarts3_warmup4_total40": run(
        lambda o: hf.get_cosine_with_hard_restarts_schedule_with_warmup(o, 4, 40, num_cycles=3)
    ),
    "step_10_gamma0.5": run(lambda o: S.StepLR(o, 10, 0.5)),
    "multistep_5_20_gamma0.1": run(lambda o: S.MultiStepLR(o, [5, 20], 0.1)),
    "exponential_0.9": run(lambda o: S.ExponentialLR(o, 0.9)),
    "polynomial_power2_total40": run(lambda o: S.PolynomialLR(o, 40, 2.0)),
    "polynomial_warmup4_power2_end0.1_total40": run(
        lambda o: hf.get_polynomial_decay_schedule_with_warmup(o, 4, 40, lr_end=0.1, power=2.0)
    ),
    "wsd_linear_warmup4_decay8_total40": run(
        lambda o: hf.get_wsd_schedule(o, 4, 8, num_training_steps=40, decay_type="linear")
    ),
    "wsd_cosine_decay10_min0.1_total40": run(
        lambda o: hf.get_wsd_schedule(o, 0, 10, num_training_steps=40, decay_type="cosine", min_lr_ratio=0.1)
    ),
    "wsd_1sqrt_warmup4_decay8_min0.2_total40": run(
        lambda o: hf.get_wsd_schedule(o, 4, 8, num_training_steps=40, decay_type="1-sqrt", min_lr_ratio=0.2)
    ),
    "onecycle_cosine_total40": run(lambda o: S.OneCycleLR(o, 1.0, total_steps=40)),
    "onecycle_linear_total40": run(lambda o: S.OneCycleLR(o, 1.0, total_steps=40, anneal_strategy="linear")),
    "onecycle_three_phase_total40": run(lambda o: S.OneCycleLR(o, 1.0, total_steps=40, three_phase=True)),
    "onecycle_start0_constant_momentum_total3": run(
        lambda o: S.OneCycleLR(o, 1.0, total_steps=3, pct_start=0.0, cycle_momentum=False), 3
    ),
    "plateau_min": plateau(falling, patience=2, factor=0.5),
    "plateau_min_abs_cooldown3": plateau(falling, patience=1, threshold=0.02, threshold_mode="abs", cooldown=3),
    "plateau_max_floor0.2": plateau(rising, mode="max", patience=3, factor=0.5, min_lr=0.2),
    "plateau_max_abs": plateau(rising, mode="max", patience=2, threshold=0.01, threshold_mode="abs"),
    "plateau_flat": plateau([1.0] * 20, patience=0),
}
with open("schedules.json", "w") as f:
    rows = (f" {json.dumps(name)}: {json.dumps(rows)}" for name, rows in schedules.items())
    f.write("{\n" + ",\n".join(rows) + "\n}\n")
