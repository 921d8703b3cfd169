"""The figure of a mark: which letters and symbols, how often, turned how, and where in the picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from cleanplate.models.training.marks import glyphs
from cleanplate.models.training.marks.fonts import Fonts
from cleanplate.models.training.marks.glyphs import Coverage

Kind = Literal["line", "stack", "large", "tiles", "net", "logo", "lockup", "stamp", "band"]
KINDS: dict[Kind, float] = {
    "line": 0.18,
    "stack": 0.08,
    "large": 0.16,
    "tiles": 0.11,
    "net": 0.06,
    "logo": 0.2,
    "lockup": 0.1,
    "stamp": 0.08,
    "band": 0.03,
}
"""line: of text; stack: lines under each other; large: across the picture; tiles: repeated; net: text on
crossing lines; logo: a symbol; lockup: symbol and words; stamp: text framed, or cut out of a plate; band: text
on a bar across the picture. With the chance of each in training."""
Blend = Literal["normal", "screen", "multiply", "overlay", "relief"]


@dataclass(frozen=True)
class Mark:
    """What is laid on. alpha: opacity [0, 1] of its opaque parts. size: of capital letters, or of the symbol,
    as a share of the picture's short side. angle: degrees. colour, edge: RGB [0, 1]; edge None for no outline.
    """

    kind: Kind
    alpha: float
    size: float
    angle: float
    colour: tuple[float, float, float]
    edge: tuple[float, float, float] | None
    hollow: bool
    shadow: bool
    blend: Blend


def figure(rng: np.random.Generator, mark: Mark, fonts: Fonts, height: int, width: int) -> Coverage:
    """HW coverage of the mark's figure in the picture; never empty."""
    pixels = max(7, round(mark.size * min(height, width)))
    if mark.kind == "net":
        return _net(rng, mark, fonts, pixels, height, width)
    if mark.kind == "tiles":
        piece = _symbol_or_text(rng, fonts, pixels)
        return _tiled(rng, piece, mark.angle, height, width)
    piece = _piece(rng, mark, fonts, pixels, width)
    if mark.kind == "large":
        wanted = min(height, width) * float(rng.uniform(0.6, 1.15))
        if piece.shape[1] > 1.4 * wanted:
            piece = resized(piece, wanted / piece.shape[1])
    elif max(piece.shape) > 0.95 * width and mark.kind != "band":
        piece = resized(piece, 0.95 * width / max(piece.shape))
    return placed(rng, turned(piece, mark.angle), mark.kind, height, width)


