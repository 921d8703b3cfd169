"""Which fills are looked at: the worst of a measurement and some at random, a fixed number however many there are."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cleanplate.models.evaluation.pairs import Pair
from cleanplate.models.types import Image

SHOWN = 12
MARGIN = 48
"""Pixels round a hole that are shown."""


@dataclass
class Picks:
    """Rows of pictures (hole, each fill, truth), cut to the hole's surroundings."""

    seed: int = 0
    worst: list[tuple[float, int, list[Image]]] = field(default_factory=list)
    random: list[tuple[float, int, list[Image]]] = field(default_factory=list)
    seen: int = 0

    def add(self, pair: Pair, pictures: list[Image], badness: float) -> None:
        """badness: the worst have the highest."""
        row = [around(picture, pair) for picture in pictures]
        self.worst.append((badness, self.seen, row))
        self.random.append((float(np.random.default_rng([self.seed, self.seen]).random()), self.seen, row))
        for kept in (self.worst, self.random):
            kept.sort(key=lambda one: (-one[0], one[1]))
            del kept[SHOWN:]
        self.seen += 1


def around(picture: Image, pair: Pair) -> Image:
    """A square of the picture that holds its hole and MARGIN pixels more, or the picture where that is larger."""
    rows, columns = np.flatnonzero(pair.mask.any(1)), np.flatnonzero(pair.mask.any(0))
    side = min(pair.size, 2 * MARGIN + int(max(np.ptp(rows), np.ptp(columns))) + 1)
    y, x = ((int(edges[0]) + int(edges[-1]) - side) // 2 for edges in (rows, columns))
    y, x = (min(max(at, 0), pair.size - side) for at in (y, x))
    return picture[y : y + side, x : x + side].copy()
