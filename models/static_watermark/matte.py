"""The opacity and the colours of a mark, from windows of many images that carry it.

After Dekel, Rubinstein, Liu and Freeman, "On the Effectiveness of Visible Watermarks", CVPR 2017, with another way
from gradients to opacity. Across one edge of the mark, with L the level of I there,  dJ = (1 - a) dI + d(aW) - L da
exactly, in every image; natural gradients dI have zero median. L differs from image to image, so a robust line through
(L, dJ) over the images gives da (the slope) and d(aW) (the intercept) apart, where a median alone would mix them.

Marks are drawn in few flat colours. So the ratios d(aW) / da of the surest edges have few centres, the W_k, and with
these each edge is asked again: dJ = sum d_k (W_k - L). Poisson equations make shares of the d_k, of which a = sum c_k
and aW = sum c_k W_k: pixels between two colours, or half covered, need nothing special. Opacity and colours give the
images below the mark, these better levels L, these better colours, and so on; the colour errs high where the opacity
errs low, so the mean of two rounds is nearer than either.

Brightness and colour differences (models/static_watermark/ycc.py) are weighed apart: images vary less in
colour. In JPEG files colour
is mostly stored at half the size: there it tells the colours, but not where the edges are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.static_watermark.edges import Edges, Floats, edges_in, given, integrated, lines, shares
from cleanplate.models.static_watermark.overlay import inpainted
from cleanplate.models.static_watermark.ycc import to_rgb, to_ycc
from cleanplate.models.types import Mask

_CHUNK = 6_000_000
"""Floats of one array of a chunk of edges."""
_FEW = 10
"""Edges below which nothing is said of a colour."""
_TOGETHER = 1.7
"""Errors of JPEG files are so many times those that the spread of the lines tells: the pixels of a block err
together."""
_ALL = np.ones(3)
_BRIGHTNESS = np.array([1.0, 0.0, 0.0])


@dataclass(frozen=True)
class MatteSettings:
    """min_alpha: opacities below are none; 8 of 255 levels at full contrast. min_edges: a mark has so many. colours:
    at most so many flat ones; a mark of more gets a colour for each place. rounds: see above."""

    min_alpha: float = 0.03
    min_edges: int = 40
    colours: int = 4
    rounds: int = 6


@dataclass(frozen=True)
class _Window:
    """The same place of N images. seen, guess: N x HW x 3 YCC: with the mark, and without it as far as its
    surroundings tell. hole: HW bool, where the mark may be. coarse: colour is stored at half the size."""

    seen: Floats
    guess: Floats
    pairs: Edges
    hole: Mask
    coarse: bool

    def chunks(self, below: Floats) -> Iterator[tuple[slice, Floats, Floats]]:
        """(edges, their steps, their levels), so many at a time. below: N x HW x 3, the images without the mark."""
        size = max(1, _CHUNK // (3 * len(self.seen)))
        for start in range(0, len(self.pairs.p), size):
            at = slice(start, start + size)
            some = Edges(self.pairs.p[at], self.pairs.q[at], self.pairs.shape)
            yield at, some.differences(self.seen), some.levels(below)

    def below(self, alpha: Floats, colour: Floats) -> Floats:
        """N x HW x 3: I = (J - aW) / (1 - a); towards the guess where so little of I came through that noise is
        left."""
        a = alpha.reshape(-1, 1)
        trust = np.clip((0.85 - a) / 0.2, 0, 1)
        found = (self.seen - a * colour.reshape(-1, 3)) / np.maximum(1 - a, 0.1)
        return np.asarray(trust * found + (1 - trust) * self.guess, np.float32)


@dataclass(frozen=True)
class _Lines:
    """For each edge and channel (E x 3): slope, cross, the slope's error, mean level. See matte_edges.lines."""

    slope: Floats
    cross: Floats
    error: Floats
    level: Floats

    def sure(self, least: float) -> _Lines:
        """The edges whose slope is certain, in brightness and in colour; where grey images leave none such, those
        of brightness alone."""
        ok = (np.abs(self.slope) > least) & (np.abs(self.slope) > 4 * self.error)
        keep = (ok & (np.sign(self.slope) == np.sign(self.slope[:, :1]))).all(1)
        slope, error = self.slope, self.error
        if np.count_nonzero(keep) < _FEW:
            keep, slope, error = ok[:, 0], slope[:, :1].repeat(3, axis=1), error[:, :1].repeat(3, axis=1)
        return _Lines(slope[keep], self.cross[keep], error[keep], self.level[keep])


