"""masks.json: metrics of predicted classes of pixels by scikit-learn, and the loss, gradients and probabilities of a segmentation head by
torch.

    python make_masks.py > masks.json
"""

import json
import sys

import numpy
import sklearn.metrics as of
import torch
from torch.nn import functional as F


def metrics(true, predicted, classes):
    there = sorted(set(true) | set(predicted))
    iou = of.jaccard_score(true, predicted, labels=range(classes), average=None, zero_division=0)
    dice = of.f1_score(true, predicted, labels=there, average="macro", zero_division=0)
    recall = of.recall_score(true, predicted, labels=sorted(set(true)), average="macro", zero_division=0)
    return {
        "true": true,
        "predicted": predicted,
        "classes": classes,
        "iou": [float(iou[c]) if c in there else None for c in range(classes)],
        "metrics": {
            "mean_iou": of.jaccard_score(true, predicted, labels=there, average="macro", zero_division=0),
            "pixel_accuracy": of.accuracy_score(true, predicted),
            "mean_pixel_accuracy": recall,
            "mean_dice": dice,
            "weighted_iou": of.jaccard_score(true, predicted, labels=there, average="weighted", zero_division=0),
        },
    }


def head(stages, weights, smoothing, classes=3, width=5, channels=8, images=2, map=(2, 3), size=(7, 11)):
    def tensor(*shape, scale=0.4):
        return torch.randn(*shape, dtype=torch.float64) * scale

    parameters = {"convolution.weight": tensor(channels, width, 3, 3), "convolution.bias": tensor(channels)}
    c = channels
    for stage in range(stages):
        parameters[f"upsampling.{stage}.weight"] = tensor(c, c // 2, 4, 4)
        parameters[f"upsampling.{stage}.bias"] = tensor(c // 2)
        c //= 2
    parameters["classifier.weight"] = tensor(classes, c)
    parameters["classifier.bias"] = tensor(classes)
    features = tensor(images, width, *map, scale=1.0).requires_grad_()
    for parameter in parameters.values():
        parameter.requires_grad_()
    targets = torch.randint(0, classes, (images, *size))
    targets[0, 0, :5] = -100
    x = F.relu(F.conv2d(features, parameters["convolution.weight"], parameters["convolution.bias"], padding=1))
    for stage in range(stages):
        weight, bias = parameters[f"upsampling.{stage}.weight"], parameters[f"upsampling.{stage}.bias"]
        x = F.relu(F.conv_transpose2d(x, weight, bias, stride=2, padding=1))
    logits = F.conv2d(x, parameters["classifier.weight"][:, :, None, None], parameters["classifier.bias"])
    logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    loss = F.cross_entropy(logits, targets, weight=weight, label_smoothing=smoothing)
    loss.backward()

    def rows(x):
        return x.permute(0, 2, 3, 1).flatten().tolist()

    return {
        "stages": stages,
        "channels": channels,
        "class_weights": weights,
        "label_smoothing": smoothing,
        "map": map,
        "size": size,
        "width": width,
        "features": rows(features.detach()),
        "features_grad": rows(features.grad),
        "targets": targets.flatten().tolist(),
        "parameters": {name: p.detach().flatten().tolist() for name, p in parameters.items()},
        "gradients": {name: p.grad.flatten().tolist() for name, p in parameters.items()},
        "loss": loss.item(),
        "probabilities": rows(torch.softmax(logits, 1).detach()),
    }


def main():
    torch.manual_seed(0)
    random = numpy.random.default_rng(0)
    cases = []
    for classes, top, pixels in [(3, 3, 50), (5, 4, 80), (2, 2, 10), (6, 6, 200), (4, 1, 12)]:
        true = random.integers(0, top, pixels).tolist()
        noise = random.integers(0, classes, pixels)
        predicted = [int(n) if random.random() < 0.4 else t for t, n in zip(true, noise)]
        cases.append(metrics(true, predicted, classes))
    heads = [head(0, None, 0.0), head(2, [1.0, 0.5, 2.0], 0.1)]
    json.dump({"cases": cases, "heads": heads}, sys.stdout)
    print()


main()
