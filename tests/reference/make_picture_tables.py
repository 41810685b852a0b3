#!/usr/bin/env python3
"""Makes tests/data/pictures/{train,test}.parquet: the pictures of tests/tests/pictures.rs as `datasets` publishes such, a column of
groups with bytes and path, and a label.

    tests/reference/make_picture_tables.py        # with pyarrow and Pillow
"""

import io
import pathlib

import pyarrow
import pyarrow.parquet
from PIL import Image

CLASSES = ["across", "down", "plain"]


def picture(of, number):
    """As `picture` there, a PNG."""
    height, width = 18 + number % 3, 20 + number % 5

    def level(y, x):
        return 90 if (of == 0 and y // 3 % 2 == 0) or (of == 1 and x // 3 % 2 == 0) else 0

    def pixel(y, x):
        noise = [(number * 31 + y * 7 + x * 13 + c * 29) % 23 for c in range(3)]
        return tuple(60 + number % 7 * 9 + level(y, x) + n for n in noise)

    image = Image.new("RGB", (width, height))
    image.putdata([pixel(y, x) for y in range(height) for x in range(width)])
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


folder = pathlib.Path(__file__).resolve().parents[1] / "data" / "pictures"
folder.mkdir(exist_ok=True)
for part, numbers in [("train", range(12)), ("test", range(12, 16))]:
    rows = [(of, number) for of in range(3) for number in numbers]
    images = [{"bytes": picture(of, number), "path": f"{number:02}.png"} for of, number in rows]
    table = pyarrow.table({"image": images, "label": [CLASSES[of] for of, _ in rows]})
    pyarrow.parquet.write_table(table, folder / f"{part}.parquet", compression="snappy")
