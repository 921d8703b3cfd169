"""A number plate seen straight on: ground, band, border, letters, and what is stuck, screwed and thrown on it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.training.marks import glyphs
from cleanplate.models.training.marks.fonts import Face, Fonts
from cleanplate.models.training.plates.layouts import SCRIPTS, Layout, written

Paint = npt.NDArray[np.float32]
"""HW3 float32 RGB, 0 to 255."""
_DRAWN = 1.35
"""A font's size over the height of its capitals, about."""


@dataclass(frozen=True)
class Plate:
    """paint: HW3 float32 RGB. cover: HW float32 in [0, 1], less where corners are round. text: what stands on it."""

    paint: Paint
    cover: npt.NDArray[np.float32]
    text: str


def draw(rng: np.random.Generator, layout: Layout, fonts: Fonts, height: int) -> Plate:
    """A plate of this layout, `height` pixels high, its text drawn by the layout's patterns."""
    width = max(8, round(height * float(rng.uniform(*layout.aspect))))
    ground, ink = (
        np.array(colour, np.float32) for colour in layout.colours[int(rng.integers(len(layout.colours)))]
    )
    ground = np.clip(ground + rng.normal(0, 8, 3), 0, 255).astype(np.float32)
    paint = np.empty((height, width, 3), np.float32)
    paint[:] = ground
    if layout.header and rng.random() < 0.5:
        _shaded(rng, paint)
    free = _band(rng, paint, layout)
    _border(rng, paint, ink)
    free = _words(rng, paint, layout, fonts, ink, free)
    text = _letters(rng, paint, layout, fonts, ink, free)
    _fixed(rng, paint)
    _soiled(rng, paint)
    return Plate(paint, _rounded(rng, height, width), text)


Free = tuple[int, int, int, int]
"""x0, y0, x1, y1: where letters may stand."""


def _shaded(rng: np.random.Generator, paint: Paint) -> None:
    """A second colour from above or below, as on plates with pictures."""
    other = rng.uniform(60, 255, 3)
    height = paint.shape[0]
    share = np.clip(np.linspace(rng.uniform(0.3, 1), rng.uniform(-1.5, 0), height), 0, 1)
    if rng.random() < 0.5:
        share = share[::-1]
    paint += (other - paint) * share[:, None, None].astype(np.float32)


