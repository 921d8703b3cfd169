"""Where something was laid over a picture, as the U-Net of `models.marks` sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models import marks
from models.detectors import tiles
from models.marks import Probability
from models.regions import Image, Mask

BATCH_PIXELS = 4 * 640 * 640
LOW, HIGH = 0.5, 0.95
"""A pixel belongs to a mark above LOW when it hangs together with one above HIGH."""
OVERLAY = 0.7
"""A line is laid over the picture when so much of its strokes is above LOW."""


@dataclass(frozen=True)
class Sight:
    """How the U-Net looks. long_side: pixels of the long side that it sees; larger pictures are seen whole and in
    tiles. offset: shift of the tiling, in tiles. mirror: it sees the picture mirrored. coarse: it looks once more
    at half that size, for marks with strokes as wide as letters usually are."""

    long_side: int = 1024
    offset: float = 0.0
    mirror: bool = False
    coarse: bool = True


class OverlayMap:
    """HWC uint8 RGB images -> HW float32 in [0, 1] each: the chance of an overlay, the surest of all looks.

    path: weights of `models.marks`. Holds no state between calls. Raises ValueError for weights of another network.
    """

    def __init__(self, path: Path | str, sight: Sight | None = None, device: str = "cpu") -> None:
        self.sight = sight or Sight()
        self._net = marks.load(Path(path)).to(device)

    def __call__(self, images: list[Image]) -> list[Probability]:
        out = [np.zeros(image.shape[:2], np.float32) for image in images]
        plans = [views(image, self.sight) for image in images]
        for members, crops in tiles.batches(images, plans, BATCH_PIXELS):
            seen = [crop[:, ::-1] for crop in crops] if self.sight.mirror else crops
            found = marks.probability(self._net, seen)
            for (number, view), chance in zip(members, found, strict=True):
                x0, y0, x1, y1 = view.box
                right_way = np.ascontiguousarray(chance[:, ::-1]) if self.sight.mirror else chance
                placed = cv2.resize(right_way, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
                part = out[number][y0:y1, x0:x1]
                np.maximum(part, placed, out=part)
        return out


def views(image: Image, sight: Sight) -> list[tiles.View]:
    """What the U-Net looks at: the whole picture, tiles of a large one, and the whole at half the size."""
    height, width = image.shape[:2]
    found = tiles.views(height, width, sight.long_side, offset=sight.offset)
    if sight.coarse and max(height, width) > 0.75 * sight.long_side:
        found.append(tiles.View((0, 0, width, height), tiles.fitted(height, width, sight.long_side // 2)))
    return found


def overlay_share(chance: Probability, strokes: Mask, low: float = LOW) -> float:
    """The share of a line's strokes that the U-Net calls overlay, in [0, 1]; 0 without strokes."""
    return float((chance[strokes] > low).mean()) if strokes.any() else 0.0


def hysteresis(chance: Probability, low: float = LOW, high: float = HIGH) -> Mask:
    """Pixels above `low` that hang together (8-connected) with one above `high`."""
    count, labels = cv2.connectedComponents((chance > low).astype(np.uint8), connectivity=8)
    kept = np.zeros(count, np.bool_)
    kept[np.unique(labels[chance > high])] = True
    kept[0] = False
    return np.asarray(kept[labels], np.bool_)
