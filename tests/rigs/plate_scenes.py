"""Number plates on photographs, drawn by other code than training's: set by Pillow in one piece, supersampled."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from cleanplate.models.types import Image

Colour = tuple[int, int, int]
# name: (width over height, lines, ground, ink, colour of a strip at the left)
FORMS: dict[str, tuple[float, tuple[str, ...], Colour, Colour, Colour | None]] = {
    "korea": (4.6, ("{d}{d}{d} {l} {d}{d}{d}{d}",), (250, 250, 250), (15, 15, 15), (30, 60, 150)),
    "norway": (4.7, ("{L}{L} {d}{d}{d}{d}{d}",), (245, 245, 245), (20, 20, 20), (20, 50, 160)),
    "israel": (4.6, ("{d}{d}-{d}{d}{d}-{d}{d}",), (250, 200, 20), (10, 10, 10), (20, 60, 160)),
    "colombia": (2.06, ("{L}{L}{L} {d}{d}{d}",), (250, 205, 30), (10, 10, 10), None),
    "south africa": (4.4, ("{L}{L} {d}{d} {L}{L} GP",), (240, 240, 240), (20, 80, 50), None),
    "swiss rear": (1.6, ("{L}{L}", "{d}{d}{d} {d}{d}{d}"), (245, 245, 245), (15, 15, 15), None),
    "indonesia": (3.1, ("{L} {d}{d}{d}{d} {L}{L}{L}",), (20, 20, 22), (245, 245, 245), None),
    "argentina, old": (3.1, ("{L}{L}{L} {d}{d}{d}",), (15, 15, 20), (240, 240, 240), None),
    "moto": (1.25, ("{L}{L}{L}", "{d}{d} {L}"), (240, 240, 235), (25, 25, 30), None),
}
LOOKS = ("plain", "slanted", "blurred", "night")


def drawn(form: str, rng: np.random.Generator, font: str | None, height: int = 220) -> Image:
    """HWC uint8 RGB: a plate of this form seen straight on."""
    aspect, lines, ground, ink, strip = FORMS[form]
    width = round(height * aspect)
    picture = PilImage.new("RGB", (width, height), ground)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((4, 4, width - 5, height - 5), outline=ink, width=6)
    left = 0
    if strip is not None:
        left = round(0.09 * width)
        pen.rectangle((0, 0, left, height), fill=strip)
    signs: dict[str, Any] = {"d": _Any("0123456789", rng), "L": _Any("ABCDEHKLMNPRSTXYZ", rng)}
    signs["l"] = signs["L"]
    room = height / len(lines)
    for number, line in enumerate(lines):
        text = "".join(str(signs[part[1]]) if part[:1] == "{" else part for part in _parts(line))
        size = round(room * 0.85)
        while True:
            face = ImageFont.truetype(font, size) if font else ImageFont.load_default(size)
            x0, y0, x1, y1 = pen.textbbox((0, 0), text, font=face)
            if x1 - x0 <= 0.9 * (width - left):
                break
            size = round(size * 0.92)
        where = (left + (width - left - (x1 - x0)) / 2 - x0, room * (number + 0.5) - (y0 + y1) / 2)
        pen.text(where, text, fill=ink, font=face, stroke_width=2, stroke_fill=ink)
    return np.asarray(picture)


class _Any:
    """Prints as another of its letters each time."""

    def __init__(self, letters: str, rng: np.random.Generator) -> None:
        self.letters, self.rng = letters, rng

    def __str__(self) -> str:
        return self.letters[int(self.rng.integers(len(self.letters)))]


def _parts(line: str) -> list[str]:
    out, at = [], 0
    while at < len(line):
        step = 3 if line[at] == "{" else 1
        out.append(line[at : at + step])
        at += step
    return out


def scene(
    photo: Image,
    rng: np.random.Generator,
    form: str,
    look: str,
    height: float,
    middle: tuple[float, float],
    font: str | None = None,
) -> tuple[Image, np.ndarray[Any, Any]]:
    """(the photograph with one plate so many pixels high about a point, HW bool of the plate)."""
    plate = drawn(form, rng, font)
    aspect = plate.shape[1] / plate.shape[0]
    corners = np.array([[-aspect, -1], [aspect, -1], [aspect, 1], [-aspect, 1]]) * height / 2
    turn = np.deg2rad(rng.normal(0, 3))
    if look == "slanted":
        corners[:, 0] *= rng.uniform(0.6, 0.9)
        corners[:, 1] *= 1 + rng.uniform(-0.22, 0.22) * np.sign(corners[:, 0])
        turn = np.deg2rad(rng.uniform(8, 25) * rng.choice([-1, 1]))
    cos, sin = np.cos(turn), np.sin(turn)
    quad = (corners @ np.array([[cos, sin], [-sin, cos]]) + middle).astype(np.float32)
    low = np.maximum(np.floor(quad.min(0)).astype(int) - 8, 0)
    high = np.minimum(np.ceil(quad.max(0)).astype(int) + 8, [photo.shape[1], photo.shape[0]])
    times = 4
    source = np.array(
        [[0, 0], [plate.shape[1], 0], [plate.shape[1], plate.shape[0]], [0, plate.shape[0]]], np.float32
    )
    matrix = cv2.getPerspectiveTransform(source, (quad - low).astype(np.float32) * times)
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    big = (size[0] * times, size[1] * times)
    small = max(1.0, plate.shape[0] / (height * times))
    blurred = cv2.GaussianBlur(plate, (0, 0), 0.5 * small) if small > 1 else plate
    laid, cover = (
        cv2.resize(cv2.warpPerspective(part, matrix, big), size, interpolation=cv2.INTER_AREA).astype(
            np.float32
        )
        for part in (blurred, np.full((*plate.shape[:2], 3), 255, np.uint8))
    )
    cover /= 255
    cut = np.s_[low[1] : high[1], low[0] : high[0]]
    light = np.clip(0.3 + photo[cut].mean() / 160, 0.35, 1.05)
    both = [laid * (light if look != "night" else max(light, 0.8)), cover]
    if look == "blurred":
        both = [_soft(part, height, rng) for part in both]
    out = photo.astype(np.float32)
    if look == "night":
        out *= 0.35
    out[cut] = out[cut] * (1 - both[1]) + both[0]
    out = cv2.GaussianBlur(out, (0, 0), 0.5) + rng.normal(0, 3, out.shape)
    _, data = cv2.imencode(
        ".jpg", np.clip(out[..., ::-1], 0, 255), [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 95))]
    )
    truth = np.zeros(photo.shape[:2], np.bool_)
    truth[cut] = cover[..., 0] > 0.5
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]), truth


def _soft(part: np.ndarray[Any, Any], height: float, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Out of focus, or moved by up to a quarter of the plate's height."""
    seed = int(height * 1000)
    choice = np.random.default_rng(seed)
    if choice.random() < 0.5:
        return np.asarray(cv2.GaussianBlur(part, (0, 0), height * choice.uniform(0.05, 0.1)))
    length = max(2, round(height * choice.uniform(0.12, 0.25)))
    return np.asarray(cv2.blur(part, (length, 1)))
