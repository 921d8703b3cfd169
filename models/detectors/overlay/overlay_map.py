"""Where something was laid over a picture, as the U-Net of `cleanplate.models.detectors.unet` sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.detectors import unet
from cleanplate.models.detectors.overlay.rule import read_rule
from cleanplate.models.detectors.unet import Probability
from cleanplate.models.detectors.views import tiles
from cleanplate.models.types import Image, Mask

BATCH_PIXELS = 4 * 640 * 640


@dataclass(frozen=True)
class Sight:
    """How the U-Net looks. long_side: pixels of the long side that it sees; larger pictures are seen whole and in
    tiles. offset: shift of the tiling, in tiles. mirror: it sees the picture mirrored. coarse: it looks again at
    half and at a quarter of that size: it was taught on marks that fit into 224 pixels, and what is large or
    has wide strokes looks like those only when it is small."""

    long_side: int = 1024
    offset: float = 0.0
    mirror: bool = False
    coarse: bool = True


@dataclass(frozen=True)
class Looks:
    """The chance of an overlay by each look at one picture: HW uint8, 255 = sure, the finest look first."""

    each: tuple[npt.NDArray[np.uint8], ...]

    @property
    def chance(self) -> Probability:
        """HW float32 in [0, 1]: the surest look at each pixel."""
        return np.asarray(np.maximum.reduce(self.each), np.float32) / np.float32(255)

    @property
    def agreed(self) -> Probability:
        """HW float32 in [0, 1]: the mean of all looks."""
        total = np.add.reduce(self.each, dtype=np.uint16)
        return np.asarray(total, np.float32) / np.float32(255 * len(self.each))


class OverlayMap:
    """HWC uint8 RGB images -> Looks each. rule: what was fitted to these weights
    (`cleanplate.models.detectors.overlay.rule`).

    path: weights of `cleanplate.models.detectors.unet`. Holds no state between calls. Raises ValueError for
    weights of another network and for weights without a rule.
    """

    def __init__(self, path: Path | str, sight: Sight | None = None, device: str = "cpu") -> None:
        self.sight = sight or Sight()
        self.rule = read_rule(Path(path))
        self._net = unet.load(Path(path)).to(device)

    def __call__(self, images: list[Image]) -> list[Looks]:
        levels = [views(image, self.sight) for image in images]
        flat = [[view for level in some for view in level] for some in levels]
        out = [
            [np.zeros(image.shape[:2], np.uint8) for _ in some]
            for image, some in zip(images, levels, strict=True)
        ]
        canvas = [
            {view: empty for level, empty in zip(some, maps, strict=True) for view in level}
            for some, maps in zip(levels, out, strict=True)
        ]
        on_gpu = next(self._net.parameters()).device.type != "cpu"
        for members, crops in tiles.batches(images, flat, BATCH_PIXELS, on_gpu):
            seen = [crop[:, ::-1] for crop in crops] if self.sight.mirror else crops
            found = unet.probability(self._net, seen)
            for (number, view), chance in zip(members, found, strict=True):
                x0, y0, x1, y1 = view.box
                levelled = np.round(chance * 255).astype(np.uint8)
                right_way = np.ascontiguousarray(levelled[:, ::-1]) if self.sight.mirror else levelled
                placed = cv2.resize(right_way, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
                part = canvas[number][view][y0:y1, x0:x1]
                np.maximum(part, placed, out=part)
        return [Looks(tuple(maps)) for maps in out]


def views(image: Image, sight: Sight) -> list[list[tiles.View]]:
    """What the U-Net looks at, level by level: tiles of a large picture; the whole; the whole at a half and at a
    quarter of the size, as far as they differ from it by a fifth or more."""
    height, width = image.shape[:2]
    whole, *cut = tiles.views(height, width, sight.long_side, offset=sight.offset)
    levels = [cut, [whole]] if cut else [[whole]]
    for part in (2, 4) if sight.coarse else ():
        size = tiles.fitted(height, width, sight.long_side // part)
        if max(size) <= 0.8 * max(levels[-1][0].size):
            levels.append([tiles.View((0, 0, width, height), size)])
    return levels


def hysteresis(chance: npt.NDArray[Any], low: float, high: float) -> Mask:
    """HW: pixels above `low` that hang together (8-connected) with one above `high`."""
    count, labels = cv2.connectedComponents((chance > low).astype(np.uint8), connectivity=8)
    kept = np.zeros(count, np.bool_)
    kept[np.unique(labels[chance > high])] = True
    kept[0] = False
    return np.asarray(kept[labels], np.bool_)
