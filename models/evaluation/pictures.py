"""Fills to look at, and curves over resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw, ImageFont

from cleanplate.models.types import Image

HEAD = 22
"""Pixels of the line of titles."""


def grid(
    titles: Sequence[str],
    rows: Sequence[Sequence[Image]],
    cell: int = 256,
    row_titles: Sequence[str] | None = None,
) -> Image:
    """Rows of pictures (HWC uint8 RGB, any sizes, shown in squares of `cell` pixels) under a line of titles.

    row_titles: a line above each row instead, in place of the one at the top.
    """
    lines: list[Image] = [] if row_titles else [_line(titles, cell)]
    for number, row in enumerate(rows):
        if row_titles:
            lines.append(_line([row_titles[number], *titles[1:]], cell))
        lines.append(np.concatenate([_fit(picture, cell) for picture in row], axis=1))
    return np.concatenate(lines)


def _line(titles: Sequence[str], cell: int) -> Image:
    page = Pil.new("RGB", (cell * len(titles), HEAD), (255, 255, 255))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    for number, title in enumerate(titles):
        draw.text((number * cell + 4, 3), title, fill=(0, 0, 0), font=font)
    return np.asarray(page, np.uint8)


def _fit(picture: Image, cell: int) -> Image:
    if picture.shape[:2] == (cell, cell):
        return picture
    how = cv2.INTER_AREA if picture.shape[0] > cell else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (cell, cell), interpolation=how), np.uint8)


def save_picture(path: Path, picture: Image) -> None:
    """HWC uint8 RGB as a JPEG or PNG, by the name's ending. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Pil.fromarray(picture).save(path, quality=92)


def curve(
    path: Path, series: Mapping[str, Mapping[int, float]], title: str, label: str, train_size: int
) -> None:
    """A line a name over resolution (px, logarithmic), as figures 5 and 6 of the paper. Needs matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    sizes = sorted({size for points in series.values() for size in points})
    for name, points in series.items():
        axes.plot(list(points), list(points.values()), marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size}\n({size / train_size:g}x)" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("side in pixels (times the training crop)")
    axes.set_ylabel(label)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
