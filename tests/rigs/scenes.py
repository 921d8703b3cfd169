"""Pictures for tests whose truth is known: drawn scenes, and many small photographs in mixed formats."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw, ImageFilter, ImageFont

from cleanplate.models.types import Image, Mask

DEMO_PHOTOS = Path(__file__).parents[2] / "jobs" / "demo_photos"
# Neighbours with one stem never differ by case alone, so the names also live on a disk that ignores case.
ENDINGS = ("jpg", "png", "JPG", "webp", "jpeg", "bmp", "tiff")
FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "tiff": "TIFF"}


def scene(seed: int, size: tuple[int, int] = (256, 192)) -> tuple[Image, list[tuple[str, Mask]]]:
    """A drawn landscape of (width, height) with a `text` line, a round `face` and a `logo` in it.

    Returns HWC uint8 RGB and, for each thing, (kind, HW bool mask of its pixels); the masks are disjoint.
    The same seed and size give the same scene. No detector is promised to see the drawn face as one.
    """
    dice = random.Random(f"scene/{seed}/{size}")
    picture = backdrop(size, dice)
    w, h = size
    unit = min(w, h) / 100
    things: list[tuple[str, Mask]] = []
    x, y, r = (0.15 + 0.3 * dice.random()) * w, (0.3 + 0.1 * dice.random()) * h, 14 * unit
    things.append(("face", draw_face(picture, x, y, r, dice)))
    side, left, top = 18 * unit, 0.97 * w - 18 * unit, 0.04 * h
    things.append(("logo", draw_logo(picture, left, top, side)))
    text = f"{dice.choice(['COPY', 'STOCK', 'PHOTO'])} {dice.randint(1000, 9999)}"
    things.append(("text", draw_text(picture, text, (0.05 + 0.2 * dice.random()) * w, 0.9 * h, 12 * unit)))
    return np.asarray(picture).copy(), things


def backdrop(size: tuple[int, int], dice: random.Random) -> Pil.Image:
    """Sky, hills and a little grain: smooth and rough parts, so that an inpainter's work shows."""
    w, h = size
    ys = np.linspace(0, 1, h)[:, None, None]
    high, low = (np.array([dice.randint(90, 200) for _ in range(3)]) for _ in range(2))
    sky = np.broadcast_to(high * (1 - ys) + low * ys, (h, w, 3))
    picture = Pil.fromarray(sky.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for layer in range(3):
        line = (0.55 + 0.13 * layer) * h
        peaks = [(w * k / 6, line - dice.random() * 0.2 * h) for k in range(7)]
        draw.polygon([(0, h), *peaks, (w, h)], fill=tuple(dice.randint(30, 130) for _ in range(3)))
    picture = picture.filter(ImageFilter.GaussianBlur(1))
    grain = np.random.default_rng(dice.randrange(2**32)).normal(0, 4, (h, w, 1))
    return Pil.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))


def draw_face(picture: Pil.Image, x: float, y: float, r: float, dice: random.Random) -> Mask:
    draw, mask = ImageDraw.Draw(picture), Pil.new("1", picture.size)
    box = (x - 0.8 * r, y - r, x + 0.8 * r, y + r)
    ImageDraw.Draw(mask).ellipse(box, fill=1)
    tone = dice.randint(120, 220)
    draw.ellipse(box, fill=(tone, int(tone * 0.78), int(tone * 0.62)))
    for side in (-1, 1):
        eye = x + side * 0.32 * r, y - 0.2 * r
        draw.ellipse((eye[0] - 0.1 * r, eye[1] - 0.08 * r, eye[0] + 0.1 * r, eye[1] + 0.08 * r), fill="black")
    draw.line((x, y - 0.1 * r, x, y + 0.2 * r), fill=(90, 60, 50), width=max(1, round(r / 12)))
    draw.arc((x - 0.35 * r, y + 0.1 * r, x + 0.35 * r, y + 0.6 * r), 20, 160, fill=(150, 30, 40), width=2)
    return np.asarray(mask).copy()


def draw_logo(picture: Pil.Image, left: float, top: float, side: float) -> Mask:
    mask = Pil.new("1", picture.size)
    draw = ImageDraw.Draw(mask)
    draw.ellipse((left, top, left + side, top + side), fill=1)
    draw.rectangle((left + 0.42 * side, top + 0.2 * side, left + 0.58 * side, top + 0.8 * side), fill=0)
    draw.rectangle((left + 0.2 * side, top + 0.42 * side, left + 0.8 * side, top + 0.58 * side), fill=0)
    picture.paste("white", (0, 0), mask)
    return np.asarray(mask).copy()


def draw_text(picture: Pil.Image, text: str, x: float, y: float, size: float) -> Mask:
    """White letters, `size` px high, their baseline from (x, y)."""
    mask = Pil.new("L", picture.size)
    ImageDraw.Draw(mask).text((x, y), text, 255, ImageFont.load_default(max(8, size)), anchor="ls")
    picture.paste("white", (0, 0), mask)
    return np.asarray(mask) > 0


def photos(n: int, seed: int = 0) -> list[tuple[str, bytes]]:
    """`n` different photographs, 160 to 400 px on the long side: [(posix path, encoded bytes)].

    Cut, scaled and encoded anew from the demo's photographs, so the same seed gives the same files (with one
    Pillow). Endings go round through `ENDINGS`; two neighbours share a stem (`00007.jpg`, `00007.png`); every
    fifth lies in a subfolder.
    """
    sources = [Pil.open(p).convert("RGB") for p in sorted(DEMO_PHOTOS.glob("*.jpg"))]
    return [photo(sources[i % len(sources)], i, random.Random(f"photos/{seed}/{i}")) for i in range(n)]


def photo(source: Pil.Image, i: int, dice: random.Random) -> tuple[str, bytes]:
    long, share = dice.randint(160, 400), dice.uniform(0.5, 1.0)
    w, h = int(source.width * share), int(source.height * dice.uniform(0.5, 1.0))
    x, y = dice.randint(0, source.width - w), dice.randint(0, source.height - h)
    size = max(1, round(w * long / max(w, h))), max(1, round(h * long / max(w, h)))
    small = source.resize(size, Pil.Resampling.BILINEAR, box=(x, y, x + w, y + h), reducing_gap=2.0)
    ending = ENDINGS[i % len(ENDINGS)]
    folder = f"part{i // 50}/" if i % 5 == 4 else ""
    buffer = io.BytesIO()
    options = {"JPEG": {"quality": dice.randint(75, 95)}, "WEBP": {"quality": 80, "method": 0}}
    kind = FORMATS[ending.lower()]
    small.save(buffer, kind, **options.get(kind, {}))
    return f"{folder}{i // 2:05}.{ending}", buffer.getvalue()