def matte(
    images: npt.NDArray[np.uint8], near: Mask, coarse: bool, settings: MatteSettings = MatteSettings()
) -> tuple[Floats, Floats] | None:
    """Opacity HW float32 in [0, 1] and colour HWC float32 RGB, 0 to 255; None where no mark is.

    images: N x H x W x 3 uint8 RGB, windows at one place. near: HW bool, the surroundings of edges that they
    share. coarse: most come from JPEG files whose colour is stored at half the size.
    """
    hole = _filled(near)
    rgb = images.astype(np.float32)
    flat = (len(images), -1, 3)
    guess = to_ycc(inpainted(rgb, hole)).reshape(flat)
    window = _Window(to_ycc(rgb).reshape(flat), guess, edges_in(near), hole, coarse)
    first = _lines(window, guess)
    sure = np.abs(first.slope[:, 0]) > np.maximum(settings.min_alpha, 3 * first.error[:, 0])
    if np.count_nonzero(sure) < settings.min_edges:
        return None
    colours = _centres(first, settings)
    found = (
        _of_places(window, first, settings)
        if colours is None
        else _of_flats(window, first, colours, settings)
    )
    return (found[0], np.clip(to_rgb(found[1]), 0, 255)) if (found[0] > 0).any() else None


def _of_flats(
    window: _Window, first: _Lines, colours: Floats, settings: MatteSettings
) -> tuple[Floats, Floats]:
    """Opacity HW and colour HW3 (YCC) of a mark of few flat colours."""
    below = window.guess
    known = _refitted(colours, first)
    alpha, colour = np.zeros(window.hole.shape, np.float32), np.zeros((*window.hole.shape, 3), np.float32)
    for n in range(settings.rounds):
        if n:
            again = _refitted(known, _lines(window, below))
            known = again if n == 1 else np.asarray((known + again) / 2, np.float32)
        known = to_ycc(np.clip(to_rgb(known), 0, 255))
        parts = _shares(window, below, known, settings)
        if window.coarse and len(known) > 1:
            # Colour says which of the colours it is, and not to the pixel: the opacity is brightness's alone.
            smooth = np.stack(
                [cv2.GaussianBlur(parts[..., k], (0, 0), 2) for k in range(len(known))], axis=-1
            )
            colour = known[smooth.argmax(axis=-1)]
            alpha = _given(window, below, parts.sum(axis=-1) if n == 0 else alpha, colour, settings)
        else:
            whole = parts.sum(axis=-1)
            alpha = np.minimum(whole, 1)
            colour = (parts @ known) / np.maximum(whole, 1e-3)[..., None]
        below = window.below(alpha, colour)
    return alpha, colour


def _of_places(window: _Window, first: _Lines, settings: MatteSettings) -> tuple[Floats, Floats]:
    """The same where the colours are many: a colour for each place, from the integrals of d(aW) and da."""
    below, found = window.guess, first
    alpha, colour = np.zeros(window.hole.shape, np.float32), np.zeros((*window.hole.shape, 3), np.float32)
    for n in range(settings.rounds):
        found = _lines(window, below) if n else first
        if n == 0:
            alpha = _field(window, found.slope[:, 0], found.error[:, 0], settings, 3)
        over = np.stack([integrated(window.pairs, found.cross[:, c]) for c in range(3)], axis=-1)
        rough = np.clip(to_rgb(over / np.maximum(alpha, 0.02)[..., None]), 0, 255).astype(np.uint8)
        colour = to_ycc(cv2.medianBlur(rough, 5))
        alpha = _given(window, below, alpha, colour, settings)
        below = window.below(alpha, colour)
    return alpha, colour


# --- edges ---


def _lines(window: _Window, below: Floats) -> _Lines:
    count = len(window.pairs.p)
    slope, cross, error, level = (np.zeros((count, 3), np.float32) for _ in range(4))
    groups = (slice(0, 1), slice(1, 3)) if window.coarse else (slice(0, 3),)
    for at, steps, levels in window.chunks(below):
        for channels in groups:
            s, x, e, mean = lines(steps[..., channels], levels[..., channels])
            slope[at, channels], error[at, channels] = s[:, None], e[:, None]
            cross[at, channels], level[at, channels] = x, mean
    return _Lines(slope, cross, error, level)


