#!/usr/bin/env python3
"""Opens decoders that see, which fthost saved, in Transformers and PEFT, and says where their loss on captions is another than fthost's.

Usage: seeing_check.py CASES.json
Needs: pip install torch transformers peft pillow safetensors

CASES.json is a list of {of, folder, base, data, loss}: `folder` is a model that fthost saved, with a decoder in text/, a vision transformer in image/ and
what stands between them in projector.safetensors; or where `base` names such a one an adapter over it, in fthost's own form with PEFT's in text/.
`loss` is fthost's, of the tokens of all rows of `data`, a picture's path and a text each. What stands before a text's embeddings are the patches
of its picture through the projector (LLaVA's form), then the token that begins texts; learned are the text and the token that ends it. Prints a JSON list of what is
wrong.
"""

from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModel, AutoModelForCausalLM
from transformers.utils import logging

from checks import pixels_of, report

logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_num_threads(1)


def projected(rows, weights):
    linear = lambda x, name: x @ weights[f"multi_modal_projector.{name}.weight"].T + weights[f"multi_modal_projector.{name}.bias"]
    return linear(torch.nn.functional.gelu(linear(rows, "linear_1")), "linear_2")


def check(case):
    folder = Path(case["folder"])
    base = Path(case.get("base", folder))
    decoder = AutoModelForCausalLM.from_pretrained(base / "text", dtype=torch.float32).eval()
    vision = AutoModel.from_pretrained(base / "image").eval()
    weights = load_file(base / "projector.safetensors")
    if "base" in case:
        below = "base_model.model."
        own = load_file(folder / "adapter_model.safetensors")
        weights = {name.removeprefix(below): tensor for name, tensor in own.items() if "multi_modal_projector" in name}
        decoder.model = PeftModel.from_pretrained(decoder.model, folder / "text").eval().base_model.model
    tokenizer = Tokenizer.from_file(str(base / "text" / "tokenizer.json"))
    config = decoder.config
    total, count = 0.0, 0
    data = Path(case["data"])
    for line in data.read_text().splitlines()[1:]:
        name, text = line.split("\t")
        ids = [config.bos_token_id, *tokenizer.encode(text, add_special_tokens=False).ids, config.eos_token_id]
        ids = torch.tensor([ids])
        patches = vision(pixel_values=pixels_of(data.parent / name)[None]).last_hidden_state[:, 1:]
        rows = torch.cat([projected(patches, weights), decoder.get_input_embeddings()(ids)], 1)
        logits = decoder(inputs_embeds=rows).logits[0, -ids.shape[1] :][:-1]
        total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        count += ids.shape[1] - 1
    loss = total / count
    assert abs(loss - case["loss"]) < 2e-5, f"loss is {loss}, and {case['loss']} in fthost"


report(check)
