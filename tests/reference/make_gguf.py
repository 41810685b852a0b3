#!/usr/bin/env python3
"""Files of llama.cpp's as its `gguf` package writes them: two of the tiny decoders, and blocks of every kind with the values that it
makes of them.

Usage: make_gguf.py DECODERS OUT_FOLDER       DECODERS is the folder that make_decoders.py has written
Needs: pip install gguf numpy safetensors

Writes OUT_FOLDER/{llama,gemma3_text}.gguf, float32, with a small tokenizer and a chat template, and OUT_FOLDER/blocks.gguf with tensors of
two rows of 512 elements in blocks of every kind, beside blocks.safetensors with their values in float32 under the same names.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize, quantize
from safetensors.numpy import load_file, save_file

TEMPLATE = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}</s>{% endfor %}"
PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
}
NORMS = {
    "llama": {"post_attention_layernorm": "ffn_norm"},
    "gemma3": {
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
}


def name_of(path, architecture):
    path, end = path.removeprefix("model.").rsplit(".", 1)
    whole = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
    if path in whole:
        return f"{whole[path]}.{end}"
    _, layer, part = path.split(".", 2)
    return f"blk.{layer}.{(PARTS | NORMS[architecture])[part]}.{end}"


def laid(path, tensor, architecture, config):
    """As llama.cpp's converter lays it out."""
    if architecture == "gemma3" and path.endswith("norm.weight"):
        return tensor + 1.0
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    part = path.split(".")[-2]
    if architecture == "llama" and part in heads:
        halves = tensor.reshape(heads[part], 2, tensor.shape[0] // heads[part] // 2, *tensor.shape[1:])
        return halves.swapaxes(1, 2).reshape(tensor.shape)
    return tensor


def vocabulary(size):
    """Pairs of bytes: letters, digits, a space, and pairs of these."""
    special = ["<pad>", "<s>", "</s>"]
    letters = ["\u0120", *"abcdefghijklmnopqrstuvwxyz", *"0123456789", "."]
    merges = [("\u0120", "a"), ("\u0120", "t"), ("t", "h"), ("i", "n"), ("e", "r"), ("o", "n"), ("\u0120a", "n"), ("r", "e"), ("1", "2")]
    tokens = special + letters + ["".join(pair) for pair in merges]
    assert len(tokens) == size, (len(tokens), size)
    kinds = [gguf.TokenType.CONTROL] * len(special) + [gguf.TokenType.NORMAL] * (size - len(special))
    return tokens, kinds, [" ".join(pair) for pair in merges]


def write_decoder(folder, file, architecture):
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    ropes = config["rope_parameters"]
    writer.add_rope_freq_base(ropes.get("full_attention", ropes)["rope_theta"])
    if architecture == "gemma3":
        writer.add_sliding_window(config["sliding_window"])
    tokens, kinds, merges = vocabulary(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(TEMPLATE)
    for path, tensor in load_file(folder / "model.safetensors").items():
        writer.add_tensor(name_of(path, architecture), np.ascontiguousarray(laid(path, tensor, architecture, config)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def blocks(kind, random):
    """Bytes of two rows of 512 elements: of values, or where the package does not quantise to this kind, with any bits and fitting scales."""
    try:
        return quantize(random.normal(size=(2, 512)).astype(np.float32), kind)
    except NotImplementedError:
        pass
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    rows = random.integers(0, 256, size=(2, 512 // elements, size), dtype=np.uint8)
    scales = {"Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}[kind.name]
    for place in scales:
        scale = random.uniform(0.001, 0.1, size=rows.shape[:2]).astype(np.float16)
        rows[:, :, place : place + 2] = scale[..., None].view(np.uint8)
    return rows.reshape(2, -1)


def write_blocks(out):
    random = np.random.default_rng(0)
    writer, values = gguf.GGUFWriter(out / "blocks.gguf", "none"), {}
    for name in ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]:
        kind = gguf.GGMLQuantizationType[name]
        data = blocks(kind, random)
        writer.add_tensor(name, data, raw_dtype=kind)
        values[name] = dequantize(data, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(values, out / "blocks.safetensors")


def main():
    decoders, out = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    for row, architecture in [("llama", "llama"), ("gemma3_text", "gemma3")]:
        write_decoder(decoders / row, out / f"{row}.gguf", architecture)
    write_blocks(out)


if __name__ == "__main__":
    main()
