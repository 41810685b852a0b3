#!/usr/bin/env python3
"""Opens models of two streams, and of texts that are compared, that fthost saved, and says where their loss is another than fthost's.

Usage: towers_check.py CASES.json
Needs: pip install torch transformers peft pillow; timm for folders of its own, and sentence-transformers, in whose place its parts are applied by hand

CASES.json is a list of {of, kind, folder, base, data, loss, head, timm}: `loss` is fthost's, of CLIP's symmetric cross entropy over all rows of `data` as one
batch, a picture and a text each. By `kind`:
  clip      `folder` is a CLIPModel's
  adapter   `folder` is PEFT's of such a one, `base`
  pair      `folder` has a model below for each stream, its heads in a file of their own
  adapters  `folder` has an adapter of PEFT's for streams that got one, over those of `base`, {stream: folder}
  texts     `folder` is a model or an adapter of sentence-transformers', rows are two texts; `mean_rank` is how far back the second is found, or
            `cosines` are those of the two
Of `pair` and `adapters` `head` is the file of projections and scale, and what stands before their names; `timm` says that timm opens one. Prints a JSON list of what is wrong.
"""

import importlib.util
import json
import sys
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, CLIPModel, PreTrainedTokenizerFast
from transformers.utils import logging

from checks import cases, pixels_of, report

logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_num_threads(1)


def rows_of(data):
    return [line.split("\t") for line in Path(data).read_text().splitlines()[1:]]


def pictures_of(data):
    return torch.stack([pixels_of(Path(data).parent / name) for name, _ in rows_of(data)])


def plain_tokenizer(folder):
    return PreTrainedTokenizerFast(tokenizer_file=str(Path(folder, "tokenizer.json")), pad_token="[PAD]")


def loss_of(logits):
    own = torch.arange(len(logits))
    cross_entropy = torch.nn.functional.cross_entropy
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)).item() / 2


def clip(model, tokenizer, texts, pixels):
    columns = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        columns.append(model(input_ids=ids, pixel_values=pixels).logits_per_image[:, 0])
    return torch.stack(columns)


def whole_clip(folder):
    model, loading = CLIPModel.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    assert model.config.architectures == ["CLIPModel"], model.config.architectures
    return model.eval()


def adapted(model, adapter):
    """PEFT's model; every tensor of the adapter must have a place in it."""
    saved = Path(adapter)
    if "layers.0.attention.q_proj.weight" in model.state_dict():
        saved = renamed(saved)
    model = PeftModel.from_pretrained(model, saved)
    used = {name.replace(".default", "").replace(".modules_to_save", "") for name in model.state_dict()}
    unknown = sorted(set(load_file(saved / "adapter_model.safetensors")) - used)
    assert not unknown, f"PEFT has no place for {unknown}"
    return model.eval()


