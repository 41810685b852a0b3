"""Small pictures of every kind, and what Pillow, torchvision, timm and Transformers make of them, for the tests of host/images.

    python make_images.py [FLOWERS_FOLDER]

writes into host/images/tests/data. Needs pillow, numpy, torch, torchvision, timm and transformers. With the folder of the flowers it writes
flowers.json anew, too: what Transformers' processors make of three real pictures, every 16th pixel.
"""

import io
import json
import pathlib
import struct
import sys
import warnings
import zlib

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode, functional as F
from torchvision.transforms.autoaugment import RandAugment, _apply_op

warnings.simplefilter("ignore")
OUT = pathlib.Path(__file__).resolve().parents[2] / "host/images/tests/data"
OUT.mkdir(parents=True, exist_ok=True)


def photo(width, height):
    """Gradients, an edge, a disc, some noise: what resizing and colours can go wrong on."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    rng = np.random.default_rng(5)
    a = np.stack([255 * x / width, 255 * y / height, 128 + 100 * np.sin(x / 3 + y / 5)], -1)
    a[(x - width / 2) ** 2 + (y - height / 2) ** 2 < (height / 3) ** 2] = [250, 40, 30]
    a[: height // 4, width // 2 :] = [20, 60, 220]
    return Image.fromarray(np.clip(a + rng.normal(0, 9, a.shape), 0, 255).astype(np.uint8))


def hexed(image):
    return {"size": [image.height, image.width], "pixels": image.tobytes().hex()}


def encoded(image, format, **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, before=b""):
    """A PNG of a kind that Pillow does not write; `rows` are whole bytes."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + head + before + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def without_adobe(jpeg):
    at = jpeg.index(b"\xff\xee")
    return jpeg[:at] + jpeg[at + 2 + struct.unpack(">H", jpeg[at + 2 : at + 4])[0] :]


def decoded():
    small = photo(20, 14)
    files = {}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files[f"exif_{orientation}.jpg"] = encoded(small, "JPEG", quality=95, subsampling=0, exif=exif)
        if orientation in (5, 6):
            files[f"exif_{orientation}.png"] = encoded(small, "PNG", exif=exif)
            files[f"exif_{orientation}.webp"] = encoded(small, "WEBP", lossless=True, exif=exif)
    files["jpeg_420.jpg"] = encoded(photo(37, 29), "JPEG", quality=90)
    files["jpeg_422.jpg"] = encoded(photo(37, 29), "JPEG", quality=90, subsampling=1)
    files["progressive.jpg"] = encoded(photo(37, 29), "JPEG", quality=90, progressive=True)
    files["restarts.jpg"] = encoded(photo(37, 29), "JPEG", quality=90, restart_marker_blocks=2)
    files["grey.jpg"] = encoded(small.convert("L"), "JPEG", quality=95)
    files["rgb.jpg"] = encoded(small, "JPEG", quality=95, keep_rgb=True)
    cmyk = encoded(small.convert("CMYK"), "JPEG", quality=95, subsampling=0)
    files["cmyk_adobe.jpg"] = cmyk
    files["cmyk.jpg"] = without_adobe(cmyk)
    # The last byte of Adobe's segment says how the colours are stored: 2 is YCCK.
    at = cmyk.index(b"Adobe") + 11
    files["ycck.jpg"] = cmyk[:at] + b"\2" + cmyk[at + 1 :]

    rng = np.random.default_rng(1)
    alpha = Image.fromarray(rng.integers(0, 256, (14, 20), dtype=np.uint8))
    rgba = small.copy()
    rgba.putalpha(alpha)
    grey_alpha = small.convert("L")
    grey_alpha.putalpha(alpha)
    palette = small.quantize(40)
    files["rgb.png"] = encoded(small, "PNG")
    files["alpha.png"] = encoded(rgba, "PNG")
    files["grey_alpha.png"] = encoded(grey_alpha, "PNG")
    files["grey.png"] = encoded(small.convert("L"), "PNG")
    files["grey_transparent.png"] = encoded(small.convert("L"), "PNG", transparency=80)
    files["one_bit.png"] = encoded(small.convert("1"), "PNG")
    files["palette.png"] = encoded(palette, "PNG")
    files["palette_transparent.png"] = encoded(palette, "PNG", transparency=bytes(range(40)))
    files["palette_4_bits.png"] = encoded(small.quantize(11), "PNG", bits=4)
    levels = [bytes(rng.integers(0, 256, 5, dtype=np.uint8)) for _ in range(6)]
    files["grey_2_bits.png"] = png(19, 6, 2, 0, levels)
    files["grey_4_bits.png"] = png(9, 6, 4, 0, levels)
    wide = rng.integers(0, 1 << 16, (6, 15), dtype=np.uint16)
    files["rgb_16.png"] = png(5, 6, 16, 2, [row.astype(">u2").tobytes() for row in wide])
    files["grey_16.png"] = png(15, 6, 16, 0, [row.astype(">u2").tobytes() for row in wide])

    other = ImageOps.invert(small)
    files["still.gif"] = encoded(small, "GIF")
    files["animated.gif"] = encoded(small, "GIF", save_all=True, append_images=[other], duration=50)
    see_through = palette.copy()
    see_through.info["transparency"] = 3
    files["transparent.gif"] = encoded(see_through, "GIF", transparency=3)
    files["lossless.webp"] = encoded(small, "WEBP", lossless=True)
    files["lossy.webp"] = encoded(photo(37, 29), "WEBP", quality=90)
    files["alpha.webp"] = encoded(rgba, "WEBP", lossless=True, exact=True)
    files["animated.webp"] = encoded(small, "WEBP", lossless=True, save_all=True, append_images=[other], duration=50)
    files["rgb.bmp"] = encoded(small, "BMP")
    files["palette.bmp"] = encoded(palette, "BMP")
    files["grey.bmp"] = encoded(small.convert("L"), "BMP")

    expected = {}
    for name, data in files.items():
        (OUT / name).write_bytes(data)
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        if name == "grey_16.png":
            # Pillow clips 16-bit grey at 255; the upper byte is what it takes of 16-bit colours.
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        expected[name] = hexed(image.convert("RGB"))
    masks = {}
    index = rng.integers(0, 12, (7, 11), dtype=np.uint8)
    mask = Image.fromarray(index, "P")
    mask.putpalette([int(v) for v in rng.integers(0, 256, 36)])
    void = index.copy()
    void[index > 9] = 255
    for name, image, options in [
        ("mask_palette.png", mask, {"bits": 8}),
        ("mask_palette_4_bits.png", mask, {"bits": 4}),
        ("mask_grey.png", Image.fromarray(void), {}),
        ("mask_one_bit.png", Image.fromarray(index > 5), {}),
    ]:
        (OUT / name).write_bytes(encoded(image, "PNG", **options))
        values = np.asarray(Image.open(OUT / name)).astype(np.uint8)
        masks[name] = {"size": list(values.shape), "pixels": values.tobytes().hex()}
    return {"pictures": expected, "masks": masks}


