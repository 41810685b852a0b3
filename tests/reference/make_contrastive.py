"""Writes contrastive.json: CLIP's loss with its gradients, in torch, by Transformers' own function and by hand where it has none (hard negatives, label
smoothing, one direction), and the squared errors of cosines.

    python make_contrastive.py

CLIP: Radford et al. 2021 (arXiv:2103.00020). Hard negatives as sentence-transformers' MultipleNegativesRankingLoss has them, cosines as its
CosineSimilarityLoss. In f64. Matrices of CLIP's own are those of tiny/clip.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers.models.clip.modeling_clip import image_text_contrastive_loss as clip_loss

HERE = Path(__file__).parent
torch.set_default_dtype(torch.float64)
generator = torch.Generator().manual_seed(11)
EXAMPLES, WIDTH = 5, 8
TEXT, IMAGE, OF_CLIP = 16, 16, 24  # tiny/bert, tiny/vit, the images of tiny/clip


def grid(x):
    """Numbers that f32 holds, and that are short."""
    return (x * 64).round() / 64


def drawn(*shape, scale=1.0):
    return grid(scale * torch.randn(*shape, generator=generator)).requires_grad_()


def numbers(tensor):
    return [round(x, 9) for x in tensor.detach().flatten().tolist()]


def flat(tensors):
    return {name: numbers(tensor) for name, tensor in tensors.items()}


def outcome(loss, embeddings, inputs):
    gradients = torch.autograd.grad(loss, list(inputs.values()))
    gradients = flat(dict(zip(inputs, gradients)))
    return {"embeddings": numbers(embeddings), "loss": loss.item(), "gradients": gradients}


def compared(first, candidates, second, scale, symmetric, smoothing):
    targets = torch.arange(len(first))
    there = F.cross_entropy(scale * first @ candidates.T, targets, label_smoothing=smoothing)
    back = F.cross_entropy(scale * second @ first.T, targets, label_smoothing=smoothing)
    return (there + back) / 2 if symmetric else there


def streams():
    """New projections, a temperature that is learned."""
    cases = []
    for options, log_scale in [
        ({"width": WIDTH}, 2.659),
        ({"width": WIDTH, "temperature": 0.2, "label_smoothing": 0.1}, 1.6),
        ({"width": WIDTH, "bias": False, "symmetric": False}, 2.1),
        ({"width": WIDTH, "max_scale": 20.0}, 3.5),  # beyond its cap
    ]:
        text, image = drawn(EXAMPLES, TEXT), drawn(EXAMPLES, IMAGE)
        parameters = {
            "text_projection.weight": drawn(WIDTH, TEXT, scale=0.3),
            "image_projection.weight": drawn(WIDTH, IMAGE, scale=0.3),
        }
        if options.get("bias", True):
            parameters |= {f"{name}_projection.bias": drawn(WIDTH, scale=0.3) for name in ["text", "image"]}
        log = grid(torch.tensor([log_scale])).requires_grad_()
        project = lambda x, name: F.normalize(
            F.linear(x, parameters[f"{name}_projection.weight"], parameters.get(f"{name}_projection.bias")), dim=1
        )
        a, b = project(text, "text"), project(image, "image")
        cap = torch.tensor(options.get("max_scale", 100.0)).log()
        scale = torch.minimum(log, cap).exp()
        smoothing, symmetric = options.get("label_smoothing", 0.0), options.get("symmetric", True)
        loss = compared(a, b, b, scale, symmetric, smoothing)
        if symmetric and smoothing == 0:
            assert torch.allclose(loss, clip_loss(scale * a @ b.T))
        inputs = {"text": text, "image": image, **parameters, "logit_scale": log}
        found = outcome(loss, torch.stack([a, b], 1), inputs)
        if log_scale > cap:
            # Beyond the cap the loss itself draws the scale back.
            assert found["gradients"]["logit_scale"] == [0.0]
            found["gradients"]["logit_scale"] = [loss.item()]
        cases.append({"options": options, "inputs": flat(inputs), **found})
    return cases


def own():
    """CLIP's own matrices and scale, as tiny/clip has them."""
    tensors = load_file(HERE / "tiny/clip/model.safetensors")
    names = ["text_projection.weight", "visual_projection.weight", "logit_scale"]
    parameters = {name: tensors[name].double().requires_grad_() for name in names}
    text, image = drawn(EXAMPLES, TEXT), drawn(EXAMPLES, OF_CLIP)
    a, b = (F.normalize(F.linear(x, parameters[name]), dim=1) for x, name in zip([text, image], names))
    loss = clip_loss(parameters["logit_scale"].exp() * a @ b.T)
    inputs = {"text": text, "image": image, **parameters}
    return {"inputs": flat({"text": text, "image": image}), **outcome(loss, torch.stack([a, b], 1), inputs)}


def texts():
    """Two or three texts an example, as they are or by one projection."""
    cases = []
    for options, sides in [
        ({}, 2),
        ({}, 3),
        ({"symmetric": False, "label_smoothing": 0.2}, 3),
        ({"width": WIDTH, "bias": False, "temperature": 0.1}, 3),
    ]:
        text = drawn(EXAMPLES * sides, TEXT)
        parameters = {"projection.weight": drawn(WIDTH, TEXT, scale=0.3)} if "width" in options else {}
        rows = F.linear(text, parameters["projection.weight"]) if parameters else text
        embeddings = F.normalize(rows, dim=1).reshape(EXAMPLES, sides, -1)
        candidates = embeddings[:, 1:].transpose(0, 1).reshape((sides - 1) * EXAMPLES, -1)
        scale, symmetric = 1 / options.get("temperature", 0.05), options.get("symmetric", True)
        smoothing = options.get("label_smoothing", 0.0)
        loss = compared(embeddings[:, 0], candidates, embeddings[:, 1], scale, symmetric, smoothing)
        inputs = {"text": text, **parameters}
        cases.append({"options": options, "sides": sides, "inputs": flat(inputs), **outcome(loss, embeddings, inputs)})
    return cases


def cosines():
    """How alike two texts are, on a scale of the data's."""
    cases = []
    for options in [{"scale": [0.0, 5.0]}, {"scale": [1.0, 5.0], "cosines": [-1.0, 1.0]}]:
        (least, greatest), (low, high) = options["scale"], options.get("cosines", [0.0, 1.0])
        text = drawn(2 * EXAMPLES, TEXT)
        pairs = text.reshape(EXAMPLES, 2, TEXT)
        values = grid(least + (greatest - least) * torch.rand(EXAMPLES, generator=generator))
        found = F.cosine_similarity(pairs[:, 0], pairs[:, 1])
        loss = F.mse_loss(found, low + (values - least) / (greatest - least) * (high - low))
        (gradient,) = torch.autograd.grad(loss, text)
        cases.append({
            "options": options,
            "text": numbers(text),
            "values": numbers(values),
            "outputs": numbers(found),
            "predictions": numbers(least + (found - low) / (high - low) * (greatest - least)),
            "loss": loss.item(),
            "gradient": numbers(gradient),
        })
    return cases


found = {"streams": streams(), "own": own(), "texts": texts(), "cosines": cosines()}
(HERE / "contrastive.json").write_text(json.dumps(found))
