"""The opacity and the colours of a mark, from windows of many images that carry it.

`fields` gives both for each pixel, from neighbours alone. Where all of the mark has one colour, or one that changes
slowly, that colour is found far more exactly by all of its pixels together; and with it, each pixel's opacity by the
mean picture as well (`_one_colour`). The second is taken where the images, once it is taken off, share no more than
they do with the first (`in_common`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cleanplate.models.static_watermark.edges import Floats, edges_in
from cleanplate.models.static_watermark.fields import Fields, fields
from cleanplate.models.static_watermark.ycc import to_rgb, to_ycc
from cleanplate.models.types import Mask

_ALIKE, _MOST_ALIKE = 12.0, 0.85
"""One colour: so many levels (YCC) from it, at such a share of the mark."""
_OPACITY_ERROR, _LEVEL_ERROR = 0.008, 0.7
"""Of a pixel's opacity by its contrast, and of the mean picture below the mark, in levels: their usual sizes."""


@dataclass(frozen=True)
class MatteSettings:
    """min_alpha: opacities below are none; 8 of 255 levels at full contrast. min_edges: a mark has so many."""

    min_alpha: float = 0.03
    min_edges: int = 40


def matte(
    images: npt.NDArray[np.uint8], near: Mask, coarse: bool, settings: MatteSettings = MatteSettings()
) -> tuple[Floats, Floats] | None:
    """Opacity HW float32 in [0, 1] and colour HWC float32 RGB, 0 to 255; None where no mark is.

    images: N x H x W x 3 uint8 RGB, windows at one place. near: HW bool, the surroundings of edges that they
    share. coarse: most come from JPEG files whose colour is stored at half the size.
    """
    seen = to_ycc(images).reshape(len(images), -1, 3)
    found = fields(seen, near, coarse, settings.min_alpha)
    if np.count_nonzero(found.alpha) < settings.min_edges:
        return None
    if (simple := _one_colour(found, seen.mean(axis=0), settings)) is not None:
        before, after = (in_common(one.below(seen)[..., 0], near) for one in (found, simple))
        found = simple if after < 1.1 * before + 0.05 else found
    colour = to_rgb(found.over / np.maximum(found.alpha, 1e-3)[..., None])
    return found.alpha, np.clip(colour, 0, 255)


def _one_colour(found: Fields, mean: Floats, settings: MatteSettings) -> Fields | None:
    """The same mark with a colour that is a polynomial of the second degree in the place; None where it has several.
    mean: HW x 3 (YCC), the mean of the images with the mark."""
    height, width = found.alpha.shape
    inside = found.alpha > 2 * settings.min_alpha
    if np.count_nonzero(inside) < settings.min_edges:
        return None
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    share, own = found.alpha[inside], found.over[inside] / found.alpha[inside][:, None]
    weight, composed = share, np.zeros((6, 3))
    for _ in range(8):
        root = np.sqrt(weight)[:, None]
        composed = np.linalg.lstsq(root * terms[inside], root * own, rcond=None)[0]
        off = np.linalg.norm(own - terms[inside] @ composed, axis=1)
        weight = share / (1 + (off / _ALIKE) ** 2)
    if float(share[off < _ALIKE / np.maximum(share, 0.5)].sum()) < _MOST_ALIKE * float(share.sum()):
        return None
    colour = to_ycc(np.clip(to_rgb(terms @ composed), 0, 255))
    # Where the mean picture below is known, it tells the opacity once the colour is known.
    under = found.below(mean[None])[0].reshape(height, width, 3)
    contrast = colour - under
    power = (contrast * contrast).sum(axis=-1)
    by_mean = ((mean.reshape(height, width, 3) - under) * contrast).sum(axis=-1) / np.maximum(power, 1)
    trust = power / _LEVEL_ERROR**2
    alpha = (found.alpha / _OPACITY_ERROR**2 + by_mean * trust) / (1 / _OPACITY_ERROR**2 + trust)
    alpha = np.clip(np.where(found.alpha > 0, alpha, 0), 0, 1).astype(np.float32)
    return Fields(alpha, np.asarray(alpha[..., None] * colour, np.float32), found.free)


def in_common(bright: Floats, near: Mask) -> float:
    """How much N x HW pictures (brightness) share in their gradients near the edges of a mark: the mean, over edges, of
    the squares of two statistics less 2. These are the mean step over its error, and the log of the spreads' ratio over
    its own."""
    pairs = edges_in(near)
    at_p, at_q = bright[:, pairs.p], bright[:, pairs.q]
    step = at_q - at_p
    count = len(bright)
    mean = step.mean(0) / (step.std(0) / np.sqrt(count) + 0.05)
    p2, q2 = at_p.var(0) + 0.1, at_q.var(0) + 0.1
    both = ((at_p - at_p.mean(0)) * (at_q - at_q.mean(0))).mean(0)
    error = np.sqrt(np.maximum(1 - both * both / (p2 * q2), 0) / (count - 2)) + 1e-3
    ratio = 0.5 * np.log(q2 / p2) / error
    return float(np.mean(np.maximum(np.minimum(mean**2 + ratio**2, 100) - 2, 0)))
