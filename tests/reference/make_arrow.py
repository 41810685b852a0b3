"""Folders that Hugging Face's datasets saves, small: tests/data/arrow. Needs datasets and pyarrow."""

import shutil
from pathlib import Path

import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

out = Path(__file__).parents[1] / "data" / "arrow"
shutil.rmtree(out, ignore_errors=True)

texts = Features({"id": Value("string"), "text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
rows = {"id": ["a", "b", "c", "d"], "text": ["a good film", "a bad film", "so dull", "we loved it"], "label": [1, 0, 0, 1]}
both = Dataset.from_dict(rows, features=texts)
both.save_to_disk(out / "texts", num_shards=2)
DatasetDict(train=both, test=both.select([0, 1])).save_to_disk(out / "splits")

words = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "B-PER", "I-PER"]))})
Dataset.from_dict(
    {"tokens": [["Ann", "Lee", "sang"], ["Yes"]], "ner_tags": [[1, 2, 0], [0]]}, features=words
).save_to_disk(out / "words")

# Any number of labels each, as GoEmotions has them, and the same as Parquet.
labels = Features({"text": Value("string"), "labels": List(ClassLabel(names=["joy", "anger", "fear"]))})
several = Dataset.from_dict(
    {"text": ["a good film", "so dull", "we loved it"], "labels": [[0, 2], [], [0]]}, features=labels
)
several.save_to_disk(out / "labels")
several.to_parquet(out / "labels.parquet")

# One file and one stream of other programs, with a dictionary and with long strings.
table = pa.table(
    {
        "text": pa.array(rows["text"], pa.large_string()),
        "label": pa.array(["bad", "good", "good", "bad"]).dictionary_encode(),
        "score": pa.array([1.0, 2.5, -1.0, 4.0], pa.float32()),
    }
)
with pa.ipc.new_file(out / "file.arrow", table.schema) as writer:
    writer.write_table(table, max_chunksize=3)
with pa.ipc.new_stream(out / "stream", table.schema) as writer:
    writer.write_table(table, max_chunksize=3)
