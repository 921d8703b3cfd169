"""Pictures with something to remove and a second of its kind beside it, which no fill may copy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw, ImageFont

from cleanplate.models.types import Image, Mask
from rigs.plate_scenes import FORMS, drawn

PHOTOS = Path(__file__).parents[2] / "data" / "photos"
SIDE, PATCH = 288, 17
KINDS = ("face", "text", "plate")
WORDS = ("HARBOUR 24", "Winter Sale", "GATE B17", "Station", "Exit 402", "MARKET", "Lot 9 to 12", "BAKERY")


@dataclass(frozen=True)
class Scene:
    """image: HWC uint8 RGB. hole: what goes. decoy: xyxy of what stands beside it and may not be copied, and is of
    `kind`."""

    kind: str
    image: Image
    hole: Mask
    decoy: tuple[int, int, int, int]


def scene(number: int) -> Scene:
    """The scene of a number; the same on every call."""
    rng = np.random.default_rng([21, number])
    kind = KINDS[number % 3]
    image = ground(rng)
    thing = {"face": _face, "text": _text, "plate": _plate}[kind](rng)
    height, width = thing.shape[:2]
    x = int(rng.integers(8, SIDE - width - 8))
    y = int(rng.integers(8, SIDE // 2 - height))
    box = (x, y, x + width, y + height)
    _laid(image, thing, x, y)
    hole = np.zeros((SIDE, SIDE), np.bool_)
    below = y + height + int(rng.integers(8, 16))
    if kind == "text":
        page = Pil.new("L", (SIDE, SIDE))
        font = ImageFont.load_default(max(18, height))
        ImageDraw.Draw(page).text((x, below), str(rng.choice(WORDS)), fill=255, font=font)
        hole = np.asarray(cv2.dilate(np.asarray(page), np.ones((7, 7), np.uint8)) > 0)
    else:
        middle = (x + width // 2, min(SIDE - 20, below + height // 2))
        drawn_hole = hole.astype(np.uint8)
        cv2.ellipse(drawn_hole, middle, (max(8, width // 2), max(8, height // 2)), 0, 0, 360, 1, -1)
        hole = drawn_hole > 0
    hole[: y + height + 4] = False
    return Scene(kind, image, hole, box)


def ground(rng: np.random.Generator) -> Image:
    """A piece of a photograph without faces and letters, or woven grain."""
    choice = int(rng.integers(3))
    if choice < 2:
        photo = np.asarray(Pil.open(PHOTOS / ("chelsea.jpg", "coffee.jpg")[choice]).convert("RGB"))
        top = int(rng.integers(max(1, photo.shape[0] // 3)))
        left = int(rng.integers(max(1, photo.shape[1] // 3)))
        side = min(photo.shape[0] - top, photo.shape[1] - left)
        part = photo[top : top + side, left : left + side]
        return np.asarray(cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    noise = np.asarray(cv2.GaussianBlur(rng.normal(0, 60, (SIDE, SIDE)).astype(np.float32), (0, 0), 1.0))
    grey = noise + 120 + 12 * np.sin(np.arange(SIDE) / rng.uniform(2, 6))
    tint = rng.uniform(-25, 25, 3)
    return np.clip(grey[..., None] + tint, 0, 255).astype(np.uint8)


def _face(rng: np.random.Generator) -> Image:
    photo = np.asarray(Pil.open(PHOTOS / "astronaut.jpg").convert("RGB"))
    scale = photo.shape[0] / 512
    x0, y0, x1, y1 = (round(v * scale) for v in (165, 40, 285, 190))
    face = photo[y0:y1, x0:x1]
    if rng.random() < 0.5:
        face = face[:, ::-1]
    height = int(rng.integers(84, 116))
    return np.asarray(cv2.resize(face, (round(height * 0.8), height), interpolation=cv2.INTER_AREA), np.uint8)


def _text(rng: np.random.Generator) -> Image:
    """Letters on a sign: a line as detectors know it."""
    font = ImageFont.load_default(int(rng.integers(24, 40)))
    word = str(rng.choice(WORDS))
    x0, y0, x1, y1 = font.getbbox(word)
    light = bool(rng.integers(2))
    page = Pil.new("RGB", (int(x1 - x0) + 16, int(y1 - y0) + 14), (235, 230, 220) if light else (20, 30, 60))
    ink = (30, 20, 20) if light else (240, 235, 220)
    ImageDraw.Draw(page).text((8 - x0, 7 - y0), word, fill=ink, font=font)
    return np.asarray(page, np.uint8)[:, : SIDE - 24]


def _plate(rng: np.random.Generator) -> Image:
    plate = drawn(str(rng.choice([f for f in FORMS if f != "moto"])), rng, None)
    height = int(rng.integers(32, 48))
    width = min(SIDE - 24, round(plate.shape[1] * height / plate.shape[0]))
    return np.asarray(cv2.resize(plate, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _laid(image: Image, thing: Image, x: int, y: int) -> None:
    """In place, with a soft edge of a pixel, as a lens gives it."""
    height, width = thing.shape[:2]
    cover = np.zeros(image.shape[:2], np.float32)
    cover[y + 1 : y + height - 1, x + 1 : x + width - 1] = 1
    cover = np.asarray(cv2.GaussianBlur(cover, (0, 0), 0.8))[..., None]
    whole = image.copy()
    whole[y : y + height, x : x + width] = thing
    image[:] = np.rint(cover * whole + (1 - cover) * image).astype(np.uint8)


def likeness(fill: Image, hole: Mask, decoy: Image) -> float:
    """How much a fill is like a piece of the decoy: the largest correlation of the detail of a patch of 17 x 17 in the
    hole with the detail at any place of the decoy, of patches that have some; 0 where there are none. Letters and
    features that are copied have more than .9, other textures about half of it."""
    own, other = _detail(fill), _detail(decoy)
    if min(other.shape) < PATCH:
        return 0.0
    best, half = 0.0, PATCH // 2
    ys, xs = np.nonzero(cv2.erode(hole.astype(np.uint8), np.ones((9, 9), np.uint8)))
    for y, x in list(zip(ys.tolist(), xs.tolist(), strict=True))[::7]:
        patch = own[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
        if patch.shape == (PATCH, PATCH) and patch.std() >= 4:
            match = np.asarray(cv2.matchTemplate(other, np.ascontiguousarray(patch), cv2.TM_CCOEFF_NORMED))
            best = max(best, float(match.max()))
    return best


def _detail(image: Image) -> np.ndarray:
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.float32)
    return grey - np.asarray(cv2.GaussianBlur(grey, (0, 0), 3.0))
