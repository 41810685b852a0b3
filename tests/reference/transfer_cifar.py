#!/usr/bin/env python3
"""A ResNet20 of CIFAR-10 taken to other pictures in PyTorch, by the recipe of docs/measurements.md: what fthost's accuracy is held against.

Usage: transfer_cifar.py WEIGHTS TRAIN TEST [--mode frozen|last|full] [--epochs 15] [--batch 64] [--lr 1e-2] [--seed 0]

WEIGHTS is resnet20.safetensors (akamaster/pytorch_resnet_cifar10), TRAIN and TEST folders of classes. frozen: the head trains, all norms by
their running statistics. last: the last stage trains too. full: all of it. Every trained parameter at one rate, Adam, a cosine over all steps;
where more than the head trains, crops by 4 pixels of padding and flips. Prints one line of JSON. Needs torch, torchvision and safetensors.
"""
import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torchvision import datasets, transforms

sys.path.insert(0, str(Path(__file__).parent))
from make_convnets import Cifar  # noqa: E402

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--mode", choices=["frozen", "last", "full"], default="frozen")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    plain = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    # Black is 0 before the pixels are normalised, on both sides.
    random = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), plain])
    train = datasets.ImageFolder(given.train, plain if given.mode == "frozen" else random)
    test = datasets.ImageFolder(given.test, plain)

    model = Cifar(3)
    lacking = model.load_state_dict(load_file(given.weights), strict=False).missing_keys
    assert all(name.endswith("num_batches_tracked") for name in lacking), lacking
    model.linear = nn.Linear(64, len(train.classes))
    nn.init.normal_(model.linear.weight, std=0.02)
    nn.init.zeros_(model.linear.bias)
    trained = {"frozen": ("linear",), "last": ("linear", "layer3"), "full": ("",)}[given.mode]
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(trained)

    def train_mode():
        # A norm that trains takes the statistics of the batch, a frozen one its own.
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train(module.weight.requires_grad)

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=given.lr)
    order = torch.Generator().manual_seed(given.seed)
    batches = torch.utils.data.DataLoader(train, given.batch, shuffle=True, generator=order)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=given.epochs * len(batches))
    for _ in range(given.epochs):
        train_mode()
        for x, y in batches:
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        right = sum((model(x).argmax(1) == y).sum().item() for x, y in torch.utils.data.DataLoader(test, 256))
    print(json.dumps({"mode": given.mode, "seed": given.seed, "lr": given.lr, "epochs": given.epochs, "accuracy": right / len(test)}))


if __name__ == "__main__":
    main()
