#!/usr/bin/env python3
"""Opens folders that fthost saved with Transformers and PEFT, and says where these compute something else.

Usage: saved_check.py CASES.json
Needs: pip install torch torchvision transformers peft

CASES.json is a list of {of, folder, base, data, predictions, labels, values, multi_label, loss, pair, dropout}: `folder` is a whole model's or an
adapter's, `base` the model that was adapted, `data` rows of texts (text, pair, label), words.jsonl or demo-pretrain, `predictions` what
fthost says of each row, `values` whether these are numbers, `multi_label` whether each class has a probability of its own. Folders whose heads are fthost's own are {of, folder, heads, data, predictions}:
`heads` are their tensors' names, and the predictions those of each task. Prints a JSON list of what is wrong.
"""

import json
import tomllib
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy, linear
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    pipeline,
    set_seed,
)
from transformers.utils import logging

from checks import report

logging.set_verbosity_error()
logging.disable_progress_bar()
# Nothing here is large enough for two threads.
torch.set_num_threads(1)

DIGITS = Path(__file__).parents[2] / "host/assets/digits.bin"


def digits():
    """The test part of demo-pretrain, [images, 1, 8, 8]: every fifth image of each digit below 5."""
    records = torch.frombuffer(bytearray(DIGITS.read_bytes()), dtype=torch.uint8).view(-1, 65)
    seen, kept = [0] * 10, []
    for i, label in enumerate(records[:, 64].tolist()):
        seen[label] += 1
        if label < 5 and seen[label] % 5 == 0:
            kept.append(i)
    return records[kept, :64].view(-1, 1, 8, 8)


def auto_class(case):
    if case["data"].endswith(".jsonl"):
        return AutoModelForTokenClassification
    return AutoModelForImageClassification if is_images(case) else AutoModelForSequenceClassification


def is_images(case):
    return case["data"].endswith("demo-pretrain")


def renamed(folder):
    """A copy of a vision model's adapter under the names that Transformers 5 gives what the files of all versions call otherwise."""
    copy = Path(folder.parent, "renamed")
    copy.mkdir()
    tensors = load_file(folder / "adapter_model.safetensors")
    parts = {
        "encoder.layer": "layers",
        "attention.attention.query": "attention.q_proj",
        "attention.attention.value": "attention.v_proj",
    }
    for old, new in parts.items():
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    save_file(tensors, copy / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"] = ["q_proj", "v_proj"]
    (copy / "adapter_config.json").write_text(json.dumps(config))
    return copy


def adapter(case):
    """PEFT's model on the base; a module that Transformers makes at random must come with the adapter."""
    set_seed(len(case["of"]))
    model = auto_class(case).from_pretrained(
        case["base"],
        num_labels=len(case["labels"] or ["value"]),
        ignore_mismatched_sizes=True,
        dtype=torch.float32,
    )
    saved = Path(case["folder"])
    if "vit.layers.0.attention.q_proj.weight" in model.state_dict():
        saved = renamed(saved)
    model = PeftModel.from_pretrained(model, saved)
    used = {name.replace(".default", "").replace(".modules_to_save", "") for name, _ in model.named_parameters()}
    unknown = sorted(set(load_file(saved / "adapter_model.safetensors")) - used)
    assert not unknown, f"PEFT has no place for {unknown}"
    config = json.loads((saved / "adapter_config.json").read_text())
    assert Path(config["base_model_name_or_path"]).samefile(case["base"])
    if is_images(case):
        return model, AutoImageProcessor.from_pretrained(case["base"])
    # Which file has what config.json says of this tokenizer is the base model's business.
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    file = case["base"] + "/tokenizer.json"
    return model, PreTrainedTokenizerFast(tokenizer_file=file, pad_token="[PAD]", model_input_names=inputs)


def whole(case):
    """Transformers' model, by the folder alone."""
    folder = Path(case["folder"])
    set_seed(len(case["of"]))
    model, loading = auto_class(case).from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    config = model.config
    assert type(model).__name__ == config.architectures[0], config.architectures
    labels = ["LABEL_0"] if case["values"] else case["labels"]
    assert [config.id2label[i] for i in range(config.num_labels)] == labels, config.id2label
    assert config.dtype == model.dtype == torch.float32, (config.dtype, model.dtype)
    left = {"_name_or_path", "finetuning_task", "num_labels", "task_specific_params", "torch_dtype"}
    left &= json.loads((folder / "config.json").read_text()).keys()
    assert not left, left
    above = [(name, module) for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout)]
    above = {module.p for name, module in above if not name.startswith(model.base_model_prefix + ".")}
    assert above == {case["dropout"]} - {None}, (above, case["dropout"])
    if is_images(case):
        return model, AutoImageProcessor.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = Path(case["base"], "tokenizer_config.json")
    longest = json.loads(theirs.read_text())["model_max_length"] if theirs.exists() else None
    assert longest in (None, tokenizer.model_max_length), tokenizer.model_max_length
    assert tokenizer.model_max_length <= config.max_position_embeddings
    plain = Tokenizer.from_file(case["base"] + "/tokenizer.json")
    for text in ["The Film was good", "the film was good"]:
        assert tokenizer(text)["input_ids"] == plain.encode(text).ids, text
    return model, tokenizer


