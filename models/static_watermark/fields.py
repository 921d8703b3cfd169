"""Opacity and what a mark adds, for each pixel, from neighbours alone: no colour is supposed, no picture guessed.

Below two neighbours p and q lies nearly the same, so over many images

    J_q = r J_p + t      r = (1 - a_q) / (1 - a_p)

Both sides carry the pictures' texture, alike but for that factor, so r is the ratio of their spreads (the reduced
major axis of the regression: its slope has no bias where both variables err alike). Poisson equations make log(1 - a)
of the log r, and u of what the means then leave:  I = J / (1 - a) - u,  aW = u (1 - a). So a colour that touches only
another colour, and a mark of every colour, need nothing special. Where an image has no texture, it tells most: each
counts by the texture that it has round the edge.

Only differences are seen. What lets through most, and reaches the window's border, is taken for free of the mark.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.static_watermark.edges import Edges, Floats, edges_in, integrated
from cleanplate.models.types import Mask

_CHUNK = 6_000_000
_SURE = 2.0
"""A step counts from so many standard errors on."""
_SURE_TOGETHER, _ROUND_ABOUT = 2.5, 7
_ROUND = 0.35
"""Levels by which pixels err at least: rounding."""


@dataclass(frozen=True)
class Fields:
    """alpha: HW in [0, 1]. over: HWC (YCC), a W. free: HW bool, where no mark is."""

    alpha: Floats
    over: Floats
    free: Mask

    def below(self, seen: Floats) -> Floats:
        """N x HW x 3: the images below the mark."""
        through = np.maximum(1 - self.alpha.reshape(-1, 1), 0.1)
        return np.asarray((seen - self.over.reshape(-1, 3)) / through, np.float32)


@dataclass(frozen=True)
class _Ratio:
    """For each edge: log r and its standard error (E), the mean levels at p and q (E x 3), the error of a step at the
    mean level (E x 3)."""

    log: Floats
    error: Floats
    at_p: Floats
    at_q: Floats
    step_error: Floats


def fields(seen: Floats, near: Mask, coarse: bool, least: float = 0.03) -> Fields:
    """seen: N x HW x 3 (YCC) windows; near: HW bool, round the edges that they share. coarse: colour is stored at half
    the size; it tells no opacity then. least: opacities below are none."""
    pairs = edges_in(near)
    found = _ratios(seen, pairs, coarse)
    log = integrated(pairs, kept(pairs, found.log, found.error))
    free = _free(log, near)
    through = np.exp(np.minimum(log - np.median(log[free]), 0)).astype(np.float32)
    through[free] = 1
    gain = 1 / np.maximum(through, 0.03).reshape(-1)
    wide = edges_in(cv2.dilate(near.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0) if coarse else pairs
    levels = _ratios(seen, wide, coarse) if coarse else found
    over = np.zeros((*near.shape, 3), np.float32)
    for c in range(3):
        step = gain[wide.q] * levels.at_q[:, c] - gain[wide.p] * levels.at_p[:, c]
        noise = levels.step_error[:, c] * np.maximum(gain[wide.q], gain[wide.p])
        over[..., c] = integrated(wide, kept(wide, step, noise), free) * through
    alpha = np.asarray(1 - through, np.float32)
    nothing = free | (alpha < max(least, 3 * _noise(alpha[near])))
    alpha[nothing], over[nothing] = 0, 0
    return Fields(alpha, over, free)


def _noise(alpha: Floats) -> float:
    """The usual error of opacities, by the lowest third of their range: what is there is mostly no mark."""
    low = alpha[alpha < 0.3 * np.quantile(alpha, 0.95)]
    return 1.48 * float(np.median(low)) if len(low) else 0.0


def kept(pairs: Edges, steps: npt.NDArray[np.floating], errors: npt.NDArray[np.floating]) -> Floats:
    """The steps (E) that are surely none of their errors' making. The others are taken to be like the others of their
    direction in _ROUND_ABOUT^2 pixels: their mean, where that is sure, else none: so soft edges stay."""
    height, width = pairs.shape
    sure = np.abs(steps) > _SURE * errors
    out = np.where(sure, steps, 0).astype(np.float32)
    for down in (False, True):
        mine = ((pairs.q - pairs.p) == (width if down else 1)) & ~sure
        at = pairs.p[mine]
        one, total, noise = (
            cv2.boxFilter(
                np.bincount(at, values, height * width).astype(np.float32).reshape(height, width),
                -1,
                (_ROUND_ABOUT, _ROUND_ABOUT),
                normalize=False,
                borderType=cv2.BORDER_CONSTANT,
            ).reshape(-1)[at]
            for values in (np.ones(len(at)), steps[mine], errors[mine] ** 2)
        )
        # Errors of neighbours go together: four of them count as one.
        mean, error = total / one, 2 * np.sqrt(noise) / one
        out[mine] = np.where(np.abs(mean) > _SURE_TOGETHER * error, mean, 0)
    return out


def _ratios(seen: Floats, pairs: Edges, coarse: bool) -> _Ratio:
    count = len(pairs.p)
    texture = np.ones((len(seen), count), np.float32)
    parts: list[_Ratio] = []
    for n in range(3):
        off = np.zeros((len(seen), count), np.float32)
        parts = []
        size = max(1, _CHUNK // (3 * len(seen)))
        for start in range(0, count, size):
            at = slice(start, start + size)
            ratio, residual = _ratio(seen[:, pairs.p[at]], seen[:, pairs.q[at]], texture[:, at], coarse)
            parts.append(ratio)
            off[:, at] = residual
        if n < 2:
            texture = _texture(off, pairs)
    joined = (np.concatenate([getattr(one, name) for one in parts]) for name in _Ratio.__dataclass_fields__)
    return _Ratio(*joined)


def _ratio(at_p: Floats, at_q: Floats, texture: Floats, coarse: bool) -> tuple[_Ratio, Floats]:
    """at_p, at_q: N x E x 3; texture: N x E, the variance that each image has there. Also the squared residuals N x E,
    of brightness, in units of the mean picture's."""
    weight = (1 / texture)[..., None]
    trust = np.array([1, 0, 0] if coarse else [1, 1, 1], np.float32)
    for _ in range(3):
        total = weight.sum(axis=0)
        mean_p, mean_q = (weight * at_p).sum(0) / total, (weight * at_q).sum(0) / total
        off_p, off_q = at_p - mean_p, at_q - mean_q
        noise = np.median(np.abs(off_q - off_p) / np.sqrt(texture)[..., None], axis=0) + _ROUND
        scale = trust / (noise * noise)
        p2, q2, pq = (
            (weight * a * b * scale).sum((0, 2)) for a, b in ((off_p, off_p), (off_q, off_q), (off_p, off_q))
        )
        slope = np.sqrt((q2 + 1e-6) / (p2 + 1e-6))
        residual = off_q - slope[:, None] * off_p
        size = (residual * residual * scale).sum(2) / trust.sum() / texture
        weight = (1 / (texture * (1 + size / 2.5)))[..., None].astype(np.float32)
    effective = weight[..., 0].sum(0) ** 2 / (weight[..., 0] ** 2).sum(0)
    tight = np.clip(pq * pq / (p2 * q2 + 1e-9), 0, 1)
    error = np.sqrt((1 - tight) / np.maximum(effective - 2, 1)) + 1e-4
    variance = (weight * residual * residual).sum(0) / weight.sum(0)
    step_error = np.sqrt((variance + _ROUND**2) / effective[:, None])
    log = np.where(tight > 0.3, np.log(slope), 0)
    found = (log, error, mean_p, mean_q, step_error)
    return _Ratio(*(np.asarray(f, np.float32) for f in found)), residual[..., 0] ** 2


