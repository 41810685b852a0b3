#!/usr/bin/env python3
"""Two more targets of pictures with masks, as tables for tasks beside segmentation: which of some classes most of a picture is of, and the share
of one class in it.

    scripts/mask-targets.py camvid/train --scene 0,1,5 --share 3 --ignore 11 --out camvid/train-targets.csv

writes `image,scene,share`, a row for each picture of camvid/train/images, whose mask lies in camvid/train/masks under the same name. Needs
numpy and Pillow.
"""

import argparse
import csv
import pathlib

import numpy
from PIL import Image


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="with images/ and masks/")
    parser.add_argument("--scene", required=True, help="indices of the classes that scenes are told by: 0,1,5")
    parser.add_argument("--share", type=int, required=True, help="index of the class whose share is the value")
    parser.add_argument("--ignore", type=int, default=255, help="what pixels without a class have")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="table to write, beside which the pictures are named")
    given = parser.parse_args()
    scenes = [int(index) for index in given.scene.split(",")]
    with given.out.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "scene", "share"])
        for picture in sorted((given.folder / "images").iterdir()):
            mask = numpy.asarray(Image.open(given.folder / "masks" / f"{picture.stem}.png"))
            counts = numpy.bincount(mask[mask != given.ignore].ravel(), minlength=256)
            scene = max(scenes, key=lambda index: counts[index])
            share = counts[given.share] / max(counts.sum(), 1)
            rows.writerow([picture.resolve(), scene, f"{share:.6f}"])


main()
