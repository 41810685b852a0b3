"""Makes host/assets/digits.bin from the UCI optical digits that scikit-learn's package carries.

Usage: python scripts/make_digits.py [digits.csv.gz]     (without a path: from the installed scikit-learn)

The file: for each of the 1,797 images, in scikit-learn's order, 64 bytes of pixels (rows from the top, values 0 to 16) and
one byte of label (0 to 9).
"""

import gzip
import sys
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "host" / "assets" / "digits.bin"
IMAGES, PIXELS, WHITE, CLASSES = 1797, 64, 16, 10
HELD_OUT = 5  # every fifth image of each class is for testing, as in host/src/data/images.rs


def source():
    if len(sys.argv) > 1:
        return Path(sys.argv[1])
    import sklearn.datasets

    return Path(sklearn.datasets.__file__).parent / "data" / "digits.csv.gz"


def main():
    rows = [[int(float(cell)) for cell in line.split(",")] for line in gzip.open(source(), "rt")]
    assert len(rows) == IMAGES and all(len(row) == PIXELS + 1 for row in rows)
    assert all(0 <= pixel <= WHITE for row in rows for pixel in row[:PIXELS])
    assert {row[PIXELS] for row in rows} == set(range(CLASSES))
    OUT.write_bytes(b"".join(map(bytes, rows)))

    seen, train = [0] * CLASSES, []
    for *pixels, label in rows:
        if seen[label] % HELD_OUT != HELD_OUT - 1:
            train += pixels
        seen[label] += 1
    mean = sum(train) / len(train)
    std = (sum((pixel - mean) ** 2 for pixel in train) / len(train)) ** 0.5
    print(f"{OUT}: {OUT.stat().st_size} bytes, {len(train) // PIXELS} images for training")
    print(f"training pixels over {WHITE}: mean {mean / WHITE:.4f}, standard deviation {std / WHITE:.4f}")


main()
