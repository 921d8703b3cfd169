"""Plates hung into photographs: slanted, in the light of their place, blurred, at night, compressed; and what is like a
plate and is none."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.training.marks import glyphs, phrases
from cleanplate.models.training.marks.fonts import Fonts
from cleanplate.models.training.plates.draw import draw
from cleanplate.models.training.plates.layouts import Layout
from cleanplate.models.types import Image

Quad = npt.NDArray[np.float32]
"""4 x 2: x, y of the upper left, upper right, lower right, lower left corner of a thing as it is read, pixel edges."""
Picture = npt.NDArray[np.float32]
"""HW3 float32 RGB, 0 to 255."""


@dataclass(frozen=True)
class Pose:
    """Where a plate hangs. middle: x, y. height: pixels along its shorter side. angle: degrees. lean: how far corners
    are moved, as a share of the height; more along the plate than across."""

    middle: tuple[float, float]
    height: float
    angle: float
    lean: float


def pose(rng: np.random.Generator, middle: tuple[float, float], height: float) -> Pose:
    """Level within some degrees mostly; one in six turned by up to 35."""
    angle = rng.normal(0, 5) if rng.random() < 0.83 else rng.uniform(-35, 35)
    return Pose(middle, height, float(angle), float(rng.uniform(0, 0.22)))


def hung(rng: np.random.Generator, picture: Picture, fonts: Fonts, layout: Layout, where: Pose) -> Quad:
    """Hang a plate of this layout into the picture, which is changed; gives its corners.

    Light: as bright as the place is, more at night, when plates throw light back. Its edges are as soft as its blur.
    """
    plate = draw(rng, layout, fonts, int(np.clip(round(1.5 * where.height), 16, 160)))
    quad = _corners(rng, plate.cover.shape, where)
    paint = plate.paint
    around = _around(picture, quad)
    light = float(np.clip(0.25 + around / 140 * rng.uniform(0.7, 1.3), 0.22, 1.15))
    if around < 60 and rng.random() < 0.5:
        light = float(rng.uniform(0.6, 1.3))
    tint = 1 + rng.normal(0, 0.04, 3)
    veil = float(rng.uniform(0, 30))
    paint = paint * (np.float32(light) * tint.astype(np.float32)) + np.float32(veil)
    if rng.random() < 0.35:
        _framed(rng, picture, quad)
    _warped(rng, picture, paint, plate.cover, quad, where.height)
    return quad


def _corners(rng: np.random.Generator, shape: tuple[int, ...], where: Pose) -> Quad:
    high, wide = shape
    half = np.array([wide / high, 1.0]) * where.height / 2
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    # Seen from one side: foreshortened, that side taller, and sheared.
    corners[:, 0] *= 1 - abs(rng.normal(0, 1)) * where.lean
    corners[:, 1] *= 1 + rng.normal(0, 0.6) * where.lean * corners[:, 0] / half[0]
    corners[:, 1] += rng.normal(0, 0.25) * where.lean * corners[:, 0]
    corners += rng.normal(0, 0.15, (4, 2)) * where.lean * where.height
    angle = np.deg2rad(where.angle)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray(corners @ turn + where.middle, np.float32)


def _around(picture: Picture, quad: Quad) -> float:
    """Mean brightness about the quad, 0 to 255."""
    x0, y0, x1, y1 = _box(quad, picture.shape, 8)
    return float(picture[y0:y1, x0:x1].mean()) if x1 > x0 and y1 > y0 else 128.0


def _box(quad: Quad, shape: tuple[int, ...], rim: int) -> tuple[int, int, int, int]:
    """Whole pixels about a quad, cut to the picture."""
    low, high = np.floor(quad.min(0)).astype(int) - rim, np.ceil(quad.max(0)).astype(int) + rim
    return max(0, int(low[0])), max(0, int(low[1])), min(shape[1], int(high[0])), min(shape[0], int(high[1]))


def _framed(rng: np.random.Generator, picture: Picture, quad: Quad) -> None:
    """A holder or a recess: a rim in one tone, wider below where a dealer's name would be."""
    middle = quad.mean(0)
    rim = quad + (quad - middle) * np.array([rng.uniform(0.02, 0.06), rng.uniform(0.08, 0.3)])
    rim[2:] += (quad[3] - quad[0]) * rng.uniform(0, 0.25)
    tone = [float(rng.uniform(5, 70) if rng.random() < 0.7 else rng.uniform(70, 230))] * 3
    cv2.fillConvexPoly(picture, np.round(rim * 16).astype(np.int32), tone, cv2.LINE_AA, 4)