def numbers(rows, labels):
    """What fthost says of each row, [rows, labels or 1]."""
    of_row = lambda row: [row["value"]] if "value" in row else [row["probabilities"][label] for label in labels]
    return torch.tensor([of_row(row) for row in rows])


def tolerance(ours):
    return 1e-4 * max(1.0, ours.abs().max().item() / 100)


def check(case, logits, what):
    ours = numbers(case["predictions"], case["labels"])
    theirs = logits if case["values"] else logits.sigmoid() if case.get("multi_label") else logits.softmax(-1)
    assert theirs.shape == ours.shape, (theirs.shape, ours.shape)
    worst = (theirs - ours).abs().max().item()
    assert worst < tolerance(ours), f"{what} differs by {worst}"


def texts_of(case, pair):
    rows = [line.split("\t") for line in Path(case["data"]).read_text().splitlines()[1:]]
    return [row[: 2 if pair else 1] for row in rows]


def check_rows(case, model, tokenizer, is_whole):
    texts = texts_of(case, case["pair"])
    encoded = tokenizer(*map(list, zip(*texts)), padding=True, return_tensors="pt")
    check(case, model(**encoded).logits, "the model")
    if not is_whole:
        return
    expected = "multi_label_classification" if case["multi_label"] else "single_label_classification"
    expected = "regression" if case["values"] else expected
    assert model.config.problem_type == expected, model.config.problem_type
    pipe = pipeline("text-classification", model=case["folder"], top_k=None, device=-1)
    answers = pipe([dict(zip(["text", "text_pair"], text)) for text in texts], batch_size=len(texts))
    ours = numbers(case["predictions"], case["labels"])
    labels = ["LABEL_0"] if case["values"] else case["labels"]
    by_label = [{answer["label"]: answer["score"] for answer in row} for row in answers]
    theirs = torch.tensor([[row[label] for label in labels] for row in by_label])
    worst = (theirs - ours).abs().max().item()
    assert worst < tolerance(ours), f"the pipeline differs by {worst}"


def check_images(case, model, processor):
    images = processor(list(digits()), return_tensors="pt", input_data_format="channels_first")
    check(case, model(**images).logits, "the model")


def check_words(case, model, tokenizer):
    rows = [json.loads(line) for line in Path(case["data"]).read_text().splitlines()]
    labels = case["labels"]
    encoded = tokenizer([row["text"] for row in rows], is_split_into_words=True, padding=True, return_tensors="pt")
    logits = model(**encoded).logits  # [rows, tokens, labels]
    targets = torch.full(logits.shape[:2], -100)
    for i, row in enumerate(rows):
        previous = None
        for j, word in enumerate(encoded.word_ids(i)):
            if word is not None and word != previous:
                targets[i, j] = labels.index(row["label"][word])
            previous = word
    counted = targets != -100
    best = [[labels[i] for i in row[counts]] for row, counts in zip(logits.argmax(-1), counted)]
    assert best == [row["labels"] for row in case["predictions"]]
    # The head's own loss: classes weigh as much as each other, and a tenth of a target is spread.
    targets = targets[counted]
    weights = len(targets) / len(labels) / torch.bincount(targets, minlength=len(labels))
    loss = cross_entropy(logits[counted], targets, weights, label_smoothing=0.1).item()
    assert abs(loss - case["loss"]) < 1e-4, (loss, case["loss"])


def check_encoder(case):
    """An encoder whose heads lie beside it as they are, one linear layer each where they are those of tasks; fthost.json has their options."""
    model, loading = AutoModel.from_pretrained(case["folder"], output_loading_info=True)
    assert sorted(loading.pop("unexpected_keys")) == case["heads"], loading
    assert not any(loading.values()), loading
    tokenizer = AutoTokenizer.from_pretrained(case["folder"])
    encoded = tokenizer([text for text, in texts_of(case, False)], padding=True, return_tensors="pt")
    pooled = model.eval()(**encoded).pooler_output
    heads = load_file(Path(case["folder"], "model.safetensors"))
    run_file = tomllib.loads(json.loads(Path(case["folder"], "fthost.json").read_text())["run_file"])
    options = {task["name"]: task["head"] for task in run_file["task"]}
    for task, rows in case["predictions"].items():
        if f"{task}.classifier.weight" in heads:
            weight, bias = (heads[f"{task}.classifier.{name}"] for name in ["weight", "bias"])
            logits = linear(pooled, weight, bias)
            values = "value" in rows[0]
            if values:
                logits = logits * options[task]["scale"] + options[task]["center"]
            labels = None if values else sorted(rows[0]["probabilities"])
            check({"predictions": rows, "labels": labels, "values": values}, logits, task)


def check_case(case):
    if "heads" in case:
        return check_encoder(case)
    is_whole = not Path(case["folder"], "adapter_config.json").exists()
    model, inputs = (whole if is_whole else adapter)(case)
    model.eval()
    if case["data"].endswith(".jsonl"):
        check_words(case, model, inputs)
    elif is_images(case):
        check_images(case, model, inputs)
    else:
        check_rows(case, model, inputs, is_whole)


report(check_case)
