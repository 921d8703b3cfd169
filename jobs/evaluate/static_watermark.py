"""Lay a known mark over a collection, find it by what the images share, take it off, compare with what was there."""

from __future__ import annotations

import argparse
import io
import itertools
import random
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cleanplate.models.static_watermark.overlay import Mark
    from cleanplate.models.types import Image

VISIBLE = 0.04
"""Opacities below are not counted as the mark: ten levels of 255."""
KINDS = ("corner", "diagonal", "logo")
COLUMNS = (
    "kind",
    "opacity",
    "file",
    "iou",
    "opacity_error",
    "psnr_marked",
    "psnr_after",
    "psnr_unmarked",
    "found_in",
)
SUBSAMPLING = {"444": 0, "422": 1, "420": 2}
"""As Pillow numbers them."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from cleanplate.jobs import photos

    parser = subparsers.add_parser(
        "consensus",
        help="measure static-watermark on a collection with known marks",
        description=__doc__,
        epilog="Example: cleanplate evaluate consensus photos/ consensus.jpg --images 50",
    )
    out = "a .jpg or .png file: marked, mark found, taken off, truth"
    photos.add_arguments(parser, out=out, metavar="PICTURE", split="train", seed=0)
    add = parser.add_argument
    add("--images", type=int, default=50, help="images of the collection (default %(default)s)")
    add("--size", default="480x320", help="size of each image (default %(default)s)")
    add("--kinds", default=",".join(KINDS), metavar="LIST", help="(default %(default)s)")
    add("--opacities", default="0.15,0.3,0.6", metavar="LIST", help="(default %(default)s)")
    add("--jpeg", default="0,92", metavar="LIST", help="quality; 0 = lossless (default %(default)s)")
    add(
        "--subsampling",
        choices=SUBSAMPLING,
        default="420",
        help="JPEG's colour subsampling (default %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 measured; raises ConfigError before any work."""
    import numpy as np

    from cleanplate.models.evaluation.pictures import grid, save_picture
    from cleanplate.models.static_watermark.estimate import find_marks
    from cleanplate.pipeline.images import encode as images

    size, opacities, qualities = _checked(args)
    truth = _collection(args.photos, args.split, args.images, size, args.seed)
    print("| " + " | ".join((*COLUMNS, "s")) + " |\n|" + "---|" * (len(COLUMNS) + 1))
    shown = []
    for kind, opacity, quality in itertools.product(args.kinds.split(","), opacities, qualities):
        alpha, colour = drawn(kind, size, opacity)
        sampling = SUBSAMPLING[args.subsampling]
        stored = [_stored(blend(image, alpha, colour), quality, sampling) for image in truth]
        start = time.process_time()
        marks = find_marks(
            np.stack([images.decode(data).pixels for data in stored]), bool(quality and sampling)
        )
        seconds = time.process_time() - start
        row, example = _measured(truth, stored, marks, alpha)
        low = (alpha > VISIBLE) & (alpha < 0.7)
        own = [images.decode(_stored(image, quality, sampling)).pixels for image in truth] if quality else []
        cells = (kind, opacity, f"JPEG {quality}" if quality else "lossless", *row[:4])
        cells += (f"{_psnr(own, truth, low):.1f}" if own and low.any() else "-", *row[4:])
        print("| " + " | ".join(map(str, cells)) + f" | {seconds:.1f} |", flush=True)
        shown.append([*example, truth[0]])
    save_picture(args.out, grid(["marked", "opacity found", "taken off", "truth"], shown, 240))
    return 0


def _checked(args: argparse.Namespace) -> tuple[tuple[int, int], list[float], list[int]]:
    from cleanplate.pipeline.errors import ConfigError

    try:
        width, height = (int(n) for n in args.size.split("x"))
        opacities = [float(n) for n in args.opacities.split(",")]
        qualities = [int(n) for n in args.jpeg.split(",")]
    except ValueError as error:
        raise ConfigError(f"--size is WIDTHxHEIGHT; --opacities and --jpeg are numbers: {error}") from error
    if args.images < 8 or min(width, height) < 160:
        raise ConfigError("at least 8 images of at least 160 pixels a side")
    if not all(0 < a <= 1 for a in opacities) or not all(0 <= q <= 100 for q in qualities):
        raise ConfigError("opacities lie above 0 and up to 1, JPEG qualities in 0 to 100")
    if unknown := set(args.kinds.split(",")) - set(KINDS):
        raise ConfigError(f"--kinds are of {', '.join(KINDS)}, not {', '.join(sorted(unknown))}")
    return (width, height), opacities, qualities


