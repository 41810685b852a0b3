#!/usr/bin/env python3
"""Tiny random decoders of every row of the table, with what PyTorch and Transformers compute for them.

Usage: make_decoders.py OUT_FOLDER [ROW ...]        all rows, or some
Needs: pip install torch transformers safetensors

Writes OUT_FOLDER/{llama,llama3,mistral,qwen2,qwen3,gemma3_text,gpt2}/ with config.json, model.safetensors (as a ...ForCausalLM checkpoint is
saved; that of mistral in two shards and in bfloat16) and expected.safetensors:
  ids.{i} [tokens]                    ragged sequences, run one at a time
  hidden.{i} [tokens, 16]             last hidden state, above the last norm
  logits.{i} [tokens, 50]             of the next token
  weights.{i} [16], grad.{parameter}  gradients of sum_i hidden.{i}[-1] . weights.{i}
  far.hidden [4, 16]                  the last rows of 16,000 tokens, token i being 3 + i * i % 47; not of gpt2, which has 64 positions
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

LENGTHS = [5, 1, 12, 3]
FAR = 16_000
SIZES = dict(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=24,
    vocab_size=50,
    max_position_embeddings=FAR,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
LLAMA3 = dict(
    rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
)
ROWS = {
    "llama": (LlamaConfig, LlamaForCausalLM, dict(attention_bias=True, mlp_bias=True)),
    "llama3": (LlamaConfig, LlamaForCausalLM, dict(rope_parameters=LLAMA3, tie_word_embeddings=True, head_dim=8)),
    "mistral": (MistralConfig, MistralForCausalLM, dict(sliding_window=4, num_key_value_heads=1)),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, dict(use_sliding_window=True, sliding_window=3, max_window_layers=1)),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, dict(head_dim=8)),
    "gemma3_text": (
        Gemma3TextConfig,
        Gemma3ForCausalLM,
        dict(head_dim=8, query_pre_attn_scalar=12, sliding_window=4, layer_types=["sliding_attention", "full_attention"]),
    ),
    "gpt2": (GPT2Config, GPT2LMHeadModel, dict(n_inner=24, n_positions=64)),
}


def write(folder, name, config_class, model_class, settings):
    torch.manual_seed(sum(map(ord, name)))
    sizes = SIZES
    if name == "gpt2":
        sizes = dict(n_embd=16, n_layer=2, n_head=4, vocab_size=50, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    config = config_class(**(sizes | settings))
    model = model_class(config).eval()
    for parameter in model.parameters():
        parameter.data.normal_(1.0 if parameter.dim() == 1 and "gemma" not in name else 0.0, 0.3)
    half = name == "mistral"
    if half:
        model.to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="4KB" if half else "1GB")
    model.float()

    generator = torch.Generator().manual_seed(1)
    tensors, total = {}, 0
    for i, length in enumerate(LENGTHS):
        ids = torch.randint(3, 50, (length,), generator=generator)
        weights = torch.randn(16, generator=generator)
        out = model(input_ids=ids[None], output_hidden_states=True)
        hidden = out.hidden_states[-1][0]
        total = total + (hidden[-1] * weights).sum()
        tensors |= {f"ids.{i}": ids, f"weights.{i}": weights, f"hidden.{i}": hidden.detach(), f"logits.{i}": out.logits[0].detach()}
    total.backward()
    for parameter, value in model.named_parameters():
        if value.grad is not None and "lm_head" not in parameter:
            tensors[f"grad.{parameter}"] = value.grad
    if config.max_position_embeddings == FAR:
        ids = 3 + torch.arange(FAR) ** 2 % 47
        with torch.no_grad():
            far = model(input_ids=ids[None], output_hidden_states=True, logits_to_keep=1).hidden_states[-1][0, -4:]
        tensors["far.hidden"] = far
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, folder / "expected.safetensors")
    for extra in ["generation_config.json"]:
        (folder / extra).unlink(missing_ok=True)


if __name__ == "__main__":
    out = Path(sys.argv[1])
    for name, (config_class, model_class, settings) in ROWS.items():
        if sys.argv[2:] and name not in sys.argv[2:]:
            continue
        write(out / name, name, config_class, model_class, settings)
        print(name)
