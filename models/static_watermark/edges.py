"""Differences between neighbouring pixels, robust lines through them over many images, and fields from differences."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.types import Mask

Floats = npt.NDArray[np.float32]
_ROUNDS = 5
"""Of reweighting: an image with an edge of its own just there counts little."""


@dataclass(frozen=True)
class Edges:
    """Pairs of neighbours that a mark may separate: flat indices p, q = p + 1 or p + width, into a box."""

    p: npt.NDArray[np.intp]
    q: npt.NDArray[np.intp]
    shape: tuple[int, int]

    def differences(self, images: Floats) -> Floats:
        """N x HW x C -> N x E x C."""
        return np.asarray(images[:, self.q] - images[:, self.p])

    def levels(self, images: Floats) -> Floats:
        return np.asarray((images[:, self.q] + images[:, self.p]) / 2)


def edges_in(support: Mask) -> Edges:
    """The pairs both of whose pixels lie in HW bool."""
    height, width = support.shape
    flat = np.arange(height * width).reshape(height, width)
    across, down = support[:, 1:] & support[:, :-1], support[1:] & support[:-1]
    p = np.concatenate([flat[:, :-1][across], flat[:-1][down]])
    q = np.concatenate([flat[:, 1:][across], flat[1:][down]])
    return Edges(p, q, (height, width))


def integrated(
    pairs: Edges, steps: npt.NDArray[np.floating], free: Mask | None = None
) -> npt.NDArray[np.float64]:
    """The field with these differences between neighbours (0 for pairs not named), by least squares: a Poisson
    equation with free borders, solved by cosine transforms. Its median where `free` (its rim without one) is 0."""
    height, width = pairs.shape
    even = (height + height % 2, width + width % 2)  # cv2.dct wants even sides.
    flow = np.zeros(height * width)
    np.add.at(flow, pairs.p, steps)
    np.subtract.at(flow, pairs.q, steps)
    flow = np.pad(flow.reshape(height, width), ((0, even[0] - height), (0, even[1] - width)))
    rows, columns = (2 * np.cos(np.pi * np.arange(n) / n) - 2 for n in even)
    divisor = rows[:, None] + columns[None]
    divisor[0, 0] = 1
    waves = np.asarray(cv2.dct(flow)) / divisor
    waves[0, 0] = 0
    field = np.asarray(cv2.idct(waves), np.float64)[:height, :width]
    rim = np.concatenate([field[0], field[-1], field[:, 0], field[:, -1]]) if free is None else field[free]
    return np.asarray(field - np.median(rim))