def _collection(url: str, split: str, count: int, size: tuple[int, int], seed: int) -> list[Image]:
    """count photographs, scaled and cut to one size, HWC uint8 RGB."""
    import numpy as np
    from PIL import Image as Pil
    from PIL import ImageOps

    from cleanplate.jobs.photos import open_photos
    from cleanplate.pipeline.errors import ConfigError

    photos = open_photos(url, split)
    random.Random(seed).shuffle(photos)
    found: list[Image] = []
    for photo in photos:
        with Pil.open(io.BytesIO(photo.read())) as image:
            if len(found) < count and image.width >= size[0] / 1.2 and image.height >= size[1] / 1.2:
                found.append(np.asarray(ImageOps.fit(image.convert("RGB"), size), np.uint8))
        if len(found) == count:
            return found
    raise ConfigError(f"{url} has {len(found)} photographs of that size, not {count}")


def drawn(kind: str, size: tuple[int, int], opacity: float) -> tuple[Any, Any]:
    """A mark over a picture of size (width, height): opacity HW float32, colour HWC float32, 0 to 255. "corner" and
    "diagonal" are white letters, "logo" a ring and a triangle in red and blue that touch."""
    import numpy as np
    from PIL import Image as Pil
    from PIL import ImageDraw, ImageFont

    width, height = size
    cover = Pil.new("L", size, 0)
    draw = ImageDraw.Draw(cover)
    colour = np.full((height, width, 3), 255, np.float32)
    if kind == "corner":
        font = ImageFont.load_default(height / 12)
        draw.text((width - 12, height - 12), "© Nordlicht 2026", fill=255, font=font, anchor="rs")
    elif kind == "diagonal":
        font = ImageFont.load_default(height / 4)
        draw.text((width / 2, height / 2), "PROOF", fill=255, font=font, anchor="mm")
        cover = cover.rotate(28, Pil.Resampling.BICUBIC)
    else:
        s = height / 320
        draw.ellipse((30 * s, 30 * s, 130 * s, 130 * s), outline=255, width=round(10 * s))
        draw.polygon([(80 * s, 45 * s), (110 * s, 110 * s), (50 * s, 110 * s)], fill=255)
        half = round(80 * s)
        colour[:, :half], colour[:, half:] = (220, 30, 30), (30, 60, 200)
    return np.asarray(cover, np.float32) / 255 * opacity, colour


def blend(image: Image, alpha: Any, colour: Any) -> Image:
    import numpy as np

    return np.asarray(np.rint(image * (1 - alpha[..., None]) + colour * alpha[..., None]), np.uint8)


def _stored(image: Image, quality: int, subsampling: int) -> bytes:
    from PIL import Image as Pil

    buffer = io.BytesIO()
    if quality:
        Pil.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    else:
        Pil.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _measured(truth: list[Image], stored: list[bytes], marks: list[Mark], alpha: Any) -> tuple[Any, Any]:
    """The row of the table, and the example's pictures. PSNR where the mark is visible and is to be computed back."""
    import numpy as np

    from cleanplate.pipeline.images import encode as images

    found = np.zeros_like(alpha)
    for mark in marks:
        x0, y0, x1, y1 = mark.box
        found[y0:y1, x0:x1] = np.maximum(found[y0:y1, x0:x1], mark.alpha)
    there, seen = alpha > VISIBLE, found > 0
    marked = [images.decode(data).pixels for data in stored]
    after = [_taken_off(data, marks) for data in stored]
    low = there & (alpha < 0.7)
    iou = (there & seen).sum() / max(1, (there | seen).sum())
    error = np.abs(found - alpha)[there].mean()
    scores = [f"{_psnr(pictures, truth, low):.1f}" if low.any() else "-" for pictures in (marked, after)]
    support = "+".join(str(mark.support) for mark in marks) or "0"
    grey = np.repeat((found[..., None] * 255).astype(np.uint8), 3, axis=2)
    return (f"{iou:.3f}", f"{error:.3f}", *scores, support), (marked[0], grey, after[0])


def _taken_off(data: bytes, marks: list[Mark]) -> Image:
    """As a run does it: in the planes of a JPEG, in the pixels of anything else."""
    from cleanplate.models.static_watermark.overlay import take_off
    from cleanplate.models.static_watermark.overlay_jpeg import take_off_jpeg
    from cleanplate.pipeline.factory.static_watermark import planes_of
    from cleanplate.pipeline.images import encode as images

    image, planes = images.decode(data).pixels, planes_of(data)
    for mark in marks:
        image, _ = take_off_jpeg(image, planes, mark) if planes else take_off(image, mark)
    return image


def _psnr(images: list[Image], truth: list[Image], where: Any) -> float:
    """Mean over the images, dB."""
    import numpy as np

    errors = [((a[where].astype(float) - b[where]) ** 2).mean() for a, b in zip(images, truth, strict=True)]
    return float(np.mean([10 * np.log10(255**2 / max(e, 1e-3)) for e in errors]))
