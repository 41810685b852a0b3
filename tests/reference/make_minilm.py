#!/usr/bin/env python3
"""Hidden states and LoRA gradients of all-MiniLM-L6-v2, computed by PyTorch, Transformers and PEFT.

Usage: make_minilm.py MINILM_FOLDER SST2_TEST.tsv OUT_FOLDER
Needs: pip install torch transformers peft safetensors

Writes minilm.json (texts, labels, token ids) and minilm.safetensors:
  hidden.{i} [tokens, 384], pooled.{i} [384]   the plain encoder, one sentence at a time
  lora.value.{name}, lora.grad.{name}          what trains in a LoRA model (r 8, alpha 16, query and value), and its gradients
  lora.logits [8, 2], lora.loss [1]            of one padded batch of the eight sentences, without dropout
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import save_file
from transformers import AutoTokenizer, BertForSequenceClassification, BertModel

SENTENCES = 8


def read(path):
    """The first sentences of a `text<TAB>label` file."""
    lines = Path(path).read_text().splitlines()[:SENTENCES]
    texts, labels = zip(*(line.split("\t") for line in lines))
    return list(texts), [int(label) for label in labels]


def hidden_states(folder, ids):
    """One sentence at a time, so that no padding is involved."""
    model = BertModel.from_pretrained(folder).eval()
    tensors = {}
    with torch.no_grad():
        for i, sentence in enumerate(ids):
            output = model(torch.tensor([sentence]))
            tensors[f"hidden.{i}"] = output.last_hidden_state[0].contiguous()
            tensors[f"pooled.{i}"] = output.pooler_output[0].contiguous()
    return tensors


def lora_gradients(folder, ids, labels):
    base = BertForSequenceClassification.from_pretrained(folder, num_labels=2)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS, r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["query", "value"]
    )
    model = get_peft_model(base, config).eval()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for i, name in enumerate(sorted(trained)):
        generator = torch.Generator().manual_seed(1000 + i)
        trained[name].data = torch.randn(trained[name].shape, generator=generator) * 0.02

    longest = max(map(len, ids))
    padded = torch.tensor([sentence + [0] * (longest - len(sentence)) for sentence in ids])
    mask = torch.tensor([[1] * len(sentence) + [0] * (longest - len(sentence)) for sentence in ids])
    output = model(input_ids=padded, attention_mask=mask, labels=torch.tensor(labels))
    output.loss.backward()

    tensors = {"lora.logits": output.logits.detach().contiguous(), "lora.loss": output.loss.detach().reshape(1)}
    for name, parameter in trained.items():
        key = name.replace(".default", "").replace("modules_to_save.", "")
        tensors[f"lora.value.{key}"] = parameter.data.clone()
        tensors[f"lora.grad.{key}"] = parameter.grad.clone()
    return tensors


def main(folder, data, out):
    texts, labels = read(data)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(text)["input_ids"] for text in texts]
    tensors = hidden_states(folder, ids) | lora_gradients(folder, ids, labels)
    save_file(tensors, f"{out}/minilm.safetensors")
    reference = {"texts": texts, "labels": labels, "input_ids": ids}
    Path(out, "minilm.json").write_text(json.dumps(reference, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
