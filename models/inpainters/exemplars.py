"""Texture for a hole, from the picture's own surroundings: for every pixel of the hole a place to copy detail from.

An inpainting network's fill has the right colours and coarse shapes and hardly any fine detail. Here each small block
of the hole is matched with the places that look like it (Efros and Leung 1999; Barnes et al. 2009): by its coarse
colours, as the network filled them; by what is known of its fine detail, at the hole's edge; and by the strength of
the detail round the hole, carried inwards. Every pixel then takes the offset that fits its neighbourhood best. Nothing
is averaged, so the detail is as strong as where it comes from; only the detail is copied, so where a match strays the
colours stay the network's (the residual of Yi et al. 2020, arXiv 2005.09704).

The match is one matrix product. All its numbers are whole and their sums below 2^24, so fp32 holds them exactly: the
same picture gives the same offsets whatever the number of threads or the order in which a library adds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.types import Image, Mask

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

DETAIL = 2.0
"""Sigma, pixels: what a Gaussian of this width takes off is detail; what is left are colours and coarse shapes."""
STATISTICS = 3.0
"""Sigma, pixels, of the windows in which the strength of detail is measured."""
LIMIT = 63
"""Detail is held to so many grey levels, so that sums of squares stay exact."""
PATCH = 6
"""Pixels round a source that must be in the picture and may be copied."""
COARSE = [(dy, dx) for dy in (-8, -4, 0, 4, 8) for dx in (-8, -4, 0, 4, 8)]
"""Where round a place its coarse brightness is compared, its colours at CORNERS, its detail at FINE."""
CORNERS = [(0, 0), (-6, -6), (6, 6), (-6, 6), (6, -6)]
FINE = [(dy, dx) for dy in range(-6, 7, 2) for dx in range(-6, 7, 2)]
PAD = 8
MATCHES = 2
"""Places that are tried for each block."""
BLOCK, MOST_BLOCKS = 4, 1500
"""Side of a block in pixels: the smallest, and how many blocks a hole may have before they get larger."""
STEP, MOST_SOURCES = 2, 40_000
"""The same for the grid of places to copy from."""
AGREEMENT = 9
"""Side, pixels, of the square over which a match is judged for its middle pixel."""


@dataclass(frozen=True)
class Layers:
    """What is compared. coarse: HxWx6 brightness, two colour differences, three strengths of detail, whole numbers.
    detail: HxW, grey levels within LIMIT, whole numbers; 0 where it is not known. known: HxW, 1.0 where it is."""

    coarse: Floats
    detail: Floats
    known: Floats


@dataclass(frozen=True)
class Copied:
    """Where each pixel's detail comes from. rows, columns: HxW, the source of a pixel; itself where there is none.
    found: HW bool, True where a pixel of the hole has one."""

    rows: Ints
    columns: Ints
    found: Mask


def textured(guide: Image, mask: Mask, forbidden: Mask | None = None) -> Image:
    """A fill with the detail of its surroundings: HWC uint8 RGB; outside the mask bit for bit the guide.

    guide: the picture with its hole filled by a network. mask: HW bool, True = filled. forbidden: HW bool, True = may
    not be copied from; the hole itself never is. Where nothing may be copied the guide is returned.
    """
    copied = sources(guide, mask, forbidden)
    if not copied.found.any():
        return guide.copy()
    filled = guide.astype(np.float32)
    there = filled[copied.rows, copied.columns]
    detail = there - _blurred(there, DETAIL)
    own = filled - _blurred(filled, DETAIL)
    out = np.clip(np.rint(filled + detail - own), 0, 255).astype(np.uint8)
    return np.where(copied.found[..., None], out, guide)


def sources(guide: Image, mask: Mask, forbidden: Mask | None = None) -> Copied:
    """The best place to copy from, for each pixel of a hole; arguments as of `textured`."""
    closed = mask if forbidden is None else mask | forbidden
    layers = layers_of(guide, closed)
    places = _places(closed)
    blocks = _blocks(mask)
    nowhere = np.zeros((0, 2), np.int64)
    tried = _matches(layers, blocks, places) if len(places) and len(blocks) else nowhere[None][:0]
    return _chosen(layers, mask, closed, blocks, tried)


def layers_of(guide: Image, closed: Mask) -> Layers:
    """What is compared, of a picture whose closed pixels (HW bool) are no example: filled, or forbidden."""
    red, green, blue = (guide[..., n].astype(np.float32) for n in range(3))
    colours = np.stack([(red + 2 * green + blue) / 4, red - green, blue - green], -1)
    coarse = _blurred(colours, DETAIL)
    bright = colours[..., 0]
    detail = bright - coarse[..., 0]
    # A blur's width from a closed pixel detail is not known: it holds some of what is there.
    known = cv2.dilate(closed.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    down = np.abs(np.diff(bright, axis=0, append=bright[-1:]))
    right = np.abs(np.diff(bright, axis=1, append=bright[:, -1:]))
    strength = carried_inwards(np.stack([np.abs(detail), down, right], -1), known)
    weights = np.array([1, 0.5, 0.5, 2, 2, 2], np.float32)
    return Layers(
        np.rint(np.concatenate([coarse, strength], -1) * weights),
        np.where(known, np.rint(np.clip(detail, -LIMIT, LIMIT)), np.float32(0)),
        known.astype(np.float32),
    )


def carried_inwards(values: Floats, known: Mask) -> Floats:
    """HxWxC: local means of the known values, and inside the unknown those of the nearest known, ever more
    coarsely (push-pull, as cleanplate.models.lama.prefill). Zeros where nothing is known."""
    share = known.astype(np.float32)
    near = _blurred(share, STATISTICS)[..., None]
    mean = _blurred(values * share[..., None], STATISTICS) / np.maximum(near, 1e-3)
    sums, shares = [mean * share[..., None]], [share]
    while max(shares[-1].shape) > 2:
        size = ((shares[-1].shape[1] + 1) // 2, (shares[-1].shape[0] + 1) // 2)
        sums.append(np.asarray(cv2.resize(sums[-1], size, interpolation=cv2.INTER_AREA), np.float32))
        shares.append(np.asarray(cv2.resize(shares[-1], size, interpolation=cv2.INTER_AREA), np.float32))
    fill = sums[-1] / np.maximum(shares[-1], 1e-6)[..., None]
    for level, weight in zip(sums[-2::-1], shares[-2::-1], strict=True):
        coarse = np.asarray(cv2.resize(fill, level.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)
        trust = np.minimum(2 * weight, 1)[..., None]
        fill = trust * level / np.maximum(weight, 1e-6)[..., None] + (1 - trust) * coarse
    return np.asarray(fill, np.float32)


def _blurred(values: Floats, sigma: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), np.float32)


def _places(closed: Mask) -> Ints:
    """Nx2 row, column: a grid over what may be copied, coarser where there is much of it."""
    side = 2 * PATCH + 1
    kernel = np.ones((side, side), np.uint8)
    free = cv2.dilate(np.pad(closed, PATCH, constant_values=True).astype(np.uint8), kernel) == 0
    free = free[PATCH:-PATCH, PATCH:-PATCH]
    step = max(STEP, math.ceil(math.sqrt(np.count_nonzero(free) / MOST_SOURCES)))
    rows, columns = np.nonzero(free[::step, ::step])
    return np.stack([rows, columns], 1) * step


def _blocks(mask: Mask) -> Ints:
    """Nx2 row, column: the middles of the squares of a grid that hold some of the mask."""
    side = max(BLOCK, math.ceil(math.sqrt(np.count_nonzero(mask) / MOST_BLOCKS)))
    squares = np.unique(np.stack(np.nonzero(mask), 1) // side, axis=0)
    return np.asarray(np.minimum(squares * side + side // 2, np.array(mask.shape) - 1), np.int64)


def _matches(layers: Layers, blocks: Ints, places: Ints) -> Ints:
    """B x MATCHES x 2: the places (row, column) that are most like each block.

    The squared distance of a block q and a place s is |s|^2 - 2 q.s but for what is the same for all places; of detail
    only where the block's is known. Both are one product of the two rows below.
    """
    coarse, fine, known = _described(layers, blocks)
    count = np.ones((len(blocks), 1), np.float32)
    asked = np.concatenate([-2 * coarse, count, -2 * fine, known], 1)
    coarse, fine, _ = _described(layers, places)
    given = np.concatenate([coarse, (coarse**2).sum(1, keepdims=True), fine, fine**2], 1)
    number = min(MATCHES, len(places))
    best = [
        np.argpartition(asked[start : start + 256] @ given.T, number - 1, axis=1)[:, :number]
        for start in range(0, len(asked), 256)
    ]
    return places[np.concatenate(best)]


def _described(layers: Layers, at: Ints) -> tuple[Floats, Floats, Floats]:
    """Of N places (Nx2 row, column): coarse values (with the place itself: near is better), detail, is it known."""
    coarse = np.pad(layers.coarse, ((PAD, PAD), (PAD, PAD), (0, 0)), mode="reflect")
    detail = np.pad(layers.detail, PAD, mode="reflect")
    known = np.pad(layers.known, PAD, mode="reflect")
    rows, columns = (at + PAD).T
    parts = [coarse[rows + dy, columns + dx, :1] for dy, dx in COARSE]
    parts += [coarse[rows + dy, columns + dx, 1:3] for dy, dx in CORNERS]
    parts += [2 * coarse[rows, columns, 3:], np.rint(at / np.float32(5))]
    fine = np.stack([detail[rows + dy, columns + dx] for dy, dx in FINE], 1)
    sure = np.stack([known[rows + dy, columns + dx] for dy, dx in FINE], 1)
    return np.concatenate(parts, 1).astype(np.float32), fine, sure


def _chosen(layers: Layers, mask: Mask, closed: Mask, blocks: Ints, tried: Ints) -> Copied:
    """Each pixel's best offset of those tried by the blocks near it."""
    height, width = mask.shape
    reach = max(10, 3 * _side_of(blocks, mask) // 2 + 4)
    stack = np.concatenate([layers.coarse, layers.detail[..., None]], -1)
    worth = np.ones(stack.shape, np.float32)
    worth[..., -1] = 2 * layers.known
    best = np.full(mask.shape, np.inf, np.float32)
    offset = np.zeros((*mask.shape, 2), np.int64)
    for (row, column), places in zip(blocks.tolist(), tried.tolist(), strict=bool(len(tried))):
        for place_row, place_column in places:
            dy, dx = place_row - row, place_column - column
            y0, y1 = max(0, row - reach, -dy), min(height, row + reach + 1, height - dy)
            x0, x1 = max(0, column - reach, -dx), min(width, column + reach + 1, width - dx)
            apart = stack[y0:y1, x0:x1] - stack[y0 + dy : y1 + dy, x0 + dx : x1 + dx]
            apart *= apart
            cost = np.einsum("ijk,ijk->ij", apart, worth[y0:y1, x0:x1])
            cost = np.asarray(cv2.blur(cost, (AGREEMENT, AGREEMENT), borderType=cv2.BORDER_REFLECT))
            lower = (cost < best[y0:y1, x0:x1]) & ~closed[y0 + dy : y1 + dy, x0 + dx : x1 + dx]
            best[y0:y1, x0:x1][lower] = cost[lower]
            offset[y0:y1, x0:x1][lower] = dy, dx
    found = mask & np.isfinite(best)
    rows, columns = np.mgrid[:height, :width]
    offset[~found] = 0
    return Copied(rows + offset[..., 0], columns + offset[..., 1], found)


def _side_of(blocks: Ints, mask: Mask) -> int:
    """The side of the grid's squares, as `_blocks` chose it."""
    return max(BLOCK, math.ceil(math.sqrt(np.count_nonzero(mask) / MOST_BLOCKS)))
