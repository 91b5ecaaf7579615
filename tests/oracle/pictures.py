"""Writes fixtures/pictures/ by Pillow 11: small files of every kind, each with what Pillow reads in it (NAME.png), ADM's
centre crops of a picture that follows a formula (crop-WIDTHxHEIGHT-SIDE.png), and zip archives as others pack them.

    python3 tests/oracle/pictures.py

From Pillow 13 on (its pull request 9549) pictures that are more than about twice as tall as wide are scaled vertically
first, and a last bit differs; published data were made before that. A newer one is refused here.
"""

import io
import json
import sys
import zipfile
from pathlib import Path

import numpy
import PIL
from PIL import Image

FOLDER = Path(__file__).parent / "fixtures" / "pictures"

CROPS = [
    (500, 375, 64), (64, 64, 64), (65, 130, 64), (127, 128, 64), (128, 128, 64), (257, 333, 32), (31, 20, 64),
    (129, 1000, 48), (900, 100, 17), (301, 301, 40),
]


def picture(width, height):
    """The formula that tests/lua/pictures_spec.lua has too."""
    x, y, c = numpy.meshgrid(numpy.arange(width), numpy.arange(height), numpy.arange(3), indexing="xy")
    return Image.fromarray((((x * x * 7 + y * y * 13 + x * y * 5 + c * 570) >> 4) & 255).astype(numpy.uint8))


def centre_crop(image, side):
    """In our own words what guided diffusion does."""
    while min(image.size) >= 2 * side:
        image = image.resize((image.width // 2, image.height // 2), Image.BOX)
    scale = side / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.BICUBIC)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def save(name, image, **options):
    image.save(FOLDER / name, **options)
    with Image.open(FOLDER / name) as read:
        read.convert("RGB").save(FOLDER / (name.replace(".", "-") + ".png"), optimize=True)


def main():
    if int(PIL.__version__.split(".")[0]) > 12:
        sys.exit(f"Pillow {PIL.__version__} scales tall pictures in another order; install pillow<13")
    FOLDER.mkdir(exist_ok=True)
    for width, height, side in CROPS:
        centre_crop(picture(width, height), side).save(FOLDER / f"crop-{width}x{height}-{side}.png", optimize=True)
    small = picture(37, 29)
    alpha = small.copy()
    alpha.putalpha(small.convert("L"))
    save("plain.jpg", small, quality=90, subsampling=0)
    save("halved.jpg", small, quality=80, subsampling=2)
    save("progressive.jpg", small, quality=80, subsampling=2, progressive=True)
    save("restarts.jpg", small, quality=80, restart_marker_rows=1)
    save("grey.jpg", small.convert("L"), quality=85)
    save("cmyk.jpg", small.convert("CMYK"), quality=90)
    save("lossy.webp", small, quality=70)
    save("lossless.webp", small, lossless=True)
    save("alpha.webp", alpha, lossless=True, exact=True)
    write_zip("deflated.zip", zipfile.ZIP_DEFLATED, "set/train/", False)
    write_zip("edm2.zip", zipfile.ZIP_STORED, "", True)
    small.save(FOLDER / "animated.webp", save_all=True, append_images=[small.rotate(90)])


def write_zip(name, method, prefix, labels):
    """Nine small pictures of three classes, as others pack them, with a fixed date."""
    with zipfile.ZipFile(FOLDER / name, "w") as archive:
        listed = []
        for k in range(9):
            data = io.BytesIO()
            Image.new("RGB", (8, 8), (20 * k, k, 0)).save(data, "PNG")
            path = f"{'cab'[k % 3]}/{k}.png"
            listed.append([path, 2 - k % 3])
            archive.writestr(zipfile.ZipInfo(prefix + path), data.getvalue(), method)
        if labels:
            archive.writestr(zipfile.ZipInfo("dataset.json"), json.dumps({"labels": listed}), method)


if __name__ == "__main__":
    main()
