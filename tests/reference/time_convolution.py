"""Milliseconds that torch takes for a convolution and its two gradients, the better of both memory formats, the best of several runs.

With CLOCK=cpu the processor's time, on average.

Usage: time_convolution.py f32|bf16 IMAGES SIDE CHANNELS OUT KERNEL STRIDE GROUPS. Threads: RAYON_NUM_THREADS, else 2. Needs torch.
"""
import os
import sys
import time
import torch

images, side, channels, out, kernel, stride, groups = map(int, sys.argv[2:])
dtype = torch.bfloat16 if sys.argv[1] == "bf16" else torch.float32
torch.set_num_threads(int(os.environ.get("RAYON_NUM_THREADS", 2)))


by_processor = os.environ.get("CLOCK") == "cpu"
clock = time.process_time if by_processor else time.perf_counter


def several(f):
    f()
    times, begin = [], time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - begin < 0.7 and len(times) < 200):
        t = clock()
        f()
        times.append(clock() - t)
    return (sum(times) / len(times) if by_processor else min(times)) * 1e3


found = []
for layout in (torch.contiguous_format, torch.channels_last):
    x = torch.rand(images, channels, side, side).to(dtype).contiguous(memory_format=layout)
    w = torch.rand(out, channels // groups, kernel, kernel).to(dtype).contiguous(memory_format=layout)
    p = kernel // 2
    y = torch.conv2d(x, w, None, stride, p, 1, groups)
    back = lambda *mask: torch.ops.aten.convolution_backward(y, x, w, None, (stride,) * 2, (p,) * 2, (1, 1), False, (0, 0), groups, (*mask, False))
    with torch.no_grad():
        found.append([several(lambda: torch.conv2d(x, w, None, stride, p, 1, groups)), several(lambda: back(True, False)), several(lambda: back(False, True))])
print(*(f"{min(pair):.3f}" for pair in zip(*found)))
