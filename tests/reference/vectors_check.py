#!/usr/bin/env python3
"""Reads a Parquet file of vectors with PyArrow. Usage: vectors_check.py VECTORS.parquet. Prints {lines, width}."""

import importlib.util
import json
import sys

if importlib.util.find_spec("pyarrow") is None:
    print(json.dumps("no pyarrow"))
    sys.exit()

import pyarrow.parquet

table = pyarrow.parquet.read_table(sys.argv[1]).to_pydict()
widths = {len(vector) for vector in table["vector"]}
assert len(widths) == 1, widths
print(json.dumps({"lines": table["line"], "width": widths.pop()}))
