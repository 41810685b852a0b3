#!/usr/bin/env python3
"""Tiny random encoders of every supported architecture, with what PyTorch and Transformers compute for them.

Usage: make_tiny.py OUT_FOLDER
Needs: pip install torch transformers peft safetensors

Writes OUT_FOLDER/{bert,roberta,xlm-roberta,distilbert,vit}/ with config.json, model.safetensors (a classification
checkpoint as Transformers saves it) and expected.safetensors:
  ids.{i}, types.{i} [tokens]         ragged sequences, run one at a time; or pixels [images, channels, 8, 8]
  hidden.{i} [tokens, 16]             last hidden state
  pooled.{i} [16]                     what the architecture pools
  logits.{i} [3]                      of the checkpoint's own head
  weights.{i} [16], grad.{parameter}  gradients of sum_i pooled.{i} . weights.{i}
  prompt.rows [3, 16], prompt.hidden.{i} [3 + tokens, 16], prompt.pooled.{i}   rows put before the word embeddings
  prefix.rows [3, 2 * layers * 16], prefix.logits.{i}                          PEFT's prefix tuning (BERT only)
"""

import sys
from pathlib import Path

import torch
from peft import PrefixTuningConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

WIDTH, LAYERS, HEADS, INNER, VOCABULARY, POSITIONS = 16, 2, 4, 32, 50, 24
LENGTHS = [5, 1, 12, 3]
PROMPT = 3
BERT_LIKE = dict(
    hidden_size=WIDTH,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    intermediate_size=INNER,
    vocab_size=VOCABULARY,
    max_position_embeddings=POSITIONS,
    num_labels=3,
)
DISTILBERT = dict(
    dim=WIDTH,
    n_layers=LAYERS,
    n_heads=HEADS,
    hidden_dim=INNER,
    vocab_size=VOCABULARY,
    max_position_embeddings=POSITIONS,
    num_labels=3,
)
VIT = dict(
    hidden_size=WIDTH,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    intermediate_size=INNER,
    image_size=8,
    patch_size=4,
    num_channels=2,
    num_labels=3,
)
ARCHITECTURES = {
    "bert": (BertConfig, BertForSequenceClassification, BERT_LIKE | dict(type_vocab_size=2), True),
    "roberta": (RobertaConfig, RobertaForSequenceClassification, BERT_LIKE | dict(type_vocab_size=1), False),
    "xlm-roberta": (
        XLMRobertaConfig,
        XLMRobertaForSequenceClassification,
        BERT_LIKE | dict(type_vocab_size=1, hidden_act="gelu_new", layer_norm_eps=1e-5),
        False,
    ),
    "distilbert": (DistilBertConfig, DistilBertForSequenceClassification, DISTILBERT, False),
    "vit": (ViTConfig, ViTForImageClassification, VIT, False),
}
# Parts of the names of the parameters whose gradients are kept: the bottom, the middle and the top.
GRADIENTS = ["embeddings", "layer.0.", "layers.0.", "pooler", "layernorm."]


def randomise(model):
    """Weights far from their init, so that nothing is hidden by zeros, ones or tiny values."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        is_norm = "norm" in name.lower() and name.endswith("weight")
        parameter.data = 1 + 0.2 * noise if is_norm else 0.3 * noise


def saved_names(model, folder):
    """Parameter names as in the saved checkpoint, which may differ from those in memory. Found by value."""
    saved = load_file(folder / "model.safetensors")
    names = {}
    for name, parameter in model.named_parameters():
        same = [k for k, v in saved.items() if v.shape == parameter.shape and torch.equal(v, parameter.data)]
        assert len(same) == 1, (name, same)
        names[name] = same[0]
    return names


def run_text(model, base, has_types, has_pooler, tensors):
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(PROMPT, WIDTH, generator=generator) * 0.3
    tensors["prompt.rows"] = rows
    total = 0
    for i, length in enumerate(LENGTHS):
        ids = torch.randint(3, VOCABULARY, (1, length), generator=generator)
        types = (torch.arange(length) > length // 2).long()[None] if has_types else torch.zeros(1, length).long()
        arguments = dict(token_type_ids=types) if has_types else {}
        hidden = base(input_ids=ids, **arguments).last_hidden_state
        pool = (lambda h: base.pooler(h)[0]) if has_pooler else (lambda h: h[0, 0])
        weights = torch.randn(WIDTH, generator=generator)
        total = total + (pool(hidden) * weights).sum()

        # PEFT's prompt tuning: rows before the word embeddings, all of token type 0.
        words = torch.cat([rows[None], base.get_input_embeddings()(ids)], dim=1)
        if has_types:
            arguments = dict(token_type_ids=torch.cat([torch.zeros(1, PROMPT).long(), types], dim=1))
        prompted = base(inputs_embeds=words, **arguments).last_hidden_state
        if has_types:
            arguments = dict(token_type_ids=types)
        logits = model(input_ids=ids, **arguments).logits
        tensors |= {
            f"ids.{i}": ids[0],
            f"types.{i}": types[0],
            f"weights.{i}": weights,
            f"hidden.{i}": hidden[0],
            f"pooled.{i}": pool(hidden),
            f"logits.{i}": logits[0],
            f"prompt.hidden.{i}": prompted[0],
            f"prompt.pooled.{i}": pool(prompted),
        }
    return total


def run_images(model, base, tensors):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(3, 2, 8, 8, generator=generator)
    tensors["pixels"] = pixels
    hidden = base(pixels).last_hidden_state
    logits = model(pixels).logits
    total = 0
    for i in range(len(pixels)):
        weights = torch.randn(WIDTH, generator=generator)
        total = total + (hidden[i, 0] * weights).sum()
        tensors |= {
            f"weights.{i}": weights,
            f"hidden.{i}": hidden[i],
            f"pooled.{i}": hidden[i, 0],
            f"logits.{i}": logits[i],
        }
    return total


def run_prefix(model, tensors):
    config = PrefixTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=PROMPT)
    tuned = get_peft_model(model, config).eval()
    embedding = tuned.prompt_encoder["default"].embedding.weight
    embedding.data = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(2)) * 0.5
    tensors["prefix.rows"] = embedding.data
    for i in range(len(LENGTHS)):
        ids, types = tensors[f"ids.{i}"][None], tensors[f"types.{i}"][None]
        mask = torch.ones_like(ids)
        tensors[f"prefix.logits.{i}"] = tuned(input_ids=ids, token_type_ids=types, attention_mask=mask).logits[0]


def make(name, out):
    config_class, model_class, arguments, has_types = ARCHITECTURES[name]
    folder = Path(out, name)
    torch.manual_seed(0)
    model = model_class(config_class(**arguments)).eval()
    randomise(model)
    model.save_pretrained(folder)

    tensors = {}
    base = model.base_model
    if name == "vit":
        total = run_images(model, base, tensors)
    else:
        total = run_text(model, base, has_types, name == "bert", tensors)
    total.backward()
    for parameter, saved in saved_names(model, folder).items():
        gradient = dict(model.named_parameters())[parameter].grad
        if gradient is not None and any(part in saved for part in GRADIENTS):
            tensors[f"grad.{saved}"] = gradient
    if name == "bert":
        run_prefix(model, tensors)
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")


if __name__ == "__main__":
    for architecture in ARCHITECTURES:
        make(architecture, sys.argv[1])
