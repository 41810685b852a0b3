#!/usr/bin/env python3
"""Opens a file of llama.cpp's by its `gguf` package and compares every tensor, to the bit, with a Hugging Face folder of the same model.

Usage: gguf_check.py FILE.gguf FOLDER
Needs: pip install gguf numpy safetensors

Prints the names of all metadata, how many tensors of each type there are, and how many tokens, as one JSON line.
"""

import collections
import json
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import quantize
from make_gguf import laid, name_of
from safetensors.numpy import load_file

file, folder = Path(sys.argv[1]), Path(sys.argv[2])
reader = gguf.GGUFReader(file)
config = json.loads((folder / "config.json").read_text())
architecture = reader.fields["general.architecture"].contents()
tensors = {tensor.name: tensor for tensor in reader.tensors}
types = collections.Counter(tensor.tensor_type.name for tensor in reader.tensors)
for path, values in load_file(folder / "model.safetensors").items():
    tensor = tensors.pop(name_of(path, architecture))
    values = np.ascontiguousarray(laid(path, values, architecture, config))
    assert list(tensor.shape) == list(reversed(values.shape)), (path, tensor.shape, values.shape)
    assert values.ndim > 1 or tensor.tensor_type.name == "F32", path
    expected = quantize(values, tensor.tensor_type)
    assert np.array_equal(tensor.data.view(np.uint8).ravel(), expected.view(np.uint8).ravel()), path
assert not set(tensors) - {"rope_freqs.weight"}, list(tensors)
print(json.dumps({"keys": list(reader.fields), "types": types, "tokens": len(reader.fields["tokenizer.ggml.tokens"].data)}))
