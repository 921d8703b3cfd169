"""What a fill leaves of a mark: the U-Net still sees something laid over the picture, in the shape of what was there.

Detectors of text read letters, and a ring of fog round an emblem has none. The map of the U-Net needs no letters.
"""

from __future__ import annotations

import numpy as np

from cleanplate.models.detectors.overlay.candidates import parts
from cleanplate.models.detectors.overlay.evidence import cut
from cleanplate.models.detectors.overlay.overlay_map import OverlayMap, hysteresis
from cleanplate.models.segmenters.masks import fill_holes
from cleanplate.models.types import Image, Mask, Region

LOW, HIGH = 0.4, 0.8
"""As `overlay.candidates`: a piece is above LOW and hangs together with a pixel above HIGH."""
LEAST = 60
"""Pixels of a piece."""
HOLES = 0.02
"""Of the picture: smaller holes of a piece belong to it. What a fill leaves between a star and its ring is coloured by
the mark as well."""


class ImprintDetector:
    """Detector of a kind that is asked about results: pieces of the U-Net's map, whatever they are, with their pixels.
    A photograph has such pieces, so a find says something only where something was filled.

    kind: what its regions are called. Holds no state between calls.
    """

    def __init__(self, overlay: OverlayMap, kind: str, name: str = "marks@imprint") -> None:
        self.name, self.kind = name, kind
        self._overlay = overlay

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image; boxes xyxy pixels."""
        found = []
        for looks in self._overlay(images):
            chance = looks.chance
            regions = []
            for box, mask in parts(hysteresis(chance, LOW, HIGH), 1):
                if np.count_nonzero(mask) < LEAST:
                    continue
                score = float(cut(chance, box)[mask].mean())
                whole = np.zeros(chance.shape, np.bool_)
                cut(whole, box)[:] = _without_holes(mask, HOLES * chance.size)
                x0, y0, x1, y1 = (float(side) for side in box)
                regions.append(Region(self.kind, self.name, min(1.0, score), (x0, y0, x1, y1), whole))
            found.append(regions)
        return found


def _without_holes(mask: Mask, most: float) -> Mask:
    """The mask with its holes, where these are together no larger than so many pixels."""
    filled = fill_holes(mask)
    return filled if np.count_nonzero(filled) - np.count_nonzero(mask) <= most else mask
