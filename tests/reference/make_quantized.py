#!/usr/bin/env python3
"""What bitsandbytes and llama.cpp's `gguf` package make of a weight that they quantise.

Usage: make_quantized.py OUT.safetensors
Needs: pip install torch bitsandbytes gguf numpy safetensors

Writes weight [64, 320], float32; nf4, the same after NF4 in blocks of 64 whose scales are quantised too; nf4_codes [64, 320], the numbers of
the levels; nf4_levels [16] and scale_levels [256]; and q8_0, after Q8_0.
"""

import sys

import bitsandbytes.functional as bnb
import gguf
import torch
from gguf.quants import dequantize, quantize
from safetensors.torch import save_file

torch.manual_seed(0)
# Rows of different sizes, as layers have them, one of zeros, and a few elements far out.
weight = torch.randn(64, 320) * (0.002 + 0.04 * torch.rand(64, 1))
weight[7] = 0.0
weight[9, 100] = 3.0
packed, state = bnb.quantize_4bit(weight, quant_type="nf4", blocksize=64, compress_statistics=True)
codes = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], dim=1).reshape(64, 320)
blocks = gguf.GGMLQuantizationType.Q8_0
save_file(
    {
        "weight": weight,
        "nf4": bnb.dequantize_4bit(packed, state).contiguous(),
        "nf4_codes": codes.contiguous(),
        "nf4_levels": state.code.contiguous(),
        "scale_levels": state.state2.code.contiguous(),
        "q8_0": torch.from_numpy(dequantize(quantize(weight.numpy(), blocks), blocks)).contiguous(),
    },
    sys.argv[1],
)