def _piece(rng: np.random.Generator, mark: Mark, fonts: Fonts, pixels: int, width: int) -> Coverage:
    """The figure of a mark that stands once."""
    if mark.kind == "logo":
        return glyphs.logo(rng, fonts, pixels)
    if mark.kind == "stack":
        lines = [
            glyphs.text(rng, fonts, max(7, round(pixels * s)))
            for s in rng.uniform(0.5, 1, rng.integers(2, 4))
        ]
        return stacked(lines, pixels // 2)
    line = glyphs.text(rng, fonts, pixels)
    if mark.kind == "lockup":
        symbol = glyphs.logo(rng, fonts, round(pixels * float(rng.uniform(1.2, 3))))
        return (
            beside(symbol, line, pixels // 2) if rng.random() < 0.6 else stacked([symbol, line], pixels // 2)
        )
    if mark.kind == "stamp":
        return framed(line, max(1, pixels // 8), pixels // 2, plate=bool(rng.random() < 0.4))
    if mark.kind == "band":
        bar = np.full((line.shape[0] + pixels, width), float(rng.uniform(0.35, 0.7)), np.float32)
        line = line[:, :width]
        x = int(rng.integers(0, width - line.shape[1] + 1))
        part = bar[pixels // 2 : pixels // 2 + line.shape[0], x : x + line.shape[1]]
        np.maximum(part, line, out=part)
        return bar
    return line


def _symbol_or_text(rng: np.random.Generator, fonts: Fonts, pixels: int) -> Coverage:
    chance = rng.random()
    if chance < 0.7:
        return glyphs.text(rng, fonts, pixels)
    symbol = glyphs.logo(rng, fonts, round(pixels * float(rng.uniform(1, 2))))
    return symbol if chance < 0.85 else beside(symbol, glyphs.text(rng, fonts, pixels), pixels // 2)


def resized(piece: Coverage, factor: float) -> Coverage:
    size = (max(1, round(piece.shape[1] * factor)), max(1, round(piece.shape[0] * factor)))
    return np.asarray(cv2.resize(piece, size, interpolation=cv2.INTER_AREA), np.float32)


def turned(piece: Coverage, angle: float) -> Coverage:
    """Rotated about its middle by degrees, on a canvas that holds it all."""
    if not angle:
        return piece
    height, width = piece.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
    wide, high = math.ceil(width * cos + height * sin), math.ceil(width * sin + height * cos)
    matrix[:, 2] += np.array([(wide - width) / 2, (high - height) / 2])
    return np.asarray(cv2.warpAffine(piece, matrix, (wide, high)), np.float32)


def stacked(pieces: list[Coverage], gap: int) -> Coverage:
    """Under each other, centred."""
    width = max(piece.shape[1] for piece in pieces)
    rows: list[Coverage] = []
    for piece in pieces:
        left = (width - piece.shape[1]) // 2
        rows.append(np.pad(piece, ((0, gap), (left, width - piece.shape[1] - left))))
    return np.concatenate(rows)[:-gap] if gap else np.concatenate(rows)


def beside(left: Coverage, right: Coverage, gap: int) -> Coverage:
    """Side by side, centred on one line."""
    return stacked([left.T, right.T], gap).T.copy()


def framed(piece: Coverage, thick: int, pad: int, plate: bool) -> Coverage:
    """The piece inside a rectangle's outline, or cut out of a full one."""
    inner = np.pad(piece, pad)
    if plate:
        return 1 - inner
    return np.pad(inner, thick, constant_values=1.0)


def placed(rng: np.random.Generator, piece: Coverage, kind: Kind, height: int, width: int) -> Coverage:
    """The piece in an empty HW canvas: corners and borders for small marks, the middle for large ones."""
    out = np.zeros((height, width), np.float32)
    high, wide = piece.shape
    free_y, free_x = height - high, width - wide
    if kind == "band":
        y, x = int(rng.choice([0, max(0, free_y), int(rng.integers(0, max(1, free_y)))])), 0
    elif kind == "large" or rng.random() < 0.2:
        y, x = (
            round(free / 2 + rng.normal(0, 0.08) * side) for free, side in ((free_y, height), (free_x, width))
        )
    elif rng.random() < 0.5:
        margin = round(min(height, width) * float(rng.uniform(0.01, 0.06)))
        y = int(rng.choice([margin, free_y - margin]))
        x = int(rng.choice([margin, free_x - margin, free_x // 2]))
    else:
        y, x = (int(rng.integers(0, max(1, free))) for free in (free_y, free_x))
    top, left = max(0, -y), max(0, -x)
    y, x = max(0, min(y, height - 1)), max(0, min(x, width - 1))
    part = piece[top : top + height - y, left : left + width - x]
    out[y : y + part.shape[0], x : x + part.shape[1]] = part
    return out


def _tiled(rng: np.random.Generator, piece: Coverage, angle: float, height: int, width: int) -> Coverage:
    """The piece again and again over the whole picture, rows shifted against each other or not."""
    gap_y, gap_x = rng.uniform(0.5, 3.5) * piece.shape[0], rng.uniform(0.15, 1.2) * piece.shape[1]
    cell = np.pad(piece, ((0, max(2, round(gap_y))), (0, max(2, round(gap_x)))))
    reach = math.ceil(math.hypot(height, width))
    across, down = reach // cell.shape[1] + 2, reach // cell.shape[0] + 2
    row = np.tile(cell, (1, across))
    step = cell.shape[1] // 2 if rng.random() < 0.5 else 0
    sheet = np.concatenate([np.roll(row, step * (number % 2), 1) for number in range(down)])[:reach, :reach]
    matrix = cv2.getRotationMatrix2D((reach / 2, reach / 2), angle, 1.0)
    matrix[:, 2] += np.array([(width - reach) / 2, (height - reach) / 2])
    return np.asarray(cv2.warpAffine(sheet, matrix, (width, height)), np.float32)


def _net(
    rng: np.random.Generator, mark: Mark, fonts: Fonts, pixels: int, height: int, width: int
) -> Coverage:
    """Two families of parallel lines that cross, and words in the middle of it."""
    drawn = np.zeros((height, width), np.uint8)
    thick = max(1, round(min(height, width) * float(rng.uniform(0.002, 0.008))))
    step = min(height, width) * float(rng.uniform(0.15, 0.5))
    reach = math.hypot(height, width)
    for angle in (mark.angle, -mark.angle if mark.angle else 90.0):
        along = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
        across = np.array([-along[1], along[0]])
        for offset in np.arange(-reach / 2 + rng.uniform(0, step), reach / 2, step):
            middle = np.array([width / 2, height / 2]) + across * offset
            one, other = (middle - along * reach).astype(int), (middle + along * reach).astype(int)
            cv2.line(drawn, tuple(one.tolist()), tuple(other.tolist()), 255, thick, cv2.LINE_AA)
    out = drawn.astype(np.float32) / 255
    words = turned(_symbol_or_text(rng, fonts, pixels), mark.angle if rng.random() < 0.5 else 0)
    return np.maximum(out, placed(rng, words, "large", height, width))