def _warped(
    rng: np.random.Generator,
    picture: Picture,
    paint: Picture,
    cover: npt.NDArray[np.float32],
    quad: Quad,
    height: float,
) -> None:
    """Paint in perspective onto the quad, out of focus or moved."""
    rim = 6 + round(0.3 * height)
    x0, y0, x1, y1 = _box(quad, picture.shape, rim)
    if x1 <= x0 or y1 <= y0:
        return
    high, wide = cover.shape
    # A warp counts pixel centres.
    source = np.array([[0, 0], [wide, 0], [wide, high], [0, high]], np.float32) - np.float32(0.5)
    matrix = cv2.getPerspectiveTransform(source, (quad - np.array([x0, y0]) - 0.5).astype(np.float32))
    size = (x1 - x0, y1 - y0)
    # Multiplied by its cover before the warp, so that its edges do not take colour from beyond.
    both = np.dstack([paint * cover[..., None], cover])
    both = cv2.warpPerspective(both, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    both = _blurred(rng, np.asarray(both, np.float32), height)
    part = picture[y0:y1, x0:x1]
    part *= 1 - both[..., 3:]
    part += both[..., :3]


def _blurred(rng: np.random.Generator, pixels: Picture, height: float) -> Picture:
    sigma = 0.45 + (abs(rng.normal(0, 0.035)) + (rng.uniform(0, 0.08) if rng.random() < 0.2 else 0)) * height
    out = cv2.GaussianBlur(pixels, (0, 0), float(min(sigma, 5)))
    if rng.random() < 0.2:
        out = cv2.filter2D(out, -1, motion(rng, float(rng.uniform(0.1, 0.35)) * height))
    return np.asarray(out, np.float32)


def motion(rng: np.random.Generator, length: float) -> npt.NDArray[np.float32]:
    """A kernel of a straight path so many pixels long, mostly along the ground; sums to 1."""
    side = max(3, int(length) | 1)
    kernel = np.zeros((side, side), np.float32)
    angle = rng.normal(0, 0.25) if rng.random() < 0.7 else rng.uniform(0, np.pi)
    reach = np.array([np.cos(angle), np.sin(angle)]) * (side - 1) / 2
    middle = np.full(2, (side - 1) / 2)
    ends = np.round(np.stack([middle - reach, middle + reach]) * 16).astype(int).tolist()
    cv2.line(kernel, tuple(ends[0]), tuple(ends[1]), 1.0, 1, cv2.LINE_AA, 4)
    return kernel / np.float32(max(1e-6, float(kernel.sum())))


def decoy(rng: np.random.Generator, picture: Picture, fonts: Fonts, where: Pose) -> None:
    """Hang something into the picture that is no plate: a sign, a sticker, bars, a lamp, a window, bare lettering, an
    empty board."""
    kind = int(rng.integers(7))
    high = int(np.clip(round(1.5 * where.height), 16, 160))
    if kind in (0, 1, 2):
        paint, cover = _board(rng, fonts, high, bare=kind == 2)
    elif kind == 3:
        paint, cover = _bars(rng, high)
    elif kind == 4:
        paint, cover = _lamp(rng, high)
    elif kind == 5:
        paint, cover = _panes(rng, high)
    else:
        wide = round(high * rng.uniform(1.2, 5))
        paint = np.empty((high, wide, 3), np.float32)
        paint[:] = rng.uniform(0, 255, 3)
        cover = np.ones((high, wide), np.float32)
        if rng.random() < 0.5:
            cv2.rectangle(
                paint, (1, 1), (wide - 2, high - 2), rng.uniform(0, 255, 3).tolist(), max(1, high // 24)
            )
    quad = _corners(rng, cover.shape, where)
    light = float(np.clip(0.25 + _around(picture, quad) / 140 * rng.uniform(0.7, 1.3), 0.22, 1.15))
    _warped(rng, picture, np.asarray(paint * np.float32(light), np.float32), cover, quad, where.height)


def _board(
    rng: np.random.Generator, fonts: Fonts, high: int, bare: bool
) -> tuple[Picture, npt.NDArray[np.float32]]:
    """Words on a board, or bare: lettering alone. Small letters, several lines, a word too long or too small for its
    board: no plate looks so. Words of capitals that fill their board are left out, for they may be one."""
    ink, ground = rng.uniform(0, 255, 3), rng.uniform(0, 255, 3)
    if abs(float(ink.mean() - ground.mean())) < 60:
        ink = 255 - ground
    lines = []
    count = 1 if bare else int(rng.integers(1, 5))
    for _ in range(count):
        size = max(6, round(high / count * rng.uniform(0.3, 0.6 if count == 1 and not bare else 0.8)))
        words = phrases.phrase(rng, "latin", 24)
        if rng.random() < 0.6:
            words = words.lower().capitalize()
        lines.append(glyphs.set_line(fonts.draw(rng, "latin"), words, size))
    wide = max(line.shape[1] for line in lines) + 2 * max(2, high // 8)
    shape = np.zeros((high, wide), np.float32)
    for number, line in enumerate(lines):
        y = round((number + 0.5) * high / count - line.shape[0] / 2)
        x = (wide - line.shape[1]) // 2
        line = line[: high - max(0, y)]
        shape[max(0, y) : max(0, y) + line.shape[0], x : x + line.shape[1]] = line
    paint = ground + (ink - ground) * shape[..., None]
    return np.asarray(paint, np.float32), shape if bare else np.ones_like(shape)


def _bars(rng: np.random.Generator, high: int) -> tuple[Picture, npt.NDArray[np.float32]]:
    """A grille: bars along or across, on dark."""
    wide = round(high * rng.uniform(1.5, 5))
    along = np.arange(wide)[None, :] if rng.random() < 0.5 else np.arange(high)[:, None]
    period = high * rng.uniform(0.08, 0.4)
    bars = np.broadcast_to((along % period < period * rng.uniform(0.3, 0.7)), (high, wide)).astype(np.float32)
    dark, light = rng.uniform(0, 60, 3), rng.uniform(80, 255, 3)
    return np.asarray(dark + (light - dark) * bars[..., None], np.float32), np.ones((high, wide), np.float32)


def _lamp(rng: np.random.Generator, high: int) -> tuple[Picture, npt.NDArray[np.float32]]:
    wide = round(high * rng.uniform(1, 3))
    cover = np.zeros((high, wide), np.float32)
    cv2.ellipse(
        cover, (wide // 2, high // 2), (wide // 2 - 1, high // 2 - 1), 0, 0, 360, 1.0, -1, cv2.LINE_AA
    )
    glow = cv2.GaussianBlur(cover, (0, 0), high / 6)[..., None]
    colour = np.array([255, rng.uniform(40, 255), rng.uniform(20, 255)], np.float32)
    return np.asarray(colour * glow + 40, np.float32), cover


def _panes(rng: np.random.Generator, high: int) -> tuple[Picture, npt.NDArray[np.float32]]:
    """A row of windows or keys."""
    count, wide = int(rng.integers(2, 9)), round(high * rng.uniform(1.5, 5))
    paint = np.empty((high, wide, 3), np.float32)
    paint[:] = rng.uniform(60, 255, 3)
    tone = rng.uniform(0, 160, 3)
    step, inset = wide / count, high * rng.uniform(0.1, 0.3)
    for number in range(count):
        low = (round((number + 0.15) * step), round(inset))
        far = (round((number + 0.85) * step), round(high - inset))
        cv2.rectangle(paint, low, far, (tone + rng.normal(0, 12)).tolist(), -1)
    return paint, np.ones((high, wide), np.float32)


def finished(rng: np.random.Generator, picture: Picture) -> Image:
    """As a camera gives it: at night, noisy, without colour, enlarged, compressed; HWC uint8 RGB of the same size."""
    height, width = picture.shape[:2]
    kind = rng.random()
    if kind < 0.08:  # infrared
        grey = picture.mean(2, keepdims=True) * np.float32(rng.uniform(0.6, 1.1))
        picture = np.repeat(grey, 3, 2)
    elif kind < 0.18:  # night
        picture = np.float32(255) * (np.clip(picture, 0, 255) / np.float32(255)) ** np.float32(
            rng.uniform(1.3, 2.4)
        )
        picture = picture * (
            np.float32(rng.uniform(0.5, 1)) * (1 + rng.normal(0, 0.08, 3)).astype(np.float32)
        )
    if rng.random() < 0.12:
        picture = np.asarray(cv2.filter2D(picture, -1, motion(rng, float(rng.uniform(3, 9)))), np.float32)
    if rng.random() < 0.6:
        strength = float(rng.uniform(1, 9)) if rng.random() < 0.85 else float(rng.uniform(9, 22))
        picture = picture + rng.standard_normal(picture.shape, np.float32) * np.float32(strength)
    out = np.clip(picture, 0, 255).astype(np.uint8)
    factor = float(rng.uniform(0.35, 0.9)) if rng.random() < 0.4 else 1.0
    if factor < 1:  # seen from far, and enlarged
        small = (max(8, round(width * factor)), max(8, round(height * factor)))
        out = np.asarray(cv2.resize(out, small, interpolation=cv2.INTER_AREA), np.uint8)
    if rng.random() < 0.6:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 96))]
        out = np.asarray(cv2.imdecode(cv2.imencode(".jpg", out, quality)[1], cv2.IMREAD_COLOR), np.uint8)
    if factor < 1:
        out = np.asarray(cv2.resize(out, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    return np.ascontiguousarray(out)