def renamed(folder):
    """A copy of a vision model's adapter under the names that Transformers 5 gives what the files of all versions call otherwise."""
    parts = {
        "encoder.layer": "layers",
        "attention.attention.query": "attention.q_proj",
        "attention.attention.value": "attention.v_proj",
    }

    def name(old):
        for part, new in parts.items():
            old = old.replace(part, new)
        return old

    copy = folder.parent.parent.parent / "renamed"
    copy.mkdir()
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({name(key): tensor for key, tensor in tensors.items()}, copy / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"] = [name(path) for path in config["target_modules"]]
    (copy / "adapter_config.json").write_text(json.dumps(config))
    return copy


def pooled(model, stream, tokenizer, texts, pixels):
    if stream == "text":
        return torch.cat([model(**tokenizer(text, return_tensors="pt")).pooler_output for text in texts])
    if hasattr(model, "forward_head"):  # timm's
        return model.forward_head(model.forward_features(pixels), pre_logits=True)
    return model(pixel_values=pixels).last_hidden_state[:, 0]


def opened(folder, adapter):
    if "architecture" in json.loads(Path(folder, "config.json").read_text()):
        import timm

        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    else:
        model = AutoModel.from_pretrained(folder).eval()
    if adapter is None or not Path(adapter).is_dir():
        return model
    return adapted(model, adapter).base_model.model


def of_streams(case, texts, pixels):
    folder, whole = Path(case["folder"]), case["kind"] == "pair"
    file, before = case["head"]
    head = load_file(file)
    sides = []
    for stream in ["text", "image"]:
        base = folder / stream if whole else case["base"][stream]
        tokenizer = None if stream == "image" else AutoTokenizer.from_pretrained(base) if whole else plain_tokenizer(base)
        found = pooled(opened(base, None if whole else folder / stream), stream, tokenizer, texts, pixels)
        side = found @ head[f"{before}{stream}_projection.weight"].T + head[f"{before}{stream}_projection.bias"]
        sides.append(torch.nn.functional.normalize(side, dim=-1))
    return head[f"{before}logit_scale"].exp() * sides[0] @ sides[1].T


def sentences(folder, texts):
    if importlib.util.find_spec("sentence_transformers") is not None:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), device="cpu")
        return model.encode(texts, convert_to_tensor=True, show_progress_bar=False)
    if (folder / "adapter_config.json").is_file():
        config = PeftConfig.from_pretrained(folder)
        assert config.task_type == "FEATURE_EXTRACTION", config.task_type
        model = adapted(AutoModel.from_pretrained(config.base_model_name_or_path), folder)
    else:
        model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for part in json.loads((folder / "modules.json").read_text()):
        kind = part["type"].split(".")[-1]
        path = folder / part["path"]
        if kind == "Transformer":
            found = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in texts]
        elif kind == "Pooling":
            assert json.loads((path / "config.json").read_text())["pooling_mode_mean_tokens"]
            found = torch.stack([rows.mean(0) for rows in found])
        elif kind == "Normalize":
            found = torch.nn.functional.normalize(found, dim=-1)
        elif kind == "Dense":
            config, tensors = json.loads((path / "config.json").read_text()), load_file(path / "model.safetensors")
            layer = torch.nn.Linear(config["in_features"], config["out_features"], bias=config["bias"])
            layer.load_state_dict({name.removeprefix("linear."): tensor for name, tensor in tensors.items()})
            found = layer(found)
    return found


def of_texts(case):
    texts = list(zip(*rows_of(case["data"])))
    sides = [sentences(Path(case["folder"]), list(side)) for side in texts[:2]]
    lengths = torch.cat(sides).norm(dim=-1)
    assert (lengths - 1).abs().max() < 1e-5, lengths
    if "cosines" in case:
        worst = ((sides[0] * sides[1]).sum(-1) - torch.tensor(case["cosines"])).abs().max().item()
        assert worst < 1e-5, f"cosines differ by {worst}"
        return None
    logits = sides[0] @ sides[1].T / 0.05
    rank = (logits > logits.diagonal()[:, None]).sum(-1).double().mean().item() + 1
    assert abs(rank - case["mean_rank"]) < 1e-9, f"the mean rank is {rank}, and {case['mean_rank']} in fthost"
    return logits


def check(case):
    if case["kind"] == "texts":
        logits = of_texts(case)
        if case["loss"] is None:
            return
    else:
        texts, pixels = [text for _, text in rows_of(case["data"])], pictures_of(case["data"])
        if case["kind"] == "clip":
            tokenizer = AutoTokenizer.from_pretrained(case["folder"])
            logits = clip(whole_clip(case["folder"]), tokenizer, texts, pixels)
        elif case["kind"] == "adapter":
            model = adapted(CLIPModel.from_pretrained(case["base"]), case["folder"])
            logits = clip(model, plain_tokenizer(case["base"]), texts, pixels)
        else:
            logits = of_streams(case, texts, pixels)
    loss = loss_of(logits)
    assert abs(loss - case["loss"]) < 2e-5, f"loss is {loss}, and {case['loss']} in fthost"


if any(case.get("timm") for case in cases()) and importlib.util.find_spec("timm") is None:
    print(json.dumps("no timm"))
    sys.exit()
report(check)
