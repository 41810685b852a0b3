"""Small pictures of discs and bars with masks, for the segmentation plugin's example: 24 x 32 pixels, ground 0, disc 1, bar 2, and a rim
of pixels without a class around each disc.

    python make_shapes.py ../../plugins/segmentation/example
"""

import pathlib
import sys

import numpy
from PIL import Image


def main(folder):
    random = numpy.random.default_rng(0)
    height, width = 24, 32
    y, x = numpy.mgrid[:height, :width]
    for number in range(16):
        mask = numpy.zeros((height, width), numpy.uint8)
        picture = numpy.empty((height, width, 3))
        picture[:] = random.integers(60, 110, 3)
        left = random.integers(2, 20)
        bar = (abs(y - random.integers(5, 19)) < 3) & (x >= left) & (x < left + 11)
        mask[bar], picture[bar] = 2, [210, 190, 60]
        distance = numpy.hypot(y - random.integers(6, 18), x - random.integers(7, 25))
        mask[distance < 5], picture[distance < 5] = 1, [60, 120, 220]
        mask[(distance >= 4) & (distance < 5.5)] = 255
        picture += random.normal(0, 12, picture.shape)
        for name, pixels in [("images", numpy.clip(picture, 0, 255).astype(numpy.uint8)), ("masks", mask)]:
            path = pathlib.Path(folder, name)
            path.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path / f"{number:02}.png", optimize=True)


main(sys.argv[1])