def bombs():
    """Headers of 60,000 x 60,000 pixels, and hardly anything behind."""
    side = 60_000
    ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    (OUT / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + ihdr + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b""))
    jpeg = encoded(photo(8, 8), "JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    (OUT / "bomb.jpg").write_bytes(jpeg[:at] + struct.pack(">HH", side, side) + jpeg[at + 4 :])
    gif = encoded(photo(8, 8), "GIF")
    (OUT / "bomb.gif").write_bytes(gif[:6] + struct.pack("<HH", side, side) + gif[10:])
    bmp = encoded(photo(8, 8), "BMP")
    (OUT / "bomb.bmp").write_bytes(bmp[:18] + struct.pack("<ii", side, side) + bmp[26:])
    # A lossless WebP's sides, less 1, are two 14-bit numbers behind its signature.
    webp = bytearray(encoded(photo(8, 8), "WEBP", lossless=True))
    at = webp.index(b"VP8L") + 9
    bits = struct.unpack("<I", webp[at : at + 4])[0]
    webp[at : at + 4] = struct.pack("<I", bits & ~0xFFFFFFF | 16382 | 16382 << 14)
    (OUT / "bomb.webp").write_bytes(webp)


def resized(source):
    filters = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
    sizes = [(11, 17), (29, 31), (24, 13)]
    return [
        {"filter": name, **hexed(source.resize((w, h), number))} for name, number in filters.items() for h, w in sizes
    ]


def changed(source):
    """torchvision's functions on Pillow's pictures."""
    space = RandAugment()._augmentation_space(31, (source.height, source.width))
    cases = []

    def case(op, argument, image):
        cases.append({"op": op, "argument": argument, **hexed(image)})

    for factor in (0.0, 0.35, 1.0, 1.7):
        case("brightness", factor, F.adjust_brightness(source, factor))
        case("contrast", factor, F.adjust_contrast(source, factor))
        case("saturation", factor, F.adjust_saturation(source, factor))
        case("sharpness", factor, F.adjust_sharpness(source, factor))
    for factor in (-0.5, -0.13, 0.07, 0.5):
        case("hue", factor, F.adjust_hue(source, factor))
    for degrees in (-33.0, 7.5, 180.0):
        case("rotate_bilinear", degrees, F.rotate(source, degrees, InterpolationMode.BILINEAR, fill=[9, 8, 7]))
    case("grey", 0, F.to_grayscale(source, 3))
    for magnitude in (9, 30):
        for op, (values, signed) in space.items():
            value = float(values[magnitude].item()) if values.ndim else 0.0
            for sign in (1, -1) if signed else (1,):
                if values.ndim == 0 and magnitude != 9:
                    continue
                image = _apply_op(source, op, sign * value, InterpolationMode.NEAREST, None)
                cases.append({"op": "rand_augment", "name": op, "magnitude": magnitude, "sign": sign, **hexed(image)})
    return cases


PROCESSORS = [
    {"image_processor_type": "ViTImageProcessor", "size": {"height": 12, "width": 13}, "resample": 2},
    {"image_processor_type": "ViTImageProcessorFast", "size": 12, "resample": 3, "image_mean": [0.1, 0.2, 0.3]},
    {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 13}, "crop_pct": 0.8, "resample": 3},
    {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}, "resample": 2},
    {"image_processor_type": "MobileNetV2ImageProcessor", "size": {"shortest_edge": 15}, "crop_size": {"height": 12, "width": 12}},
    {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 14}, "crop_size": {"height": 14, "width": 14}},
    {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 10}, "crop_size": {"height": 15, "width": 12}},
    {
        "image_processor_type": "EfficientNetImageProcessor",
        "size": {"height": 14, "width": 14},
        "resample": 0,
        "do_center_crop": True,
        "crop_size": {"height": 11, "width": 11},
        "rescale_factor": 1 / 127.5,
        "rescale_offset": True,
        "include_top": True,
        "image_std": [0.4, 0.5, 0.6],
    },
    {"image_processor_type": "EfficientNetImageProcessor", "size": {"height": 9, "width": 9}, "include_top": False},
    {"image_processor_type": "DeiTImageProcessor", "size": {"height": 16, "width": 16}, "crop_size": {"height": 13, "width": 13}},
    {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 12}, "crop_size": {"height": 12, "width": 12}, "do_normalize": False},
    {"image_processor_type": "SiglipImageProcessor", "size": {"height": 12, "width": 12}, "do_rescale": False, "do_normalize": False},
]

