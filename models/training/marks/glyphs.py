"""Shapes that marks are made of: lines of text in any font that is there, and logos drawn from nothing.

A shape is its coverage: HW float32 in [0, 1], cropped to what it covers. Everything is drawn from a numpy
Generator: the same state and the same fonts give the same pixels.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageDraw

from cleanplate.models.training.marks.fonts import LETTERS, Face, Fonts, font_of
from cleanplate.models.training.marks.phrases import phrase

Coverage = npt.NDArray[np.float32]


def text(rng: np.random.Generator, fonts: Fonts, height: int, script: str | None = None) -> Coverage:
    """A line whose capital letters are about `height` pixels high, at most 4000 pixels wide."""
    if script is None:
        others = [name for name in fonts.of_script if name not in ("latin", "icons")]
        latin = "latin" in fonts.of_script and (not others or rng.random() < 0.8)
        script = "latin" if latin or not others else str(rng.choice(others))
    face = fonts.draw(rng, script)
    line = phrase(rng, script, most=max(4, 4000 // max(height, 1)))
    spread = int(rng.integers(1, 1 + max(1, height // 3))) if rng.random() < 0.12 else 0
    return set_line(face, line, height, spread)


def set_line(face: Face, text: str, height: int, spread: int = 0) -> Coverage:
    """The words in one face; spread: extra pixels between the letters. One pixel when nothing is drawn."""
    if face.path.startswith("hershey:"):
        return _hershey(int(face.path[8:]), text, height)
    font = font_of(face.path, max(6, round(height * 1.35)))
    if not spread:
        left, top, right, bottom = font.getbbox(text)
        size = (max(1, math.ceil(right - left) + 2), max(1, math.ceil(bottom - top) + 2))
        canvas = PillowImage.new("L", size)
        ImageDraw.Draw(canvas).text((1 - left, 1 - top), text, fill=255, font=font)
        return trimmed(_share(canvas))
    width = round(sum(font.getlength(letter) + spread for letter in text)) + 2
    canvas = PillowImage.new("L", (max(1, width), height * 3))
    pen, x = ImageDraw.Draw(canvas), 1.0
    for letter in text:
        pen.text((x, height * 0.5), letter, fill=255, font=font)
        x += font.getlength(letter) + spread
    return trimmed(_share(canvas))


def _hershey(number: int, text: str, height: int) -> Coverage:
    plain = text.encode("ascii", "replace").decode()
    scale, thick = height / 22, max(1, round(height / 9))
    (width, high), below = cv2.getTextSize(plain, number, scale, thick)
    canvas = np.zeros((high + below + 2 * thick, width + 2 * thick), np.uint8)
    cv2.putText(canvas, plain, (thick, high + thick), number, scale, 255, thick, cv2.LINE_AA)
    return trimmed(_share(canvas))


def _share(drawn: npt.ArrayLike | PillowImage.Image) -> Coverage:
    """Levels 0-255 -> [0, 1]."""
    return np.asarray(np.asarray(drawn, np.float32) / np.float32(255), np.float32)


def trimmed(coverage: Coverage) -> Coverage:
    """Without empty rows and columns at the border; one pixel of nothing when all is empty."""
    rows, columns = np.flatnonzero(coverage.max(1)), np.flatnonzero(coverage.max(0))
    if not rows.size:
        return np.zeros((1, 1), np.float32)
    return np.ascontiguousarray(coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def logo(rng: np.random.Generator, fonts: Fonts, size: int) -> Coverage:
    """A symbol about `size` pixels high: an icon of a font, or one to four shapes laid over and cut out."""
    if "icons" in fonts.of_script and rng.random() < 0.35:
        return _sized(text(rng, fonts, max(8, size), "icons"), size)
    side = max(8, size)
    big = 2 * side  # drawn twice as large, then averaged down
    canvas = np.zeros((big, big), np.uint8)
    for number in range(int(rng.integers(1, 5))):
        shape = np.zeros_like(canvas)
        _shape(rng, shape, big)
        # What comes after the first is laid on, or cut out of what is there.
        canvas = np.where(shape > 0, 0 if number and rng.random() < 0.45 else 255, canvas).astype(np.uint8)
    if rng.random() < 0.35:
        _monogram(rng, fonts, canvas)
    if canvas.mean() < 6:
        cv2.circle(canvas, (side, side), side - 2, 255, max(2, side // 8), cv2.LINE_AA)
    return trimmed(_share(cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)))


def _sized(coverage: Coverage, height: int) -> Coverage:
    high, wide = coverage.shape
    size = (max(1, round(wide * height / high)), max(1, height))
    return np.asarray(cv2.resize(coverage, size, interpolation=cv2.INTER_AREA), np.float32)


def _shape(rng: np.random.Generator, canvas: npt.NDArray[np.uint8], big: int) -> None:
    """One white figure on the canvas: a disc, ring, polygon, star, arc, bar, wave or rounded box."""
    centre = rng.uniform(0.3, 0.7, 2) * big if rng.random() < 0.5 else np.array([big / 2, big / 2])
    radius = rng.uniform(0.2, 0.48) * big
    thick = int(rng.uniform(0.03, 0.12) * big) + 1
    x, y = (int(v) for v in centre)
    kind = int(rng.integers(8))
    if kind == 0:
        cv2.circle(canvas, (x, y), int(radius), 255, -1, cv2.LINE_AA)
    elif kind == 1:
        cv2.circle(canvas, (x, y), int(radius), 255, thick, cv2.LINE_AA)
    elif kind in (2, 3):
        count, turn = int(rng.integers(3, 9)), rng.uniform(0, 2 * math.pi)
        angles = turn + np.arange(count * (kind - 1)) * 2 * math.pi / (count * (kind - 1))
        reach = np.where(
            np.arange(len(angles)) % 2 == 0, radius, radius * (1 if kind == 2 else rng.uniform(0.3, 0.6))
        )
        points = np.stack([x + reach * np.cos(angles), y + reach * np.sin(angles)], 1).astype(np.int32)
        if rng.random() < 0.6:
            cv2.fillPoly(canvas, [points], 255, cv2.LINE_AA)
        else:
            cv2.polylines(canvas, [points], True, 255, thick, cv2.LINE_AA)
    elif kind == 4:
        axes = (int(radius), int(radius * rng.uniform(0.4, 1)))
        start, sweep = rng.uniform(0, 360), rng.uniform(60, 300)
        cv2.ellipse(canvas, (x, y), axes, rng.uniform(0, 180), start, start + sweep, 255, thick, cv2.LINE_AA)
    elif kind == 5:
        ends = (centre + rng.uniform(-1, 1, (2, 2)) * radius).astype(int)
        cv2.line(canvas, tuple(ends[0].tolist()), tuple(ends[1].tolist()), 255, thick, cv2.LINE_AA)
    elif kind == 6:
        along = np.linspace(-1, 1, 40)
        wave = np.sin(along * rng.uniform(2, 6) + rng.uniform(0, 6)) * radius * rng.uniform(0.2, 0.6)
        points = np.stack([x + along * radius, y + wave], 1).astype(np.int32)
        cv2.polylines(canvas, [points], False, 255, thick, cv2.LINE_AA)
    else:
        half = radius * rng.uniform(0.5, 1, 2)
        low, high = (centre - half).astype(int).tolist(), (centre + half).astype(int).tolist()
        cv2.rectangle(canvas, tuple(low), tuple(high), 255, -1 if rng.random() < 0.4 else thick, cv2.LINE_AA)


def _monogram(rng: np.random.Generator, fonts: Fonts, canvas: npt.NDArray[np.uint8]) -> None:
    """One to three letters in the middle, cut out where the figure is full."""
    if "latin" not in fonts.of_script:
        return
    letters = "".join(rng.choice(list(LETTERS["latin"][:22]), size=int(rng.integers(1, 4))))
    big = canvas.shape[0]
    drawn = set_line(fonts.draw(rng, "latin"), letters, int(big * rng.uniform(0.25, 0.5)))
    drawn = drawn[:big, :big]
    y, x = (big - drawn.shape[0]) // 2, (big - drawn.shape[1]) // 2
    part = canvas[y : y + drawn.shape[0], x : x + drawn.shape[1]]
    part[drawn > 0.5] = 0 if part.mean() > 110 else 255