def _shares(window: _Window, below: Floats, colours: Floats, settings: MatteSettings) -> Floats:
    """H x W x K: how much of each pixel each colour covers."""
    channels = _BRIGHTNESS if window.coarse and len(colours) == 1 else _ALL
    found = np.zeros((len(window.pairs.p), len(colours)), np.float32)
    error = np.zeros_like(found)
    for at, steps, levels in window.chunks(below):
        found[at], error[at] = shares(steps, levels, colours.astype(np.float32), channels)
    parts = [_field(window, found[:, k], error[:, k], settings, 2) for k in range(len(colours))]
    out = np.stack(parts, axis=-1)
    return np.asarray(out / np.maximum(out.sum(axis=-1, keepdims=True), 1), np.float32)


def _given(window: _Window, below: Floats, alpha: Floats, colour: Floats, settings: MatteSettings) -> Floats:
    """The opacity where each place's colour is known; `alpha` is the one before."""
    pairs, of = window.pairs, slice(0, 1) if window.coarse else slice(0, 3)
    flat, a = colour.reshape(-1, 3)[:, of], alpha.reshape(-1, 1)
    found, error = (np.zeros(len(pairs.p), np.float32) for _ in range(2))
    for at, steps, levels in window.chunks(below):
        p, q = pairs.p[at], pairs.q[at]
        between = (a[p] + a[q]) / 2 * (flat[q] - flat[p])
        found[at], error[at] = given(steps[..., of], levels[..., of], between, (flat[p] + flat[q]) / 2)
    return _field(window, found, error, settings, 2)


def _field(window: _Window, steps: Floats, error: Floats, settings: MatteSettings, least: float) -> Floats:
    """HW float32: the opacities whose differences are the steps of `least` errors or more, 0 outside the hole."""
    if window.coarse:
        least *= _TOGETHER
    field = integrated(window.pairs, np.where(np.abs(steps) > least * error, steps, 0))
    field[~window.hole | (field < settings.min_alpha)] = 0
    return np.clip(field, 0, 1).astype(np.float32)


# --- colours ---


def _centres(found: _Lines, settings: MatteSettings) -> Floats | None:
    """K x 3 YCC: the few colours near which most sure edges lie; None where they are too many."""
    sure = found.sure(settings.min_alpha)
    if len(sure.slope) < _FEW:
        return None
    weight = np.minimum((sure.slope / sure.error) ** 2, 100).min(axis=1).astype(np.float64)
    chosen = np.random.default_rng(0).choice(len(weight), 4000, p=weight / weight.sum())
    samples = np.clip(sure.cross / sure.slope, -400, 600)[chosen].astype(np.float32)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 40, 0.5)
    cv2.setRNGSeed(0)
    for k in range(1, settings.colours + 1):
        own = np.zeros((len(samples), 1), np.int32)
        _, _, made = cv2.kmeans(samples, k, own, stop, 6, cv2.KMEANS_PP_CENTERS)
        centres = np.asarray(made, np.float32)
        if np.mean(np.linalg.norm(samples[:, None] - centres[None], axis=-1).min(axis=1) < 48) > 0.85:
            return centres
    return None


def _refitted(colours: Floats, found: _Lines) -> Floats:
    """The colours again, each from the edges that fit it best: the slope of d(aW) over da, less what the errors of
    da add to both (a slope that errs by e makes the intercept err by e times the mean level)."""
    sure = found.sure(0.03)
    if len(sure.slope) < _FEW:
        return colours
    slope, cross, level = sure.slope, sure.cross, sure.level
    error = np.maximum(sure.error, 1e-3)
    for _ in range(6):
        off = cross[:, None] - slope[:, None] * colours[None]
        noise = error[:, None] * np.abs(level[:, None] - colours[None]) + 0.3
        distance = np.sqrt(((off / noise) ** 2).mean(axis=-1))
        own, least = distance.argmin(axis=1), distance.min(axis=1)
        near = least < max(2.5, 2.5 * float(np.median(least)))
        made = colours.copy()
        for k in range(len(colours)):
            s, x, e, m = (v[near & (own == k)] for v in (slope, cross, error, level))
            if len(s) >= _FEW:
                above = ((s * x - e * e * m) / (e * e)).sum(axis=0)
                made[k] = above / np.maximum(((s * s - e * e) / (e * e)).sum(axis=0), 1e-6)
        colours = made
    return colours


def _filled(mask: Mask) -> Mask:
    """The mask with its holes: what lies inside an outline may be under the mark too."""
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    _, labels = cv2.connectedComponents(outside)
    return np.asarray(labels != labels[0, 0])[1:-1, 1:-1]
