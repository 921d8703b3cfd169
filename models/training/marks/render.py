"""Marks without end: text and logos laid over photographs, with the exact opacity of every pixel.

A mark is planned (`plan_mark`), drawn as a layer (colour and opacity), blended and, as marks are met in the
wild, often saved as JPEG afterwards. The truth comes with it: which pixels the mark changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.training.marks.figures import KINDS, Blend, Kind, Mark, figure
from cleanplate.models.training.marks.fonts import Fonts
from cleanplate.models.training.marks.glyphs import Coverage
from cleanplate.models.types import Image, Mask

DIFFICULTY = {"opaque": (0.6, 0.95), "semi": (0.3, 0.6), "faint": (0.15, 0.3)}
"""Levels of opacity, as (from, to)."""
UNSEEN = 3
"""Levels of 255: a pixel changed by less in every channel counts neither as marked nor as clean."""


@dataclass(frozen=True)
class Marked:
    """image: HWC uint8 RGB. matte: HW float32, opacity of what was laid over each pixel. mask: HW bool, the
    mark's pixels, its shadow's faint rim left out. seen: HW bool, False where the mark changed a pixel too
    little to be seen; neither found nor missed pixels are counted there."""

    image: Image
    matte: Coverage
    mask: Mask
    seen: Mask
    mark: Mark


def plan_mark(
    rng: np.random.Generator, kind: Kind | None = None, alpha: tuple[float, float] = (0.15, 0.95)
) -> Mark:
    """A mark of this kind (None: any) with an opacity in this range, lower ones a little more often."""
    if kind is None:
        kind = rng.choice(list(KINDS), p=np.array(list(KINDS.values())) / sum(KINDS.values()))
    low, high = alpha
    tone = rng.random()
    colour = (1.0, 1.0, 1.0) if tone < 0.42 else (0.0, 0.0, 0.0) if tone < 0.57 else _colour(rng)
    dark = sum(colour) < 1.5
    edge = None
    if rng.random() < 0.22:
        edge = _colour(rng) if rng.random() < 0.3 else (1.0, 1.0, 1.0) if dark else (0.0, 0.0, 0.0)
    blends: list[Blend] = ["normal", "screen", "multiply", "overlay", "relief"]
    return Mark(
        kind=kind,
        alpha=float(low + (high - low) * rng.beta(1, 1.25)),
        size=_size_of(rng, kind),
        angle=_angle_of(rng, kind),
        colour=colour,
        edge=edge,
        hollow=bool(rng.random() < 0.1),
        shadow=bool(rng.random() < 0.2),
        blend=blends[int(rng.choice(5, p=[0.76, 0.05, 0.05, 0.06, 0.08]))],
    )


def _colour(rng: np.random.Generator) -> tuple[float, float, float]:
    if rng.random() < 0.3:
        grey = float(rng.uniform(0.2, 0.9))
        return (grey, grey, grey)
    red, green, blue = rng.uniform(0, 1, 3).tolist()
    return (red, green, blue)


def _size_of(rng: np.random.Generator, kind: Kind) -> float:
    low, high = {
        "line": (0.022, 0.11),
        "stack": (0.025, 0.09),
        "large": (0.08, 0.3),
        "tiles": (0.025, 0.1),
        "net": (0.03, 0.09),
        "logo": (0.06, 0.55),
        "lockup": (0.04, 0.16),
        "stamp": (0.025, 0.1),
        "band": (0.03, 0.08),
    }[kind]
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))


def _angle_of(rng: np.random.Generator, kind: Kind) -> float:
    chance = rng.random()
    if kind in ("tiles", "large", "net"):
        steep = float(rng.choice([-45, -30, 30, 45, -35, 25])) + float(rng.normal(0, 4))
        return steep if chance < 0.6 else 0.0 if chance < 0.85 else float(rng.uniform(-90, 90))
    if kind == "band":
        return 0.0
    slight, turned = float(rng.uniform(-12, 12)), float(rng.choice([90, -90, 45, -45, -30, 30]))
    return 0.0 if chance < 0.78 else slight if chance < 0.9 else turned


def render(
    rng: np.random.Generator, image: Image, fonts: Fonts, mark: Mark | None = None, jpeg: bool = True
) -> Marked:
    """Lay a mark over a picture (HWC uint8 RGB, not changed). jpeg: then save it as JPEG in 7 of 10 cases."""
    mark = mark or plan_mark(rng)
    height, width = image.shape[:2]
    cover = figure(rng, mark, fonts, height, width)
    colour, matte = _layer(rng, mark, cover)
    base = np.asarray(image.astype(np.float32) / 255, np.float32)
    laid = base + (_blended(base, colour, mark.blend, cover) - base) * matte[..., None]
    out = np.clip(np.round(laid * 255), 0, 255).astype(np.uint8)
    seen = changed(out, image)
    mask = matte >= 0.4 * mark.alpha
    if jpeg:
        out = perhaps_jpeg(rng, out)
    return Marked(out, matte, mask, seen | ~mask, mark)


def changed(image: Image, before: Image) -> Mask:
    """HW bool: where one picture (HWC uint8) differs from the other by enough to be seen."""
    # A reduction over three channels takes numpy ten times as long.
    return np.asarray(np.maximum.reduce(cv2.split(cv2.absdiff(image, before))) >= UNSEEN)


def perhaps_jpeg(rng: np.random.Generator, image: Image) -> Image:
    """`as_jpeg` in 7 of 10 cases, else the picture itself."""
    return as_jpeg(rng, image) if rng.random() < 0.7 else image


def as_jpeg(rng: np.random.Generator, image: Image) -> Image:
    """The picture after a JPEG of quality 60 to 97 (HWC uint8 RGB)."""
    quality = int(rng.integers(60, 98))
    _, packed = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    again = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(again[..., ::-1])


def _blended(
    base: npt.NDArray[np.float32], colour: npt.NDArray[np.float32], blend: Blend, cover: Coverage
) -> npt.NDArray[np.float32]:
    """What full opacity gives: H x W x 3 in [0, 1]."""
    if blend == "screen":
        return np.asarray(1 - (1 - base) * (1 - colour), np.float32)
    if blend == "multiply":
        return np.asarray(base * colour, np.float32)
    if blend == "overlay":
        dark, light = 2 * base * colour, 1 - 2 * (1 - base) * (1 - colour)
        return np.asarray(np.where(base < 0.5, dark, light), np.float32)
    if blend == "relief":  # light from the upper left: bright and dark edges, the face hardly changed
        soft = cv2.GaussianBlur(cover, (0, 0), 1.2)
        slope = (cv2.Sobel(soft, cv2.CV_32F, 1, 0) + cv2.Sobel(soft, cv2.CV_32F, 0, 1))[..., None]
        return np.asarray(np.clip(base * 0.85 + colour * 0.15 + slope, 0, 1), np.float32)
    return colour


def _layer(rng: np.random.Generator, mark: Mark, cover: Coverage) -> tuple[npt.NDArray[np.float32], Coverage]:
    """(colour H x W x 3, opacity H x W) of a mark's coverage with its outline and shadow."""
    thick = max(1, round(0.0035 * min(cover.shape) * float(rng.uniform(0.6, 1.6))))
    colour = np.broadcast_to(np.array(mark.colour, np.float32), (*cover.shape, 3))
    matte = cover
    if mark.hollow and mark.kind not in ("net", "band"):
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * thick + 1, 2 * thick + 1))
        matte = np.maximum(cv2.dilate(cover, kernel) - cover, 0)
    elif mark.edge is not None:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * thick + 1, 2 * thick + 1))
        wide = np.asarray(cv2.dilate(cover, kernel), np.float32)
        colour = cover[..., None] * colour + (1 - cover[..., None]) * np.array(mark.edge, np.float32)
        matte = wide
    if mark.shadow and mark.kind != "net":
        shift = np.array([[1, 0, 2 * thick], [0, 1, 2 * thick]], np.float32)
        moved = cv2.warpAffine(matte, shift, matte.shape[::-1])
        cast = 0.6 * cv2.GaussianBlur(moved, (0, 0), float(rng.uniform(0.5, 2.0)) * thick)
        over = np.asarray(matte + cast * (1 - matte), np.float32)
        colour = np.asarray(colour * (matte / np.maximum(over, 1e-6))[..., None], np.float32)
        matte = over
    if rng.random() < 0.08:  # fades along one direction
        ramp = np.linspace(0.5, 1, cover.shape[1], dtype=np.float32)[None]
        matte = matte * (ramp if rng.random() < 0.5 else ramp[:, ::-1])
    return np.asarray(colour, np.float32), np.asarray(matte * np.float32(mark.alpha), np.float32)
