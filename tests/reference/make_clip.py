#!/usr/bin/env python3
"""Tiny random CLIPs with what Transformers computes for them.

Usage: make_clip.py OUT_FOLDER
Needs: pip install torch transformers safetensors

Writes OUT_FOLDER/clip (quick_gelu, and eos_token_id = 2, by which Transformers pools a text at its greatest id) and OUT_FOLDER/clip-end (gelu,
and the first token of the config's own eos_token_id), each with config.json, model.safetensors as Transformers saves it, and expected.safetensors:
  ids.{i} [tokens]                         ragged texts, run one at a time; some go on after the token that ends them, one has none
  pixels [images, 3, 8, 8]
  text.hidden.{i} [tokens, 16], image.hidden.{i} [patches + 1, 24]   last hidden states
  text.pooled.{i} [16], image.pooled.{i} [24]                        what the projections read
  text.embeds.{i}, image.embeds.{i} [12]                             what they give, divided by its length
  logits [images, texts]
  weights [images, texts], grad.{parameter}                          gradients of the sum of logits * weights
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

TEXT_WIDTH, IMAGE_WIDTH, PROJECTION, VOCABULARY = 16, 24, 12, 50
END = VOCABULARY - 1
TEXT = dict(
    hidden_size=TEXT_WIDTH,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=32,
    vocab_size=VOCABULARY,
    max_position_embeddings=12,
    bos_token_id=0,
)
IMAGE = dict(
    hidden_size=IMAGE_WIDTH,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=40,
    image_size=8,
    patch_size=4,
    num_channels=3,
)
KINDS = {
    "clip": dict(end=2, act="quick_gelu", layers=2),
    "clip-end": dict(end=END, act="gelu", layers=1),
}
# The last is never ended: the greatest id is meant, or the first token.
TEXTS = [
    [0, 7, 31, 12, END],
    [0, 45, END],
    [0, 3, 22, 22, 41, 5, 18, 9, END],
    [0, 14, 6, END, END, END, END],
    [0, 44, 9, END, 8, 30],
    [0, 17, 33, 21],
]
# Parts of the names of the parameters whose gradients are kept: the bottom, the middle and the top.
GRADIENTS = ["embeddings", "layers.0.", "norm.", "projection", "logit_scale"]


def randomise(model):
    """Weights far from their init, so that nothing is hidden by zeros, ones or tiny values."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        is_norm = "norm" in name and name.endswith("weight")
        parameter.data = 1 + 0.2 * noise if is_norm else 0.3 * noise
    model.logit_scale.data = torch.tensor(1.3)


def make(name, out, end, act, layers):
    text = TEXT | dict(eos_token_id=end, hidden_act=act, num_hidden_layers=layers)
    image = IMAGE | dict(hidden_act=act, num_hidden_layers=layers)
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=image, projection_dim=PROJECTION)).eval()
    randomise(model)
    folder = Path(out, name)
    model.save_pretrained(folder)

    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(3, 3, 8, 8, generator=generator)
    weights = torch.randn(len(pixels), len(TEXTS), generator=generator)
    tensors = {"pixels": pixels, "weights": weights}
    columns = []
    for i, ids in enumerate(TEXTS):
        ids = torch.tensor([ids])
        answer = model(input_ids=ids, pixel_values=pixels)
        columns.append(answer.logits_per_image[:, 0])
        tensors |= {
            f"ids.{i}": ids[0],
            f"text.hidden.{i}": answer.text_model_output.last_hidden_state[0],
            f"text.pooled.{i}": model.text_model(ids).pooler_output[0],
            f"text.embeds.{i}": answer.text_embeds[0],
        }
    pooled = model.vision_model(pixels).pooler_output
    for i in range(len(pixels)):
        tensors |= {
            f"image.hidden.{i}": answer.vision_model_output.last_hidden_state[i],
            f"image.pooled.{i}": pooled[i],
            f"image.embeds.{i}": answer.image_embeds[i],
        }
    tensors["logits"] = torch.stack(columns, dim=1)
    (tensors["logits"] * weights).sum().backward()
    for parameter, value in model.named_parameters():
        if any(part in parameter for part in GRADIENTS):
            tensors[f"grad.{parameter}"] = value.grad
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")


if __name__ == "__main__":
    for kind, options in KINDS.items():
        make(kind, sys.argv[1], **options)
