"""Marks that may repeat over a picture: where several finds of one kind are alike, there may be more of them.

A tiling is found in most of its places and missed in some, far from every edit. So where finds are alike, verification
looks at the whole picture, and what it finds there counts when it is of their size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cleanplate.pipeline.schema.rows import RegionRow

KINDS = ("text", "watermark")
TIMES = 3
"""Alike finds that make a repetition."""
_ALIKE = 1.3
"""Largest ratio of the sides of two finds that are alike: a tile's words at one slant and size."""
_OF_SIZE = 2.0
"""... and of the longer sides of a find and a repetition's: a copy may be cut, or found in two pieces."""


def repeating(edits: Sequence[RegionRow]) -> dict[str, float]:
    """kind -> the longer side, in pixels, of the finds that repeat; edits: a row's regions, boxes xyxy pixels."""
    found = {}
    for kind in KINDS:
        boxes = np.array([edit["box"] for edit in edits if edit["kind"] == kind], np.float64).reshape(-1, 4)
        sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1)
        ratio = np.abs(np.log(sides[:, None] / sides[None])).max(axis=-1)
        alike = ratio < np.log(_ALIKE)
        if len(boxes) and int(alike.sum(axis=1).max()) >= TIMES:
            found[kind] = float(np.median(sides[alike[alike.sum(axis=1).argmax()]].max(axis=1)))
    return found


def of_its_size(kind: str, box: Sequence[float], known: Mapping[str, float]) -> bool:
    """Whether a find (xyxy pixels) may be a copy of what repeats."""
    side = max(box[2] - box[0], box[3] - box[1])
    return kind in known and known[kind] / _OF_SIZE < side < known[kind] * _OF_SIZE
