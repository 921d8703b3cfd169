"""Parts of a picture as a recipe names them: boxes in shares of its sides, and words for corners and borders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field

from cleanplate.models.types import Mask, Region

Box = tuple[float, float, float, float]
_SHARE = 0.2
"""Of the picture's sides, where a word stands without a number."""


def _listed(areas: Any) -> Any:
    """One box or one word may stand without a list round it."""
    if isinstance(areas, str):
        return (areas,)
    numbers = isinstance(areas, list | tuple) and len(areas) == 4
    return (areas,) if numbers and all(isinstance(v, int | float) for v in areas) else areas


def _in_order(area: str | Box) -> str | Box:
    if not isinstance(area, str) and (area[0] >= area[2] or area[1] >= area[3]):
        raise ValueError("an area is x0, y0, x1, y1 with x0 < x1 and y0 < y1")
    return area


_Side = Annotated[float, Field(ge=0, le=1)]
_Word = Annotated[str, Field(pattern=r"^(corners|border|top|bottom|left|right)( 0?\.\d+)?$")]
_Area = Annotated[_Word | tuple[_Side, _Side, _Side, _Side], AfterValidator(_in_order)]
Areas = Annotated[tuple[_Area, ...], BeforeValidator(_listed)]
"""Boxes x0, y0, x1, y1 as shares of the picture's sides, or words: corners, border, top, bottom, left, right, each
with a share of the sides after it if .2 is not meant ("border 0.1")."""


def boxes(areas: Sequence[str | Box]) -> list[Box]:
    """Every area as boxes x0, y0, x1, y1 in shares; they may overlap."""
    found: list[Box] = []
    for area in areas:
        if not isinstance(area, str):
            found.append(area)
            continue
        word, _, number = area.partition(" ")
        s = float(number) if number else _SHARE
        bands = {"top": (0.0, 0.0, 1.0, s), "bottom": (0.0, 1 - s, 1.0, 1.0)}
        bands |= {"left": (0.0, 0.0, s, 1.0), "right": (1 - s, 0.0, 1.0, 1.0)}
        if word == "corners":
            found += [(x, y, x + s, y + s) for x in (0.0, 1 - s) for y in (0.0, 1 - s)]
        else:
            found += list(bands.values()) if word == "border" else [bands[word]]
    return found


def centre_inside(region: Region, size: tuple[int, int], areas: Sequence[str | Box]) -> bool:
    """True when the centre of the region's box lies in one of the areas. size: (height, width), pixels."""
    x0, y0, x1, y1 = region.box
    x, y = (x0 + x1) / 2 / size[1], (y0 + y1) / 2 / size[0]
    return any(a[0] <= x <= a[2] and a[1] <= y <= a[3] for a in boxes(areas))


def share_inside(region: Region, size: tuple[int, int], areas: Sequence[str | Box]) -> float:
    """The share, 0..1, of the region's pixels (its mask's, else its box's) that lie in the areas.

    size: (height, width), pixels.
    """
    inside = np.zeros(size, np.bool_)
    for a in boxes(areas):
        inside[
            _pixels(a[1], size[0]) : _pixels(a[3], size[0]), _pixels(a[0], size[1]) : _pixels(a[2], size[1])
        ] = True
    of: Mask = inside
    if region.mask is not None:
        of = inside[region.mask]
    else:
        x0, y0, x1, y1 = region.box
        of = inside[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))]
    return float(of.mean()) if of.size else 0.0


def _pixels(share: float, side: int) -> int:
    return round(share * side)
