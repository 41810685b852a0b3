"""What the scripts share that open folders of fthost's elsewhere: pictures as fthost reads them, and the list of what is wrong."""
import json
import sys
from pathlib import Path

import torch

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def pixels_of(file):
    """A picture, normalised, [channels, height, width]."""
    from PIL import Image  # few scripts look at pictures

    picture = Image.open(file).convert("RGB")
    values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).float()
    values = values.view(picture.height, picture.width, 3).permute(2, 0, 1)
    return (values / 255 - MEAN) / STD


def cases():
    """Those of the file that the script is called with."""
    return json.loads(Path(sys.argv[1]).read_text())


def report(check):
    """Prints a list of what is wrong with the cases."""
    wrong = []
    with torch.no_grad():
        for case in cases():
            try:
                check(case)
            except Exception as error:  # all that is wrong is listed
                wrong.append(f"{case['of']}: {type(error).__name__}: {error}")
    print(json.dumps(wrong))
