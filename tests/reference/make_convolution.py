"""What torch computes of images, in float64: convolutions, poolings, norms, activations, upsampling. Writes convolution.json. Needs torch.

Feature maps are rows, [images * height * width, channels]. Inputs are not stored: element i of input k is
sin(12.9898 (i + 1) + 78.233 k) (weights of norms: 1 + half of it). The gradient that reaches the output is cos(i).
"""
import json
import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)


def wave(k, *dims):
    n = int(torch.tensor(dims).prod())
    return torch.sin(12.9898 * (torch.arange(n) + 1) + 78.233 * k).reshape(dims)


def image(rows, m):  # rows to [images, channels, height, width]
    return rows.reshape(m[0], m[1], m[2], -1).permute(0, 3, 1, 2)


def rows(x):
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def numbers(t):
    return [float(f"{v:.12g}") for v in t.detach().flatten().tolist()]


cases = []


def case(op, m, inputs, f, **options):
    """f takes the inputs, the first a map of torch's layout, and gives a map of torch's layout or rows."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    y = f(image(leaves[0], m), *leaves[1:])
    size = [y.shape[2], y.shape[3]] if y.dim() == 4 else [1, 1]
    y = rows(y) if y.dim() == 4 else y
    y.backward(torch.cos(torch.arange(y.numel())).reshape(y.shape))
    cases.append({
        "op": op, "map": m, **options, "dims": [list(x.shape) for x in inputs], "size": size,
        "output": numbers(y), "gradients": [numbers(x.grad) for x in leaves],
    })


def pad(x, p, value=0.0):  # p: [[top, bottom], [left, right]]
    return F.pad(x, (p[1][0], p[1][1], p[0][0], p[0][1]), value=value)


def window(kernel, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), ceil=False):
    return {"kernel": list(kernel), "stride": list(stride), "padding": [list(p) for p in padding], "dilation": list(dilation), "ceil": ceil}


def same(m, kernel, stride, dilation=(1, 1)):  # TensorFlow's, as timm pads
    out = []
    for size, k, s, d in zip(m[1:], kernel, stride, dilation):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        out.append((total // 2, total - total // 2))
    return tuple(out)


def conv(m, channels, out, w, groups=1, bias=True):
    inputs = [wave(0, m[0] * m[1] * m[2], channels), wave(1, out, channels // groups, *w["kernel"])] + ([wave(2, out)] if bias else [])
    f = lambda x, weight, bias=None: F.conv2d(pad(x, w["padding"]), weight, bias, w["stride"], 0, w["dilation"], groups)
    case("conv2d", m, inputs, f, window=w, groups=groups)


both = lambda p: ((p, p), (p, p))
conv([2, 5, 4], 3, 4, window((3, 3), padding=both(1)))
conv([1, 5, 4], 3, 4, window((3, 3)), bias=False)
conv([1, 7, 6], 3, 2, window((7, 7), (2, 2), both(3)))
conv([2, 5, 5], 4, 3, window((3, 3), (2, 2), both(1)))
conv([1, 8, 7], 2, 3, window((3, 2), (3, 2), ((1, 0), (0, 2))))
conv([1, 6, 6], 2, 3, window((3, 3), padding=both(2), dilation=(2, 2)))
conv([1, 7, 8], 2, 2, window((3, 3), (2, 3), ((2, 1), (3, 0)), (3, 2)))
conv([2, 4, 4], 3, 5, window((1, 1)))
conv([2, 4, 5], 3, 5, window((1, 1), (2, 2)))
conv([1, 4, 4], 2, 2, window((2, 2), padding=((0, 1), (0, 1))))
conv([1, 4, 5], 2, 2, window((4, 2), (2, 1), both(1)))
conv([2, 1, 1], 4, 3, window((3, 3), padding=both(1)))
conv([1, 2, 1], 3, 2, window((5, 5), (1, 1), both(2)))
conv([1, 5, 4], 4, 6, window((3, 3), padding=both(1)), groups=2)
conv([1, 4, 4], 6, 6, window((3, 3), padding=both(1)), groups=6)
conv([2, 5, 4], 5, 5, window((3, 3), (2, 2), both(1)), groups=5)
conv([1, 6, 5], 3, 3, window((5, 3), (1, 2), ((2, 2), (2, 0)), (1, 2)), groups=3, bias=False)
conv([1, 4, 4], 3, 6, window((3, 3), padding=both(1)), groups=3)
for m, k, s in [([1, 6, 7], (3, 3), (2, 2)), ([1, 5, 5], (5, 5), (2, 2)), ([1, 4, 3], (2, 2), (1, 1))]:
    conv(m, 2, 3, window(k, s, same(m, k, s)))
    conv(m, 3, 3, window(k, s, same(m, k, s)), groups=3)


def transposed(m, channels, out, w, extra=(0, 0), groups=1, bias=True):
    inputs = [wave(0, m[0] * m[1] * m[2], channels), wave(1, channels, out // groups, *w["kernel"])] + ([wave(2, out)] if bias else [])
    (top, _), (left, _) = w["padding"]
    f = lambda x, weight, bias=None: F.conv_transpose2d(x, weight, bias, w["stride"], (top, left), extra, groups, w["dilation"])
    case("conv_transpose2d", m, inputs, f, window=w, groups=groups, output_padding=list(extra))


transposed([1, 3, 2], 3, 2, window((3, 3)))
transposed([2, 3, 3], 4, 2, window((4, 4), (2, 2), both(1)))
transposed([1, 3, 2], 3, 2, window((3, 3), (2, 2), both(1)), (1, 1))
transposed([1, 2, 3], 2, 3, window((2, 3), (3, 1), ((0, 0), (1, 1)), (1, 2)), (2, 0), bias=False)
transposed([1, 3, 3], 4, 4, window((3, 3), (2, 2), both(1)), groups=2)
transposed([1, 3, 3], 3, 3, window((2, 2), (2, 2)), groups=3)


def pooled(op, m, channels, w, f, **options):
    case(op, m, [wave(0, m[0] * m[1] * m[2], channels)], f, window=w, **options)


def max_pool(m, channels, w):
    (top, _), (left, _) = w["padding"]
    if w["ceil"]:
        f = lambda x: F.max_pool2d(x, w["kernel"], w["stride"], (top, left), w["dilation"], True)
    else:
        f = lambda x: F.max_pool2d(pad(x, w["padding"], -torch.inf), w["kernel"], w["stride"], 0, w["dilation"])
    pooled("max_pool2d", m, channels, w, f)


def avg_pool(m, channels, w, include):
    (top, _), (left, _) = w["padding"]
    if w["padding"][0][0] == w["padding"][0][1] and w["padding"][1][0] == w["padding"][1][1]:
        f = lambda x: F.avg_pool2d(x, w["kernel"], w["stride"], (top, left), w["ceil"], include)
    else:  # TensorFlow's: zeros do not count
        def f(x):
            ones = torch.ones_like(x)
            return F.avg_pool2d(pad(x, w["padding"]), w["kernel"], w["stride"]) / F.avg_pool2d(pad(ones, w["padding"]), w["kernel"], w["stride"])
    pooled("avg_pool2d", m, channels, w, f, count_include_pad=include)


max_pool([2, 6, 5], 3, window((3, 3), (2, 2), both(1)))
max_pool([1, 5, 6], 2, window((2, 2), (2, 2)))
max_pool([1, 5, 6], 2, window((2, 2), (2, 2), ceil=True))
max_pool([1, 6, 7], 2, window((3, 2), (2, 3), ((1, 1), (1, 1)), (2, 1), ceil=True))
max_pool([1, 5, 5], 2, window((3, 3), (2, 2), ((0, 1), (0, 1))))
max_pool([1, 1, 1], 3, window((3, 3), padding=both(1)))
for include in (True, False):
    avg_pool([2, 6, 5], 3, window((3, 3), (2, 2), both(1)), include)
    avg_pool([1, 5, 6], 2, window((3, 2), (2, 2), both(1), ceil=True), include)
    avg_pool([1, 1, 2], 2, window((3, 3), padding=both(1)), include)
avg_pool([1, 5, 5], 2, window((3, 3), (2, 2), ((0, 1), (1, 0))), False)
for m, size in [([2, 4, 5], (1, 1)), ([1, 7, 5], (3, 2)), ([1, 2, 3], (4, 3))]:
    case("adaptive_avg_pool2d", m, [wave(0, m[0] * m[1] * m[2], 2)], lambda x: F.adaptive_avg_pool2d(x, size))
for m, size in [([1, 3, 4], (6, 8)), ([1, 5, 4], (3, 7)), ([1, 1, 2], (3, 5)), ([2, 4, 4], (1, 1))]:
    x = [wave(0, m[0] * m[1] * m[2], 2)]
    case("upsample_nearest2d", m, x, lambda x: F.interpolate(x, size, mode="nearest"))
    for corners in (False, True):
        case("upsample_bilinear2d", m, x, lambda x: F.interpolate(x, size, mode="bilinear", align_corners=corners), align_corners=corners)


def norm_inputs(m, channels):
    return [wave(0, m[0] * m[1] * m[2], channels), 1 + wave(1, channels) / 2, wave(2, channels)]


ACTIVATIONS = {"identity": lambda x: x, "relu": F.relu, "relu6": F.relu6, "hard_swish": F.hardswish, "hard_sigmoid": F.hardsigmoid, "silu": F.silu}
for name, activation in ACTIVATIONS.items():
    m = [2, 3, 2]
    running = lambda: (wave(3, 4) / 4, 1 + wave(4, 4) / 2)
    case("batch_norm", m, norm_inputs(m, 4), lambda x, w, b: activation(F.batch_norm(x, *running(), w, b, False, 0.1, 1e-3)), activation=name)
    after = running()
    case("batch_norm_training", m, norm_inputs(m, 4), lambda x, w, b: activation(F.batch_norm(x, *after, w, b, True, 0.1, 1e-3)), activation=name)
    cases[-1]["running"] = [numbers(t) for t in after]
    case(name, m, [4 * wave(0, 12, 5)], activation)
for groups in (1, 2, 4):
    m = [2, 3, 2]
    case("group_norm", m, norm_inputs(m, 4), lambda x, w, b: F.group_norm(x, groups, w, b, 1e-5), groups=groups)
for m, w in [([1, 4, 5], window((3, 2), (2, 1), both(1))), ([2, 3, 3], window((2, 2), dilation=(2, 1)))]:
    def unfolded(x):
        y = F.unfold(pad(x, w["padding"]), w["kernel"], w["dilation"], 0, w["stride"])
        (h, wide) = [(n + sum(p) - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in zip(m[1:], w["padding"], w["dilation"], w["kernel"], w["stride"])]
        return y.reshape(m[0], -1, h, wide)
    case("unfold", m, [wave(0, m[0] * m[1] * m[2], 3)], unfolded, window=w)

with open("convolution.json", "w") as f:
    f.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")
