#!/usr/bin/env python3
"""Writes convnets.json: what PyTorch, Transformers, torchvision and timm make of convolutional networks whose weights both sides compute.

Usage: make_convnets.py [EFFICIENTNET] [CIFAR]      # torch 2.15, transformers 5.24, torchvision 0.29, timm 1.0
EFFICIENTNET is a folder with timm/model.safetensors of EfficientNet-Lite0, CIFAR one with resnet20.safetensors: real weights, of which
only the numbers of a made-up picture are kept.

Element i of a tensor is a hash of i and of the tensor's name (`uniform`), scaled by what the tensor is (`values`). Everything is computed
in float64: float32 does not tell gradients at the kinks of ReLU6. Long tensors are kept as a digest: their length, and the scalar product
with such a tensor.
"""
import json, math, pathlib, sys

import numpy as np
import torch, timm, torchvision, transformers
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(1)
MASK = (1 << 32) - 1


def fnv(text, offset=0x811C9DC5, prime=0x01000193, mask=MASK):
    h = offset
    for byte in text.encode():
        h = ((h ^ byte) * prime) & mask
    return h


def uniform(name, count):
    """Numbers in [-0.5, 0.5), multiples of 2^-24."""
    x = (np.arange(1, count + 1, dtype=np.uint64) * 2654435761 + fnv(name)) & MASK
    x ^= x >> np.uint64(15)
    x = (x * 2246822519) & MASK
    x ^= x >> np.uint64(13)
    return (x >> np.uint64(8)).astype(np.float64) / 2**24 - 0.5


def values(name, shape):
    u = uniform(name, math.prod(shape))
    if name.endswith("running_var"):
        u = 1 + 0.5 * u
    elif len(shape) > 1:
        fan_in = math.prod(shape[1:])
        u = u * math.sqrt(24 / fan_in)
    elif name.endswith("weight"):
        u = 1 + 0.2 * u
    else:
        u = 0.2 * u
    return torch.from_numpy(u.astype(np.float32)).double().reshape(shape)


def digest(tensor):
    flat = tensor.detach().double().flatten().numpy()
    return [float(np.linalg.norm(flat)), float(flat @ uniform("digest", flat.size))]


def names(state):
    """A hash of the names and shapes of a state dict, in order of the names."""
    lines = sorted(f"{name} {list(t.shape)}" for name, t in state.items() if not name.endswith("num_batches_tracked"))
    lines = [line.replace(", ", ",") for line in lines]
    return [len(lines), f"{fnv(chr(10).join(lines), 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1):016x}"]


def fill(model):
    model.double()
    state = {name: values(name, t.shape) if t.is_floating_point() else t for name, t in model.state_dict().items()}
    model.load_state_dict(state)


def pixels(shape):
    return torch.from_numpy((4 * uniform("pixels", math.prod(shape))).astype(np.float32)).double().reshape(shape)


class Cifar(nn.Module):
    """ResNet with shortcuts of option A."""

    class Block(nn.Module):
        def __init__(self, channels, out, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(out)
            self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(out)
            self.stride, self.pad = stride, (out - channels) // 2

        def forward(self, x):
            y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
            return F.relu(y + x)

    def __init__(self, depth, classes=10):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        channels = 16
        for stage, out in enumerate([16, 32, 64]):
            blocks = []
            for block in range(depth):
                blocks.append(self.Block(channels, out, 2 if stage and not block else 1))
                channels = out
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class Conv4(nn.Module):
    def __init__(self, channels, hidden, classes):
        super().__init__()

        class Block(nn.Module):
            def __init__(self, channels):
                super().__init__()
                self.conv, self.norm = nn.Conv2d(channels, hidden, 3, padding=1), nn.BatchNorm2d(hidden)

            def forward(self, x):
                return F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)

        self.blocks = nn.Sequential(*[Block(channels if i == 0 else hidden) for i in range(4)])
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.classifier(self.blocks(x).mean((2, 3)))