TIMM = [
    {"input_size": [3, 13, 13], "interpolation": "bicubic", "crop_pct": 0.875, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    {"input_size": [3, 12, 12], "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash", "mean": [0.5] * 3, "std": [0.5] * 3},
    {"input_size": [3, 14, 14], "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "border", "mean": [0.5, 0.4, 0.3], "std": [0.5] * 3},
    {"input_size": [3, 10, 16], "interpolation": "bilinear", "crop_pct": 0.8, "crop_mode": "center", "mean": [0.5] * 3, "std": [0.25] * 3},
    {"input_size": [3, 12, 12]},
]


def processor_of(config):
    import transformers

    name = config["image_processor_type"].removesuffix("Fast")
    return getattr(transformers, name)(**{key: value for key, value in config.items() if key != "image_processor_type"})


def timm_transform(config):
    from timm.data import resolve_data_config, transforms_factory

    data = resolve_data_config(pretrained_cfg=config)
    return transforms_factory.transforms_imagenet_eval(
        img_size=data["input_size"][-2:],
        interpolation=data["interpolation"],
        mean=data["mean"],
        std=data["std"],
        crop_pct=data["crop_pct"],
        crop_mode=data["crop_mode"],
    )


def numbers(tensor, step=1):
    """[3, height, width] as [height, width, 3]."""
    values = tensor.permute(1, 2, 0)
    picked = values[::step, ::step]
    return {
        "size": list(values.shape[:2]),
        "values": [round(float(v), 4) for v in picked.reshape(-1)],
        "mean": [round(float(v), 5) for v in values.reshape(-1, 3).mean(0)],
    }


def preprocessed(source):
    cases = []
    for config in PROCESSORS:
        pixels = processor_of(config)(source, return_tensors="pt")["pixel_values"][0].float()
        cases.append({"kind": "hugging_face", "config": config, "step": 16 if pixels.shape[1] > 99 else 1})
        cases[-1].update(numbers(pixels, cases[-1]["step"]))
    for config in TIMM:
        cases.append({"kind": "timm", "config": config, "step": 1, **numbers(timm_transform(config)(source))})
    return cases


def flowers(folder):
    files = sorted(pathlib.Path(folder).glob("test/*/*.jpg"))
    cases = []
    for path in (files[0], files[len(files) // 2], files[-1]):
        image = Image.open(path)
        with torch.no_grad():
            for config in [
                {"image_processor_type": "ViTImageProcessor"},
                {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.875},
                {"image_processor_type": "CLIPImageProcessor"},
            ]:
                pixels = processor_of(config)(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
                cases.append({"kind": "hugging_face", "config": config})
                cases[-1].update({"file": str(path.relative_to(folder)), "step": 16, **numbers(pixels, 16)})
            config = {"input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.875}
            pixels = timm_transform(config)(image.convert("RGB"))
            cases.append({"kind": "timm", "config": config, "file": str(path.relative_to(folder)), "step": 16, **numbers(pixels, 16)})
    return cases


def write(name, value):
    (OUT / name).write_text(json.dumps(value, separators=(",", ":")).replace("},{", "},\n{") + "\n")


bombs()
write("decoded.json", decoded())
source = photo(24, 18)
(OUT / "photo.png").write_bytes(encoded(source, "PNG"))
write("resized.json", resized(source))
small = photo(16, 12)
(OUT / "photo_small.png").write_bytes(encoded(small, "PNG"))
write("changed.json", changed(small))
write("preprocessed.json", preprocessed(source))
if len(sys.argv) > 1:
    write("flowers.json", flowers(sys.argv[1]))
