"""Writes preference.json: losses of DPO and ORPO with their gradients and rewards, in torch, from the log-probabilities of answers and from
features of a tiny decoder.

    python make_preference.py

DPO as in Rafailov et al. 2023 (arXiv:2305.18290), label smoothing as in Mitchell 2023 (conservative DPO); ORPO as in Hong et al. 2024
(arXiv:2403.07691). In f64.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

HERE = Path(__file__).parent
torch.set_default_dtype(torch.float64)


def dpo(policy, reference, beta, smoothing):
    rewards = beta * (policy - reference)  # [pairs, 2]
    margin = rewards[:, 0] - rewards[:, 1]
    return (-(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)).mean(), rewards


def orpo(mean, beta):
    odds = mean - torch.log1p(-torch.exp(mean))
    return (-mean[:, 0] - beta * F.logsigmoid(odds[:, 0] - odds[:, 1])).mean(), beta * mean


def loss(policy, options, reference):
    if options.get("loss") == "orpo":
        return orpo(policy, options.get("beta", 0.1))
    if options.get("reference_free"):
        reference = torch.zeros_like(policy)
    return dpo(policy, reference, options.get("beta", 0.1), options.get("label_smoothing", 0.0))


generator = torch.Generator().manual_seed(5)
OPTIONS = [
    {},
    {"beta": 0.5, "label_smoothing": 0.2},
    {"reference_free": True, "beta": 0.3},
    {"loss": "orpo"},
    {"loss": "orpo", "beta": 0.7},
]
cases = []
for options in OPTIONS:
    of_means = options.get("loss") == "orpo"
    scale = 2.0 if of_means else 40.0
    policy = (-scale * torch.rand(5, 2, generator=generator) - 0.01).float().double().requires_grad_()
    reference = (-scale * torch.rand(5, 2, generator=generator)).float().double()
    value, rewards = loss(policy, options, reference)
    value.backward()
    cases.append({
        "options": options,
        "policy": policy.detach().flatten().tolist(),
        "reference": reference.flatten().tolist(),
        "loss": value.item(),
        "gradient": policy.grad.flatten().tolist(),
        "rewards": rewards.detach().flatten().tolist(),
    })

# Two pairs of sequences: features, what follows each token, and the model's own layer.
tensors = load_file(HERE / "decoders/llama/model.safetensors")
weight = tensors.get("lm_head.weight", tensors.get("model.embed_tokens.weight")).double()
lengths = [4, 3, 2, 5]
offsets = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
features = torch.randn(offsets[-1], weight.shape[1], generator=generator).float().double().requires_grad_()
following = torch.randint(weight.shape[0], (offsets[-1],), generator=generator)
counts = torch.ones(offsets[-1], dtype=torch.bool)
for start, end in zip(offsets, offsets[1:]):
    counts[end - 1] = False  # nothing follows
    if end - start > 2:
        counts[start] = False  # a prompt
log_p = F.log_softmax(features @ weight.T, -1).gather(1, following[:, None])[:, 0]
passes = []
for options in [{}, {"loss": "orpo"}]:
    sums = torch.stack([log_p[a:b][counts[a:b]].sum() for a, b in zip(offsets, offsets[1:])])
    numbers = torch.stack([counts[a:b].sum() for a, b in zip(offsets, offsets[1:])])
    outputs = (sums / numbers if options else sums).reshape(2, 2)
    reference = torch.tensor([[-9.0, -11.0], [-6.5, -20.0]])
    value, _ = loss(outputs, options, reference)
    (gradient,) = torch.autograd.grad(value, features, retain_graph=True)
    passes.append({
        "options": options,
        "outputs": outputs.detach().flatten().tolist(),
        "reference": reference.flatten().tolist(),
        "loss": value.item(),
        "gradient": gradient.flatten().tolist(),
    })
forward = {
    "offsets": offsets,
    "features": features.detach().flatten().tolist(),
    "next": [token if there else 2**32 - 1 for token, there in zip(following.tolist(), counts.tolist())],
    "passes": passes,
}
(HERE / "preference.json").write_text(json.dumps({"losses": cases, "forward": forward}))