def _band(rng: np.random.Generator, paint: Paint, layout: Layout) -> Free:
    height, width = paint.shape[:2]
    free = (0, 0, width, height)
    if not layout.band or rng.random() > layout.band_chance:
        return free
    colour = layout.band_colours[int(rng.integers(len(layout.band_colours)))]
    if layout.band == "top":
        high = max(1, round(height * rng.uniform(0.2, 0.28)))
        paint[:high] = colour
        return (0, high, width, height)
    wide = max(1, round(min(0.5 * height, 0.14 * width) * rng.uniform(0.8, 1.15)))
    strip = paint[:, :wide] if layout.band == "left" else paint[:, width - wide :]
    strip[:] = colour
    mark = (255, 255, 255) if sum(colour) < 450 else (20, 20, 20)
    if wide > 5:
        cv2.circle(
            strip, (wide // 2, round(0.35 * height)), max(1, wide // 4), (240, 210, 40), 1, cv2.LINE_AA
        )
        cv2.rectangle(
            strip, (wide // 3, round(0.68 * height)), (2 * wide // 3, round(0.85 * height)), mark, -1
        )
    return (wide, 0, width, height) if layout.band == "left" else (0, 0, width - wide, height)


def _border(rng: np.random.Generator, paint: Paint, ink: npt.NDArray[np.float32]) -> None:
    if rng.random() < 0.4:
        return
    height, width = paint.shape[:2]
    inset, thick = round(height * rng.uniform(0, 0.05)), max(1, round(height * rng.uniform(0.012, 0.04)))
    colour = (ink if rng.random() < 0.8 else rng.uniform(0, 255, 3)).tolist()
    cv2.rectangle(paint, (inset, inset), (width - 1 - inset, height - 1 - inset), colour, thick, cv2.LINE_AA)


def _words(
    rng: np.random.Generator,
    paint: Paint,
    layout: Layout,
    fonts: Fonts,
    ink: npt.NDArray[np.float32],
    free: Free,
) -> Free:
    """Header and footer, a state's name and its slogan; gives what is left between them."""
    x0, y0, x1, y1 = free
    height = paint.shape[0]
    colour = ink if rng.random() < 0.5 else rng.uniform(0, 200, 3).astype(np.float32)
    if layout.header:
        high = round(height * rng.uniform(0.13, 0.2))
        words = layout.header[int(rng.integers(len(layout.header)))]
        _set(rng, paint, words, fonts, colour, ((x0 + x1) / 2, y0 + height * 0.15), high, 0.8 * (x1 - x0))
        y0 += round(height * 0.22)
    footer = layout.footer[int(rng.integers(len(layout.footer)))] if layout.footer else ""
    if footer:
        high = round(height * rng.uniform(0.08, 0.13))
        _set(rng, paint, footer, fonts, colour, ((x0 + x1) / 2, y1 - height * 0.11), high, 0.8 * (x1 - x0))
        y1 -= round(height * 0.15)
    return x0, y0, x1, y1


def _letters(
    rng: np.random.Generator,
    paint: Paint,
    layout: Layout,
    fonts: Fonts,
    ink: npt.NDArray[np.float32],
    free: Free,
) -> str:
    x0, y0, x1, y1 = free
    height = paint.shape[0]
    face = str(fonts.draw(rng, "latin").path)
    middle = height * float(rng.uniform(0.03, 0.07))
    total = sum(layout.heights) * height + middle * (len(layout.lines) - 1)
    y = (y0 + y1) / 2 - min(total, y1 - y0) / 2
    texts = []
    for patterns, share in zip(layout.lines, layout.heights, strict=True):
        text = written(rng, patterns[int(rng.integers(len(patterns)))], layout.script)
        high = min(share * height, 0.9 * (y1 - y0)) * float(rng.uniform(0.9, 1.05))
        room = (x1 - x0) * float(rng.uniform(0.86, 0.96))
        _row(rng, paint, text, fonts, face, ink, ((x0 + x1) / 2, y + high / 2), high, room)
        y += high + middle
        texts.append(text)
    return " ".join(texts)


def _row(
    rng: np.random.Generator,
    paint: Paint,
    text: str,
    fonts: Fonts,
    face: str,
    ink: npt.NDArray[np.float32],
    middle: tuple[float, float],
    high: float,
    room: float,
) -> None:
    """Letters of one height at an even pitch, as plates have them, squeezed where they need more than there is."""
    size = max(8, round(high))
    shapes = [_glyph(rng, fonts, face, sign, size) for sign in text]
    gap = size * float(rng.uniform(0.08, 0.2))
    blank = size * float(rng.uniform(0.25, 0.5))
    stretch = float(rng.uniform(0.75, 1.05))
    widths = [blank if shape is None else max(1.0, shape.shape[1] * stretch) for shape in shapes]
    total = sum(widths) + gap * (len(widths) - 1)
    squeeze = min(1.0, room / total)
    if squeeze > 0.8 and rng.random() < 0.4:  # as wide as there is room for
        squeeze = min(1.25, room / total)
    x = middle[0] - total * squeeze / 2
    colour = ink + rng.normal(0, 6)
    for shape, width in zip(shapes, widths, strict=True):
        if shape is not None:
            to = (max(1, round(width * squeeze)), max(1, round(shape.shape[0] * high / size)))
            small = np.asarray(cv2.resize(shape, to, interpolation=cv2.INTER_AREA), np.float32)
            _laid(paint, small, round(x), round(middle[1] - to[1] / 2), colour)
        x += (width + gap) * squeeze


def _glyph(
    rng: np.random.Generator, fonts: Fonts, face: str, sign: str, size: int
) -> npt.NDArray[np.float32] | None:
    """The sign's coverage, capitals `size` high; a bar or a dot low beside them. None for a blank."""
    if sign == " ":
        return None
    if sign in "-·・":
        shape = np.zeros((size, max(2, size // (3 if sign == "-" else 5))), np.float32)
        shape[size // 2 - max(1, size // 14) : size // 2 + max(1, size // 14)] = 1
        return shape
    script = next((name for name, letters in SCRIPTS.items() if sign in letters), "")
    script = "han" if script == "place" else script
    if script and script not in fonts.of_script:
        return glyphs.trimmed(
            (rng.random((size, size)) < 0.4).astype(np.float32)
        )  # strokes in no letter's order
    path = fonts.draw(rng, script).path if script else face
    found = glyphs.set_line(Face(path, ()), sign, size)
    wide = max(1, round(found.shape[1] * size / max(1, found.shape[0])))
    wide = min(wide, size) if not script else wide
    return np.asarray(cv2.resize(found, (wide, size), interpolation=cv2.INTER_LINEAR), np.float32)


def _set(
    rng: np.random.Generator,
    paint: Paint,
    words: str,
    fonts: Fonts,
    colour: npt.NDArray[np.float32],
    middle: tuple[float, float],
    high: int,
    room: float,
) -> None:
    """Small words, as a font sets them."""
    if high < 3:
        return
    latin = words.isascii() or "thai" not in fonts.of_script
    line = glyphs.set_line(fonts.draw(rng, "latin" if latin else "thai"), words, max(8, high))
    factor = min(high / line.shape[0], room / line.shape[1])
    to = (max(1, round(line.shape[1] * factor)), max(1, round(line.shape[0] * factor)))
    small = np.asarray(cv2.resize(line, to, interpolation=cv2.INTER_AREA), np.float32)
    _laid(paint, small, round(middle[0] - to[0] / 2), round(middle[1] - to[1] / 2), colour)


def _laid(
    paint: Paint, shape: npt.NDArray[np.float32], x: int, y: int, colour: npt.NDArray[np.float32]
) -> None:
    """Colour where the shape covers, cut to the plate."""
    height, width = paint.shape[:2]
    x0, y0 = max(0, x), max(0, y)
    x1, y1 = min(width, x + shape.shape[1]), min(height, y + shape.shape[0])
    if x1 <= x0 or y1 <= y0:
        return
    part = paint[y0:y1, x0:x1]
    part += (colour - part) * shape[y0 - y : y1 - y, x0 - x : x1 - x, None]


def _fixed(rng: np.random.Generator, paint: Paint) -> None:
    """Screws and stickers."""
    height, width = paint.shape[:2]
    if rng.random() < 0.4:
        radius = max(1, round(height * rng.uniform(0.02, 0.05)))
        tone = [float(rng.uniform(30, 220))] * 3
        x, y = width * rng.uniform(0.08, 0.25), height * rng.uniform(0.08, 0.5)
        for one in (x, width - x):
            cv2.circle(paint, (round(one), round(y)), radius, tone, -1, cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 3)) if rng.random() < 0.35 else 0):
        radius = max(1, round(height * rng.uniform(0.05, 0.12)))
        where = (round(width * rng.uniform(0.1, 0.9)), round(height * rng.uniform(0.1, 0.9)))
        colour = rng.uniform(0, 255, 3).tolist()
        if rng.random() < 0.5:
            cv2.circle(paint, where, radius, colour, -1, cv2.LINE_AA)
        else:
            cv2.rectangle(paint, where, (where[0] + radius, where[1] + radius), colour, -1)


def _soiled(rng: np.random.Generator, paint: Paint) -> None:
    """Dirt in patches, and light that falls unevenly."""
    height, width = paint.shape[:2]
    if rng.random() < 0.3:
        coarse = rng.random((3, 7)).astype(np.float32)
        patches = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        share = np.clip((patches - rng.uniform(0.4, 0.8)) * 3, 0, rng.uniform(0.2, 0.75))
        paint += (rng.uniform(40, 130) * np.array([1, 0.9, 0.75], np.float32) - paint) * share[..., None]
    if rng.random() < 0.4:
        ends = rng.uniform(0.55, 1.15, 2)
        paint *= np.linspace(ends[0], ends[1], width, dtype=np.float32)[None, :, None]
    if rng.random() < 0.12:  # the edge of a shadow
        x = np.arange(width)[None, :] + rng.uniform(-2, 2) * np.arange(height)[:, None]
        paint *= np.where(x > rng.uniform(0.2, 0.8) * width, np.float32(rng.uniform(0.35, 0.7)), 1)[..., None]


def _rounded(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    cover = np.ones((height, width), np.float32)
    radius = round(height * rng.uniform(0, 0.14))
    if radius > 1:
        disc = np.zeros((2 * radius, 2 * radius), np.float32)
        cv2.circle(disc, (radius, radius), radius, 1.0, -1, cv2.LINE_AA)
        for y in (0, 1):
            for x in (0, 1):
                rows = slice(height - radius, height) if y else slice(0, radius)
                columns = slice(width - radius, width) if x else slice(0, radius)
                cover[rows, columns] = disc[y * radius : (y + 1) * radius, x * radius : (x + 1) * radius]
    return cover