class Mlp(nn.Module):
    def __init__(self, inputs, hidden, classes):
        super().__init__()
        widths = [inputs, *hidden]
        self.layers = nn.Sequential(*[nn.Linear(a, b) for a, b in zip(widths, widths[1:])])
        self.classifier = nn.Linear(hidden[-1], classes)

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.classifier(x)


class Flat(nn.Module):
    """MobileNetV2 of torchvision in its older form: a block is one list of layers."""

    def __init__(self, classes):
        super().__init__()
        new = torchvision.models.mobilenet_v2(num_classes=classes)
        for block in new.features[1:-1]:
            layers = []
            for layer in block.conv:
                layers += list(layer) if isinstance(layer, nn.Sequential) else [layer]
            block.conv = nn.Sequential(*layers)
        self.features, self.classifier = new.features, new.classifier

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


CLASSES = 5
HEADS = ("classifier.1", "classifier", "fc", "linear")


def hugging_face(cls, config):
    config.num_labels = CLASSES
    model = cls(config)
    kept = {k: v for k, v in config.to_diff_dict().items() if k not in ("transformers_version", "id2label", "label2id")}
    return model, {**kept, "model_type": config.model_type}


def models():
    resnet = transformers.ResNetForImageClassification
    mobile = transformers.MobileNetV2ForImageClassification
    yield "resnet-basic", *hugging_face(resnet, transformers.ResNetConfig(
        layer_type="basic", embedding_size=8, hidden_sizes=[8, 16, 24], depths=[2, 1, 2]))
    yield "resnet-bottleneck", *hugging_face(resnet, transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[16, 32, 48], depths=[2, 2, 1], downsample_in_first_stage=True,
        downsample_in_bottleneck=True))
    yield "mobilenet-same", *hugging_face(mobile, transformers.MobileNetV2Config(depth_multiplier=0.35))
    yield "mobilenet-dilated", *hugging_face(mobile, transformers.MobileNetV2Config(
        depth_multiplier=0.25, tf_padding=False, output_stride=8, first_layer_is_expansion=False,
        finegrained_output=False, layer_norm_eps=1e-2))
    for name in ["resnet18", "resnet50", "mobilenet_v2"]:
        yield name, getattr(torchvision.models, name)(num_classes=CLASSES), {"architecture": name}
    yield "mobilenet_v2_flat", Flat(CLASSES), {"architecture": "mobilenet_v2_flat"}
    for i in range(5):
        name = f"tf_efficientnet_lite{i}"
        yield name, timm.create_model(name, num_classes=CLASSES), {"architecture": name}
    yield "resnet20", Cifar(3), {"architecture": "resnet20"}
    yield "conv4", Conv4(2, 12, CLASSES), {"model_type": "conv4", "num_channels": 2, "hidden_size": 12, "image_size": 40}
    yield "mlp", Mlp(2 * 12 * 12, [20, 16], CLASSES), {"model_type": "mlp", "num_channels": 2, "image_size": 12, "hidden_sizes": [20, 16]}


def head_of(model):
    return next(module for name, module in model.named_modules() if name in HEADS and isinstance(module, nn.Linear))


def logits_of(model, x):
    y = model(x)
    return y if torch.is_tensor(y) else y.logits