def _texture(off: Floats, pairs: Edges) -> Floats:
    """N x E: the mean of the squared residuals N x E over 7 x 7 pixels round each edge."""
    height, width = pairs.shape
    out = np.empty_like(off)
    times = np.bincount(pairs.p, minlength=height * width).astype(np.float32).reshape(height, width)
    share = cv2.blur(times, (7, 7)) + 1e-6
    for n, values in enumerate(off):
        field = np.bincount(pairs.p, values, height * width).astype(np.float32).reshape(height, width)
        out[n] = (cv2.blur(field, (7, 7)) / share).reshape(-1)[pairs.p]
    return out + np.float32(_ROUND**2)


def _free(log: npt.NDArray[np.float64], near: Mask) -> Mask:
    """Where no mark is: of the places that edges do not part, those at the border of the window that let through
    most."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~near).astype(np.uint8), connectivity=4)
    rim = np.zeros(count, np.bool_)
    for line in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        rim[np.unique(line)] = True
    rim[0] = False
    enough = [n for n in np.flatnonzero(rim) if stats[n, cv2.CC_STAT_AREA] >= 0.01 * near.size]
    if not enough:
        return np.asarray(~near if (~near).any() else np.ones_like(near))
    means = {n: float(np.median(log[labels == n])) for n in enough}
    most = max(means.values())
    chosen = [n for n, mean in means.items() if mean > most - 0.04]
    return np.asarray(np.isin(labels, chosen))
