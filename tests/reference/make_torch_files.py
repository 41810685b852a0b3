#!/usr/bin/env python3
"""Writes files of torch.save for models/tests/torch.rs: state dicts in both forms, and what is refused.

    make_torch_files.py [models/tests/torch]

PyTorch 2.15.
"""

import collections
import json
import pathlib
import pickle
import sys

import torch

out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2] / "models/tests/torch")
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)

model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 2), torch.nn.BatchNorm2d(3), torch.nn.Linear(3, 2))
# A copy: the optimizer below changes what the model holds.
state = collections.OrderedDict((name, value.clone()) for name, value in model.state_dict().items())
expected = {name: {"shape": list(t.shape), "values": t.double().flatten().tolist()} for name, t in state.items()}
(out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def save(name, what, legacy=False):
    torch.save(what, out / name, _use_new_zipfile_serialization=not legacy)


save("zip.pth", state)
save("legacy.pth", state, legacy=True)
# What training scripts save: the state dict among other things, names with DataParallel's prefix, parameters in place of tensors.
parallel = collections.OrderedDict((f"module.{name}", value) for name, value in state.items())
adam = torch.optim.Adam(model.parameters())
for p in model.parameters():
    p.grad = torch.ones_like(p)
adam.step()
model.load_state_dict(state)
training = {"epoch": 3, "best": 0.5, "state_dict": parallel, "optimizer": adam.state_dict(), "args": ["--lr", None, True, (1, 2)]}
save("training.pth", training)
save("training-legacy.pth", training, legacy=True)
save("parameters.pth", dict(model.named_parameters()))
# Tensors that share a storage.
shared = torch.arange(12, dtype=torch.float32)
save("views.pth", {"first": shared[:4], "second": shared[4:].view(2, 4)})
for dtype in [torch.float16, torch.bfloat16, torch.float64]:
    save(f"{str(dtype).removeprefix('torch.')}.pth", {"x": torch.tensor([1.5, -2.25, 1e-3], dtype=dtype)})
save("transposed.pth", {"x": torch.arange(6.0).view(2, 3).t()})
# What is refused.
save("whole-model.pth", model)
save("no-tensors.pth", {"epoch": 3})


class Foreign:
    def __reduce__(self):
        import os

        return (os.system, ("touch /tmp/a-pickle-was-run",))


save("foreign.pth", {"x": torch.ones(2), "y": Foreign()})
save("foreign-legacy.pth", {"x": torch.ones(2), "y": Foreign()}, legacy=True)
(out / "plain.pth").write_bytes(pickle.dumps({"x": 1}))