def pooled_of(model, x):
    """Logits, and what the head's linear layer sees."""
    seen = []
    hook = head_of(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    logits = logits_of(model, x)
    hook.remove()
    return logits, seen[0]


def still(model):
    """Without dropout."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def gradients(model, x):
    """Those of the sum of the pooled features, each times a weight."""
    model.zero_grad()
    _, pooled = pooled_of(model, x)
    weights = torch.from_numpy(uniform("weights", pooled.numel()).astype(np.float32)).double().reshape(pooled.shape)
    (pooled * weights).sum().backward()


def some(parameters):
    """The first, the last and two between."""
    names = [name for name, p in parameters if p.grad is not None and p.grad.abs().max() > 0]
    return sorted({names[0], names[len(names) // 3], names[2 * len(names) // 3], names[-1]})


# Large networks take fewer steps.
LARGE = ("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v2_flat", *(f"tf_efficientnet_lite{i}" for i in range(1, 5)))
# Through norms over small batches and kinks, rounding grows from step to step, in torch as well: steps are short.
RATE = 1e-8


def case(name, model, config):
    still(model)
    fill(model)
    channels = {"conv4": 2, "mlp": 2}.get(name, 3)
    shape = {"mlp": [4, 2, 12, 12], "conv4": [4, 2, 40, 33], "resnet20": [4, 3, 32, 32]}.get(name, [4, channels, 64, 48])
    x = pixels(shape)
    model.eval()
    with torch.no_grad():
        logits, pooled = pooled_of(model, x)
    found = {"config": config, "classes": logits.shape[1], "images": shape, "names": names(model.state_dict()),
             "logits": logits.tolist(), "pooled": digest(pooled)}

    gradients(model, x)
    kernels = [(n, p) for n, p in model.named_parameters() if p.dim() > 1]
    found["frozen_norms"] = {n: digest(dict(kernels)[n].grad) for n in some(kernels)}
    # What evaluation mode leaves of a norm that trains: its statistics stay.
    vectors = [(n, p) for n, p in model.named_parameters() if p.dim() == 1]
    found["kept_statistics"] = {n: digest(dict(vectors)[n].grad) for n in some(vectors)}

    # Train mode: the norms' statistics are the batch's.
    model.train()
    gradients(model, x)
    named = dict(model.named_parameters())
    found["training"] = {n: digest(named[n].grad) for n in some(list(named.items()))}
    fill(model)
    found["steps"] = 2 if name in LARGE else 10
    for step in range(found["steps"]):
        gradients(model, x + 0.1 * step)
        with torch.no_grad():
            for p in model.parameters():
                if p.grad is not None:
                    p -= RATE * p.grad
    buffers = {n: b for n, b in model.named_buffers() if b.is_floating_point()}
    picked = list(buffers)
    picked = sorted({*picked[:2], *picked[len(picked) // 2 : len(picked) // 2 + 2], *picked[-2:]}) if picked else []
    found["running"] = {n: digest(buffers[n]) for n in picked}
    model.eval()
    with torch.no_grad():
        found["trained_logits"] = logits_of(model, x).tolist()
    return found


def main():
    cases = {}
    for name, model, config in models():
        print(name, flush=True)
        cases[name] = case(name, model, config)
    with torch.device("meta"):
        for name in ["resnet34", "resnet101", "resnet152"]:
            model = getattr(torchvision.models, name)(num_classes=CLASSES)
            cases[name] = {"config": {"architecture": name}, "classes": CLASSES, "names": names(model.state_dict())}
    real = {}
    if len(sys.argv) > 1:
        from safetensors.torch import load_file
        model = timm.create_model("tf_efficientnet_lite0").eval()
        model.load_state_dict(load_file(pathlib.Path(sys.argv[1]) / "timm/model.safetensors"), strict=False)
        cifar = Cifar(3).eval()
        cifar.load_state_dict(load_file(pathlib.Path(sys.argv[2]) / "resnet20.safetensors"), strict=False)
        with torch.no_grad():
            for name, model, size in [("efficientnet-lite0", model, 224), ("resnet20", cifar, 32)]:
                x = pixels([2, 3, size, size])
                logits = model.double()(x)
                real[name] = {"logits": digest(logits), "first": logits[:, :8].tolist()}
    text = json.dumps({"rate": RATE, "cases": cases, "real": real})
    out = pathlib.Path(__file__).with_name("convnets.json")
    out.write_text(text.replace('}, "', '},\n"') + "\n")


if __name__ == "__main__":
    main()
