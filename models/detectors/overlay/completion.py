"""What belongs to marks that were found, and was missed: copies of a tiling, and what stands beside a mark."""

from __future__ import annotations

from collections import Counter

import numpy as np

from cleanplate.models.detectors.overlay.beside import with_beside
from cleanplate.models.detectors.overlay.candidates import parts
from cleanplate.models.detectors.overlay.evidence import cut
from cleanplate.models.detectors.overlay.lattice import VIEW, with_copies
from cleanplate.models.detectors.overlay.overlay_map import Looks
from cleanplate.models.detectors.overlay.period import folded
from cleanplate.models.segmenters.masks import grow
from cleanplate.models.types import Image, Region

TIMES = 3
"""Finds from which a picture may be tiled."""
LEAST = 25
"""Pixels of a piece of a copy."""


def completed(image: Image, looks: Looks, regions: list[Region]) -> list[Region]:
    """The regions found in an HWC uint8 RGB image, and after them what belongs to them by the U-Net's looks."""
    return with_beside(image, looks, with_rest(looks, with_copies(image, looks, regions)))


def with_rest(looks: Looks, regions: list[Region]) -> list[Region]:
    """The regions, and after them the pieces of a tiling that they miss, by its period; of the most frequent kind."""
    marks = [r for r in regions if r.mask is not None and not r.doubtful]
    if len(marks) < TIMES:
        return regions
    known = np.logical_or.reduce([r.mask for r in marks if r.mask is not None])
    tiling = folded(np.maximum(known.astype(np.float32), looks.chance))
    if tiling is None:
        return regions
    ((kind, name), _), *_ = Counter((r.kind, r.detector.partition("@")[0]) for r in marks).most_common(1)
    more = []
    # What a find has already, but for its edge, is no piece.
    for box, mask in parts(tiling & ~grow(known, 3), 1):
        if np.count_nonzero(mask) >= LEAST:
            whole = np.zeros(known.shape, np.bool_)
            cut(whole, box)[mask] = True
            x0, y0, x1, y1 = (float(side) for side in box)
            more.append(Region(kind, name + VIEW, 0.5, (x0, y0, x1, y1), whole))
    return [*regions, *more]
