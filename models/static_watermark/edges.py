"""Differences between neighbouring pixels, robust lines through them over many images, and fields from differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

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


def lines(steps: Floats, levels: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Robust lines step = cross - slope * level over N images: one slope an edge, one intercept a channel.

    steps, levels: N x E x C. Gives slope E (= da), cross E x C (= d(aW)), the slope's standard error E, and the
    mean level E x C. A channel counts by how little the images themselves vary in it.
    """
    weight = np.ones((*steps.shape[:2], 1), np.float32)
    trust = np.ones((1, *steps.shape[1:]), np.float32)
    for _ in range(_ROUNDS):
        total = weight.sum(0)
        mean_step, mean_level = (weight * steps).sum(0) / total, (weight * levels).sum(0) / total
        off = levels - mean_level
        spread = (weight * trust * off * off).sum((0, 2)) + 1e-3
        slope = -(weight * trust * (steps - mean_step) * off).sum((0, 2)) / spread
        cross = mean_step + slope[:, None] * mean_level
        weight, trust, size = _reweighted(steps - cross + slope[:, None] * levels, np.ones(steps.shape[2]))
    return slope, cross, np.sqrt(size / spread), mean_level


def shares(
    steps: Floats, levels: Floats, colours: Floats, channels: npt.NDArray[np.float64]
) -> tuple[Floats, Floats]:
    """Lines whose colours are known: step = sum over k of d_k (W_k - level), with at most two colours an edge.

    steps, levels: N x E x C; colours: K x C; channels: C, 0 for those that do not count. Gives the d_k, E x K, and
    their standard errors. An edge gets a second colour only where it explains 12 units of variance more.
    """
    count = len(colours)
    contrast = colours[None, None] - levels[:, :, None]
    choices = [one for r in (1, 2) for one in combinations(range(count), r)]
    weight = np.ones((*steps.shape[:2], 1), np.float32)
    trust = np.broadcast_to(channels.astype(np.float32), (1, *steps.shape[1:]))
    for _ in range(_ROUNDS):
        both = weight * trust
        normal = np.einsum("nekc,nelc,nec->ekl", contrast, contrast, both, optimize=True)
        right = np.einsum("nekc,nec,nec->ek", contrast, steps, both, optimize=True)
        found, variance = _best(normal, right, choices)
        weight, trust, size = _reweighted(steps - np.einsum("nekc,ek->nec", contrast, found), channels)
    return found, np.sqrt(variance * size[:, None])


def _best(normal: Floats, right: Floats, choices: Sequence[tuple[int, ...]]) -> tuple[Floats, Floats]:
    """Of the choices of unknowns, for each edge the one that explains most for its number of them."""
    best = np.full(len(right), -np.inf, np.float32)
    found, variance = np.zeros_like(right), np.full_like(right, np.inf)
    for choice in choices:
        at = list(choice)
        inverse = np.linalg.inv(normal[:, at][:, :, at] + 1e-3 * np.eye(len(at), dtype=np.float32))
        solved = np.einsum("ekl,el->ek", inverse, right[:, at])
        gain = (solved * right[:, at]).sum(1) - 12 * len(at)
        wins = gain > best
        best[wins] = gain[wins]
        here, errors = np.zeros_like(right), np.full_like(right, np.inf)
        here[:, at], errors[:, at] = solved, np.diagonal(inverse, axis1=1, axis2=2)
        found[wins], variance[wins] = here[wins], errors[wins]
    return found, variance


def given(
    steps: Floats, levels: Floats, between: npt.NDArray[np.floating], colours: npt.NDArray[np.floating]
) -> tuple[Floats, Floats]:
    """Lines where each edge's colour is known: step = (colour - level) slope + between.

    steps, levels: N x E x C; between, colours: E x C, the step that the change of colour itself makes, and the
    colour at the edge. Gives the slope E, and its standard error.
    """
    contrast = colours - levels
    weight = np.ones((*steps.shape[:2], 1), np.float32)
    trust = np.ones((1, *steps.shape[1:]), np.float32)
    for _ in range(_ROUNDS):
        spread = (weight * trust * contrast * contrast).sum((0, 2)) + 1e-3
        slope = (weight * trust * contrast * (steps - between)).sum((0, 2)) / spread
        weight, trust, size = _reweighted(
            steps - between - slope[:, None] * contrast, np.ones(steps.shape[2])
        )
    return slope, np.sqrt(size / spread)


def _reweighted(residual: Floats, channels: npt.NDArray[np.float64]) -> tuple[Floats, Floats, Floats]:
    """Cauchy weights N x E x 1 of the images, the channels' trust 1 x E x C (one over their variance), and what is
    left of a variance of 1, E."""
    scale = 1.48 * np.median(np.abs(residual), axis=0) + 0.3
    trust = (channels / (scale * scale)).astype(np.float32)[None]
    size = (residual * residual * trust).sum(2, keepdims=True) / channels.sum()
    weight = (1 / (1 + size / 1.6**2)).astype(np.float32)
    return weight, trust, np.asarray((weight * size).sum((0, 2)) / weight.sum((0, 2)), np.float32)


def integrated(pairs: Edges, steps: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The field with these differences between neighbours (0 for pairs not named), by least squares: a Poisson
    equation with free borders, solved by cosine transforms. The median of its rim is 0."""
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
    rim = np.concatenate([field[0], field[-1], field[:, 0], field[:, -1]])
    return np.asarray(field - np.median(rim))
