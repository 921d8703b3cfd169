"""Where to look when filling a mask: crops round the holes instead of the whole image.

A generator's cost grows with the area it sees, so a small hole in a large image is filled from a crop round
it. Where many crops would cost more than one that holds them all, or than the image, that one is taken.
Boxes are xyxy pixels, integers, half open: 0 <= x0 < x1 <= width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.types import Image, Mask

Box = tuple[int, int, int, int]
Boxes = npt.NDArray[np.int64]
"""Nx4 int64 xyxy pixels."""
Flags = npt.NDArray[np.bool_]
"""One for each of N boxes."""


@dataclass(frozen=True)
class CropSettings:
    """How crops are cut; all in pixels.

    context: a side is at least (1 + context) times its hole's. margin: ... and at least so many pixels longer at
    each end.
    min_side: no side is shorter where the image allows; 256 is what LaMa was trained on.
    bucket: sides are multiples of it where the image allows, so that few different sizes occur.
    max_side: a hole whose crop would be longer is filled at a reduced scale.
    most_pixels: crops of several holes, and whole images, are seen at full scale up to so many pixels also where
    they are longer than max_side: it bounds memory (about 1.2 KB a pixel in fp32).
    fixed, growth: what a crop costs, see `cost`.
    whole_image: one crop, the image, at full size, whatever its cost.
    """

    context: float = 1.0
    margin: int = 0
    min_side: int = 256
    bucket: int = 32
    max_side: int = 768
    most_pixels: int = 1 << 20
    fixed: int = 12_000
    growth: float = 0.05
    whole_image: bool = False

    def __post_init__(self) -> None:
        if self.bucket < 8 or self.bucket % 8:
            raise ValueError(f"bucket must be a positive multiple of 8, not {self.bucket}")
        if not 16 <= self.min_side <= self.max_side:
            raise ValueError(f"16 <= min_side <= max_side must hold, not {self.min_side}, {self.max_side}")


@dataclass(frozen=True)
class Crop:
    """One piece of work.

    holes: the box whose mask pixels this crop fills. box: what the generator sees; contains holes.
    size: (height, width) at which it sees it: the box's own, or less where the box is larger than allowed.
    """

    holes: Box
    box: Box
    size: tuple[int, int]

    @property
    def reduced(self) -> bool:
        """Whether it is filled at less than full resolution."""
        return self.size != (self.box[3] - self.box[1], self.box[2] - self.box[0])


def plan_crops(mask: Mask, settings: CropSettings) -> list[Crop]:
    """The crops that fill a mask (HW bool): every True pixel lies in the `holes` of at least one."""
    height, width = mask.shape
    if not mask.any():
        return []
    if settings.whole_image:
        return [Crop((0, 0, width, height), (0, 0, width, height), (height, width))]
    holes, large, boxes = min(_plans(mask, settings), key=lambda plan: _price(plan, settings))
    return [
        Crop(tuple(hole), tuple(box), _seen_size(tuple(box), settings.max_side if reduce else None))
        for hole, box, reduce in zip(holes.tolist(), boxes.tolist(), large.tolist(), strict=True)
    ]


_Plan = tuple[Boxes, Flags, Boxes]
"""Of N crops: the holes, whether they are seen reduced, what is seen."""


def _plans(mask: Mask, settings: CropSettings) -> Iterator[_Plan]:
    """Ways to fill a mask (HW bool) at equal quality: crops joined from near holes, for a dense mask from tiles,
    and the whole image where it may be seen at full scale."""
    height, width = mask.shape
    shape = (height, width)
    holes = np.concatenate([_split_thin(mask, box, settings) for box in hole_boxes(mask)])
    needs = with_context(holes, shape, settings)
    large = _longest(needs) > settings.max_side
    # With cells of half the smallest crop, what goes together would be joined anyway.
    tile = math.isqrt(settings.most_pixels) - settings.min_side - 2 * settings.bucket
    cells = [settings.min_side // 2, *([tile // 2, tile] if len(holes) > _DENSE and tile > 1 else [])]
    for cell in cells:
        group = _group(holes, large, cell)
        grouped = _join_groups(holes, group), _join_groups(needs, group), _any(large, group)
        if cell == cells[0] or _fits(snap(grouped[1], shape, settings), settings)[~grouped[2]].all():
            joined, seen, reduced = join(*grouped, shape, settings)
            yield joined, reduced, snap(seen, shape, settings)
    image = np.array([[0, 0, width, height]])
    if _fits(image, settings)[0]:
        yield image, np.zeros(1, np.bool_), image


def _price(plan: _Plan, settings: CropSettings) -> float:
    return float(cost(plan[2], plan[1], settings).sum())


def cost(boxes: Boxes, large: Flags, settings: CropSettings) -> npt.NDArray[np.float64]:
    """What filling each of N crops costs, in pixels of a crop of 256 x 256; large: seen reduced to max_side.

    A crop costs `fixed` whatever its size, and a pixel `growth` more each time the area doubles beyond 256 x 256,
    as maps leave the processor's caches. The defaults are of one core with AMX (docs/notebook.md); `cleanplate
    benchmark --only crops` measures them.
    """
    shrunk = np.where(large, np.minimum(settings.max_side / _longest(boxes), 1.0), 1.0)
    seen = _area(boxes) * shrunk**2
    dearer = settings.growth * np.log2(np.maximum(seen / 256**2, 1.0))
    total: npt.NDArray[np.float64] = settings.fixed + seen * (1 + dearer)
    return total


def _fits(boxes: Boxes, settings: CropSettings) -> Flags:
    """Whether each of N boxes may be seen at full scale."""
    fits: Flags = (_longest(boxes) <= settings.max_side) | (_area(boxes) <= settings.most_pixels)
    return fits


def _longest(boxes: Boxes) -> npt.NDArray[np.int64]:
    longest: npt.NDArray[np.int64] = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    return longest


def hole_boxes(mask: Mask, *, gap: int = 0) -> Boxes:
    """Tight boxes round the connected parts of a mask (HW bool); parts 2*gap pixels apart count as one."""
    padded = np.pad(mask.astype(np.uint8), gap)
    grown = cv2.dilate(padded, np.ones((2 * gap + 1, 2 * gap + 1), np.uint8)) if gap else padded
    stats = np.asarray(cv2.connectedComponentsWithStats(np.asarray(grown, np.uint8), connectivity=8)[2])
    # Rows: x, y, width, height, area; row 0 is the background. Padding and growing cancel at the low edges.
    x, y, width, height = stats[1:, :4].astype(np.int64).T
    return np.stack([x, y, x + width - 2 * gap, y + height - 2 * gap], axis=1)


def _split_thin(mask: Mask, box: Boxes, settings: CropSettings) -> Boxes:
    """A hole too long for one crop, but thin (a frame, stripes), in tiles; else the box alone. Nx4.

    At a reduced scale it would lose resolution for nothing: what lies across a thin hole is near. A hole
    counts as thin when no square of a quarter of max_side fits into it.
    """
    x0, y0, x1, y1 = (int(v) for v in box)
    tile = settings.max_side // 2
    if max(x1 - x0, y1 - y0) <= tile:
        return box[None]
    hole = np.pad(mask[y0:y1, x0:x1].astype(np.uint8), 1)
    if np.asarray(cv2.distanceTransform(hole, cv2.DIST_C, 3)).max() * 2 > settings.max_side / 4:
        return box[None]
    tiles = []
    for y in range(y0, y1, tile):
        for x in range(x0, x1, tile):
            part = mask[y : min(y + tile, y1), x : min(x + tile, x1)]
            rows, cols = np.flatnonzero(np.any(part, axis=1)), np.flatnonzero(np.any(part, axis=0))
            if len(rows):
                tiles.append([x + cols[0], y + rows[0], x + cols[-1] + 1, y + rows[-1] + 1])
    return np.array(tiles, np.int64)


_DENSE = 12
"""Holes from which tiles are tried too."""


def _group(holes: Boxes, large: Flags, cell: int) -> npt.NDArray[np.int64]:
    """For each of N boxes the number of its group: a square grid cell (side in pixels) that its centre lies in; a
    large one is alone. It bounds the work of `join` on a page of text."""
    centres = (holes[:, :2] + holes[:, 2:]) // (2 * cell)
    alone = np.where(large, np.arange(1, len(holes) + 1), 0)
    keys = np.concatenate([centres, alone[:, None]], axis=1)
    group: npt.NDArray[np.int64] = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    return group


def _any(flags: Flags, group: npt.NDArray[np.int64]) -> Flags:
    """Whether any flag of each group (N numbers from 0 on) is set."""
    out = np.zeros(int(group.max()) + 1, np.bool_)
    np.logical_or.at(out, group, flags)
    return out


def _join_groups(boxes: Boxes, group: npt.NDArray[np.int64]) -> Boxes:
    """The box round all boxes (Nx4) of each group (N numbers from 0 on)."""
    n = int(group.max()) + 1
    low = np.full((n, 2), np.iinfo(np.int64).max)
    high = np.zeros((n, 2), np.int64)
    np.minimum.at(low, group, boxes[:, :2])
    np.maximum.at(high, group, boxes[:, 2:])
    return np.concatenate([low, high], axis=1)


def with_context(holes: Boxes, shape: tuple[int, int], settings: CropSettings) -> Boxes:
    """Boxes (Nx4) grown by the context, the margin and the smallest side that the settings ask for.

    A box that would leave the image (height, width) is moved inwards; a side longer than the image is the
    image's.
    """
    limits = np.array([shape[1], shape[0]])
    low, high = holes[:, :2], holes[:, 2:]
    wanted = np.maximum(
        ((1 + settings.context) * (high - low)).astype(np.int64), high - low + 2 * settings.margin
    )
    sides = np.minimum(np.maximum(wanted, settings.min_side), limits)
    start = np.clip((low + high - sides) // 2, 0, limits - sides)
    return np.concatenate([start, start + sides], axis=1)


def snap(needs: Boxes, shape: tuple[int, int], settings: CropSettings) -> Boxes:
    """Boxes (Nx4) grown to sides that are multiples of the bucket, or the image's (height, width) where it
    is less."""
    limits = np.array([shape[1], shape[0]])
    low, high = needs[:, :2], needs[:, 2:]
    sides = np.minimum(-(-(high - low) // settings.bucket) * settings.bucket, limits)
    start = np.clip(low - (sides - (high - low)) // 2, 0, limits - sides)
    return np.concatenate([start, start + sides], axis=1)


def join(
    holes: Boxes, needs: Boxes, large: Flags, shape: tuple[int, int], settings: CropSettings
) -> tuple[Boxes, Boxes, Flags]:
    """Joins holes for as long as a pair's common crop costs less than its two crops together, the best pair
    first.

    holes, needs: Nx4 each, what is to be filled and what must be seen for it; large: seen reduced. A pair stays
    apart where one of it would lose resolution, or the common crop would be too large to be seen at full scale.
    """
    holes, needs = holes.copy(), needs.copy()
    alive = np.ones(len(holes), np.bool_)
    i, last_change = 0, 0
    while len(holes) > 1 and i - last_change <= len(holes):
        k = i % len(holes)
        partner = _best_partner(k, needs, large, alive, shape, settings) if alive[k] else None
        if partner is None:
            i += 1
            continue
        holes[k] = _union(holes[k], holes[partner])
        needs[k] = _union(needs[k], needs[partner])
        alive[partner] = False
        last_change = i
    return holes[alive], needs[alive], large[alive]


def _best_partner(
    k: int,
    needs: Boxes,
    large: Flags,
    alive: Flags,
    shape: tuple[int, int],
    settings: CropSettings,
) -> int | None:
    crops = snap(needs, shape, settings)
    common = snap(_union(needs[k], needs), shape, settings)
    each = cost(crops, large, settings)
    gain = each[k] + each - cost(common, large, settings)
    longest = _longest(crops)
    as_sharp = _longest(common) <= np.minimum(longest, longest[k]) if large[k] else _fits(common, settings)
    gain[~alive | (large != large[k]) | ~as_sharp] = 0
    gain[k] = 0
    best = int(gain.argmax())
    return best if gain[best] > 0 else None


def _union(a: Boxes, b: Boxes) -> Boxes:
    """The box round both; the last axis is xyxy."""
    return np.concatenate([np.minimum(a, b)[..., :2], np.maximum(a, b)[..., 2:]], axis=-1)


def _area(boxes: Boxes) -> npt.NDArray[np.int64]:
    area: npt.NDArray[np.int64] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area


def _seen_size(box: Box, max_side: int | None) -> tuple[int, int]:
    """(height, width) at which a box is looked at: its own, or reduced to max_side, in multiples of 8, at
    least 16."""
    height, width = box[3] - box[1], box[2] - box[0]
    longest = max(height, width)
    if max_side is None or longest <= max_side:
        return height, width
    h, w = (max(round(side * max_side / longest / 8) * 8, 16) for side in (height, width))
    return h, w


def cut(image: Image, mask: Mask, crop: Crop) -> tuple[Image, Mask]:
    """What the generator sees of an image (HWC uint8) and its mask (HW bool): both of the crop's size.

    When reduced, a pixel is a hole as soon as any of its source pixels is, so that none of what must go
    leaks into the known pixels.
    """
    x0, y0, x1, y1 = crop.box
    part, hole = image[y0:y1, x0:x1], mask[y0:y1, x0:x1]
    if part.shape[:2] == crop.size:
        return part, hole
    share = cv2.resize(hole.astype(np.float32), crop.size[::-1], interpolation=cv2.INTER_AREA)
    return resize(part, crop.size, cv2.INTER_AREA), np.asarray(share) > 0


def resize(image: Image, size: tuple[int, int], interpolation: int) -> Image:
    """HWC uint8 at (height, width), with one of OpenCV's interpolations."""
    return np.asarray(cv2.resize(image, size[::-1], interpolation=interpolation), np.uint8)


def paste(target: Image, mask: Mask, crop: Crop, filled: Image) -> None:
    """Writes what a crop filled (HWC uint8 of its size) into target, in place, at the mask in its holes."""
    x0, y0, x1, y1 = crop.box
    if filled.shape[:2] != (y1 - y0, x1 - x0):
        filled = resize(filled, (y1 - y0, x1 - x0), cv2.INTER_CUBIC)
    a, b, c, d = crop.holes
    hole = mask[b:d, a:c]
    target[b:d, a:c][hole] = filled[b - y0 : d - y0, a - x0 : c - x0][hole]
